//! Join: `Δ(L ⋈ R) = ΔL ⋈ R + (L + ΔL) ⋈ ΔR`, and for a left join also the change of the rows of L that match
//! nothing: `pad(ΔL, R) + pad(L + ΔL, R + ΔR) - pad(L + ΔL, R)`, the latter for the keys in ΔR alone.
//!
//! Stateful: both sides, by join key, see [`crate::state::JoinSide`]. Null keys match nothing and are not kept, unless
//! the join is null-safe; a left join passes such left rows on, padded. The further condition takes part in matching: a left row whose every candidate fails it is padded.
//! A pair on which the condition errs is an error entry and does not match.

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{and, is_not_null, not};
use arrow::datatypes::{DataType, SchemaRef};
use tributary_planner::plan::{Expr, JoinKind};
use tributary_storage::{Delta, KeyIndex};

use super::filter::compile_predicate;
use super::groups::key_types;
use super::{Relation, Step};
use crate::canonical::KeyColumns;
use crate::columns::{batch_of, nulls, schema_of};
use crate::error::{ExecutorError, Result};
use crate::expr::Evaluator;
use crate::row_errors::ErrorSink;
use crate::state::{Builder, JoinSide, Matches, StateId, States};

#[derive(Debug)]
pub(crate) struct Join {
    operator: String,
    kind: JoinKind,
    left: Side,
    right: Side,
    filter: Option<Evaluator>,
    keys: Vec<DataType>,
    null_safe: bool,
    schema: SchemaRef,
}

/// One input: its columns, its key, its rows.
#[derive(Debug)]
struct Side {
    columns: KeyColumns,
    types: Vec<DataType>,
    state: StateId,
}

/// Candidate pairs that passed the condition.
struct Pairs {
    joined: Delta,
    /// For each pair the index of its left row among those joined.
    left: Vec<u32>,
    /// For each pair the weight of its right row; `None` when each is 1.
    right_weights: Option<Vec<i64>>,
}

impl Join {
    pub(crate) fn build(
        builder: &mut Builder,
        operator: String,
        (kind, null_safe): (JoinKind, bool),
        inputs: (Relation, Relation),
        on: &[(usize, usize)],
        filter: Option<&Expr>,
    ) -> Result<Self> {
        if on.is_empty() {
            return Err(ExecutorError::Plan("a join without an equality".to_string()));
        }
        let (left_key, right_key): (Vec<usize>, Vec<usize>) = on.iter().copied().unzip();
        let keys = key_types(&left_key, inputs.0.types)?;
        if keys != key_types(&right_key, inputs.1.types)? {
            return Err(ExecutorError::Plan(
                "a join compares columns of two types".to_string(),
            ));
        }
        inputs.0.placement.among(&left_key)?;
        inputs.1.placement.among(&right_key)?;
        let left = Side::build(builder, &operator, "left", inputs.0, &left_key)?;
        let right = Side::build(builder, &operator, "right", inputs.1, &right_key)?;
        let types = [inputs.0.types, inputs.1.types].concat();
        let filter = filter
            .map(|filter| compile_predicate(filter, &types))
            .transpose()?;
        Ok(Self {
            operator,
            kind,
            left,
            right,
            filter,
            keys,
            null_safe,
            schema: schema_of(&types),
        })
    }

    pub(crate) fn eval(&self, step: &mut Step, left: &Delta, right: &Delta) -> Delta {
        if left.is_empty() && right.is_empty() {
            return Delta::empty(self.schema.clone());
        }
        let (left, unmatchable) = self.left.split(left, self.null_safe);
        let (right, _) = self.right.split(right, self.null_safe);
        let mut parts = Vec::new();
        if self.kind == JoinKind::Left {
            parts.push(self.padded(&unmatchable));
        }
        if !left.is_empty() {
            self.left_change(step, &left, &mut parts);
        }
        if !right.is_empty() {
            self.right_change(step, &right, &mut parts);
        }
        Delta::concat(self.schema.clone(), &parts)
    }

