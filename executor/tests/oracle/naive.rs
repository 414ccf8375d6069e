//! The reference: SQL by the book over whole bags of rows, one row at a time, without any state.
//!
//! It shares nothing with the crate under test but the plan types.

use std::collections::BTreeMap;

use arrow::datatypes::DataType;
use tributary_planner::plan::{
    AggregateCall, AggregateFunction, BinaryOp, Expr, JoinKind, LiteralValue, Node, SortKey,
};

use super::values::{Bag, Row, Value, add};

/// The rows of a tree, and the number of rows and groups that could not be computed.
pub struct Evaluated {
    pub rows: Bag,
    pub errors: i64,
}

/// The rows of a leaf, and their types.
pub type Leaves<'a, Leaf> = (&'a dyn Fn(&Leaf) -> Bag, &'a dyn Fn(&Leaf) -> Vec<DataType>);

/// Evaluates a tree over the rows of its leaves.
pub fn evaluate<Leaf>(node: &Node<Leaf>, leaves: Leaves<'_, Leaf>) -> Evaluated {
    let mut errors = 0;
    let rows = eval(node, leaves, &mut errors);
    Evaluated { rows, errors }
}

fn eval<Leaf>(node: &Node<Leaf>, leaf: Leaves<'_, Leaf>, errors: &mut i64) -> Bag {
    match node {
        Node::Leaf(source) => leaf.0(source),
        Node::Filter { input, predicate } => {
            let mut kept = Bag::new();
            for (row, weight) in eval(input, leaf, errors) {
                match scalar(predicate, &row) {
                    Ok(Value::Bool(true)) => add(&mut kept, row, weight),
                    Ok(_) => {}
                    Err(()) => *errors += weight,
                }
            }
            kept
        }
        Node::Project {
            input, expressions, ..
        } => {
            let mut projected = Bag::new();
            for (row, weight) in eval(input, leaf, errors) {
                match expressions
                    .iter()
                    .map(|e| scalar(e, &row))
                    .collect::<Result<Row, ()>>()
                {
                    Ok(values) => add(&mut projected, values, weight),
                    Err(()) => *errors += weight,
                }
            }
            projected
        }
        Node::Join {
            kind,
            left,
            right,
            on,
            filter,
            null_safe,
        } => {
            let (left_rows, right_rows) = (eval(left, leaf, errors), eval(right, leaf, errors));
            let width = node.types(&leaf.1).len();
            let matching = Matching {
                on,
                filter: filter.as_ref(),
                null_safe: *null_safe,
            };
            join(*kind, (&left_rows, &right_rows), &matching, width, errors)
        }
        Node::Union { inputs } => {
            let mut all = Bag::new();
            for input in inputs {
                eval(input, leaf, errors)
                    .into_iter()
                    .for_each(|(row, weight)| add(&mut all, row, weight));
            }
            all
        }
        Node::Aggregate {
            input,
            keys,
            aggregates,
        } => {
            let rows = eval(input, leaf, errors);
            aggregate(&rows, keys, aggregates, errors)
        }
        Node::Distinct { input } => eval(input, leaf, errors)
            .into_keys()
            .map(|row| (row, 1))
            .collect(),
        Node::TopK {
            input,
            partition,
            keys,
            skip,
            fetch,
            rank,
        } => {
            let mut parts: BTreeMap<Row, Bag> = BTreeMap::new();
            for (row, weight) in eval(input, leaf, errors) {
                let part = partition.iter().map(|column| row[*column].clone()).collect();
                add(parts.entry(part).or_default(), row, weight);
            }
            let mut all = Bag::new();
            for part in parts.into_values() {
                for (place, mut row) in top_k(part, keys, *skip, *fetch).into_iter().enumerate() {
                    row.extend(rank.then_some(Value::Int((skip + place + 1) as i64)));
                    add(&mut all, row, 1);
                }
            }
            all
        }
        Node::Hop { .. } | Node::Session { .. } => unreachable!("no random plan has windows of time"),
    }
}

/// When two rows match.
struct Matching<'a> {
    on: &'a [(usize, usize)],
    filter: Option<&'a Expr>,
    null_safe: bool,
}

fn join(
    kind: JoinKind,
    (left, right): (&Bag, &Bag),
    matching: &Matching,
    width: usize,
    errors: &mut i64,
) -> Bag {
    let mut joined = Bag::new();
    for (l, left_weight) in left {
        let mut matched = false;
        for (r, right_weight) in right {
            let known = |value: &Value| matching.null_safe || *value != Value::Null;
            let equal = matching.on.iter().all(|(a, b)| known(&l[*a]) && l[*a] == r[*b]);
            if !equal {
                continue;
            }
            let pair: Row = l.iter().chain(r).cloned().collect();
            match matching
                .filter
                .map_or(Ok(Value::Bool(true)), |f| scalar(f, &pair))
            {
                Ok(Value::Bool(true)) => {
                    matched = true;
                    add(&mut joined, pair, left_weight * right_weight);
                }
                Ok(_) => {}
                Err(()) => *errors += left_weight * right_weight,
            }
        }
        if kind == JoinKind::Left && !matched {
            let mut padded = l.clone();
            padded.resize(width, Value::Null);
            add(&mut joined, padded, *left_weight);
        }
    }
    joined
}

