//! Join: `Δ(L ⋈ R) = ΔL ⋈ R + (L + ΔL) ⋈ ΔR`, and for a left join also the change of the rows of L that match
//! nothing: `pad(ΔL, R) + pad(L + ΔL, R + ΔR) - pad(L + ΔL, R)`, the latter for the keys in ΔR alone.
//!
//! Stateful: both sides, by join key. Null keys match nothing and are not kept; a left join passes such left rows
//! on, padded. The further condition takes part in matching: a left row whose every candidate fails it is padded.
//! A pair on which the condition errs is an error entry and does not match.

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch};
use arrow::compute::{and, is_not_null, not};
use arrow::datatypes::{DataType, SchemaRef};
use tributary_planner::plan::{Expr, JoinKind};
use tributary_storage::{Delta, KeyEncoder, Layout, Trace};

use super::Step;
use super::filter::compile_predicate;
use super::groups::{Grouping, key_types};
use crate::canonical::KeyColumns;
use crate::columns::{batch_of, nulls, schema_of, take_all};
use crate::error::{ExecutorError, Result};
use crate::expr::Evaluator;
use crate::row_errors::ErrorSink;
use crate::state::{Builder, StateId, States};

#[derive(Debug)]
pub(crate) struct Join {
    operator: String,
    kind: JoinKind,
    left: Side,
    right: Side,
    filter: Option<Evaluator>,
    encoder: KeyEncoder,
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
    /// For each pair the weight of its right row.
    right_weights: Vec<i64>,
}

impl Join {
    pub(crate) fn build(
        builder: &mut Builder,
        operator: String,
        kind: JoinKind,
        inputs: (&[DataType], &[DataType]),
        on: &[(usize, usize)],
        filter: Option<&Expr>,
    ) -> Result<Self> {
        if on.is_empty() {
            return Err(ExecutorError::Plan("a join without an equality".to_string()));
        }
        let (left_key, right_key): (Vec<usize>, Vec<usize>) = on.iter().copied().unzip();
        let keys = key_types(&left_key, inputs.0)?;
        if keys != key_types(&right_key, inputs.1)? {
            return Err(ExecutorError::Plan(
                "a join compares columns of two types".to_string(),
            ));
        }
        let left = Side::build(builder, &operator, "left", inputs.0, &left_key)?;
        let right = Side::build(builder, &operator, "right", inputs.1, &right_key)?;
        let types = [inputs.0, inputs.1].concat();
        let filter = filter
            .map(|filter| compile_predicate(filter, &types))
            .transpose()?;
        let encoder = KeyEncoder::new(&keys);
        Ok(Self {
            operator,
            kind,
            left,
            right,
            filter,
            encoder,
            schema: schema_of(&types),
        })
    }

    pub(crate) fn eval(&self, step: &mut Step, left: &Delta, right: &Delta) -> Delta {
        if left.is_empty() && right.is_empty() {
            return Delta::empty(self.schema.clone());
        }
        let (left, unmatchable) = self.left.split(left);
        let (right, _) = self.right.split(right);
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
        let found = step.states[self.right.state].lookup(&self.left.keys(left.rows()), left.len());
        let left_rows = left.take(&found.probe);
        let probe = found.probe.values();
        let pairs = self.pairs(
            &left_rows,
            &Delta::new(found.rows, Some(found.weights)),
            probe,
            Some(&mut *step.errors),
        );
        if self.kind == JoinKind::Left {
            let unmatched: Vec<bool> = matches_of(&pairs, left.len()).iter().map(|n| *n <= 0).collect();
            parts.push(self.padded(&left.filter(&BooleanArray::from(unmatched))));
        }
        parts.push(pairs.joined);
        step.states[self.left.state].apply(left);
    }

