//! The batch oracle: what a view's plan means, computed from whole inputs in the most naive way.
//!
//! It walks the plan once over plain rows. It shares nothing with the executor but the plan's types, keeps no
//! state, and knows neither deltas nor regions: whoever calls it says what each leaf holds.
//!
//! A row or group on which an expression fails is left out, as in the executor. What the oracle does not know
//! makes the comparison void ([`Trouble::Unknown`]), and the caller counts that.

mod aggregate;
mod decimal;
mod expr;

use std::collections::BTreeMap;

use thiserror::Error;
use tributary_planner::plan::{AggregateCall, Boundary, Expr, JoinKind, LocalFragment, Node, SortKey};

use crate::value::{Row, Rows, Value};

/// Why there is no value.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Trouble {
    /// SQL has no value for this row.
    #[error("row error: {0}")]
    Row(String),
    /// The oracle does not know the construct.
    #[error("the oracle does not know {0}")]
    Unknown(String),
}

type Result<T> = std::result::Result<T, Trouble>;

/// Rows of one width. The width counts when there are none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    /// The number of columns.
    pub width: usize,
    /// The rows, in no particular order.
    pub rows: Rows,
}

/// The rows of an operator tree; `leaf` says what a leaf holds.
///
/// # Errors
/// [`Trouble::Unknown`] only.
pub fn relation<Leaf>(
    node: &Node<Leaf>,
    leaf: &mut dyn FnMut(&Leaf) -> Result<Relation>,
) -> Result<Relation> {
    match node {
        Node::Leaf(read) => leaf(read),
        Node::Filter { input, predicate } => {
            let input = relation(input, leaf)?;
            let mut rows = Vec::new();
            for row in input.rows {
                if without_row_error(expr::holds(predicate, &row))? == Some(true) {
                    rows.push(row);
                }
            }
            Ok(Relation {
                width: input.width,
                rows,
            })
        }
        Node::Project {
            input, expressions, ..
        } => {
            let rows = project(relation(input, leaf)?.rows, expressions)?;
            Ok(Relation {
                width: expressions.len(),
                rows,
            })
        }
        Node::Join {
            kind,
            left,
            right,
            on,
            filter,
            null_safe,
        } => {
            if *null_safe {
                return Err(Trouble::Unknown("a join in which nulls are equal".into()));
            }
            let left = relation(left, leaf)?;
            join(*kind, left, &relation(right, leaf)?, on, filter.as_ref())
        }
        Node::Union { inputs } => {
            let mut all = Relation {
                width: 0,
                rows: Vec::new(),
            };
            for input in inputs {
                let part = relation(input, leaf)?;
                all.width = part.width;
                all.rows.extend(part.rows);
            }
            Ok(all)
        }
        Node::Aggregate {
            input,
            keys,
            aggregates,
        } => grouped(&relation(input, leaf)?.rows, keys, aggregates),
        Node::Distinct { input } => {
            let mut distinct = relation(input, leaf)?;
            distinct.rows.sort();
            distinct.rows.dedup();
            Ok(distinct)
        }
        Node::TopK {
            input,
            partition,
            keys,
            skip,
            fetch,
            rank,
        } => {
            if !partition.is_empty() || *rank {
                return Err(Trouble::Unknown("the first rows of each partition".into()));
            }
            let mut ordered = relation(input, leaf)?;
            ordered.rows.sort_by(|a, b| in_order(a, b, keys));
            ordered.rows = ordered.rows.into_iter().skip(*skip).take(*fetch).collect();
            Ok(ordered)
        }
        Node::Hop { .. } => Err(Trouble::Unknown("windows of time".into())),
        Node::Session {
            input,
            partition,
            column,
            gap_us,
        } => sessions(relation(input, leaf)?, partition, *column, *gap_us),
    }
}

/// What stands above a fragment's boundary, given the rows that all regions' roots have together.
///
/// # Errors
/// [`Trouble::Unknown`] only.
pub fn merged(fragment: &LocalFragment, contributions: Relation) -> Result<Relation> {
    match &fragment.boundary {
        Boundary::MergeRows | Boundary::AppendRows => Ok(contributions),
        Boundary::MergePartials { keys, aggregates } => grouped(&contributions.rows, keys, aggregates),
    }
}

/// What a region ships of the rows that its root has: without those of groups that are too small to leave it.
pub fn shipped(fragment: &LocalFragment, mut rows: Relation, group_rows_min: u64) -> Relation {
    let Boundary::MergePartials { keys, .. } = &fragment.boundary else {
        return rows;
    };
    let key = |row: &Row| -> Row { keys.iter().map(|&key| row[key].clone()).collect() };
    let mut sizes: BTreeMap<Row, u64> = BTreeMap::new();
    for row in &rows.rows {
        *sizes.entry(key(row)).or_default() += 1;
    }
    rows.rows.retain(|row| sizes[&key(row)] >= group_rows_min);
    rows
}