    /// `ΔL ⋈ R`, and the padded rows of ΔL; then L takes ΔL.
    fn left_change(&self, step: &mut Step, left: &Delta, parts: &mut Vec<Delta>) {
        let found = self
            .right
            .lookup(step.states, &self.left.keys(left.rows()), left.len());
        let pairs = self.pairs(&left.take(&found.probe), &found, Some(&mut *step.errors));
        if self.kind == JoinKind::Left {
            let unmatched: Vec<bool> = matches_of(&pairs, left.len()).iter().map(|n| *n <= 0).collect();
            parts.push(self.padded(&left.filter(&BooleanArray::from(unmatched))));
        }
        parts.push(pairs.joined);
        step.states.side_mut(self.left.state).apply(left);
    }

    /// `L ⋈ ΔR`, and the left rows that begin or cease to match; R takes ΔR.
    fn right_change(&self, step: &mut Step, right: &Delta, parts: &mut Vec<Delta>) {
        let keys = self.right.keys(right.rows());
        let found = self.left.lookup(step.states, &keys, right.len());
        let right_rows = Found {
            rows: right.take(&found.probe),
            probe: found.probe.clone(),
        };
        parts.push(
            self.pairs(&found.rows, &right_rows, Some(&mut *step.errors))
                .joined,
        );
        if self.kind == JoinKind::Inner {
            step.states.side_mut(self.right.state).apply(right);
            return;
        }
        let (keys, count) = self.distinct_keys(&keys, right.len());
        let affected = self.left.lookup(step.states, &keys, count).rows;
        let before = self.matches(step.states, &affected);
        step.states.side_mut(self.right.state).apply(right);
        let after = self.matches(step.states, &affected);
        let flips = |was_padded: bool| {
            let pairs = before.iter().zip(&after);
            let flip = pairs.map(|(b, a)| {
                if was_padded {
                    *b <= 0 && *a > 0
                } else {
                    *b > 0 && *a <= 0
                }
            });
            self.padded(&affected.filter(&BooleanArray::from(flip.collect::<Vec<bool>>())))
        };
        parts.push(flips(true).negated());
        parts.push(flips(false));
    }

    /// Each key once, and how many there are.
    fn distinct_keys(&self, keys: &[ArrayRef], rows: usize) -> (Vec<ArrayRef>, usize) {
        let mut index = KeyIndex::new(&self.keys);
        index.insert(keys, rows);
        let all: Vec<u32> = (0..index.len() as u32).collect();
        (index.columns(&all), all.len())
    }

    /// For each left row the number of rows of R that match it.
    fn matches(&self, states: &States, left: &Delta) -> Vec<i64> {
        let keys = self.left.keys(left.rows());
        if self.filter.is_some() {
            let found = self.right.lookup(states, &keys, left.len());
            let pairs = self.pairs(&left.take(&found.probe), &found, None);
            return matches_of(&pairs, left.len());
        }
        // Without a condition rows of one key match alike, and each key is looked up once.
        let mut index = KeyIndex::new(&self.keys);
        let groups = index.insert(&keys, left.len());
        let all: Vec<u32> = (0..index.len() as u32).collect();
        let found = self.right.lookup(states, &index.columns(&all), all.len());
        let mut counts = vec![0i64; all.len()];
        for (row, group) in found.probe.values().iter().enumerate() {
            counts[*group as usize] += found.rows.weight(row);
        }
        groups.iter().map(|group| counts[*group as usize]).collect()
    }

