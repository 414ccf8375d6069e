//! Aggregate functions of views: names, argument types, result types, by the table at
//! [`crate::plan::AggregateFunction`].

use arrow_schema::DataType;

use super::typed::{Typed, comparison, functions, is_float, is_integer};
use crate::error::PlanError;
use crate::plan::AggregateFunction;

/// The aggregates, by every name they are known under.
pub const NAMES: &[&str] = &[
    "avg", "bool_and", "bool_or", "count", "every", "max", "min", "sum",
];

/// What a name means for an argument of a type: the function, the type to cast the argument to, the result's
/// type. `None` when the function does not take the type.
pub fn result(name: &str, argument: &DataType) -> Option<(AggregateFunction, DataType, DataType)> {
    use AggregateFunction::{Avg, BoolAnd, BoolOr, Count, Max, Min, Sum};
    let same = argument.clone();
    Some(match (name, argument) {
        ("count", _) => (Count, same, DataType::Int64),
        ("sum", DataType::Int16 | DataType::Int32) => (Sum, same, DataType::Int64),
        ("sum", DataType::Int64) => (Sum, same, DataType::Decimal128(38, 0)),
        ("sum", DataType::Decimal128(_, scale)) => (Sum, same, DataType::Decimal128(38, *scale)),
        ("sum", float) if is_float(float) => (Sum, same.clone(), same),
        ("avg", integer) if is_integer(integer) => (Avg, same, DataType::Decimal128(38, 16)),
        ("avg", DataType::Decimal128(_, scale)) => (Avg, same, DataType::Decimal128(38, *scale.max(&16))),
        ("avg", float) if is_float(float) => (Avg, same, DataType::Float64),
        ("min" | "max", DataType::Null | DataType::Boolean | DataType::Interval(_)) => return None,
        ("min", _) => (Min, same.clone(), same),
        ("max", _) => (Max, same.clone(), same),
        ("bool_and" | "every", DataType::Boolean) => (BoolAnd, same.clone(), same),
        ("bool_or", DataType::Boolean) => (BoolOr, same.clone(), same),
        _ => return None,
    })
}

/// As [`result`], with the error.
///
/// # Errors
/// `UndefinedFunction` when the function does not take the argument, `Unsupported` for intervals.
pub fn resolve(name: &str, argument: &Typed) -> Result<(AggregateFunction, DataType, DataType), PlanError> {
    if matches!(name, "min" | "max") {
        comparison::check_comparable(&argument.data_type, name)?;
    }
    result(name, &argument.data_type)
        .ok_or_else(|| functions::undefined(name, std::slice::from_ref(argument)))
}
