//! Merge appended rows: the union over origins of their numbered rows. Stateless: a slot that is new is a row that is
//! new, and none ever changes or goes.

use arrow::array::UInt32Array;
use arrow::datatypes::SchemaRef;
use tributary_replication::SlotDelta;
use tributary_storage::Delta;

use crate::columns::{batch_of, take_all};

pub(crate) struct MergeAppended {
    schema: SchemaRef,
}

impl MergeAppended {
    pub(crate) fn new(schema: SchemaRef) -> Self {
        Self { schema }
    }

    pub(crate) fn eval(&self, slots: Option<&SlotDelta>) -> Delta {
        let Some(slots) = slots.filter(|slots| slots.rows > 0) else {
            return Delta::empty(self.schema.clone());
        };
        let (before, after) = (&slots.before, &slots.after);
        let name = |slots: &tributary_replication::LiveSlots, i: usize| {
            (slots.probe.value(i), slots.origins.value(i))
        };
        let mut known = (0..before.probe.len()).map(|i| name(before, i)).peekable();
        let mut new = Vec::new();
        // Both sides ascend by key and origin.
        for slot in 0..after.probe.len() {
            let name = name(after, slot);
            while known.next_if(|other| *other < name).is_some() {}
            if known.next_if_eq(&name).is_none() {
                new.push(slot as u32);
            }
        }
        let rows = new.len();
        let columns = take_all(&after.partials, &UInt32Array::from(new));
        Delta::inserts(batch_of(self.schema.clone(), columns, rows))
    }
}
