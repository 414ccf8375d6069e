//! DataFusion's scalar expressions into typed expressions of our own: default-deny over every variant.

use arrow_schema::DataType;
use datafusion_common::{DFSchema, ScalarValue};
use datafusion_expr::expr::{Between, BinaryExpr, Case, Cast, InList, Like};
use datafusion_expr::{Expr as DfExpr, Operator};

use super::errors::plan_error;
use super::typed::{Typed, arithmetic, cast, comparison, functions};
use crate::error::{PlanError, PlanErrorKind};
use crate::plan::expr::INTERVAL;
use crate::plan::{BinaryOp, Expr, LiteralValue};

/// What an expression may refer to.
pub struct Scope<'a> {
    /// The names of the input's columns.
    pub schema: &'a DFSchema,
    /// Their types, which may differ from DataFusion's idea of them.
    pub types: &'a [DataType],
    /// The frozen time zone.
    pub zone: &'a str,
}

impl Scope<'_> {
    /// The typed form of an expression.
    ///
    /// # Errors
    /// `Unsupported` for constructs that views do not have, and the errors of typing.
    pub fn convert(&self, expr: &DfExpr) -> Result<Typed, PlanError> {
        Ok(match expr {
            DfExpr::Alias(alias) => self.convert(&alias.expr)?,
            DfExpr::Column(column) => {
                let index = self
                    .schema
                    .index_of_column(column)
                    .map_err(|error| plan_error(&error))?;
                Typed::column(index, self.types[index].clone())
            }
            DfExpr::Literal(value, _) => literal(value)?,
            DfExpr::BinaryExpr(expr) => self.binary(expr)?,
            DfExpr::Not(input) => {
                let input = self.convert(input)?.boolean("NOT", self.zone)?;
                Typed::new(Expr::Not(Box::new(input)), DataType::Boolean)
            }
            DfExpr::IsNull(input) => self.is_null(input, false)?,
            DfExpr::IsNotNull(input) => self.is_null(input, true)?,
            DfExpr::IsTrue(input) => self.is_truth(input, Some(true), false)?,
            DfExpr::IsFalse(input) => self.is_truth(input, Some(false), false)?,
            DfExpr::IsUnknown(input) => self.is_truth(input, None, false)?,
            DfExpr::IsNotTrue(input) => self.is_truth(input, Some(true), true)?,
            DfExpr::IsNotFalse(input) => self.is_truth(input, Some(false), true)?,
            DfExpr::IsNotUnknown(input) => self.is_truth(input, None, true)?,
            DfExpr::Negative(input) => arithmetic::negate(self.convert(input)?)?,
            DfExpr::Between(Between {
                expr,
                negated,
                low,
                high,
            }) => {
                let (low, high) = (self.convert(low)?, self.convert(high)?);
                comparison::between(self.convert(expr)?, low, high, *negated, self.zone)?
            }
            DfExpr::Case(case) => self.case(case)?,
            DfExpr::Cast(Cast { expr, field }) => {
                cast::explicit(self.convert(expr)?, field.data_type(), self.zone)?
            }
            DfExpr::Like(like) => self.like(like)?,
            DfExpr::InList(InList { expr, list, negated }) => {
                let list = list
                    .iter()
                    .map(|item| self.convert(item))
                    .collect::<Result<_, _>>()?;
                comparison::in_list(self.convert(expr)?, list, *negated, self.zone)?
            }
            DfExpr::ScalarFunction(call) => {
                let arguments = call.args.iter().map(|argument| self.convert(argument));
                functions::call(call.name(), arguments.collect::<Result<_, _>>()?, self.zone)?
            }
            other => return Err(refused(other)),
        })
    }

    /// A condition: boolean, or the refusal.
    ///
    /// # Errors
    /// As [`Scope::convert`], and `DatatypeMismatch`.
    pub fn condition(&self, expr: &DfExpr, place: &str) -> Result<Expr, PlanError> {
        self.convert(expr)?.boolean(place, self.zone)
    }

    fn binary(&self, expr: &BinaryExpr) -> Result<Typed, PlanError> {
        let op = operator(expr.op)?;
        let (left, right) = (self.convert(&expr.left)?, self.convert(&expr.right)?);
        match op {
            BinaryOp::And | BinaryOp::Or => comparison::connect(op, left, right, self.zone),
            BinaryOp::Concat => arithmetic::concat(left, right, self.zone),
            BinaryOp::Add | BinaryOp::Subtract | BinaryOp::Multiply | BinaryOp::Divide | BinaryOp::Modulo => {
                arithmetic::arithmetic(op, left, right, self.zone)
            }
            _ => comparison::compare(op, left, right, self.zone),
        }
    }

    fn is_null(&self, input: &DfExpr, negated: bool) -> Result<Typed, PlanError> {
        let input = self.convert(input)?.settled(self.zone)?;
        let expr = if negated {
            input.is_not_null()
        } else {
            Expr::IsNull(Box::new(input.expr))
        };
        Ok(Typed::new(expr, DataType::Boolean))
    }

    fn is_truth(&self, input: &DfExpr, value: Option<bool>, negated: bool) -> Result<Typed, PlanError> {
        comparison::is_truth(self.convert(input)?, value, negated, self.zone)
    }

    fn like(&self, like: &Like) -> Result<Typed, PlanError> {
        if like.escape_char.is_some_and(|escape| escape != '\\') {
            return Err(PlanError::unsupported(
                "LIKE with an ESCAPE other than the backslash",
                "Escape with \\.",
            ));
        }
        let (input, pattern) = (self.convert(&like.expr)?, self.convert(&like.pattern)?);
        comparison::like(input, pattern, like.negated, like.case_insensitive, self.zone)
    }

    /// Both forms of CASE; the one with an operand compares it with each WHEN.
    fn case(&self, case: &Case) -> Result<Typed, PlanError> {
        let operand = case
            .expr
            .as_ref()
            .map(|operand| self.convert(operand))
            .transpose()?;
        let mut branches = Vec::with_capacity(case.when_then_expr.len());
        for (when, then) in &case.when_then_expr {
            let condition = match &operand {
                None => self.condition(when, "CASE/WHEN")?,
                Some(operand) => {
                    let when = self.convert(when)?;
                    comparison::compare(BinaryOp::Equal, operand.clone(), when, self.zone)?.expr
                }
            };
            branches.push((condition, self.convert(then)?));
        }
        let otherwise = case
            .else_expr
            .as_ref()
            .map(|otherwise| self.convert(otherwise))
            .transpose()?;
        comparison::case(branches, otherwise, self.zone)
    }
}

