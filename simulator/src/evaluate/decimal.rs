//! Decimals as PostgreSQL rounds them: half away from zero.

use tributary_planner::plan::BinaryOp;

use super::Trouble;
use crate::value::Value;

/// The most digits of a decimal.
const DIGITS_MAX: u32 = 38;

/// The same number with another scale, rounded half away from zero.
///
/// # Errors
/// When it does not fit, or is no decimal.
pub fn rescale(value: &Value, to: i8) -> Result<Value, Trouble> {
    let Value::Decimal { scale, unscaled } = value else {
        return Err(Trouble::Unknown(format!("the scale of {value}")));
    };
    let unscaled = if to >= *scale {
        in_range(unscaled.checked_mul(power_of_ten(i16::from(to) - i16::from(*scale))))?
    } else {
        divide_rounded(*unscaled, power_of_ten(i16::from(*scale) - i16::from(to)))
    };
    Ok(Value::Decimal { scale: to, unscaled })
}

/// A quotient rounded half away from zero. The divisor is positive.
pub fn divide_rounded(dividend: i128, divisor: i128) -> i128 {
    let quotient = dividend / divisor;
    let remainder = dividend % divisor;
    if remainder.unsigned_abs() >= divisor.unsigned_abs() - remainder.unsigned_abs() {
        quotient + dividend.signum()
    } else {
        quotient
    }
}

/// 10 to the power of a small number.
pub fn power_of_ten(exponent: i16) -> i128 {
    10i128.pow(u32::try_from(exponent).expect("a difference of scales that was compared"))
}

/// Sums, differences and products of decimals. Quotients are not known here.
///
/// # Errors
/// When the result does not fit.
pub fn arithmetic(op: BinaryOp, left: &Value, right: &Value) -> Result<Value, Trouble> {
    let (
        Value::Decimal {
            scale: a,
            unscaled: x,
        },
        Value::Decimal {
            scale: b,
            unscaled: y,
        },
    ) = (left, right)
    else {
        return Err(Trouble::Unknown(format!("{op:?} of {left} and {right}")));
    };
    if op == BinaryOp::Multiply {
        return Ok(Value::Decimal {
            scale: a + b,
            unscaled: in_range(x.checked_mul(*y))?,
        });
    }
    let scale = *a.max(b);
    let (Value::Decimal { unscaled: x, .. }, Value::Decimal { unscaled: y, .. }) =
        (rescale(left, scale)?, rescale(right, scale)?)
    else {
        return Err(Trouble::Unknown("a decimal".into()));
    };
    match op {
        BinaryOp::Add => Ok(Value::Decimal {
            scale,
            unscaled: in_range(x.checked_add(y))?,
        }),
        BinaryOp::Subtract => Ok(Value::Decimal {
            scale,
            unscaled: in_range(x.checked_sub(y))?,
        }),
        _ => Err(Trouble::Unknown(format!("{op:?} of decimals"))),
    }
}

/// The nearest float.
///
/// # Errors
/// When it is no decimal.
pub fn to_float(value: &Value) -> Result<f64, Trouble> {
    let Value::Decimal { scale, unscaled } = value else {
        return Err(Trouble::Unknown(format!("{value} as a float")));
    };
    format!("{unscaled}e-{scale}")
        .parse()
        .map_err(|_| Trouble::Unknown(format!("{value} as a float")))
}

fn in_range(value: Option<i128>) -> Result<i128, Trouble> {
    value
        .filter(|value| value.unsigned_abs() < 10u128.pow(DIGITS_MAX))
        .ok_or_else(|| Trouble::Row("numeric out of range".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_half_away_from_zero() {
        for (dividend, expected) in [(25, 3), (24, 2), (-25, -3), (-24, -2), (30, 3), (5, 1), (-4, 0)] {
            assert_eq!(divide_rounded(dividend, 10), expected, "{dividend} / 10");
        }
        let value = Value::Decimal {
            scale: 3,
            unscaled: 1005,
        };
        assert_eq!(
            rescale(&value, 2),
            Ok(Value::Decimal {
                scale: 2,
                unscaled: 101
            })
        );
        assert_eq!(to_float(&value), Ok(1.005));
    }
}
