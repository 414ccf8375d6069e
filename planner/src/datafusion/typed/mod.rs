//! Typed scalar expressions: PostgreSQL's typing rules over the project's own [`Expr`].
//!
//! DataFusion resolves names; what an expression *means* is decided here, so that `1 / 2`, `int4 + int8` or
//! `'2024-01-01' < day` have PostgreSQL's types and not DataFusion's. Nothing in this room names DataFusion.
//!
//! An invariant: a [`Typed`] that leaves this room needs no coercion. Whatever PostgreSQL casts implicitly is an
//! explicit [`Expr::Cast`], or was folded into the constant.
//!
//! Left out: arithmetic between dates, differences of timestamps, arrays, json, and of regular expressions
//! all but [`patterns`].

pub mod arithmetic;
pub mod cast;
pub mod comparison;
pub mod functions;
pub mod instants;
pub mod literal;
pub mod patterns;

use std::sync::Arc;

use arrow_schema::{DataType, TimeUnit};

use crate::error::{PlanError, PlanErrorKind};
use crate::plan::{BinaryOp, Expr, Literal, LiteralValue};
use crate::types::SqlType;

/// An expression with its type. [`DataType::Null`] stands for PostgreSQL's `unknown`: a bare string literal or
/// NULL that takes its type from where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Typed {
    /// The expression.
    pub expr: Expr,
    /// Its type.
    pub data_type: DataType,
}

/// `timestamp`.
pub const TIMESTAMP: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

/// `timestamptz`.
pub fn timestamptz() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::from("UTC")))
}

impl Typed {
    /// An expression of a type.
    pub fn new(expr: Expr, data_type: DataType) -> Self {
        Self { expr, data_type }
    }

    /// A column of the input.
    pub fn column(index: usize, data_type: DataType) -> Self {
        Self::new(Expr::Column(index), data_type)
    }

    /// A constant.
    pub fn literal(data_type: DataType, value: LiteralValue) -> Self {
        Self::new(
            Expr::Literal(Literal {
                data_type: data_type.clone(),
                value: Some(value),
            }),
            data_type,
        )
    }

    /// A bare string literal, of a type still unknown.
    pub fn unknown(text: String) -> Self {
        Self::new(Expr::Literal(Literal::text(text)), DataType::Null)
    }

    /// A bare NULL.
    pub fn null() -> Self {
        Self::new(Expr::Literal(Literal::null(DataType::Null)), DataType::Null)
    }

    /// Whether the type is still unknown.
    pub fn is_unknown(&self) -> bool {
        self.data_type == DataType::Null
    }

    /// The constant, if it is one.
    pub fn as_literal(&self) -> Option<&Literal> {
        match &self.expr {
            Expr::Literal(literal) => Some(literal),
            _ => None,
        }
    }

    /// The text of a string constant.
    pub fn as_text(&self) -> Option<&str> {
        match self.as_literal()?.value.as_ref()? {
            LiteralValue::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The value of an integer constant.
    pub fn as_integer(&self) -> Option<i128> {
        match (self.as_literal()?.value.as_ref()?, is_integer(&self.data_type)) {
            (LiteralValue::Integer(value), true) => Some(*value),
            _ => None,
        }
    }

    /// The same, with an unknown type settled as text.
    ///
    /// # Errors
    /// None in practice; the signature is that of casts.
    pub fn settled(self, zone: &str) -> Result<Typed, PlanError> {
        if self.is_unknown() {
            cast::implicit(self, &DataType::Utf8, zone)
        } else {
            Ok(self)
        }
    }

    /// The same, of type boolean.
    ///
    /// # Errors
    /// `DatatypeMismatch` when it is of another type; `place` says where it stands.
    pub fn boolean(self, place: &str, zone: &str) -> Result<Expr, PlanError> {
        if self.is_unknown() || self.data_type == DataType::Boolean {
            return Ok(cast::implicit(self, &DataType::Boolean, zone)?.expr);
        }
        let message = format!(
            "argument of {place} must be type boolean, not type {}",
            type_name(&self.data_type)
        );
        Err(PlanError::new(PlanErrorKind::DatatypeMismatch, message))
    }

    /// Whether it is not null.
    pub fn is_not_null(&self) -> Expr {
        Expr::Not(Box::new(Expr::IsNull(Box::new(self.expr.clone()))))
    }
}

/// A binary operator's expression.
pub fn binary(op: BinaryOp, left: Expr, right: Expr) -> Expr {
    Expr::Binary {
        op,
        left: Box::new(left),
        right: Box::new(right),
    }
}

/// A cast's expression.
pub fn cast_to(input: Expr, to: &DataType) -> Expr {
    Expr::Cast {
        input: Box::new(input),
        to: to.clone(),
    }
}

/// Whether a type is one of the integers.
pub fn is_integer(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Int16 | DataType::Int32 | DataType::Int64)
}

/// Whether a type is one of the floats.
pub fn is_float(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Float32 | DataType::Float64)
}

