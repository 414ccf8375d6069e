//! Scalar expressions on one row, written from PostgreSQL's rules and not from the executor.
//!
//! Widths are not tracked: the workload keeps values small, and a cast checks the range of its target. What is
//! not known here is [`Trouble::Unknown`], which makes the whole comparison void rather than wrong.

use arrow::datatypes::{DataType, TimeUnit};
use tributary_planner::plan::{BinaryOp, Expr, Literal, LiteralValue};

use super::Trouble;
use super::decimal::{self, rescale};
use crate::value::{Float, Row, Value};

type Result<T> = std::result::Result<T, Trouble>;

/// The value of an expression on a row.
///
/// # Errors
/// [`Trouble::Row`] when PostgreSQL would raise an error on this row.
pub fn value(expr: &Expr, row: &Row) -> Result<Value> {
    match expr {
        Expr::Column(index) => Ok(row[*index].clone()),
        Expr::Literal(literal) => literal_value(literal),
        Expr::Binary {
            op: BinaryOp::And,
            left,
            right,
        } => and(truth(left, row)?, truth(right, row)?),
        Expr::Binary {
            op: BinaryOp::Or,
            left,
            right,
        } => {
            let not = |truth: Option<bool>| truth.map(|truth| !truth);
            let negated = and(not(truth(left, row)?), not(truth(right, row)?))?;
            Ok(if let Value::Bool(value) = negated {
                Value::Bool(!value)
            } else {
                negated
            })
        }
        Expr::Binary { op, left, right } => binary(*op, value(left, row)?, value(right, row)?),
        Expr::Not(input) => Ok(truth(input, row)?.map_or(Value::Null, |truth| Value::Bool(!truth))),
        Expr::Negate(input) => match value(input, row)? {
            Value::Null => Ok(Value::Null),
            Value::Int(number) => checked(number.checked_neg()).map(Value::Int),
            Value::Decimal { scale, unscaled } => Ok(Value::Decimal {
                scale,
                unscaled: -unscaled,
            }),
            Value::Float(number) => Ok(Value::Float(Float::new(-number.get()))),
            other => unknown(format!("the negation of {other}")),
        },
        Expr::IsNull(input) => Ok(Value::Bool(value(input, row)? == Value::Null)),
        Expr::Case { branches, otherwise } => {
            for (condition, result) in branches {
                if truth(condition, row)? == Some(true) {
                    return value(result, row);
                }
            }
            otherwise
                .as_ref()
                .map_or(Ok(Value::Null), |otherwise| value(otherwise, row))
        }
        Expr::Cast { input, to } => cast(value(input, row)?, to),
        Expr::Like {
            input,
            pattern,
            negated,
            case_insensitive,
        } => {
            let (Value::Text(text), Value::Text(pattern)) = (value(input, row)?, value(pattern, row)?) else {
                return Ok(Value::Null);
            };
            let fold = |text: String| {
                if *case_insensitive {
                    text.to_lowercase()
                } else {
                    text
                }
            };
            let (text, pattern): (Vec<char>, Vec<char>) =
                (fold(text).chars().collect(), fold(pattern).chars().collect());
            Ok(Value::Bool(is_like(&text, &pattern) != *negated))
        }
        Expr::InList { input, list, negated } => {
            let input = value(input, row)?;
            let candidates = list
                .iter()
                .map(|item| value(item, row))
                .collect::<Result<Vec<_>>>()?;
            in_list(input, candidates, *negated)
        }
        Expr::Call {
            function, arguments, ..
        } => {
            let arguments = arguments
                .iter()
                .map(|argument| value(argument, row))
                .collect::<Result<Vec<_>>>()?;
            call(function, &arguments)
        }
    }
}

/// Whether a predicate is true on a row; an unknown truth is not.
///
/// # Errors
/// As for [`value`].
pub fn holds(predicate: &Expr, row: &Row) -> Result<bool> {
    Ok(truth(predicate, row)? == Some(true))
}

fn truth(expr: &Expr, row: &Row) -> Result<Option<bool>> {
    match value(expr, row)? {
        Value::Null => Ok(None),
        Value::Bool(truth) => Ok(Some(truth)),
        other => unknown(format!("the truth of {other}")),
    }
}