pub fn aggregate(rows: &Bag, keys: &[usize], calls: &[AggregateCall], errors: &mut i64) -> Bag {
    let mut groups: BTreeMap<Row, Vec<(&Row, i64)>> = BTreeMap::new();
    if keys.is_empty() {
        groups.insert(Row::new(), Vec::new());
    }
    for (row, weight) in rows {
        groups
            .entry(keys.iter().map(|k| row[*k].clone()).collect())
            .or_default()
            .push((row, *weight));
    }
    let mut results = Bag::new();
    for (key, members) in groups {
        let values = calls
            .iter()
            .map(|call| result(call, &members))
            .collect::<Result<Row, ()>>();
        match values {
            Ok(values) => add(&mut results, key.into_iter().chain(values).collect(), 1),
            Err(()) => *errors += 1,
        }
    }
    results
}

fn result(call: &AggregateCall, members: &[(&Row, i64)]) -> Result<Value, ()> {
    let counted = members
        .iter()
        .filter(|(row, _)| call.filter.is_none_or(|f| row[f] == Value::Bool(true)));
    let Some(argument) = call.argument else {
        return Ok(Value::Int(counted.map(|(_, weight)| weight).sum()));
    };
    let values: Vec<(&Value, i64)> = counted
        .map(|(row, weight)| (&row[argument], *weight))
        .filter(|(value, _)| **value != Value::Null)
        .collect();
    let count: i64 = values.iter().map(|(_, weight)| weight).sum();
    if call.function == AggregateFunction::Count {
        return Ok(Value::Int(count));
    }
    if values.is_empty() {
        return Ok(Value::Null);
    }
    let total = |number: &dyn Fn(&Value) -> i128| -> i128 {
        values
            .iter()
            .map(|(value, weight)| number(value) * i128::from(*weight))
            .sum()
    };
    let number = |value: &Value| match value {
        Value::Int(i) => i128::from(*i),
        Value::Quarters(q) => i128::from(*q),
        other => panic!("{other:?} is no number"),
    };
    Ok(match call.function {
        AggregateFunction::Count => unreachable!("counted above"),
        AggregateFunction::Sum if call.input_type == DataType::Float64 => {
            Value::Quarters(i64::try_from(total(&number)).expect("small"))
        }
        AggregateFunction::Sum => Value::Decimal(total(&number)),
        AggregateFunction::Avg => {
            let (sum, count) = (total(&number) * 10i128.pow(16), i128::from(count));
            Value::Decimal((2 * sum.abs() + count) / (2 * count) * sum.signum())
        }
        AggregateFunction::Min => values.iter().map(|(v, _)| *v).min().expect("not empty").clone(),
        AggregateFunction::Max => values.iter().map(|(v, _)| *v).max().expect("not empty").clone(),
        AggregateFunction::BoolAnd => Value::Bool(values.iter().all(|(v, _)| **v == Value::Bool(true))),
        AggregateFunction::BoolOr => Value::Bool(values.iter().any(|(v, _)| **v == Value::Bool(true))),
    })
}

/// The rows from `skip` on in the order of the keys, ties broken by all columns; equal rows stand one by one.
pub fn top_k(rows: Bag, keys: &[SortKey], skip: usize, fetch: usize) -> Vec<Row> {
    let mut all: Vec<Row> = rows
        .into_iter()
        .flat_map(|(row, weight)| std::iter::repeat_n(row, weight as usize))
        .collect();
    all.sort_by(|a, b| {
        let by_key = keys.iter().map(|key| {
            let (x, y) = (&a[key.column], &b[key.column]);
            match (x == &Value::Null, y == &Value::Null) {
                (true, true) => std::cmp::Ordering::Equal,
                (true, false) if key.nulls_first => std::cmp::Ordering::Less,
                (true, false) => std::cmp::Ordering::Greater,
                (false, true) if key.nulls_first => std::cmp::Ordering::Greater,
                (false, true) => std::cmp::Ordering::Less,
                _ if key.descending => y.cmp(x),
                _ => x.cmp(y),
            }
        });
        by_key
            .fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then)
            .then_with(|| a.cmp(b))
    });
    all.into_iter().skip(skip).take(fetch).collect()
}

/// A scalar in three-valued logic; `Err` where it cannot be computed.
fn scalar(expression: &Expr, row: &Row) -> Result<Value, ()> {
    Ok(match expression {
        Expr::Column(column) => row[*column].clone(),
        Expr::Literal(literal) => match &literal.value {
            Some(LiteralValue::Integer(value)) => Value::Int(i64::try_from(*value).expect("an int8")),
            Some(LiteralValue::Boolean(value)) => Value::Bool(*value),
            other => panic!("random plans have no literal {other:?}"),
        },
        Expr::IsNull(input) => Value::Bool(scalar(input, row)? == Value::Null),
        Expr::Binary { op, left, right } => {
            let (left, right) = (scalar(left, row)?, scalar(right, row)?);
            if left == Value::Null || right == Value::Null {
                return Ok(Value::Null);
            }
            match (op, &left, &right) {
                (BinaryOp::Equal, l, r) => Value::Bool(l == r),
                (BinaryOp::Less, l, r) => Value::Bool(l < r),
                (BinaryOp::Add, Value::Int(l), Value::Int(r)) => Value::Int(l.checked_add(*r).ok_or(())?),
                (BinaryOp::Divide, Value::Int(l), Value::Int(r)) => Value::Int(l.checked_div(*r).ok_or(())?),
                other => panic!("random plans have no {other:?}"),
            }
        }
        other => panic!("random plans have no {other:?}"),
    })
}
