//! Merge partials: `row(group) = finalise(Σ over origins of slot(group, origin))`.
//!
//! Stateless. Merging partials is commutative, so every region that holds the same slots has the same rows. Results
//! are range-checked here and only here: a partial may be beyond what its result type holds.

use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use tributary_planner::plan::AggregateCall;
use tributary_replication::{LiveSlots, SlotDelta};
use tributary_storage::{Delta, Layout, RunTrace, Trace};

use crate::aggregates::finalise::Finaliser;
use crate::columns::{batch_of, schema_of};
use crate::operators::groups::{Groups, partial_columns};
use crate::row_errors::ErrorSink;

pub(crate) struct MergePartials {
    keys: Vec<DataType>,
    finaliser: Finaliser,
    ranges: Vec<std::ops::Range<usize>>,
    adding: Option<Remembered>,
}

/// What the defect of merging by adding remembers: the merged partials that it last made.
struct Remembered {
    trace: RunTrace,
}

impl MergePartials {
    pub(crate) fn new(operator: String, keys: Vec<DataType>, calls: &[AggregateCall]) -> Self {
        let mut types = keys.clone();
        types.extend(calls.iter().map(|call| call.output_type.clone()));
        let keyed = !keys.is_empty() || calls.is_empty();
        let (_, ranges) = partial_columns(calls);
        let finaliser = Finaliser {
            operator,
            keyed,
            calls: calls.to_vec(),
            schema: schema_of(&types),
        };
        Self {
            keys,
            finaliser,
            ranges,
            adding: None,
        }
    }

    pub(crate) fn eval(&mut self, slots: Option<&SlotDelta>, initial: bool, errors: &mut ErrorSink) -> Delta {
        let initial = match initial {
            true => self.finaliser.initial(errors),
            false => Delta::empty(self.finaliser.schema.clone()),
        };
        let Some(slots) = slots.filter(|slots| slots.rows > 0) else {
            return initial;
        };
        let mut before = self.merged(slots.rows, &slots.before);
        let mut after = self.merged(slots.rows, &slots.after);
        if self.adding.is_some() {
            self.add_to_remembered(slots, &mut before, &mut after);
        }
        let changed = self.finaliser.change(&slots.keys, &before, &after, errors);
        Delta::concat(self.finaliser.schema.clone(), &[initial, changed])
    }

    /// Switches the named defect on or off: a new partial is then added to the merged value instead of replacing
    /// the old one of its origin. Only tests do this, to see that their checks catch double counting.
    pub(crate) fn set_merge_by_adding(&mut self, on: bool) {
        self.adding = on.then(|| {
            let mut types = self.keys.clone();
            types.push(DataType::Int64);
            types.extend(partial_columns(&self.finaliser.calls).0);
            let layout = Layout::keyed(schema_of(&types), (0..self.keys.len()).collect());
            Remembered {
                trace: RunTrace::new(layout),
            }
        });
    }

    /// The sum of the slots of each key.
    fn merged(&self, groups: usize, slots: &LiveSlots) -> Groups {
        let mut merged = Groups::empty(&self.finaliser.calls, groups);
        let probe = slots.probe.values();
        probe.iter().for_each(|group| merged.rows[*group as usize] += 1);
        for (accumulator, range) in merged.accumulators.iter_mut().zip(&self.ranges) {
            accumulator.add_partials(probe, &slots.partials[range.clone()], &mut merged.damaged);
        }
        merged
    }

    fn add_to_remembered(&mut self, slots: &SlotDelta, before: &mut Groups, after: &mut Groups) {
        let Some(remembered) = &mut self.adding else {
            return;
        };
        let schema = remembered.trace.layout().schema.clone();
        let found = remembered.trace.lookup(&slots.keys, slots.rows);
        let partials = &found.rows.columns()[self.keys.len() + 1..];
        let known: Vec<u32> = found.probe.values().to_vec();
        if !known.is_empty() {
            // Keys that were seen before the defect was switched on keep their honest old value.
            let mut old = Groups::empty(&self.finaliser.calls, slots.rows);
            old.rows = before.rows.clone();
            for ((accumulator, honest), range) in old
                .accumulators
                .iter_mut()
                .zip(&before.accumulators)
                .zip(&self.ranges)
            {
                let unknown: Vec<u32> = (0..slots.rows as u32).filter(|g| !known.contains(g)).collect();
                let rows = arrow::array::UInt32Array::from(unknown.clone());
                let honest = crate::columns::take_all(&honest.partials(), &rows);
                accumulator.add_partials(&unknown, &honest, &mut old.damaged);
                accumulator.add_partials(&known, &partials[range.clone()], &mut old.damaged);
            }
            *before = old;
        }
        let all: Vec<u32> = (0..slots.rows as u32).collect();
        for (accumulator, old) in after.accumulators.iter_mut().zip(&before.accumulators) {
            accumulator.add_partials(&all, &old.partials(), &mut after.damaged);
        }
        let mut columns = slots.keys.clone();
        columns.push(std::sync::Arc::new(arrow::array::Int64Array::from(
            after.rows.clone(),
        )));
        columns.extend(after.partials());
        let rows: RecordBatch = batch_of(schema.clone(), columns, slots.rows);
        let forgotten = Delta::new(found.rows, Some(found.weights)).negated();
        remembered
            .trace
            .apply(&Delta::concat(schema, &[forgotten, Delta::inserts(rows)]));
    }
}