fn and(left: Option<bool>, right: Option<bool>) -> Result<Value> {
    Ok(match (left, right) {
        (Some(false), _) | (_, Some(false)) => Value::Bool(false),
        (Some(true), Some(true)) => Value::Bool(true),
        _ => Value::Null,
    })
}

fn literal_value(literal: &Literal) -> Result<Value> {
    let Some(value) = &literal.value else {
        return Ok(Value::Null);
    };
    match (value, &literal.data_type) {
        (LiteralValue::Boolean(value), _) => Ok(Value::Bool(*value)),
        (LiteralValue::Integer(value), DataType::Decimal128(_, scale)) => Ok(Value::Decimal {
            scale: *scale,
            unscaled: *value,
        }),
        (
            LiteralValue::Integer(value),
            DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::Timestamp(TimeUnit::Microsecond, None),
        ) => checked(i64::try_from(*value).ok()).map(Value::Int),
        (LiteralValue::Float(bits), _) => Ok(Value::Float(Float::new(f64::from_bits(*bits)))),
        (LiteralValue::Text(text), _) => Ok(Value::Text(text.clone())),
        (_, data_type) => unknown(format!("a literal of type {data_type}")),
    }
}

fn binary(op: BinaryOp, left: Value, right: Value) -> Result<Value> {
    match op {
        BinaryOp::IsDistinctFrom => {
            return Ok(Value::Bool(
                compare_or_null(&left, &right)?.is_none_or(|o| o.is_ne()),
            ));
        }
        BinaryOp::IsNotDistinctFrom => {
            return Ok(Value::Bool(
                compare_or_null(&left, &right)?.is_some_and(|o| o.is_eq()),
            ));
        }
        _ => {}
    }
    if left == Value::Null || right == Value::Null {
        return Ok(Value::Null);
    }
    let order = || compare(&left, &right);
    Ok(Value::Bool(match op {
        BinaryOp::Equal => order()?.is_eq(),
        BinaryOp::NotEqual => order()?.is_ne(),
        BinaryOp::Less => order()?.is_lt(),
        BinaryOp::LessOrEqual => order()?.is_le(),
        BinaryOp::Greater => order()?.is_gt(),
        BinaryOp::GreaterOrEqual => order()?.is_ge(),
        _ => return arithmetic(op, left, right),
    }))
}

/// The order of two values of which both or none is null; `None` when just one is.
fn compare_or_null(left: &Value, right: &Value) -> Result<Option<std::cmp::Ordering>> {
    match (left, right) {
        (Value::Null, Value::Null) => Ok(Some(std::cmp::Ordering::Equal)),
        (Value::Null, _) | (_, Value::Null) => Ok(None),
        _ => compare(left, right).map(Some),
    }
}

fn compare(left: &Value, right: &Value) -> Result<std::cmp::Ordering> {
    match (left, right) {
        (Value::Decimal { scale: a, .. }, Value::Decimal { scale: b, .. }) if a != b => {
            let scale = *a.max(b);
            Ok(rescale(left, scale)?.cmp(&rescale(right, scale)?))
        }
        _ if std::mem::discriminant(left) == std::mem::discriminant(right) => Ok(left.cmp(right)),
        _ => unknown(format!("the order of {left} and {right}")),
    }
}

fn arithmetic(op: BinaryOp, left: Value, right: Value) -> Result<Value> {
    match (op, left, right) {
        (BinaryOp::Add, Value::Int(a), Value::Int(b)) => checked(a.checked_add(b)).map(Value::Int),
        (BinaryOp::Subtract, Value::Int(a), Value::Int(b)) => checked(a.checked_sub(b)).map(Value::Int),
        (BinaryOp::Multiply, Value::Int(a), Value::Int(b)) => checked(a.checked_mul(b)).map(Value::Int),
        (BinaryOp::Divide | BinaryOp::Modulo, Value::Int(_), Value::Int(0)) => {
            Err(Trouble::Row("division by zero".into()))
        }
        (BinaryOp::Divide, Value::Int(a), Value::Int(b)) => checked(a.checked_div(b)).map(Value::Int),
        (BinaryOp::Modulo, Value::Int(a), Value::Int(b)) => checked(a.checked_rem(b)).map(Value::Int),
        (op, Value::Float(a), Value::Float(b)) => float_arithmetic(op, a.get(), b.get()),
        (op, a @ Value::Decimal { .. }, b @ Value::Decimal { .. }) => decimal::arithmetic(op, &a, &b),
        (BinaryOp::Concat, Value::Text(a), Value::Text(b)) => Ok(Value::Text(a + &b)),
        (op, a, b) => unknown(format!("{op:?} of {a} and {b}")),
    }
}

