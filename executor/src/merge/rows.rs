//! Merge rows: `weight(row) = Σ over origins of slot(row, origin)`.
//!
//! Stateless and linear in the number of occurrences: the change is the sum after less the sum before.

use arrow::array::{BooleanArray, Int64Array};
use arrow::datatypes::SchemaRef;
use tributary_replication::{LiveSlots, SlotDelta};
use tributary_storage::Delta;

use crate::aggregates::Damaged;
use crate::aggregates::count::Counts;
use crate::columns::batch_of;
use crate::row_errors::ErrorSink;

pub(crate) struct MergeRows {
    operator: String,
    schema: SchemaRef,
}

impl MergeRows {
    pub(crate) fn new(operator: String, schema: SchemaRef) -> Self {
        Self { operator, schema }
    }

    pub(crate) fn eval(&self, slots: Option<&SlotDelta>, errors: &mut ErrorSink) -> Delta {
        let Some(slots) = slots.filter(|slots| slots.rows > 0) else {
            return Delta::empty(self.schema.clone());
        };
        let rows = batch_of(self.schema.clone(), slots.keys.clone(), slots.rows);
        let mut total = |slots_then: &LiveSlots, weight: i64| {
            let (mut counts, mut damaged) = (Counts::new(slots.rows), Damaged::default());
            counts.add_partials(slots_then.probe.values(), &slots_then.partials[0], &mut damaged);
            for group in damaged.groups() {
                counts.0[group] = 0;
                errors.push(&self.operator, "a row count is damaged", &rows, group, weight);
            }
            counts.0
        };
        let (before, after) = (total(&slots.before, -1), total(&slots.after, 1));
        let weights: Vec<i64> = after
            .iter()
            .zip(&before)
            .map(|(a, b)| a.wrapping_sub(*b))
            .collect();
        let changed: BooleanArray = weights.iter().map(|weight| Some(*weight != 0)).collect();
        Delta::new(rows.clone(), Some(Int64Array::from(weights))).filter(&changed)
    }
}