fn operator(op: Operator) -> Result<BinaryOp, PlanError> {
    Ok(match op {
        Operator::Plus => BinaryOp::Add,
        Operator::Minus => BinaryOp::Subtract,
        Operator::Multiply => BinaryOp::Multiply,
        Operator::Divide => BinaryOp::Divide,
        Operator::Modulo => BinaryOp::Modulo,
        Operator::Eq => BinaryOp::Equal,
        Operator::NotEq => BinaryOp::NotEqual,
        Operator::Lt => BinaryOp::Less,
        Operator::LtEq => BinaryOp::LessOrEqual,
        Operator::Gt => BinaryOp::Greater,
        Operator::GtEq => BinaryOp::GreaterOrEqual,
        Operator::And => BinaryOp::And,
        Operator::Or => BinaryOp::Or,
        Operator::IsDistinctFrom => BinaryOp::IsDistinctFrom,
        Operator::IsNotDistinctFrom => BinaryOp::IsNotDistinctFrom,
        Operator::StringConcat => BinaryOp::Concat,
        other => {
            let what = format!("the operator {other} in a view");
            return Err(PlanError::unsupported(
                what,
                "Apply it in the query that reads the view.",
            ));
        }
    })
}

/// A constant. Integers get the smallest of int4, int8 and numeric that holds them, as in PostgreSQL; strings
/// stay unknown until it is clear where they stand.
fn literal(value: &ScalarValue) -> Result<Typed, PlanError> {
    let integer = |data_type: DataType, value: i128| Typed::literal(data_type, LiteralValue::Integer(value));
    Ok(match value {
        value if value.is_null() => Typed::null(),
        ScalarValue::Boolean(Some(value)) => Typed::literal(DataType::Boolean, LiteralValue::Boolean(*value)),
        ScalarValue::Int64(Some(value)) => match i32::try_from(*value) {
            Ok(value) => integer(DataType::Int32, i128::from(value)),
            Err(_) => integer(DataType::Int64, i128::from(*value)),
        },
        ScalarValue::UInt64(Some(value)) => integer(DataType::Decimal128(20, 0), i128::from(*value)),
        ScalarValue::Decimal128(Some(value), precision, scale) if *scale >= 0 => integer(
            DataType::Decimal128(*precision.max(&scale.unsigned_abs()), *scale),
            *value,
        ),
        ScalarValue::Decimal128(Some(value), precision, scale) => {
            let whole = i16::from(*precision) - i16::from(*scale);
            let value = super::typed::literal::shifted(*value, -i32::from(*scale)).filter(|_| whole <= 38);
            integer(
                super::typed::decimal(whole, 0),
                value.ok_or_else(too_many_digits)?,
            )
        }
        ScalarValue::Decimal256(..) => return Err(too_many_digits()),
        ScalarValue::Float64(Some(value)) => {
            Typed::literal(DataType::Float64, LiteralValue::Float(value.to_bits()))
        }
        ScalarValue::Utf8(Some(text))
        | ScalarValue::Utf8View(Some(text))
        | ScalarValue::LargeUtf8(Some(text)) => Typed::unknown(text.clone()),
        ScalarValue::IntervalMonthDayNano(Some(value)) => Typed::literal(
            INTERVAL,
            LiteralValue::Interval {
                months: value.months,
                days: value.days,
                nanoseconds: value.nanoseconds,
            },
        ),
        other => {
            let what = format!(
                "a constant of type {}",
                super::typed::type_name(&other.data_type())
            );
            return Err(PlanError::unsupported(
                what,
                "Write it as a quoted constant with a cast.",
            ));
        }
    })
}