fn float_arithmetic(op: BinaryOp, a: f64, b: f64) -> Result<Value> {
    let result = match op {
        BinaryOp::Add => a + b,
        BinaryOp::Subtract => a - b,
        BinaryOp::Multiply => a * b,
        BinaryOp::Divide if b == 0.0 => return Err(Trouble::Row("division by zero".into())),
        BinaryOp::Divide => a / b,
        _ => return unknown(format!("{op:?} of floats")),
    };
    Ok(Value::Float(Float::new(result)))
}

fn cast(value: Value, to: &DataType) -> Result<Value> {
    let in_range = |number: i64| -> Result<Value> {
        let fits = match to {
            DataType::Int16 => i16::try_from(number).is_ok(),
            DataType::Int32 => i32::try_from(number).is_ok(),
            _ => true,
        };
        if fits {
            Ok(Value::Int(number))
        } else {
            Err(Trouble::Row(format!("{number} is out of range")))
        }
    };
    match (value, to) {
        (Value::Null, _) => Ok(Value::Null),
        (Value::Int(number), DataType::Int16 | DataType::Int32 | DataType::Int64) => in_range(number),
        (Value::Int(number), DataType::Decimal128(_, scale)) => rescale(
            &Value::Decimal {
                scale: 0,
                unscaled: i128::from(number),
            },
            *scale,
        ),
        (Value::Int(number), DataType::Float64) => Ok(Value::Float(Float::new(number as f64))),
        (Value::Int(number), DataType::Utf8) => Ok(Value::Text(number.to_string())),
        (value @ Value::Decimal { .. }, DataType::Decimal128(_, scale)) => rescale(&value, *scale),
        (value @ Value::Decimal { .. }, DataType::Float64) => {
            Ok(Value::Float(Float::new(decimal::to_float(&value)?)))
        }
        (value @ Value::Decimal { .. }, DataType::Int16 | DataType::Int32 | DataType::Int64) => {
            let Value::Decimal { unscaled, .. } = rescale(&value, 0)? else {
                return unknown("a decimal".into());
            };
            in_range(checked(i64::try_from(unscaled).ok())?)
        }
        (value @ Value::Float(_), DataType::Float64)
        | (value @ Value::Text(_), DataType::Utf8)
        | (value @ Value::Bool(_), DataType::Boolean) => Ok(value),
        (Value::Bool(value), DataType::Utf8) => Ok(Value::Text(value.to_string())),
        (Value::Bool(value), DataType::Int32) => Ok(Value::Int(i64::from(value))),
        (value, to) => unknown(format!("a cast of {value} to {to}")),
    }
}

fn in_list(input: Value, candidates: Vec<Value>, negated: bool) -> Result<Value> {
    if input == Value::Null {
        return Ok(Value::Null);
    }
    let mut saw_null = false;
    for candidate in candidates {
        if candidate == Value::Null {
            saw_null = true;
        } else if compare(&input, &candidate)?.is_eq() {
            return Ok(Value::Bool(!negated));
        }
    }
    Ok(if saw_null {
        Value::Null
    } else {
        Value::Bool(negated)
    })
}

