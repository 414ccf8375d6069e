//! Numbering below an AppendRows boundary: `slot(n) = the n-th row`. A slot is written once and never again.
//!
//! Stateful: the number of rows so far, kept as the one group of a group state. The order of the rows is that of the
//! records they came in, since everything below is linear; so a replay numbers them alike, however it groups records.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array};
use arrow::buffer::BooleanBuffer;
use tributary_replication::SlotChanges;
use tributary_storage::Delta;

use crate::error::Result;
use crate::placement::Placement;
use crate::state::{Builder, GroupState, StateId, States};

#[derive(Debug)]
pub(crate) struct AppendRows {
    counter: StateId,
}

impl AppendRows {
    pub(crate) fn build(builder: &mut Builder) -> Result<Self> {
        let operator = builder.next_operator("append-rows");
        Ok(Self {
            counter: builder.groups(
                &operator,
                GroupState::new(Vec::new(), &[], Vec::new()),
                &Placement::One,
            )?,
        })
    }

    pub(crate) fn eval(&self, states: &mut States, delta: &Delta) -> Option<SlotChanges> {
        if delta.is_empty() {
            return None;
        }
        assert!(delta.weights().is_none(), "rows below this boundary never go");
        let counter = states.groups_mut(self.counter);
        let groups = counter.groups_of(&[], delta.len());
        counter.distinct(&groups);
        let first = counter.gather(&[0]).rows[0];
        counter.count_rows(&groups, None);
        let rows = delta.len();
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(first..first + rows as i64));
        Some(SlotChanges {
            rows,
            keys: vec![numbers],
            deleted: BooleanArray::new(BooleanBuffer::new_unset(rows), None),
            partials: delta.rows().columns().to_vec(),
        })
    }
}
