//! Top-k: `Δ(top R) = top(R + ΔR) - top(R)`, where top takes `fetch` rows after the first `skip` of each partition.
//!
//! Stateful: see [`crate::state::Ranked`]. Ties are broken by all columns, so the result is a function of the
//! contents. A row of weight 3 counts as three rows.

use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, SchemaRef};
use tributary_planner::plan::SortKey;
use tributary_storage::Delta;

use super::groups::key_types;
use super::{Relation, Step};
use crate::columns::schema_of;
use crate::error::Result;
use crate::state::{Builder, Ranked, Ranking, StateId};

#[derive(Debug)]
pub(crate) struct TopK {
    schema: SchemaRef,
    state: StateId,
    fetch: usize,
}

/// What a top-k asks for.
pub(crate) struct Asked<'a> {
    pub(crate) partition: &'a [usize],
    pub(crate) keys: &'a [SortKey],
    pub(crate) skip: usize,
    pub(crate) fetch: usize,
    pub(crate) rank: bool,
}

impl TopK {
    pub(crate) fn build(
        builder: &mut Builder,
        operator: &str,
        input: Relation,
        asked: Asked,
    ) -> Result<Self> {
        let sorted: Vec<usize> = asked.keys.iter().map(|key| key.column).collect();
        key_types(&sorted, input.types)?;
        key_types(asked.partition, input.types)?;
        let options = asked.keys.iter().map(|k| SortOptions {
            descending: k.descending,
            nulls_first: k.nulls_first,
        });
        let ranking = Ranking {
            partition: asked.partition.to_vec(),
            order: sorted.into_iter().zip(options).collect(),
            skip: asked.skip,
            fetch: asked.fetch,
            rank: asked.rank,
        };
        let mut types = input.types.to_vec();
        types.extend(asked.rank.then_some(DataType::Int64));
        let empty = Ranked::new(schema_of(input.types), ranking, input.append_only);
        let state = builder.ranked(operator, empty, input.placement)?;
        Ok(Self {
            schema: schema_of(&types),
            state,
            fetch: asked.fetch,
        })
    }

    /// The state that holds the operator's rows.
    pub(crate) fn state(&self) -> StateId {
        self.state
    }

    pub(crate) fn eval(&self, step: &mut Step, delta: &Delta) -> Delta {
        if delta.is_empty() || self.fetch == 0 {
            return Delta::empty(self.schema.clone());
        }
        step.states.ranked_mut(self.state).apply(delta, &self.schema)
    }
}
