//! Comparisons and what is made of them: `= <> < <= > >=`, IS [NOT] DISTINCT FROM, BETWEEN, IN, LIKE, CASE.
//!
//! Both sides of a comparison have one type here. Text compares by its bytes (collation "C"). Intervals are not
//! compared: PostgreSQL holds '1 day' equal to '24 hours', Arrow does not.

use arrow_schema::DataType;

use super::{Typed, binary, cast, common_type, is_number, no_operator, unify};
use crate::error::PlanError;
use crate::plan::{BinaryOp, Expr, Literal};

/// Refuses types without an order or equality that agrees with PostgreSQL; `place` says where it is needed.
///
/// # Errors
/// `Unsupported`.
pub fn check_comparable(data_type: &DataType, place: &str) -> Result<(), PlanError> {
    if matches!(data_type, DataType::Interval(_)) {
        let what = format!("{place} of type interval");
        return Err(PlanError::unsupported(
            what,
            "Keep the length in seconds, as a number.",
        ));
    }
    Ok(())
}

/// `left op right`, a boolean.
///
/// # Errors
/// `UndefinedFunction` when the types cannot be compared.
pub fn compare(op: BinaryOp, left: Typed, right: Typed, zone: &str) -> Result<Typed, PlanError> {
    check_comparable(&left.data_type, "a comparison")?;
    check_comparable(&right.data_type, "a comparison")?;
    let left = cast::narrowed(left, &right);
    let right = cast::narrowed(right, &left);
    let Some(common) = common_type(&[left.data_type.clone(), right.data_type.clone()]) else {
        return Err(no_operator(op.symbol(), &left.data_type, &right.data_type));
    };
    let differ = left.data_type != right.data_type && !left.is_unknown() && !right.is_unknown();
    let common = match common {
        DataType::Null => DataType::Utf8,
        // PostgreSQL compares a real with any other number as double precision.
        DataType::Float32 if differ => DataType::Float64,
        other => other,
    };
    // Numerics of different scales: the comparison casts to the wider one, where a value may not fit; the error
    // is then the row's.
    let left = cast::implicit(left, &common, zone)?;
    let right = cast::implicit(right, &common, zone)?;
    Ok(Typed::new(binary(op, left.expr, right.expr), DataType::Boolean))
}

/// `AND` or `OR`.
///
/// # Errors
/// `DatatypeMismatch` when a side is not boolean.
pub fn connect(op: BinaryOp, left: Typed, right: Typed, zone: &str) -> Result<Typed, PlanError> {
    let place = op.symbol();
    let expr = binary(op, left.boolean(place, zone)?, right.boolean(place, zone)?);
    Ok(Typed::new(expr, DataType::Boolean))
}

/// `input [NOT] BETWEEN low AND high`.
///
/// # Errors
/// As [`compare`].
pub fn between(input: Typed, low: Typed, high: Typed, negated: bool, zone: &str) -> Result<Typed, PlanError> {
    let (lower, upper, connective) = if negated {
        (BinaryOp::Less, BinaryOp::Greater, BinaryOp::Or)
    } else {
        (BinaryOp::GreaterOrEqual, BinaryOp::LessOrEqual, BinaryOp::And)
    };
    let above = compare(lower, input.clone(), low, zone)?;
    let below = compare(upper, input, high, zone)?;
    Ok(Typed::new(
        binary(connective, above.expr, below.expr),
        DataType::Boolean,
    ))
}

/// `input [NOT] IN (list)`.
///
/// # Errors
/// `UndefinedFunction` when the types cannot be compared.
pub fn in_list(input: Typed, list: Vec<Typed>, negated: bool, zone: &str) -> Result<Typed, PlanError> {
    check_comparable(&input.data_type, "a comparison")?;
    let types: Vec<DataType> = list.iter().map(|item| item.data_type.clone()).collect();
    let odd = types
        .iter()
        .find(|item| common_type(&[input.data_type.clone(), (*item).clone()]).is_none());
    if let Some(odd) = odd {
        return Err(no_operator("=", &input.data_type, odd));
    }
    let list: Vec<Typed> = list
        .into_iter()
        .map(|item| cast::narrowed(item, &input))
        .collect();
    let all = std::iter::once(input).chain(list).collect();
    let (all, _) = unify("IN", all, zone)?;
    let mut all = all.into_iter().map(|item| item.expr);
    let input = Box::new(all.next().expect("the input comes first"));
    Ok(Typed::new(
        Expr::InList {
            input,
            list: all.collect(),
            negated,
        },
        DataType::Boolean,
    ))
}

