//! Unique join: an inner join whose sides have at most one row per key, as aggregates of the same keys have.
//!
//! `Δ = new pairs - old pairs`, over the keys in ΔL and ΔR alone: a key whose rows change on both sides gives one pair
//! less and one more, where the general join would give every mixture of old and new, most of which cancel.
//!
//! Stateful: see [`crate::state::Paired`]. Null keys are equal.

use arrow::array::Int64Array;
use arrow::datatypes::{DataType, SchemaRef};
use tributary_storage::Delta;

use super::groups::key_types;
use super::{Relation, Step};
use crate::columns::{batch_of, schema_of};
use crate::error::{ExecutorError, Result};
use crate::state::{Builder, Of, Paired, StateId};

#[derive(Debug)]
pub(crate) struct UniqueJoin {
    schema: SchemaRef,
    state: StateId,
}

impl UniqueJoin {
    pub(crate) fn build(
        builder: &mut Builder,
        operator: &str,
        inputs: (Relation, Relation),
        on: &[(usize, usize)],
    ) -> Result<Self> {
        let (left_key, right_key): (Vec<usize>, Vec<usize>) = on.iter().copied().unzip();
        let keys = key_types(&left_key, inputs.0.types)?;
        if keys != key_types(&right_key, inputs.1.types)? {
            return Err(ExecutorError::Plan(
                "a join compares columns of two types".to_string(),
            ));
        }
        inputs.0.placement.among(&left_key)?;
        inputs.1.placement.among(&right_key)?;
        let types: Vec<DataType> = [inputs.0.types, inputs.1.types].concat();
        let empty = Paired::new(
            &keys,
            (schema_of(inputs.0.types), &left_key),
            (schema_of(inputs.1.types), &right_key),
        );
        let state = builder.paired(operator, empty, (inputs.0.placement, inputs.1.placement))?;
        Ok(Self {
            schema: schema_of(&types),
            state,
        })
    }

    pub(crate) fn eval(&self, step: &mut Step, left: &Delta, right: &Delta) -> Delta {
        if left.is_empty() && right.is_empty() {
            return Delta::empty(self.schema.clone());
        }
        let state = step.states.paired_mut(self.state);
        let mut touched: Vec<u32> = Vec::new();
        let mut changes = Vec::with_capacity(2);
        for (of, delta) in [(Of::Left, left), (Of::Right, right)] {
            let (delta, keys) = settled(state, of, delta);
            touched.extend(&keys);
            changes.push((of, delta, keys));
        }
        touched.sort_unstable();
        touched.dedup();
        let pair = |state: &Paired, key: u32| Some((state.row(Of::Left, key)?, state.row(Of::Right, key)?));
        let before: Vec<Option<(u32, u32)>> = touched.iter().map(|key| pair(state, *key)).collect();
        for (of, delta, keys) in &changes {
            state.apply(*of, delta, keys);
        }
        let (mut rows, mut weights) = ((Vec::new(), Vec::new()), Vec::new());
        for (key, before) in touched.iter().zip(before) {
            let after = pair(state, *key);
            if before == after {
                continue;
            }
            for ((left, right), weight) in before
                .map(|pair| (pair, -1))
                .into_iter()
                .chain(after.map(|pair| (pair, 1)))
            {
                rows.0.push(left);
                rows.1.push(right);
                weights.push(weight);
            }
        }
        let mut columns = state.take(Of::Left, &rows.0);
        columns.extend(state.take(Of::Right, &rows.1));
        state.compact_if_due();
        let joined = batch_of(self.schema.clone(), columns, weights.len());
        let goes = weights.iter().any(|weight| *weight != 1);
        Delta::new(joined, goes.then(|| Int64Array::from(weights)))
    }
}

/// A side's changes with each key at most once with each sign, and the keys' numbers.
fn settled(state: &mut Paired, of: Of, delta: &Delta) -> (Delta, Vec<u32>) {
    let keys = state.keys_of(of, delta.rows());
    let (mut gone, mut come) = (Vec::new(), Vec::new());
    for (row, key) in keys.iter().enumerate() {
        match delta.weight(row) {
            1 => come.push(*key),
            -1 => gone.push(*key),
            _ => gone.extend([*key, *key]),
        }
    }
    let is_distinct = |keys: &mut Vec<u32>| {
        keys.sort_unstable();
        keys.windows(2).all(|pair| pair[0] != pair[1])
    };
    if is_distinct(&mut gone) && is_distinct(&mut come) {
        return (delta.clone(), keys);
    }
    let delta = delta.consolidated();
    let keys = state.keys_of(of, delta.rows());
    (delta, keys)
}