fn call(function: &str, arguments: &[Value]) -> Result<Value> {
    match (function, arguments) {
        ("coalesce", _) => Ok(arguments
            .iter()
            .find(|value| **value != Value::Null)
            .cloned()
            .unwrap_or(Value::Null)),
        ("nullif", [a, b]) => {
            let equal = *a != Value::Null && *b != Value::Null && compare(a, b)?.is_eq();
            Ok(if equal { Value::Null } else { a.clone() })
        }
        (_, [Value::Null]) => Ok(Value::Null),
        ("lower", [Value::Text(text)]) => Ok(Value::Text(text.to_lowercase())),
        ("upper", [Value::Text(text)]) => Ok(Value::Text(text.to_uppercase())),
        ("character_length" | "length", [Value::Text(text)]) => {
            checked(i64::try_from(text.chars().count()).ok()).map(Value::Int)
        }
        ("abs", [Value::Int(number)]) => checked(number.checked_abs()).map(Value::Int),
        ("abs", [Value::Float(number)]) => Ok(Value::Float(Float::new(number.get().abs()))),
        ("abs", [Value::Decimal { scale, unscaled }]) => Ok(Value::Decimal {
            scale: *scale,
            unscaled: unscaled.abs(),
        }),
        _ => unknown(format!("the function {function}")),
    }
}

/// SQL's LIKE: `%` is any text, `_` any one character.
fn is_like(text: &[char], pattern: &[char]) -> bool {
    match (pattern.first(), text.first()) {
        (None, None) => true,
        (Some('%'), _) => is_like(text, &pattern[1..]) || (!text.is_empty() && is_like(&text[1..], pattern)),
        (Some('_'), Some(_)) => is_like(&text[1..], &pattern[1..]),
        (Some(expected), Some(found)) => expected == found && is_like(&text[1..], &pattern[1..]),
        _ => false,
    }
}

fn checked<T>(value: Option<T>) -> Result<T> {
    value.ok_or_else(|| Trouble::Row("out of range".into()))
}

fn unknown<T>(what: String) -> Result<T> {
    Err(Trouble::Unknown(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literal(value: i64) -> Box<Expr> {
        Box::new(Expr::Literal(Literal::int64(value)))
    }

    fn null() -> Box<Expr> {
        Box::new(Expr::Literal(Literal::null(DataType::Int64)))
    }

    fn on(op: BinaryOp, left: Box<Expr>, right: Box<Expr>) -> Result<Value> {
        value(&Expr::Binary { op, left, right }, &Vec::new())
    }

    #[test]
    fn three_valued_logic() {
        let unknown = || {
            Box::new(Expr::Binary {
                op: BinaryOp::Equal,
                left: null(),
                right: literal(1),
            })
        };
        let yes = || Box::new(Expr::Literal(Literal::boolean(true)));
        let no = || Box::new(Expr::Literal(Literal::boolean(false)));
        assert_eq!(on(BinaryOp::And, unknown(), no()), Ok(Value::Bool(false)));
        assert_eq!(on(BinaryOp::And, unknown(), yes()), Ok(Value::Null));
        assert_eq!(on(BinaryOp::Or, unknown(), yes()), Ok(Value::Bool(true)));
        assert_eq!(on(BinaryOp::Or, unknown(), no()), Ok(Value::Null));
        assert_eq!(
            on(BinaryOp::IsDistinctFrom, null(), literal(1)),
            Ok(Value::Bool(true))
        );
        assert_eq!(
            on(BinaryOp::IsDistinctFrom, null(), null()),
            Ok(Value::Bool(false))
        );
    }

    #[test]
    fn division_by_zero_is_an_error_of_the_row() {
        assert!(matches!(
            on(BinaryOp::Divide, literal(1), literal(0)),
            Err(Trouble::Row(_))
        ));
        assert_eq!(on(BinaryOp::Divide, literal(-7), literal(2)), Ok(Value::Int(-3)));
        assert_eq!(on(BinaryOp::Modulo, literal(-7), literal(2)), Ok(Value::Int(-1)));
    }

    #[test]
    fn like_patterns() {
        let like = |text: &str, pattern: &str| {
            is_like(
                &text.chars().collect::<Vec<_>>(),
                &pattern.chars().collect::<Vec<_>>(),
            )
        };
        assert!(like("abc", "a%") && like("abc", "%c") && like("abc", "a_c") && like("", "%"));
        assert!(!like("abc", "b%") && !like("abc", "ab"));
    }
}