    /// `L ⋈ ΔR`, and the left rows that begin or cease to match; R takes ΔR.
    fn right_change(&self, step: &mut Step, right: &Delta, parts: &mut Vec<Delta>) {
        let keys = self.right.keys(right.rows());
        let found = step.states[self.left.state].lookup(&keys, right.len());
        let right_rows = right.take(&found.probe);
        let left_rows = Delta::new(found.rows, Some(found.weights));
        let probe = found.probe.values();
        parts.push(
            self.pairs(&left_rows, &right_rows, probe, Some(&mut *step.errors))
                .joined,
        );
        if self.kind == JoinKind::Inner {
            step.states[self.right.state].apply(right);
            return;
        }
        let grouping = Grouping::new(&self.encoder.encode_rows(&keys, right.len()));
        let keys = take_all(&keys, &grouping.first);
        let found = step.states[self.left.state].lookup(&keys, grouping.len());
        let affected = Delta::new(found.rows, Some(found.weights));
        let before = self.matches(step.states, &affected);
        step.states[self.right.state].apply(right);
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

    /// For each left row the number of rows of R that match it.
    fn matches(&self, states: &States, left: &Delta) -> Vec<i64> {
        let keys = self.left.keys(left.rows());
        if self.filter.is_some() {
            let found = states[self.right.state].lookup(&keys, left.len());
            let right = Delta::new(found.rows, Some(found.weights));
            let pairs = self.pairs(&left.take(&found.probe), &right, found.probe.values(), None);
            return matches_of(&pairs, left.len());
        }
        // Without a condition rows of one key match alike, and each key is looked up once.
        let grouping = Grouping::new(&self.encoder.encode_rows(&keys, left.len()));
        let found = states[self.right.state].lookup(&take_all(&keys, &grouping.first), grouping.len());
        let mut counts = vec![0i64; grouping.len()];
        for (group, weight) in found.probe.values().iter().zip(found.weights.values()) {
            counts[*group as usize] += weight;
        }
        grouping
            .groups
            .iter()
            .map(|group| counts[*group as usize])
            .collect()
    }

    /// Joins rows side by side and applies the condition. Errors are recorded where `errors` is given: the same
    /// pairs are also looked at to count matches, which must not count their errors twice.
    fn pairs(
        &self,
        left: &Delta,
        right: &Delta,
        left_index: &[u32],
        errors: Option<&mut ErrorSink>,
    ) -> Pairs {
        let (left_weights, right_weights) = (left.weights_or_ones(), right.weights_or_ones());
        let products = left_weights.values().iter().zip(right_weights.values());
        let products = products.map(|(l, r)| {
            l.checked_mul(*r)
                .expect("a join has far fewer than 2^63 rows of one kind")
        });
        let weights = Int64Array::from_iter_values(products);
        let rows = self.side_by_side(left.rows(), self.right.columns.own(right.rows()).columns());
        let joined = Delta::new(rows, Some(weights));
        let indices = || left_index.to_vec();
        let Some(filter) = &self.filter else {
            return Pairs {
                joined,
                left: indices(),
                right_weights: right_weights.values().to_vec(),
            };
        };
        let (keep, failed) = filter.holds(joined.rows());
        if let Some(errors) = errors {
            for (row, message) in failed {
                let row = row as usize;
                errors.push(&self.operator, &message, joined.rows(), row, joined.weight(row));
            }
        }
        let kept = |row: &usize| keep.value(*row);
        Pairs {
            left: (0..joined.len())
                .filter(kept)
                .map(|row| left_index[row])
                .collect(),
            right_weights: (0..joined.len())
                .filter(kept)
                .map(|row| right_weights.value(row))
                .collect(),
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

impl Side {
    fn build(
        builder: &mut Builder,
        operator: &str,
        role: &str,
        types: &[DataType],
        key: &[usize],
    ) -> Result<Self> {
        let columns = KeyColumns::new(types, key);
        let layout = Layout::keyed(columns.schema.clone(), columns.key.clone());
        let state = builder.trace(operator, role, layout)?;
        Ok(Self {
            columns,
            types: types.to_vec(),
            state,
        })
    }

    /// The extended rows whose key has no null, and the others.
    fn split(&self, delta: &Delta) -> (Delta, Delta) {
        let extended = delta.with_rows(self.columns.extend(delta.rows()));
        let keys = self.columns.keys(extended.rows());
        if keys.iter().all(|key| key.null_count() == 0) {
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
}

/// For each of `rows` left rows the sum of the weights of its matches.
fn matches_of(pairs: &Pairs, rows: usize) -> Vec<i64> {
    let mut matches = vec![0; rows];
    for (row, weight) in pairs.left.iter().zip(&pairs.right_weights) {
        matches[*row as usize] += weight;
    }
    matches
}
