//! The table of casts: which pairs of types agree with PostgreSQL when cast by Arrow's kernels, and how.
//!
//! | from \ to | integer | numeric | float | text | boolean | date | timestamp | timestamptz |
//! |---|---|---|---|---|---|---|---|---|
//! | integer | checked | checked | yes | yes | int4 | | | |
//! | numeric | rounds first | rounds | yes | yes | | | | |
//! | float | | | widens | | | | | |
//! | text | trims first | | | yes | | | | |
//! | boolean | int4 | | | yes | yes | | | |
//! | date | | | | yes | | yes | yes | in the zone |
//! | timestamp | | | | | | yes | yes | in the zone |
//! | timestamptz | | | | | | in UTC | in UTC | yes |
//!
//! Everything else is refused: floats to exact numbers (Arrow truncates, PostgreSQL goes by shortest decimal
//! text), floats and timestamps to text (other formats), text to instants (other grammars). Constants are folded
//! by [`super::literal`] and so may be cast from text to everything.

use arrow_schema::DataType;

use super::literal::{self, fits_decimal, fits_integer, shifted};
use super::{TIMESTAMP, Typed, cast_to, decimal_shape, instants, is_float, is_integer, timestamptz, type_name};
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

/// The expression of a cast between two different types, `None` when it is refused.
fn convert(input: Expr, from: &DataType, to: &DataType, zone: &str) -> Option<Expr> {
    let direct = |input: Expr| Some(cast_to(input, to));
    match (from, to) {
        (DataType::Null, _) => Some(Expr::Literal(Literal::null(to.clone()))),
        (from, to) if is_integer(from) && (is_integer(to) || is_float(to)) => direct(input),
        (from, DataType::Decimal128(..)) if is_integer(from) => direct(input),
        (DataType::Int32, DataType::Boolean) | (DataType::Boolean, DataType::Int32) => direct(input),
        (DataType::Decimal128(..), DataType::Decimal128(..)) => direct(input),
        (DataType::Decimal128(..), to) if is_float(to) => direct(input),
        // Arrow cuts the fraction off where PostgreSQL rounds; rounding to scale 0 first makes them agree.
        (DataType::Decimal128(precision, scale), to) if is_integer(to) => {
            let rounded = super::decimal(i16::from(*precision) - i16::from(*scale) + 1, 0);
            direct(cast_to(input, &rounded))
        }
        (DataType::Float32, DataType::Float64) => direct(input),
        (DataType::Utf8, to) if is_integer(to) => direct(trimmed(input)),
        (from, DataType::Utf8) if is_integer(from) => direct(input),
        (DataType::Boolean | DataType::Decimal128(..) | DataType::Date32, DataType::Utf8) => direct(input),
        (DataType::Date32, DataType::Timestamp(_, None)) | (DataType::Timestamp(_, None), DataType::Date32) => {
            direct(input)
        }
        (DataType::Date32, DataType::Timestamp(_, Some(_))) => {
            Some(instants::to_utc(cast_to(input, &TIMESTAMP), zone))
        }
        (DataType::Timestamp(_, None), DataType::Timestamp(_, Some(_))) => Some(instants::to_utc(input, zone)),
        (DataType::Timestamp(_, Some(_)), DataType::Date32 | DataType::Timestamp(_, None)) => {
            instants::is_utc(zone).then(|| cast_to(input, to))
        }
        _ => None,
    }
}

fn trimmed(input: Expr) -> Expr {
    let whitespace = Expr::Literal(Literal::text(" \t\n\r\x0b\x0c"));
    Expr::Call { function: "btrim".to_owned(), arguments: vec![input, whitespace], returns: DataType::Utf8 }
}

/// Casts a constant at planning time, where that is possible.
fn fold(input: &Typed, to: &DataType, zone: &str) -> Result<Option<Typed>, PlanError> {
    let Some(constant) = input.as_literal() else { return Ok(None) };
    let Some(value) = &constant.value else {
        return Ok(Some(Typed::new(Expr::Literal(Literal::null(to.clone())), to.clone())));
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
            if fits_decimal(value, *precision) { Ok(Some(LiteralValue::Integer(value))) } else { Err(out_of_range()) }
        }
        to if is_integer(to) => {
            let value = shifted(value, -i32::from(scale)).ok_or_else(out_of_range)?;
            if fits_integer(value, to) { Ok(Some(LiteralValue::Integer(value))) } else { Err(out_of_range()) }
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
        (from, _) if is_float(from) => "Keep double precision in the view and cast in the query that reads it.",
        (DataType::Utf8, _) => "Declare the column with the type you need.",
        (from, _) if *from == timestamptz() => {
            "Create the view with SET TIME ZONE 'UTC', or use date_trunc, which knows the time zone."
        }
        _ => "Cast in the query that reads the view.",
    };
    PlanError::unsupported(what, alternative)
}
