//! Arithmetic where Arrow's kernels mean something else than PostgreSQL.
//!
//! Floats: division by zero, overflow to infinity and underflow to zero are errors, and there is one NaN.
//! Decimals: quotients are rounded half away from zero, and nothing may exceed the result's precision (Arrow
//! truncates, and checks only the machine word). Integers need nothing: Arrow's checked kernels serve.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Decimal128Array, Float32Array, Float64Array};
use arrow::compute::{binary, try_binary};
use arrow::datatypes::{DataType, Decimal128Type, DecimalType, Float32Type, Float64Type, i256};
use arrow::error::ArrowError;
use tributary_planner::plan::BinaryOp;

use crate::columns::downcast;

/// What a failing computation says.
pub(crate) type Message = String;

/// `left op right` for floats of one type.
///
/// # Errors
/// Division by zero, overflow and underflow, as in PostgreSQL.
pub(crate) fn float_arithmetic(op: BinaryOp, left: &ArrayRef, right: &ArrayRef) -> Result<ArrayRef, Message> {
    match left.data_type() {
        DataType::Float32 => {
            let (l, r) = (downcast::<Float32Array>(left), downcast::<Float32Array>(right));
            // An f64 holds every exact f32 sum, difference and product or rounds it far below an f32's last bit,
            // but a double rounding would differ: so the operation itself is done in f32.
            let computed = try_binary::<_, _, _, Float32Type>(l, r, |a, b| {
                let result = match op {
                    BinaryOp::Add => a + b,
                    BinaryOp::Subtract => a - b,
                    BinaryOp::Multiply => a * b,
                    _ => a / b,
                };
                check_float(op, f64::from(a), f64::from(b), f64::from(result))?;
                Ok(if result.is_nan() { f32::NAN } else { result })
            });
            computed.map(|array| Arc::new(array) as ArrayRef).map_err(text)
        }
        _ => {
            let (l, r) = (downcast::<Float64Array>(left), downcast::<Float64Array>(right));
            let computed = try_binary::<_, _, _, Float64Type>(l, r, |a, b| {
                let result = match op {
                    BinaryOp::Add => a + b,
                    BinaryOp::Subtract => a - b,
                    BinaryOp::Multiply => a * b,
                    _ => a / b,
                };
                check_float(op, a, b, result)?;
                Ok(if result.is_nan() { f64::NAN } else { result })
            });
            computed.map(|array| Arc::new(array) as ArrayRef).map_err(text)
        }
    }
}

fn check_float(op: BinaryOp, a: f64, b: f64, result: f64) -> Result<(), ArrowError> {
    if op == BinaryOp::Divide && b == 0.0 && !a.is_nan() {
        return Err(ArrowError::DivideByZero);
    }
    if result.is_infinite() && a.is_finite() && b.is_finite() {
        return Err(ArrowError::ComputeError(
            "value out of range: overflow".to_string(),
        ));
    }
    let vanished = match op {
        BinaryOp::Multiply => a != 0.0 && b != 0.0,
        BinaryOp::Divide => a != 0.0 && b.is_finite(),
        _ => false,
    };
    if result == 0.0 && vanished {
        return Err(ArrowError::ComputeError(
            "value out of range: underflow".to_string(),
        ));
    }
    Ok(())
}

