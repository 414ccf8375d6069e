//! The table of casts: PostgreSQL's explicit casts between the supported types, constants folded.
//!
//! | from \ to | number | text | boolean | date | timestamp | timestamptz | uuid, bytea |
//! |---|---|---|---|---|---|---|---|
//! | number | yes | yes | int4 only | | | | |
//! | text | yes | yes | yes | yes | yes | UTC only | yes |
//! | boolean | int4 only | yes | yes | | | | |
//! | date | | yes | | yes | yes | UTC only | |
//! | timestamp | | yes | | yes | yes | UTC only | |
//! | timestamptz | | UTC only | | UTC only | UTC only | yes | |
//! | uuid, bytea | | yes | | | | | same only |
//!
//! "UTC only": the meaning depends on the session's time zone, and the executor's casts know none; constants are
//! read in any zone, here. Intervals are cast to nothing. How a value is cast is the executor's matter.

use arrow_schema::DataType;

use super::literal::{self, fits_decimal, fits_integer, shifted};
use super::{
    Typed, cast_to, decimal_shape, instants, is_instant, is_integer, is_number, timestamptz, type_name,
};
use crate::error::{PlanError, PlanErrorKind};
use crate::plan::{Expr, Literal, LiteralValue};

/// A cast that the user wrote.
///
/// # Errors
/// `Unsupported` for pairs that do not agree with PostgreSQL, `DatatypeMismatch` for constants out of range.
pub fn explicit(input: Typed, to: &DataType, zone: &str) -> Result<Typed, PlanError> {
    if let Some(folded) = fold(&input, to, zone)? {
        return Ok(folded);
    }
    if input.data_type == *to {
        return Ok(input);
    }
    let from = input.data_type.clone();
    let expr = convert(input.expr, &from, to, zone).ok_or_else(|| refused(&from, to))?;
    Ok(Typed::new(expr, to.clone()))
}

/// A cast that PostgreSQL makes by itself: of unknown constants, and to a wider type.
///
/// # Errors
/// As [`explicit`].
pub fn implicit(input: Typed, to: &DataType, zone: &str) -> Result<Typed, PlanError> {
    explicit(input, to, zone)
}

/// An integer or decimal constant in the type of an integer or decimal it is compared with, if that holds its
/// value exactly: then the other side need not be cast for every row.
pub fn narrowed(constant: Typed, other: &Typed) -> Typed {
    if other.as_literal().is_some() || constant.data_type == other.data_type {
        return constant;
    }
    let value = constant.as_literal().and_then(|literal| literal.value.as_ref());
    let (Some(LiteralValue::Integer(value)), Some((_, from)), Some((precision, to))) = (
        value,
        decimal_shape(&constant.data_type),
        decimal_shape(&other.data_type),
    ) else {
        return constant;
    };
    let exact = if to >= from {
        shifted(*value, i32::from(to) - i32::from(from))
    } else {
        None
    };
    let fits = |value: i128| match &other.data_type {
        DataType::Decimal128(..) => fits_decimal(value, precision),
        integer => fits_integer(value, integer),
    };
    match exact.filter(|value| fits(*value)) {
        Some(value) => Typed::literal(other.data_type.clone(), LiteralValue::Integer(value)),
        None => constant,
    }
}

/// The expression of a cast between two different types, `None` when it is refused.
fn convert(input: Expr, from: &DataType, to: &DataType, zone: &str) -> Option<Expr> {
    let utc = instants::is_utc(zone);
    let allowed = match (from, to) {
        (DataType::Null, _) => return Some(Expr::Literal(Literal::null(to.clone()))),
        (from, to) if is_number(from) && is_number(to) => true,
        (DataType::Int32, DataType::Boolean) | (DataType::Boolean, DataType::Int32) => true,
        (DataType::Interval(_), _) | (_, DataType::Interval(_)) => false,
        (DataType::Utf8, DataType::Timestamp(_, Some(_)))
        | (DataType::Timestamp(_, Some(_)), DataType::Utf8) => utc,
        (DataType::Utf8, _) | (_, DataType::Utf8) => true,
        (DataType::Date32, DataType::Timestamp(_, None))
        | (DataType::Timestamp(_, None), DataType::Date32) => true,
        (from, to) if is_instant(from) && is_instant(to) => utc,
        _ => false,
    };
    allowed.then(|| cast_to(input, to))
}

/// Casts a constant at planning time, where that is possible.
fn fold(input: &Typed, to: &DataType, zone: &str) -> Result<Option<Typed>, PlanError> {
    let Some(constant) = input.as_literal() else {
        return Ok(None);
    };
    let Some(value) = &constant.value else {
        return Ok(Some(Typed::new(
            Expr::Literal(Literal::null(to.clone())),
            to.clone(),
        )));
    };
    let value = match (value, decimal_shape(&input.data_type)) {
        (LiteralValue::Text(text), None) if matches!(input.data_type, DataType::Null | DataType::Utf8) => {
            literal::parse(text, to, zone)?
        }
        (LiteralValue::Integer(value), Some((_, scale))) => match fold_number(*value, scale, to)? {
            Some(value) => value,
            None => return Ok(None),
        },
        _ => return Ok(None),
    };
    Ok(Some(Typed::literal(to.clone(), value)))
}

/// An integer or decimal constant in another type of number.
fn fold_number(value: i128, scale: i8, to: &DataType) -> Result<Option<LiteralValue>, PlanError> {
    let out_of_range = || {
        let message = format!("{} out of range", type_name(to));
        PlanError::new(PlanErrorKind::DatatypeMismatch, message)
    };
    match to {
        DataType::Decimal128(precision, to_scale) => {
            let value = shifted(value, i32::from(*to_scale) - i32::from(scale)).ok_or_else(out_of_range)?;
            if fits_decimal(value, *precision) {
                Ok(Some(LiteralValue::Integer(value)))
            } else {
                Err(out_of_range())
            }
        }
        to if is_integer(to) => {
            let value = shifted(value, -i32::from(scale)).ok_or_else(out_of_range)?;
            if fits_integer(value, to) {
                Ok(Some(LiteralValue::Integer(value)))
            } else {
                Err(out_of_range())
            }
        }
        DataType::Float64 | DataType::Float32 => {
            // Through text, which is correctly rounded.
            let text = format!("{value}e{}", -i32::from(scale));
            literal::parse(&text, to, "UTC").map(Some)
        }
        _ => Ok(None),
    }
}

/// The refusal of a pair, with a way around it where there is one.
fn refused(from: &DataType, to: &DataType) -> PlanError {
    let what = format!("a cast from {} to {} in a view", type_name(from), type_name(to));
    let alternative = match (from, to) {
        (from, to) if *from == timestamptz() || *to == timestamptz() => {
            "Create the view with SET TIME ZONE 'UTC', or keep local times in a column of type timestamp."
        }
        _ => "Cast in the query that reads the view.",
    };
    PlanError::unsupported(what, alternative)
}
