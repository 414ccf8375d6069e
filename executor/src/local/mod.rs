//! The last operator of a local fragment: from changes of rows to new absolute values of slots.
//!
//! Both keep a group table over the region's own rows and say, for every group whose value changed, what it now is.
//! Never an increment: a receiver may miss any number of values but the newest.

mod append_rows;
mod merge_rows;
mod partial_aggregate;

use arrow::array::{ArrayRef, BooleanArray};
use arrow::compute::nullif;
use arrow::datatypes::DataType;
use tributary_planner::plan::Boundary;
use tributary_replication::{SlotChanges, SlotLayout};
use tributary_storage::Delta;

use crate::columns::take_all;
use crate::error::Result;
use crate::operators::Relation;
use crate::state::{Builder, States};
use append_rows::AppendRows;
use merge_rows::CountRows;
use partial_aggregate::PartialAggregate;

/// The end of a local fragment.
#[derive(Debug)]
pub(crate) enum LocalEnd {
    Partials(PartialAggregate),
    Rows(CountRows),
    Appended(AppendRows),
}

impl LocalEnd {
    pub(crate) fn build(builder: &mut Builder, boundary: &Boundary, input: Relation) -> Result<Self> {
        Ok(match boundary {
            Boundary::MergePartials { keys, aggregates } => {
                Self::Partials(PartialAggregate::build(builder, input, keys, aggregates)?)
            }
            Boundary::MergeRows => Self::Rows(CountRows::build(builder, input)?),
            Boundary::AppendRows => Self::Appended(AppendRows::build(builder)?),
        })
    }

    /// The new values of slots that changed; `None` when none did.
    pub(crate) fn eval(&self, states: &mut States, delta: &Delta) -> Option<SlotChanges> {
        match self {
            Self::Partials(partials) => partials.eval(states, delta),
            Self::Rows(rows) => rows.eval(states, delta),
            Self::Appended(rows) => rows.eval(states, delta),
        }
    }
}

/// The columns of a fragment's slots.
pub(crate) fn slot_layout(boundary: &Boundary, input: &[DataType]) -> SlotLayout {
    match boundary {
        Boundary::MergePartials { keys, aggregates } => SlotLayout {
            key_types: keys.iter().map(|key| input[*key].clone()).collect(),
            partial_types: crate::operators::groups::partial_columns(aggregates).0,
        },
        Boundary::MergeRows => SlotLayout {
            key_types: input.to_vec(),
            partial_types: vec![DataType::Int64],
        },
        Boundary::AppendRows => SlotLayout {
            key_types: vec![DataType::Int64],
            partial_types: input.to_vec(),
        },
    }
}

/// The changes of the groups at `changed`, of which those in `deleted` (one entry per group) have no rows left.
fn slot_changes(
    keys: &[ArrayRef],
    partials: &[ArrayRef],
    changed: Vec<u32>,
    deleted: &[bool],
) -> Option<SlotChanges> {
    if changed.is_empty() {
        return None;
    }
    let deleted: BooleanArray = changed
        .iter()
        .map(|group| Some(deleted[*group as usize]))
        .collect();
    let changed = changed.into();
    let partials = take_all(partials, &changed);
    let partials = partials
        .iter()
        .map(|p| nullif(p, &deleted).expect("one mark per change"))
        .collect();
    Some(SlotChanges {
        rows: changed.len(),
        keys: take_all(keys, &changed),
        deleted,
        partials,
    })
}
