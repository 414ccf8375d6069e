//! Aggregates over all rows of a group at once.

use arrow::datatypes::DataType;
use tributary_planner::plan::{AggregateCall, AggregateFunction};

use super::Trouble;
use super::decimal::{divide_rounded, power_of_ten};
use crate::value::{Float, Row, Value};

/// The value of an aggregate over the rows of one group.
///
/// # Errors
/// [`Trouble::Row`] when the result is out of range.
pub fn aggregate(call: &AggregateCall, rows: &[&Row]) -> Result<Value, Trouble> {
    let counted = rows
        .iter()
        .filter(|row| call.filter.is_none_or(|filter| row[filter] == Value::Bool(true)));
    let Some(argument) = call.argument else {
        return count(counted.count());
    };
    let values: Vec<&Value> = counted
        .map(|row| &row[argument])
        .filter(|value| **value != Value::Null)
        .collect();
    match call.function {
        AggregateFunction::Count => count(values.len()),
        _ if values.is_empty() => Ok(Value::Null),
        AggregateFunction::Min => Ok(values.into_iter().min().cloned().unwrap_or(Value::Null)),
        AggregateFunction::Max => Ok(values.into_iter().max().cloned().unwrap_or(Value::Null)),
        AggregateFunction::BoolAnd => Ok(Value::Bool(
            values.iter().all(|value| **value == Value::Bool(true)),
        )),
        AggregateFunction::BoolOr => Ok(Value::Bool(
            values.iter().any(|value| **value == Value::Bool(true)),
        )),
        AggregateFunction::Sum => sum(call, &values),
        AggregateFunction::Avg => average(call, &values),
    }
}

fn count(rows: usize) -> Result<Value, Trouble> {
    i64::try_from(rows)
        .map(Value::Int)
        .map_err(|_| Trouble::Row("too many rows".into()))
}

fn sum(call: &AggregateCall, values: &[&Value]) -> Result<Value, Trouble> {
    if let Some(floats) = floats(values) {
        return Ok(Value::Float(Float::new(float_sum(&floats))));
    }
    let (unscaled, scale) = exact(values)?;
    match call.output_type {
        DataType::Int64 => i64::try_from(unscaled)
            .map(Value::Int)
            .map_err(|_| Trouble::Row("out of range".into())),
        DataType::Decimal128(_, to) if to == scale => Ok(Value::Decimal { scale, unscaled }),
        ref other => Err(Trouble::Unknown(format!("a sum of type {other}"))),
    }
}

fn average(call: &AggregateCall, values: &[&Value]) -> Result<Value, Trouble> {
    if let Some(floats) = floats(values) {
        return Ok(Value::Float(Float::new(float_mean(&floats))));
    }
    let (unscaled, scale) = exact(values)?;
    let DataType::Decimal128(_, to) = call.output_type else {
        return Err(Trouble::Unknown(format!(
            "an average of type {}",
            call.output_type
        )));
    };
    let widened = unscaled.checked_mul(power_of_ten(i16::from(to) - i16::from(scale)));
    let widened = widened.ok_or_else(|| Trouble::Row("out of range".into()))?;
    let count = i128::try_from(values.len()).map_err(|_| Trouble::Row("too many rows".into()))?;
    Ok(Value::Decimal {
        scale: to,
        unscaled: divide_rounded(widened, count),
    })
}

/// The sum of floats, rounded once (Shewchuk, "Adaptive precision floating-point arithmetic", 1997): every order
/// of addition gives the same. `parts` do not overlap, and their exact sum is that of the values so far.
fn float_sum(values: &[f64]) -> f64 {
    let mut parts: Vec<f64> = Vec::new();
    for &value in values {
        let mut carried = value;
        let mut kept = Vec::new();
        for &part in &parts {
            let (large, small) = if carried.abs() < part.abs() {
                (part, carried)
            } else {
                (carried, part)
            };
            carried = large + small;
            let lost = small - (carried - large);
            if lost != 0.0 {
                kept.push(lost);
            }
        }
        kept.push(carried);
        parts = kept;
    }
    let Some(mut high) = parts.pop() else { return 0.0 };
    while let Some(part) = parts.pop() {
        let sum = high + part;
        let low = part - (sum - high);
        high = sum;
        if low != 0.0 {
            // Half-way cases go towards the sign of what follows.
            let up = parts
                .last()
                .is_some_and(|next| (*next > 0.0) == (low > 0.0) && *next != 0.0);
            let doubled = low * 2.0;
            if up && (high + doubled) - high == doubled {
                high += doubled;
            }
            break;
        }
    }
    high
}

/// The mean, rounded once: a first quotient, mended by what it leaves over.
fn float_mean(values: &[f64]) -> f64 {
    let count = values.len() as f64;
    let quotient = float_sum(values) / count;
    let product = quotient * count;
    let mut left_over = values.to_vec();
    left_over.extend([-product, -quotient.mul_add(count, -product)]);
    quotient + float_sum(&left_over) / count
}

/// The values as floats, when they are floats.
fn floats(values: &[&Value]) -> Option<Vec<f64>> {
    values
        .iter()
        .map(|value| {
            if let Value::Float(float) = value {
                Some(float.get())
            } else {
                None
            }
        })
        .collect()
}

/// The exact sum of integers or decimals, and its scale.
fn exact(values: &[&Value]) -> Result<(i128, i8), Trouble> {
    let mut sum = (0i128, 0i8);
    for value in values {
        let (unscaled, scale) = match value {
            Value::Int(value) => (i128::from(*value), 0),
            Value::Decimal { unscaled, scale } => (*unscaled, *scale),
            other => return Err(Trouble::Unknown(format!("a sum with {other}"))),
        };
        sum = (
            sum.0
                .checked_add(unscaled)
                .ok_or_else(|| Trouble::Row("out of range".into()))?,
            scale,
        );
    }
    Ok(sum)
}