/// `left / right` for decimals, rounded half away from zero at the scale of `returns`.
///
/// # Errors
/// Division by zero, and a quotient beyond the precision.
pub(crate) fn decimal_divide(
    left: &ArrayRef,
    right: &ArrayRef,
    returns: &DataType,
) -> Result<ArrayRef, Message> {
    let (l, r) = (
        downcast::<Decimal128Array>(left),
        downcast::<Decimal128Array>(right),
    );
    let DataType::Decimal128(precision, scale) = *returns else {
        return Err(format!("a decimal quotient has the type {returns}"));
    };
    let shift = i32::from(scale) - i32::from(l.scale()) + i32::from(r.scale());
    let (up, down) = (power_of_ten(shift.max(0))?, power_of_ten((-shift).max(0))?);
    let divided = try_binary::<_, _, _, Decimal128Type>(l, r, |a, b| {
        if b == 0 {
            return Err(ArrowError::DivideByZero);
        }
        let out_of_range = || ArrowError::ComputeError("numeric value out of range".to_string());
        let dividend = i256::from_i128(a).checked_mul(up).ok_or_else(out_of_range)?;
        let divisor = i256::from_i128(b).checked_mul(down).ok_or_else(out_of_range)?;
        let (quotient, rest) = (dividend.wrapping_div(divisor), dividend.wrapping_rem(divisor));
        let twice = rest
            .wrapping_abs()
            .checked_mul(i256::from_i128(2))
            .ok_or_else(out_of_range)?;
        let away = if twice < divisor.wrapping_abs() {
            i256::ZERO
        } else if (a < 0) == (b < 0) {
            i256::ONE
        } else {
            i256::MINUS_ONE
        };
        quotient.wrapping_add(away).to_i128().ok_or_else(out_of_range)
    });
    let divided = divided.map_err(text)?;
    let divided = divided.with_precision_and_scale(precision, scale).map_err(text)?;
    decimal_in_range(&(Arc::new(divided) as ArrayRef))
}

fn power_of_ten(exponent: i32) -> Result<i256, Message> {
    let exponent = u32::try_from(exponent).map_err(|e| e.to_string())?;
    i256::from_i128(10)
        .checked_pow(exponent)
        .ok_or_else(|| "numeric value out of range".to_string())
}

/// The column itself, when every value fits its precision.
///
/// # Errors
/// Names the precision that was exceeded.
pub(crate) fn decimal_in_range(column: &ArrayRef) -> Result<ArrayRef, Message> {
    let decimals = downcast::<Decimal128Array>(column);
    let (precision, scale) = (decimals.precision(), decimals.scale());
    let fits =
        |value: Option<i128>| value.is_none_or(|v| Decimal128Type::is_valid_decimal_precision(v, precision));
    if decimals.iter().all(fits) {
        Ok(column.clone())
    } else {
        Err(format!(
            "numeric value out of range: does not fit numeric({precision}, {scale})"
        ))
    }
}

/// Integer remainder; the one overflow that PostgreSQL defines away (`MIN % -1`) is 0.
pub(crate) fn integer_modulo(left: &ArrayRef, right: &ArrayRef) -> Result<ArrayRef, Message> {
    use arrow::array::{Int16Array, Int32Array, Int64Array};
    macro_rules! remainder {
        ($array:ty) => {{
            let (l, r) = (downcast::<$array>(left), downcast::<$array>(right));
            // Where the divisor is null the slot may hold anything, so zero is looked for among values only.
            if (0..r.len()).any(|i| l.is_valid(i) && r.is_valid(i) && r.value(i) == 0) {
                return Err("division by zero".to_string());
            }
            let computed = binary(l, r, |a, b| if b == 0 { 0 } else { a.wrapping_rem(b) });
            computed
                .map(|array: $array| Arc::new(array) as ArrayRef)
                .map_err(text)
        }};
    }
    match left.data_type() {
        DataType::Int16 => remainder!(Int16Array),
        DataType::Int32 => remainder!(Int32Array),
        DataType::Int64 => remainder!(Int64Array),
        other => Err(format!("no integer remainder of {other}")),
    }
}

/// An Arrow error in PostgreSQL's words.
pub(crate) fn text(error: ArrowError) -> Message {
    match error {
        ArrowError::DivideByZero => "division by zero".to_string(),
        ArrowError::ArithmeticOverflow(detail) => format!("value out of range: {detail}"),
        ArrowError::ComputeError(detail)
        | ArrowError::CastError(detail)
        | ArrowError::ParseError(detail)
        | ArrowError::InvalidArgumentError(detail) => detail,
        other => other.to_string(),
    }
}
