//! String literals take the type of what they are compared with, as PostgreSQL's unknown literals do.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Expr, ExprSchemable};
use datafusion::sql::sqlparser::ast::BinaryOperator;

/// Types string literals beside typed operands.
#[derive(Debug)]
pub struct UnknownLiterals;

impl ExprPlanner for UnknownLiterals {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let is_typing = matches!(
            expr.op,
            BinaryOperator::Eq
                | BinaryOperator::NotEq
                | BinaryOperator::Lt
                | BinaryOperator::LtEq
                | BinaryOperator::Gt
                | BinaryOperator::GtEq
                | BinaryOperator::Plus
                | BinaryOperator::Minus
                | BinaryOperator::Multiply
                | BinaryOperator::Divide
                | BinaryOperator::Modulo
        );
        if !is_typing || is_unknown(&expr.left) == is_unknown(&expr.right) {
            return Ok(PlannerResult::Original(expr));
        }
        let RawBinaryExpr { op, left, right } = expr;
        let (left, right) = match is_unknown(&left) {
            true => (typed(left, &right, &op, schema), right),
            false => {
                let right = typed(right, &left, &op, schema);
                (left, right)
            }
        };
        Ok(PlannerResult::Original(RawBinaryExpr { op, left, right }))
    }
}

fn is_unknown(expr: &Expr) -> bool {
    matches!(
        expr,
        Expr::Literal(ScalarValue::Utf8(Some(_)) | ScalarValue::Utf8View(Some(_)), _)
    )
}

/// The literal with the type of the other operand, where that is one whose text form is read.
fn typed(literal: Expr, other: &Expr, op: &BinaryOperator, schema: &DFSchema) -> Expr {
    let is_comparison = !matches!(
        op,
        BinaryOperator::Plus
            | BinaryOperator::Minus
            | BinaryOperator::Multiply
            | BinaryOperator::Divide
            | BinaryOperator::Modulo
    );
    let Ok(data_type) = other.get_type(schema) else {
        return literal;
    };
    let is_number =
        data_type.is_integer() || data_type.is_floating() || matches!(data_type, DataType::Decimal128(..));
    let is_read = is_number
        || (is_comparison
            && matches!(
                data_type,
                DataType::Boolean
                    | DataType::Date32
                    | DataType::Timestamp(..)
                    | DataType::Interval(_)
                    | DataType::FixedSizeBinary(16)
                    | DataType::Binary
            ));
    // A decimal of another scale than the literal's must not round it.
    let target = match data_type {
        DataType::Decimal128(_, scale) => DataType::Decimal128(38, scale.max(10)),
        other => other,
    };
    if !is_read {
        return literal;
    }
    match literal.clone().cast_to(&target, schema) {
        Ok(cast) => cast,
        // Not castable by Arrow, but read from text by the cast rule.
        Err(_) => datafusion::logical_expr::cast(literal, target),
    }
}
