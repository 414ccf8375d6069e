//! Distinct: `Δ(δR) = δ(R + ΔR) - δR`, where δ gives every row of positive weight the weight 1.
//!
//! Stateful: the number of occurrences of each row. It is an aggregate by all columns without aggregates.

use tributary_storage::Delta;

use super::aggregate::Aggregate;
use super::{Relation, Step};
use crate::error::Result;
use crate::state::Builder;

#[derive(Debug)]
pub(crate) struct Distinct {
    rows: Aggregate,
}

impl Distinct {
    pub(crate) fn build(builder: &mut Builder, operator: String, input: Relation) -> Result<Self> {
        let keys: Vec<usize> = (0..input.types.len()).collect();
        Ok(Self {
            rows: Aggregate::build(builder, operator, input, &keys, &[])?,
        })
    }

    pub(crate) fn eval(&self, step: &mut Step, delta: &Delta) -> Delta {
        self.rows.eval(step, delta)
    }
}