/// `input [NOT] LIKE pattern`.
///
/// # Errors
/// `UndefinedFunction` when a side is not text.
pub fn like(
    input: Typed,
    pattern: Typed,
    negated: bool,
    case_insensitive: bool,
    zone: &str,
) -> Result<Typed, PlanError> {
    let (input, pattern) = (input.settled(zone)?, pattern.settled(zone)?);
    if input.data_type != DataType::Utf8 || pattern.data_type != DataType::Utf8 {
        let op = if case_insensitive { "ILIKE" } else { "LIKE" };
        return Err(no_operator(op, &input.data_type, &pattern.data_type));
    }
    let (input, pattern) = (Box::new(input.expr), Box::new(pattern.expr));
    Ok(Typed::new(
        Expr::Like {
            input,
            pattern,
            negated,
            case_insensitive,
        },
        DataType::Boolean,
    ))
}

/// `input IS [NOT] TRUE | FALSE | UNKNOWN`, never null itself; `value: None` is UNKNOWN.
///
/// # Errors
/// `DatatypeMismatch` when it is not boolean.
pub fn is_truth(input: Typed, value: Option<bool>, negated: bool, zone: &str) -> Result<Typed, PlanError> {
    let input = input.boolean("IS", zone)?;
    let expr = match value {
        None if negated => Expr::Not(Box::new(Expr::IsNull(Box::new(input)))),
        None => Expr::IsNull(Box::new(input)),
        Some(value) => {
            let op = if negated {
                BinaryOp::IsDistinctFrom
            } else {
                BinaryOp::IsNotDistinctFrom
            };
            binary(op, input, Expr::Literal(Literal::boolean(value)))
        }
    };
    Ok(Typed::new(expr, DataType::Boolean))
}

/// `CASE`: conditions with results, and the result otherwise.
///
/// # Errors
/// `DatatypeMismatch` when the results have no common type.
pub fn case(branches: Vec<(Expr, Typed)>, otherwise: Option<Typed>, zone: &str) -> Result<Typed, PlanError> {
    let (conditions, mut results): (Vec<Expr>, Vec<Typed>) = branches.into_iter().unzip();
    let has_otherwise = otherwise.is_some();
    results.extend(otherwise);
    let (mut results, data_type) = unify("CASE", results, zone)?;
    let otherwise = if has_otherwise {
        results.pop().map(|result| Box::new(result.expr))
    } else {
        None
    };
    let branches = conditions
        .into_iter()
        .zip(results.into_iter().map(|result| result.expr))
        .collect();
    Ok(Typed::new(Expr::Case { branches, otherwise }, data_type))
}

/// `coalesce(…)`, as a CASE: later arguments are evaluated only where earlier ones are null.
///
/// # Errors
/// `DatatypeMismatch` when the arguments have no common type.
pub fn coalesce(arguments: Vec<Typed>, zone: &str) -> Result<Typed, PlanError> {
    let (mut arguments, data_type) = unify("COALESCE", arguments, zone)?;
    let Some(last) = arguments.pop() else {
        return Err(super::functions::wrong_arguments("coalesce"));
    };
    if arguments.is_empty() {
        return Ok(last);
    }
    let branches = arguments
        .into_iter()
        .map(|argument| (argument.is_not_null(), argument.expr))
        .collect();
    Ok(Typed::new(
        Expr::Case {
            branches,
            otherwise: Some(Box::new(last.expr)),
        },
        data_type,
    ))
}

/// `nullif(left, right)`: the left side's own value and type.
///
/// # Errors
/// As [`compare`].
pub fn nullif(left: Typed, right: Typed, zone: &str) -> Result<Typed, PlanError> {
    let left = left.settled(zone)?;
    let equal = compare(BinaryOp::Equal, left.clone(), right, zone)?;
    let null = Expr::Literal(Literal::null(left.data_type.clone()));
    let branches = vec![(equal.expr, null)];
    Ok(Typed::new(
        Expr::Case {
            branches,
            otherwise: Some(Box::new(left.expr)),
        },
        left.data_type,
    ))
}

/// `abs(input)`, as a CASE: the negation of the smallest integer is an error.
///
/// # Errors
/// `UndefinedFunction` when it is no number.
pub fn abs(input: Typed) -> Result<Typed, PlanError> {
    if !is_number(&input.data_type) {
        return Err(super::functions::undefined("abs", &[input]));
    }
    let zero = cast::implicit(Typed::unknown("0".to_owned()), &input.data_type, "UTC")?;
    let negative = binary(BinaryOp::Less, input.expr.clone(), zero.expr);
    let branches = vec![(negative, Expr::Negate(Box::new(input.expr.clone())))];
    Ok(Typed::new(
        Expr::Case {
            branches,
            otherwise: Some(Box::new(input.expr)),
        },
        input.data_type,
    ))
}