fn too_many_digits() -> PlanError {
    PlanError::unsupported("a number of more than 38 digits", "Write fewer digits.")
}

/// The refusal of an expression that views do not have.
fn refused(expr: &DfExpr) -> PlanError {
    let (what, alternative) = match expr {
        DfExpr::WindowFunction(_) => (
            "a window function in a view",
            "Use row_number() in a subquery and keep the first rows, or rank in the query that reads the view.",
        ),
        DfExpr::AggregateFunction(_) => {
            let message = "aggregate functions are not allowed here";
            return PlanError::new(PlanErrorKind::GroupingError, message);
        }
        DfExpr::Exists(_) | DfExpr::InSubquery(_) | DfExpr::SetComparison(_) => (
            "a subquery in a condition of a view",
            "Join with the table, or with SELECT DISTINCT of its key.",
        ),
        DfExpr::ScalarSubquery(_) => (
            "a scalar subquery in a view",
            "Join with the aggregated table, grouped by the key you compare.",
        ),
        DfExpr::OuterReferenceColumn(..) => ("a reference to an outer query", "Write a join."),
        DfExpr::GroupingSet(_) => (
            "GROUPING SETS, ROLLUP or CUBE in a view",
            "Write one view per grouping.",
        ),
        DfExpr::SimilarTo(_) => ("SIMILAR TO in a view", "Use LIKE."),
        DfExpr::TryCast(_) => ("TRY_CAST in a view", "Use CAST inside a CASE."),
        DfExpr::Placeholder(_) => ("a parameter in a view", "Write the value."),
        DfExpr::ScalarVariable(..) => ("a variable in a view", "Write the value."),
        DfExpr::Unnest(_) => ("unnest in a view", "Use a table with a row per element."),
        _ => (
            "this expression in a view",
            "Apply it in the query that reads the view.",
        ),
    };
    PlanError::unsupported(what, alternative)
}
