//! From the state of groups to rows: `Δresult = finalise(after) - finalise(before)`, group by group.
//!
//! A group whose result errs is absent while it errs, and listed as an error for as long. Without key columns
//! the one group is always there, so that an aggregate over nothing has its one row.

use arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use arrow::buffer::BooleanBuffer;
use arrow::compute::kernels::cmp::not_distinct;
use arrow::datatypes::SchemaRef;
use tributary_planner::plan::AggregateCall;
use tributary_storage::Delta;

use crate::columns::batch_of;
use crate::operators::groups::Groups;
use crate::row_errors::ErrorSink;

/// How the groups of one operator become rows.
#[derive(Debug)]
pub(crate) struct Finaliser {
    /// The operator's name, for errors.
    pub(crate) operator: String,
    /// Whether there are key columns.
    pub(crate) keyed: bool,
    pub(crate) calls: Vec<AggregateCall>,
    /// Keys, then one column per call.
    pub(crate) schema: SchemaRef,
}

impl Finaliser {
    /// The change of the result: per group at most one row that goes and one that comes.
    pub(crate) fn change(
        &self,
        keys: &[ArrayRef],
        before: &Groups,
        after: &Groups,
        errors: &mut ErrorSink,
    ) -> Delta {
        let (old, was) = self.rows(keys, before, -1, errors);
        let (new, is) = self.rows(keys, after, 1, errors);
        let unchanged = same_rows(
            &old.columns()[keys.len()..],
            &new.columns()[keys.len()..],
            was.len(),
        );
        let kept = &(&was & &is) & &unchanged;
        let changed = !&kept;
        let old = Delta::inserts(old).filter(&BooleanArray::new(&was & &changed, None));
        let new = Delta::inserts(new).filter(&BooleanArray::new(&is & &changed, None));
        Delta::concat(self.schema.clone(), &[old.negated(), new])
    }

    /// The one row over no input; nothing when there are key columns.
    pub(crate) fn initial(&self, errors: &mut ErrorSink) -> Delta {
        match self.keyed {
            true => Delta::empty(self.schema.clone()),
            false => {
                let (rows, present) = self.rows(&[], &Groups::empty(&self.calls, 1), 1, errors);
                Delta::inserts(rows).filter(&BooleanArray::new(present, None))
            }
        }
    }

    /// A row per group, and which of them are there.
    fn rows(
        &self,
        keys: &[ArrayRef],
        groups: &Groups,
        weight: i64,
        errors: &mut ErrorSink,
    ) -> (RecordBatch, BooleanBuffer) {
        let count = groups.rows.len();
        let mut present: Vec<bool> = groups.rows.iter().map(|rows| !self.keyed || *rows > 0).collect();
        let mut columns = keys.to_vec();
        let mut failed: Vec<(usize, String)> = Vec::new();
        for (call, accumulator) in self.calls.iter().zip(&groups.accumulators) {
            let results = accumulator.results(call);
            columns.push(results.column);
            failed.extend(results.failed);
        }
        failed.extend(
            groups
                .damaged
                .groups()
                .map(|group| (group, "a partial result is damaged".to_string())),
        );
        if failed.is_empty() {
            return (batch_of(self.schema.clone(), columns, count), present.into());
        }
        failed.sort();
        let key_rows = batch_of(crate::columns::schema_of(&types(keys)), keys.to_vec(), count);
        // A group is one error, whichever of its aggregates failed first in the order of messages.
        failed.dedup_by_key(|(group, _)| *group);
        for (group, message) in failed {
            if std::mem::replace(&mut present[group], false) {
                errors.push(&self.operator, &message, &key_rows, group, weight);
            }
        }
        (batch_of(self.schema.clone(), columns, count), present.into())
    }
}

/// In which of `rows` rows the columns hold the same, bit by bit.
fn same_rows(old: &[ArrayRef], new: &[ArrayRef], rows: usize) -> BooleanBuffer {
    let mut same = BooleanBuffer::new_set(rows);
    for (old, new) in old.iter().zip(new) {
        let equal = not_distinct(old, new).expect("results of one aggregate have one type");
        same = &same & equal.values();
    }
    same
}

fn types(columns: &[ArrayRef]) -> Vec<arrow::datatypes::DataType> {
    columns.iter().map(|column| column.data_type().clone()).collect()
}
