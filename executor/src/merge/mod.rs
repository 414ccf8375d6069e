//! The first operator of the global fragment: from slots of all origins to changes of merged rows.
//!
//! Both are stateless: a [`SlotDelta`](tributary_replication::SlotDelta) brings every changed key with all of its
//! live slots before and after, so the old row is computed again and retracted, and the new one inserted. Absolute
//! values in, so nothing can be counted twice.

mod appended;
mod partials;
mod rows;

use arrow::datatypes::DataType;
use tributary_planner::plan::Boundary;
use tributary_replication::SlotDelta;
use tributary_storage::Delta;

use crate::columns::schema_of;
use crate::row_errors::ErrorSink;
pub(crate) use appended::MergeAppended;
pub(crate) use partials::MergePartials;
pub(crate) use rows::MergeRows;

/// The merge of one fragment.
pub(crate) enum Merge {
    Partials(MergePartials),
    Rows(MergeRows),
    Appended(MergeAppended),
}

impl Merge {
    pub(crate) fn build(fragment: usize, boundary: &Boundary, input: &[DataType]) -> Self {
        let operator = format!("merge{fragment}");
        match boundary {
            Boundary::MergePartials { keys, aggregates } => {
                let keys: Vec<DataType> = keys.iter().map(|key| input[*key].clone()).collect();
                Self::Partials(MergePartials::new(operator, keys, aggregates))
            }
            Boundary::MergeRows => Self::Rows(MergeRows::new(operator, schema_of(input))),
            Boundary::AppendRows => Self::Appended(MergeAppended::new(schema_of(input))),
        }
    }

    /// The change of the merged rows; `initial` asks for those over no slots as well.
    pub(crate) fn eval(&mut self, slots: Option<&SlotDelta>, initial: bool, errors: &mut ErrorSink) -> Delta {
        match self {
            Self::Partials(partials) => partials.eval(slots, initial, errors),
            Self::Rows(rows) => rows.eval(slots, errors),
            Self::Appended(rows) => rows.eval(slots),
        }
    }
}
