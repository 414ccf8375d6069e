//! What a store was at one moment: shared segments and their weights then.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::SchemaRef;

use super::RowStore;
use super::segment::{Segment, held_bytes};
use super::weights::Weights;
use crate::Delta;
use crate::delta::batch;
use crate::index::hash_rows;

/// Some rows and where they stand among the weights of their segment.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) rows: Arc<Segment>,
    pub(super) weights: Weights,
    pub(super) start: usize,
}

/// A store as it was. Cloning shares everything.
#[derive(Debug)]
pub struct RowsSnapshot {
    schema: SchemaRef,
    parts: Vec<Part>,
    live: usize,
}

impl RowsSnapshot {
    pub(super) fn new(schema: SchemaRef, parts: Vec<Part>, live: usize) -> Self {
        Self { schema, parts, live }
    }

    /// A snapshot of no rows.
    pub fn empty(schema: SchemaRef) -> Self {
        Self::new(schema, Vec::new(), 0)
    }

    /// The rows of several snapshots with the same columns, one after the other.
    ///
    /// # Panics
    /// When there is none.
    pub fn concat(snapshots: &[Arc<Self>]) -> Arc<Self> {
        let [first, others @ ..] = snapshots else {
            panic!("there is at least one snapshot");
        };
        if others.is_empty() {
            return first.clone();
        }
        let parts = snapshots
            .iter()
            .flat_map(|snapshot| snapshot.parts.iter().cloned());
        let live = snapshots.iter().map(|snapshot| snapshot.live).sum();
        Arc::new(Self::new(first.schema.clone(), parts.collect(), live))
    }

    /// The columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The number of distinct rows.
    pub fn row_count(&self) -> usize {
        self.live
    }

    /// The memory held, in bytes; shared segments are counted in full.
    pub fn bytes(&self) -> usize {
        let part = |part: &Part| held_bytes(part.rows.rows()) + part.weights.bytes();
        self.parts.iter().map(part).sum()
    }

    /// All rows, in the order in which they were appended, in batches of at most `batch_rows_max` rows.
    ///
    /// # Panics
    /// When `batch_rows_max` is zero.
    pub fn scan(self: &Arc<Self>, batch_rows_max: usize) -> RowScan {
        assert!(batch_rows_max > 0, "a batch holds at least one row");
        RowScan {
            snapshot: self.clone(),
            part: 0,
            row: 0,
            batch_rows_max,
        }
    }

    /// As [`RowsSnapshot::scan`], without the first so many rows, dead ones counted.
    ///
    /// # Panics
    /// When `batch_rows_max` is zero.
    pub fn scan_from(self: &Arc<Self>, first: usize, batch_rows_max: usize) -> RowScan {
        let mut scan = self.scan(batch_rows_max);
        scan.row = first;
        while let Some(part) = self.parts.get(scan.part)
            && scan.row >= part.rows.rows().num_rows()
        {
            scan.row -= part.rows.rows().num_rows();
            scan.part += 1;
        }
        scan
    }

    /// The live rows whose values in `columns` are those of one of `rows` keys, and perhaps a few others: hashes are
    /// compared, values are not. Values are equal when their bits are, and null is null. A segment is looked at when its
    /// rows are asked for.
    ///
    /// # Panics
    /// When the keys are not of the columns' types, or of one that cannot be a key (see [`KeyEncoder::supports`]).
    ///
    /// [`KeyEncoder::supports`]: crate::KeyEncoder::supports
    pub fn lookup(
        self: &Arc<Self>,
        columns: &[usize],
        keys: &[ArrayRef],
        rows: usize,
    ) -> impl Iterator<Item = Delta> + Send + 'static {
        let of_columns = columns
            .iter()
            .map(|column| self.schema.field(*column).data_type());
        assert!(
            of_columns.eq(keys.iter().map(|key| key.data_type())),
            "keys have the types of their columns"
        );
        let mut hashes = hash_rows(keys, rows);
        hashes.sort_unstable();
        let (snapshot, columns) = (self.clone(), columns.to_vec());
        (0..self.parts.len()).filter_map(move |number| {
            let part = &snapshot.parts[number];
            let found = part.rows.find(&columns, &hashes).into_iter();
            let live: Vec<(u32, i64)> = found
                .map(|row| (row, part.weights.get(part.start + row as usize)))
                .filter(|(_, weight)| *weight != 0)
                .collect();
            if live.is_empty() {
                return None;
            }
            let rows = UInt32Array::from_iter_values(live.iter().map(|(row, _)| *row));
            let rows = take_record_batch(part.rows.rows(), &rows).expect("rows of the segment");
            let weights = Int64Array::from_iter_values(live.iter().map(|(_, weight)| *weight));
            Some(Delta::new(named(&snapshot.schema, &rows), Some(weights)))
        })
    }

    /// A store of its own that holds these rows.
    pub fn to_store(self: &Arc<Self>) -> RowStore {
        let portion = |delta: Delta| {
            let (rows, weights) = delta.into_parts();
            (Segment::new(rows), weights)
        };
        let portions = self.scan(super::SEGMENT_ROWS).map(portion);
        RowStore::restored(self.schema.clone(), portions.collect())
    }

    pub(super) fn all_parts(&self) -> impl Iterator<Item = &Part> {
        self.parts.iter()
    }

    /// The segments, and the weights of those whose rows are not all weighed 1, for a checkpoint.
    pub(crate) fn parts(&self) -> impl Iterator<Item = (&Arc<Segment>, Option<Vec<i64>>)> {
        self.parts.iter().map(|part| {
            let rows = part.rows.rows().num_rows();
            let weights = (!matches!(part.weights, Weights::Ones))
                .then(|| (0..rows).map(|row| part.weights.get(part.start + row)).collect());
            (
                &part.rows,
                weights.filter(|weights: &Vec<i64>| weights.iter().any(|w| *w != 1)),
            )
        })
    }
}

/// An iterator over the live rows of a snapshot; no batch is empty.
#[derive(Debug)]
pub struct RowScan {
    snapshot: Arc<RowsSnapshot>,
    part: usize,
    row: usize,
    batch_rows_max: usize,
}

impl Iterator for RowScan {
    type Item = Delta;

    fn next(&mut self) -> Option<Delta> {
        loop {
            let part = self.snapshot.parts.get(self.part)?;
            let rows = part.rows.rows();
            let count = (rows.num_rows() - self.row).min(self.batch_rows_max);
            let start = self.row;
            self.row += count;
            if self.row >= rows.num_rows() {
                self.part += 1;
                self.row = 0;
            }
            if count == 0 {
                continue;
            }
            let rows = rows.slice(start, count);
            let rows = named(&self.snapshot.schema, &rows);
            let delta = Delta::new(rows, part.weights.counts(part.start + start, count));
            let delta = match part.weights.live(part.start + start, count) {
                Some(live) => delta.filter(&live),
                None => delta,
            };
            if !delta.is_empty() {
                return Some(delta);
            }
        }
    }
}

fn named(schema: &SchemaRef, rows: &RecordBatch) -> RecordBatch {
    batch(schema.clone(), rows.columns().to_vec(), rows.num_rows())
}
