//! Everything of an origin that is stamped later than an epoch, in portions.
//!
//! A walk reads what was there when it began: shared rows that never change. So it holds no lock, costs the memory of
//! what is replaced meanwhile, and what changes after its beginning is for the next walk, from where this one began.

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use std::sync::Arc;
use tributary_storage::{OriginId, RowScan, Scan};

use crate::frontier::Epoch;
use crate::partials::PartialOps;
use crate::section::{int64, of_origin_since};

/// A walk over the values of one object, each as it is shipped. Portions may be empty.
pub enum Walk {
    /// Over slots.
    Slots(SlotsWalk),
    /// Over rows of a GLOBAL table.
    Rows(RowsWalk),
}

/// A walk over the slots of an origin in one fragment.
pub struct SlotsWalk {
    pub(crate) scan: RowScan,
    pub(crate) since: Epoch,
    pub(crate) key_count: usize,
    pub(crate) partials: Arc<dyn PartialOps>,
    pub(crate) shipped: arrow::datatypes::SchemaRef,
}

/// A walk over the rows of a table whose newest version is an origin's.
pub struct RowsWalk {
    pub(crate) scan: Scan,
    pub(crate) since: Epoch,
    pub(crate) origin: OriginId,
    pub(crate) origin_column: usize,
}

impl Iterator for Walk {
    type Item = RecordBatch;

    fn next(&mut self) -> Option<RecordBatch> {
        match self {
            Self::Slots(walk) => walk.next(),
            Self::Rows(walk) => walk.next(),
        }
    }
}

impl SlotsWalk {
    fn next(&mut self) -> Option<RecordBatch> {
        let rows = self.scan.next()?.into_parts().0;
        let stamps = int64(rows.column(self.key_count));
        let since = self.since.as_i64();
        let wanted: BooleanArray = stamps.values().iter().map(|stamp| Some(*stamp > since)).collect();
        let rows = filter_record_batch(&rows, &wanted).expect("there is one verdict per row");
        let mut columns = rows.columns()[..self.key_count + 2].to_vec();
        columns.extend(self.partials.encode(&rows.columns()[self.key_count + 2..]));
        let shipped = RecordBatch::try_new(self.shipped.clone(), columns);
        Some(shipped.expect("slots are stored as they are shipped"))
    }
}

impl RowsWalk {
    fn next(&mut self) -> Option<RecordBatch> {
        let delta = self.scan.next()?;
        let rows = of_origin_since(&delta, self.origin_column, self.origin, self.since);
        let mut shipped: Vec<usize> = (0..rows.num_columns()).collect();
        shipped.remove(self.origin_column);
        Some(rows.project(&shipped).expect("the columns exist"))
    }
}
