//! Partial aggregate: `slot(group) = partial(own rows of the group)`, deleted when there are none.
//!
//! Stateful: see [`crate::operators::groups`]. A group whose partial is the same before and after is not mentioned:
//! an update that leaves min and max alone costs no byte on the wire.
//!
//! Groups with fewer rows than a bound can be held back: they have no slot, and one that shrinks below it loses it. That
//! is a function of the rows alone, so a replay holds back the same ones.

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
use crate::state::{Builder, StateId, States};

#[derive(Debug)]
pub(crate) struct PartialAggregate {
    groups: GroupTable,
    /// A group with fewer rows has no slot; at least 1.
    rows_min: i64,
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
        Ok(Self { groups, rows_min: 1 })
    }

    /// Holds back groups with fewer rows. Comes before the first delta.
    pub(crate) fn set_rows_min(&mut self, rows_min: i64, states: &mut States) {
        self.rows_min = rows_min.max(1);
        states.groups_mut(self.state()).set_rows_min(self.rows_min);
    }

    /// The bound, see [`PartialAggregate::set_rows_min`].
    pub(crate) fn rows_min(&self) -> i64 {
        self.rows_min
    }

    /// Where the groups are kept.
    pub(crate) fn state(&self) -> StateId {
        self.groups.state()
    }

    pub(crate) fn eval(&self, states: &mut States, delta: &Delta) -> Option<SlotChanges> {
        let change = self.groups.eval(states, delta)?;
        let groups = change.after.rows.len();
        let (before, after) = (change.before.partials(), change.after.partials());
        let same = unchanged(&before, &after, groups);
        let lived: Vec<bool> = change
            .before
            .rows
            .iter()
            .map(|rows| *rows >= self.rows_min)
            .collect();
        let deleted: Vec<bool> = change
            .after
            .rows
            .iter()
            .map(|rows| *rows < self.rows_min)
            .collect();
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
