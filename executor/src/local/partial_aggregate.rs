//! Partial aggregate: `slot(group) = partial(own rows of the group)`, deleted when there are none.
//!
//! Stateful: see [`crate::operators::groups`]. A group whose partial is the same before and after is not mentioned:
//! an update that leaves min and max alone costs no byte on the wire.

use arrow::array::ArrayRef;
use arrow::buffer::BooleanBuffer;
use arrow::compute::kernels::cmp::not_distinct;
use tributary_planner::plan::AggregateCall;
use tributary_replication::SlotChanges;
use tributary_storage::Delta;

use super::slot_changes;
use crate::error::Result;
use crate::operators::Relation;
use crate::operators::groups::GroupTable;
use crate::state::{Builder, States};

#[derive(Debug)]
pub(crate) struct PartialAggregate {
    groups: GroupTable,
}

impl PartialAggregate {
    pub(crate) fn build(
        builder: &mut Builder,
        input: Relation,
        keys: &[usize],
        calls: &[AggregateCall],
    ) -> Result<Self> {
        let operator = builder.next_operator("partial-aggregate");
        let groups = GroupTable::build(builder, &operator, input, keys, calls)?;
        Ok(Self { groups })
    }

    pub(crate) fn eval(&self, states: &mut States, delta: &Delta) -> Option<SlotChanges> {
        let change = self.groups.eval(states, delta)?;
        let groups = change.after.rows.len();
        let (before, after) = (change.before.partials(), change.after.partials());
        let same = unchanged(&before, &after, groups);
        let lived: Vec<bool> = change.before.rows.iter().map(|rows| *rows > 0).collect();
        let deleted: Vec<bool> = change.after.rows.iter().map(|rows| *rows <= 0).collect();
        let changed = |group: &u32| {
            let group = *group as usize;
            match (lived[group], deleted[group]) {
                (false, true) => false,
                (true, false) => !same.value(group),
                (false, false) | (true, true) => true,
            }
        };
        let changed = (0..groups as u32).filter(changed).collect();
        slot_changes(&change.keys, &after, changed, &deleted)
    }
}

/// Which rows are the same, bit by bit, in all columns: Arrow orders floats totally.
fn unchanged(before: &[ArrayRef], after: &[ArrayRef], rows: usize) -> BooleanBuffer {
    let columns = before.iter().zip(after);
    columns.fold(BooleanBuffer::new_set(rows), |same, (before, after)| {
        let equal = not_distinct(before, after).expect("partials have comparable types");
        &same & equal.values()
    })
}