    /// Joins rows side by side and applies the condition. Errors are recorded where `errors` is given: the same
    /// pairs are also looked at to count matches, which must not count their errors twice.
    fn pairs(&self, left: &Delta, right: &Found, errors: Option<&mut ErrorSink>) -> Pairs {
        let weights = products(left, &right.rows);
        let rows = self.side_by_side(left.rows(), self.right.columns.own(right.rows.rows()).columns());
        let joined = Delta::new(rows, weights);
        let right_weights = |kept: &mut dyn Iterator<Item = usize>| {
            let weights = right.rows.weights()?.values();
            Some(kept.map(|row| weights[row]).collect())
        };
        let Some(filter) = &self.filter else {
            return Pairs {
                left: right.probe.values().to_vec(),
                right_weights: right_weights(&mut (0..joined.len())),
                joined,
            };
        };
        let (keep, failed) = filter.holds(joined.rows());
        if let Some(errors) = errors {
            for (row, message) in failed {
                let row = row as usize;
                errors.push(&self.operator, &message, joined.rows(), row, joined.weight(row));
            }
        }
        Pairs {
            left: keep
                .values()
                .set_indices()
                .map(|row| right.probe.value(row))
                .collect(),
            right_weights: right_weights(&mut keep.values().set_indices()),
            joined: joined.filter(&keep),
        }
    }

    /// Left rows with nulls on the right.
    fn padded(&self, left: &Delta) -> Delta {
        left.with_rows(self.side_by_side(left.rows(), &nulls(&self.right.types, left.len())))
    }

    fn side_by_side(&self, left: &RecordBatch, right: &[ArrayRef]) -> RecordBatch {
        let rows = left.num_rows();
        let mut columns = self.left.columns.own(left).columns().to_vec();
        columns.extend_from_slice(right);
        batch_of(self.schema.clone(), columns, rows)
    }
}

/// Rows of one side, each with the index of what it was found for.
struct Found {
    rows: Delta,
    probe: UInt32Array,
}

/// The weights of pairs; `None` when each is 1.
fn products(left: &Delta, right: &Delta) -> Option<Int64Array> {
    if left.weights().is_none() && right.weights().is_none() {
        return None;
    }
    let products = (0..left.len()).map(|row| {
        left.weight(row)
            .checked_mul(right.weight(row))
            .expect("a join has far fewer than 2^63 rows of one kind")
    });
    Some(Int64Array::from_iter_values(products))
}

impl Side {
    fn build(
        builder: &mut Builder,
        operator: &str,
        role: &str,
        input: Relation,
        key: &[usize],
    ) -> Result<Self> {
        let columns = KeyColumns::new(input.types, key);
        let empty = JoinSide::new(columns.schema.clone(), &columns.key, input.append_only);
        let state = builder.side(operator, role, empty, input.placement)?;
        Ok(Self {
            columns,
            types: input.types.to_vec(),
            state,
        })
    }

    /// The extended rows whose key can match, and the others.
    fn split(&self, delta: &Delta, null_safe: bool) -> (Delta, Delta) {
        let extended = delta.with_rows(self.columns.extend(delta.rows()));
        let keys = self.columns.keys(extended.rows());
        if null_safe || keys.iter().all(|key| key.null_count() == 0) {
            let none = Delta::empty(extended.schema());
            return (extended, none);
        }
        let known = keys
            .iter()
            .map(|key| is_not_null(key).expect("any array has a null mask"));
        let known = known
            .reduce(|a, b| and(&a, &b).expect("masks of one batch"))
            .expect("a join has at least one key column");
        let unknown = not(&known).expect("a mask can be negated");
        (extended.filter(&known), extended.filter(&unknown))
    }

    fn keys(&self, extended: &RecordBatch) -> Vec<ArrayRef> {
        self.columns.keys(extended)
    }

    /// The rows of this side with each of the keys.
    fn lookup(&self, states: &States, keys: &[ArrayRef], rows: usize) -> Found {
        let side = states.side(self.state);
        let matches: Matches = side.lookup(keys, rows);
        Found {
            rows: Delta::new(side.rows(&matches), side.weights(&matches)),
            probe: UInt32Array::from(matches.probe),
        }
    }
}

/// For each of `rows` left rows the sum of the weights of its matches.
fn matches_of(pairs: &Pairs, rows: usize) -> Vec<i64> {
    let mut matches = vec![0; rows];
    for (pair, row) in pairs.left.iter().enumerate() {
        matches[*row as usize] += pairs.right_weights.as_ref().map_or(1, |weights| weights[pair]);
    }
    matches
}
