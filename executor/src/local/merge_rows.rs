//! Row counting below a MergeRows boundary: `slot(row) = number of own occurrences of the row`, deleted at zero.
//!
//! Stateful: a group table by all columns. Here a key is a row's identity and not a value to be compared: -0.0 and
//! 0.0 are two rows, and intervals are welcome.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use tributary_replication::SlotChanges;
use tributary_storage::Delta;

use super::slot_changes;
use crate::error::Result;
use crate::operators::Relation;
use crate::operators::groups::GroupTable;
use crate::state::{Builder, States};

#[derive(Debug)]
pub(crate) struct CountRows {
    rows: GroupTable,
}

impl CountRows {
    pub(crate) fn build(builder: &mut Builder, input: Relation) -> Result<Self> {
        let operator = builder.next_operator("merge-rows");
        let columns: Vec<usize> = (0..input.types.len()).collect();
        Ok(Self {
            rows: GroupTable::build_by_identity(builder, &operator, input, &columns)?,
        })
    }

    pub(crate) fn eval(&self, states: &mut States, delta: &Delta) -> Option<SlotChanges> {
        let change = self.rows.eval(states, delta)?;
        let (before, after) = (&change.before.rows, &change.after.rows);
        let deleted: Vec<bool> = after.iter().map(|rows| *rows <= 0).collect();
        let changed = |group: &u32| {
            let group = *group as usize;
            before[group] != after[group] && !(before[group] <= 0 && deleted[group])
        };
        let changed = (0..after.len() as u32).filter(changed).collect();
        let counts: ArrayRef = Arc::new(Int64Array::from(after.clone()));
        slot_changes(&change.keys, &[counts], changed, &deleted)
    }
}