fn project(input: Rows, expressions: &[Expr]) -> Result<Rows> {
    let mut projected = Vec::new();
    for row in input {
        let values: Result<Row> = expressions
            .iter()
            .map(|expression| expr::value(expression, &row))
            .collect();
        projected.extend(without_row_error(values)?);
    }
    Ok(projected)
}

fn join(
    kind: JoinKind,
    left: Relation,
    right: &Relation,
    on: &[(usize, usize)],
    filter: Option<&Expr>,
) -> Result<Relation> {
    let mut rows = Vec::new();
    for l in left.rows {
        let mut matched = false;
        for r in &right.rows {
            if !on.iter().all(|(a, b)| l[*a] != Value::Null && l[*a] == r[*b]) {
                continue;
            }
            let pair: Row = l.iter().chain(r).cloned().collect();
            let keep = filter.map_or(Ok(true), |filter| expr::holds(filter, &pair));
            match without_row_error(keep)? {
                Some(true) => {
                    matched = true;
                    rows.push(pair);
                }
                Some(false) => {}
                // Whether a failing pair counts as a match is not for this oracle to say.
                None => return Err(Trouble::Unknown("a join condition that fails".into())),
            }
        }
        if kind == JoinKind::Left && !matched {
            rows.push(
                l.into_iter()
                    .chain(std::iter::repeat_n(Value::Null, right.width))
                    .collect(),
            );
        }
    }
    Ok(Relation {
        width: left.width + right.width,
        rows,
    })
}

fn grouped(input: &[Row], keys: &[usize], aggregates: &[AggregateCall]) -> Result<Relation> {
    let mut groups: BTreeMap<Row, Vec<&Row>> = BTreeMap::new();
    if keys.is_empty() {
        groups.insert(Vec::new(), Vec::new());
    }
    for row in input {
        let key = keys.iter().map(|&key| row[key].clone()).collect();
        groups.entry(key).or_default().push(row);
    }
    let mut results = Vec::new();
    for (key, rows) in groups {
        let values: Result<Row> = aggregates
            .iter()
            .map(|call| aggregate::aggregate(call, &rows))
            .collect();
        if let Some(values) = without_row_error(values)? {
            results.push(key.into_iter().chain(values).collect());
        }
    }
    Ok(Relation {
        width: keys.len() + aggregates.len(),
        rows: results,
    })
}

/// Each row with the bounds of its session: from it, outwards to both sides, to the first time without another within
/// the gap.
fn sessions(input: Relation, partition: &[usize], column: usize, gap_us: i64) -> Result<Relation> {
    let mut times: BTreeMap<Row, Vec<i64>> = BTreeMap::new();
    let key = |row: &Row| -> Row { partition.iter().map(|column| row[*column].clone()).collect() };
    for row in &input.rows {
        match &row[column] {
            Value::Int(time) => times.entry(key(row)).or_default().push(*time),
            Value::Null => {}
            other => return Err(Trouble::Unknown(format!("the time {other}"))),
        }
    }
    let mut rows = Vec::new();
    for mut row in input.rows {
        let Value::Int(time) = row[column] else { continue };
        let others = &times[&key(&row)];
        let (mut first, mut last) = (time, time);
        while let Some(earlier) = others
            .iter()
            .find(|other| **other < first && **other > first - gap_us)
        {
            first = *earlier;
        }
        while let Some(later) = others
            .iter()
            .find(|other| **other > last && **other < last + gap_us)
        {
            last = *later;
        }
        row.extend([Value::Int(first), Value::Int(last + gap_us)]);
        rows.push(row);
    }
    Ok(Relation {
        width: input.width + 2,
        rows,
    })
}

fn in_order(a: &Row, b: &Row, keys: &[SortKey]) -> std::cmp::Ordering {
    for key in keys {
        let (x, y) = (&a[key.column], &b[key.column]);
        let order = match (x == &Value::Null, y == &Value::Null) {
            (true, true) => std::cmp::Ordering::Equal,
            (true, false) if key.nulls_first => std::cmp::Ordering::Less,
            (true, false) => std::cmp::Ordering::Greater,
            (false, true) if key.nulls_first => std::cmp::Ordering::Greater,
            (false, true) => std::cmp::Ordering::Less,
            (false, false) if key.descending => y.cmp(x),
            (false, false) => x.cmp(y),
        };
        if order.is_ne() {
            return order;
        }
    }
    a.cmp(b)
}

/// `None` for a row that SQL has no value for.
fn without_row_error<T>(value: Result<T>) -> Result<Option<T>> {
    match value {
        Ok(value) => Ok(Some(value)),
        Err(Trouble::Row(_)) => Ok(None),
        Err(unknown) => Err(unknown),
    }
}

#[cfg(test)]
mod tests;
