//! Aggregate over rows that every region holds: `Δ(γR) = γ(R + ΔR) - γR`, for the groups in ΔR alone.
//!
//! Stateful: see [`super::groups`]. Without keys there is exactly one row, also over no input.

use arrow::datatypes::DataType;
use tributary_planner::plan::AggregateCall;
use tributary_storage::Delta;

use super::groups::GroupTable;
use super::{Relation, Step};
use crate::aggregates::finalise::Finaliser;
use crate::columns::schema_of;
use crate::error::Result;
use crate::state::Builder;

#[derive(Debug)]
pub(crate) struct Aggregate {
    groups: GroupTable,
    finaliser: Finaliser,
}

impl Aggregate {
    pub(crate) fn build(
        builder: &mut Builder,
        operator: String,
        input: Relation,
        keys: &[usize],
        calls: &[AggregateCall],
    ) -> Result<Self> {
        let groups = GroupTable::build(builder, &operator, input, keys, calls)?;
        let mut types: Vec<DataType> = keys.iter().map(|key| input.types[*key].clone()).collect();
        types.extend(calls.iter().map(|call| call.output_type.clone()));
        // DISTINCT over a relation without columns is the one exception: it groups, by nothing, what is there.
        let keyed = !keys.is_empty() || calls.is_empty();
        let finaliser = Finaliser {
            operator,
            keyed,
            calls: calls.to_vec(),
            schema: schema_of(&types),
        };
        Ok(Self { groups, finaliser })
    }

    /// The types of the result.
    pub(crate) fn types(&self) -> Vec<DataType> {
        crate::columns::types_of(&self.finaliser.schema)
    }

    pub(crate) fn eval(&self, step: &mut Step, delta: &Delta) -> Delta {
        let initial = match step.initial {
            true => self.finaliser.initial(step.errors),
            false => Delta::empty(self.finaliser.schema.clone()),
        };
        match self.groups.eval(step.states, delta) {
            None => initial,
            Some(change) => {
                let changed = self
                    .finaliser
                    .change(&change.keys, &change.before, &change.after, step.errors);
                Delta::concat(self.finaliser.schema.clone(), &[initial, changed])
            }
        }
    }
}