/// Whether a type is a number.
pub fn is_number(data_type: &DataType) -> bool {
    is_integer(data_type) || is_float(data_type) || matches!(data_type, DataType::Decimal128(..))
}

/// Whether a type is a date or timestamp.
pub fn is_instant(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Date32 | DataType::Timestamp(..))
}

/// The type's name in messages.
pub fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Null => "unknown".to_owned(),
        DataType::Decimal128(..) => "numeric".to_owned(),
        other => SqlType::from_arrow(other).map_or_else(|| format!("{other}"), |sql_type| sql_type.name()),
    }
}

/// The digits a type needs as a decimal: (precision, scale).
pub fn decimal_shape(data_type: &DataType) -> Option<(u8, i8)> {
    match data_type {
        DataType::Int16 => Some((5, 0)),
        DataType::Int32 => Some((10, 0)),
        DataType::Int64 => Some((19, 0)),
        DataType::Decimal128(precision, scale) => Some((*precision, *scale)),
        _ => None,
    }
}

/// A decimal with `whole` digits before and `scale` digits after the point, cut to what 128 bits hold. A value
/// beyond that is an error where it occurs.
pub fn decimal(whole: i16, scale: i8) -> DataType {
    let precision = (whole.max(0) + i16::from(scale)).clamp(1, 38);
    DataType::Decimal128(u8::try_from(precision).expect("between 1 and 38"), scale)
}

/// The common type of alternatives (CASE, COALESCE, UNION, IN, comparisons of numbers), by PostgreSQL's rule.
/// `None` when there is none. `Null` (unknown) fits everything.
pub fn common_type(types: &[DataType]) -> Option<DataType> {
    let mut common = DataType::Null;
    for data_type in types {
        common = pair_type(&common, data_type)?;
    }
    Some(common)
}

fn pair_type(left: &DataType, right: &DataType) -> Option<DataType> {
    if left == right || *right == DataType::Null {
        return Some(left.clone());
    }
    if *left == DataType::Null {
        return Some(right.clone());
    }
    if is_number(left) && is_number(right) {
        return Some(number_pair(left, right));
    }
    match (left, right) {
        (DataType::Date32, DataType::Timestamp(..)) => Some(right.clone()),
        (DataType::Timestamp(..), DataType::Date32) => Some(left.clone()),
        (DataType::Timestamp(..), DataType::Timestamp(..)) => Some(timestamptz()),
        _ => None,
    }
}

fn number_pair(left: &DataType, right: &DataType) -> DataType {
    if *left == DataType::Float64 || *right == DataType::Float64 {
        return DataType::Float64;
    }
    if *left == DataType::Float32 || *right == DataType::Float32 {
        return DataType::Float32;
    }
    if is_integer(left) && is_integer(right) {
        return if rank(left) >= rank(right) {
            left.clone()
        } else {
            right.clone()
        };
    }
    let (left_precision, left_scale) = decimal_shape(left).expect("an integer or decimal");
    let (right_precision, right_scale) = decimal_shape(right).expect("an integer or decimal");
    let left_whole = i16::from(left_precision) - i16::from(left_scale);
    let right_whole = i16::from(right_precision) - i16::from(right_scale);
    decimal(left_whole.max(right_whole), left_scale.max(right_scale))
}

fn rank(data_type: &DataType) -> u8 {
    match data_type {
        DataType::Int16 => 0,
        DataType::Int32 => 1,
        _ => 2,
    }
}

/// Casts alternatives to their common type; `place` names them in the error.
///
/// # Errors
/// `DatatypeMismatch` when they have none.
pub fn unify(place: &str, inputs: Vec<Typed>, zone: &str) -> Result<(Vec<Typed>, DataType), PlanError> {
    let types: Vec<DataType> = inputs.iter().map(|input| input.data_type.clone()).collect();
    let Some(common) = common_type(&types) else {
        let mut names: Vec<String> = types.iter().map(type_name).collect();
        names.dedup();
        let message = format!("{place} types {} cannot be matched", names.join(" and "));
        return Err(PlanError::new(PlanErrorKind::DatatypeMismatch, message)
            .with_hint("Cast them to one type explicitly."));
    };
    let common = if common == DataType::Null {
        DataType::Utf8
    } else {
        common
    };
    let inputs = inputs
        .into_iter()
        .map(|input| cast::implicit(input, &common, zone));
    Ok((inputs.collect::<Result<_, _>>()?, common))
}

/// The error for an operator between types that have none.
pub fn no_operator(op: &str, left: &DataType, right: &DataType) -> PlanError {
    let message = format!(
        "operator does not exist: {} {op} {}",
        type_name(left),
        type_name(right)
    );
    PlanError::new(PlanErrorKind::UndefinedFunction, message).with_hint("An explicit cast may help.")
}

#[cfg(test)]
mod tests;
