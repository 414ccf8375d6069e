//! Arithmetic: `+ - * / %`, negation, `||`.
//!
//! | operands | result |
//! |---|---|
//! | integers | the wider one; overflow is an error, division truncates |
//! | numeric and integer or numeric | by [`decimal_result`] |
//! | a float and any number | double precision, or real for two reals |
//! | timestamp, timestamptz, date and interval | timestamp, timestamptz, timestamp |
//! | interval and interval | interval |
//!
//! Left out: dates with integers, differences of instants, intervals times numbers.

use arrow_schema::DataType;

use super::{
    TIMESTAMP, Typed, binary, cast, common_type, decimal, decimal_shape, instants, is_float, is_instant,
    is_integer, is_number, no_operator, timestamptz,
};
use crate::error::PlanError;
use crate::plan::expr::INTERVAL;
use crate::plan::typing::decimal_result;
use crate::plan::{BinaryOp, Expr, LiteralValue};

/// `left op right` for an arithmetic operator.
///
/// # Errors
/// `UndefinedFunction` when the types have no such operator, `Unsupported` when PostgreSQL has it and we do not.
pub fn arithmetic(op: BinaryOp, left: Typed, right: Typed, zone: &str) -> Result<Typed, PlanError> {
    let interval = |side: &Typed| side.data_type == INTERVAL;
    if interval(&left) || interval(&right) {
        return with_interval(op, left, right, zone);
    }
    if is_instant(&left.data_type) || is_instant(&right.data_type) {
        let what = format!("arithmetic between {} values", super::type_name(&left.data_type));
        return Err(PlanError::unsupported(
            what,
            "Add intervals, or compare extract(epoch from …) values.",
        ));
    }
    let common = common_type(&[left.data_type.clone(), right.data_type.clone()]);
    let Some(common) = common.filter(is_number) else {
        return Err(no_operator(op.symbol(), &left.data_type, &right.data_type));
    };
    if is_integer(&common) {
        return same_type(op, left, right, common, zone);
    }
    if is_float(&common) {
        if op == BinaryOp::Modulo {
            return Err(no_operator("%", &left.data_type, &right.data_type));
        }
        let both_real = [&left, &right]
            .iter()
            .all(|side| matches!(side.data_type, DataType::Float32 | DataType::Null));
        let float = if both_real {
            DataType::Float32
        } else {
            DataType::Float64
        };
        return same_type(op, left, right, float, zone);
    }
    decimals(op, left, right, &common, zone)
}

fn same_type(op: BinaryOp, left: Typed, right: Typed, to: DataType, zone: &str) -> Result<Typed, PlanError> {
    let left = cast::implicit(left, &to, zone)?;
    let right = cast::implicit(right, &to, zone)?;
    Ok(Typed::new(binary(op, left.expr, right.expr), to))
}

/// Arithmetic of numerics. Operands keep their own scales; integers become numerics of scale 0.
fn decimals(
    op: BinaryOp,
    left: Typed,
    right: Typed,
    common: &DataType,
    zone: &str,
) -> Result<Typed, PlanError> {
    let as_decimal = |side: Typed| {
        let to = match (side.as_integer(), decimal_shape(&side.data_type)) {
            // A constant needs no more digits than it has.
            (Some(value), _) => decimal(
                i16::try_from(value.unsigned_abs().to_string().len()).unwrap_or(38),
                0,
            ),
            (None, Some((precision, scale))) => DataType::Decimal128(precision, scale),
            (None, None) => common.clone(),
        };
        cast::implicit(side, &to, zone)
    };
    let (left, right) = (as_decimal(left)?, as_decimal(right)?);
    let left = if op == BinaryOp::Divide {
        dividend(left, &right, zone)?
    } else {
        left
    };
    let returns = decimal_result(op, &left.data_type, &right.data_type).ok_or_else(|| {
        PlanError::unsupported(
            "a product of numerics with more than 38 digits after the point",
            "Cast an operand to numeric with fewer, such as numeric(18,4).",
        )
    })?;
    Ok(Typed::new(binary(op, left.expr, right.expr), returns))
}

