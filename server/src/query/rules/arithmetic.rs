//! Integer arithmetic that fails on overflow instead of wrapping around.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator};
use datafusion::optimizer::AnalyzerRule;

use crate::query::functions::checked;

#[derive(Debug)]
pub(super) struct Arithmetic;

impl AnalyzerRule for Arithmetic {
    fn name(&self) -> &str {
        "checked_arithmetic"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        super::rewrite(plan, guarded, |plan| !matches!(plan, LogicalPlan::Limit(_)))
    }
}

fn guarded(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right })
            if matches!(op, Operator::Plus | Operator::Minus | Operator::Multiply) =>
        {
            let (left_type, right_type) = (left.get_type(schema)?, right.get_type(schema)?);
            let function = if left_type == right_type {
                checked(op, &left_type)
            } else {
                None
            };
            Ok(match function {
                Some(function) => Transformed::yes(Arc::new(function).call(vec![*left, *right])),
                None => Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })),
            })
        }
        Expr::Negative(inner) if !matches!(*inner, Expr::Literal(..)) => {
            let data_type = inner.get_type(schema)?;
            Ok(match checked(Operator::Minus, &data_type) {
                Some(function) => {
                    let zero = Expr::Literal(ScalarValue::new_zero(&data_type)?, None);
                    Transformed::yes(Arc::new(function).call(vec![zero, *inner]))
                }
                None => Transformed::no(Expr::Negative(inner)),
            })
        }
        other => Ok(Transformed::no(other)),
    }
}