/// The left side of a quotient, with enough digits for the quotient to have 16 after the point, and no fewer than
/// the operands. PostgreSQL gives at least 16 *significant* digits, which depends on the values; a column has to
/// have one scale for all rows.
fn dividend(left: Typed, right: &Typed, zone: &str) -> Result<Typed, PlanError> {
    let (precision, scale) = decimal_shape(&left.data_type).expect("a decimal");
    let (_, right_scale) = decimal_shape(&right.data_type).expect("a decimal");
    let wanted = scale.max(right_scale).max(16) - 4;
    if scale >= wanted {
        return Ok(left);
    }
    cast::implicit(
        left,
        &decimal(i16::from(precision) - i16::from(scale), wanted),
        zone,
    )
}

fn with_interval(op: BinaryOp, left: Typed, right: Typed, zone: &str) -> Result<Typed, PlanError> {
    let (instant, interval, flipped) = if left.data_type == INTERVAL && is_instant(&right.data_type) {
        (right, left, true)
    } else {
        (left, right, false)
    };
    let allowed = op == BinaryOp::Add || (op == BinaryOp::Subtract && !flipped);
    if allowed && instant.data_type == INTERVAL && interval.data_type == INTERVAL {
        return Ok(Typed::new(binary(op, instant.expr, interval.expr), INTERVAL));
    }
    if !allowed || !is_instant(&instant.data_type) || interval.data_type != INTERVAL {
        let what = format!("the operator {} with an interval", op.symbol());
        return Err(PlanError::unsupported(
            what,
            "Intervals can be added to and subtracted from timestamps.",
        ));
    }
    let instant = if instant.data_type == DataType::Date32 {
        cast::implicit(instant, &TIMESTAMP, zone)?
    } else {
        instant
    };
    if instant.data_type == timestamptz() && !instants::is_utc(zone) && !is_elapsed_time(&interval) {
        return Err(PlanError::unsupported(
            "adding days or months to a timestamptz in a time zone other than UTC",
            "Create the view with SET TIME ZONE 'UTC', or add hours.",
        ));
    }
    let data_type = instant.data_type.clone();
    Ok(Typed::new(binary(op, instant.expr, interval.expr), data_type))
}

/// Whether an interval is a constant of hours and below, whose length no calendar changes.
fn is_elapsed_time(interval: &Typed) -> bool {
    let value = interval.as_literal().and_then(|literal| literal.value.as_ref());
    matches!(
        value,
        Some(LiteralValue::Interval {
            months: 0,
            days: 0,
            ..
        })
    )
}

/// `-input`.
///
/// # Errors
/// `UndefinedFunction` when it is no number.
pub fn negate(input: Typed) -> Result<Typed, PlanError> {
    if !is_number(&input.data_type) {
        return Err(no_operator("-", &DataType::Null, &input.data_type));
    }
    Ok(Typed::new(Expr::Negate(Box::new(input.expr)), input.data_type))
}

/// `left || right`: text, where one side may be of another type.
///
/// # Errors
/// `UndefinedFunction` when neither is text.
pub fn concat(left: Typed, right: Typed, zone: &str) -> Result<Typed, PlanError> {
    let textual = |side: &Typed| side.is_unknown() || side.data_type == DataType::Utf8;
    if !textual(&left) && !textual(&right) {
        return Err(no_operator("||", &left.data_type, &right.data_type));
    }
    let left = cast::explicit(left, &DataType::Utf8, zone)?;
    let right = cast::explicit(right, &DataType::Utf8, zone)?;
    Ok(Typed::new(
        binary(BinaryOp::Concat, left.expr, right.expr),
        DataType::Utf8,
    ))
}
