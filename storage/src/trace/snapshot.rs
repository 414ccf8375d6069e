//! What a trace was when it was last sealed: a list of shared runs that never changes.
//!
//! A [`Scan`] reads it in order with bounded memory, owns what it reads and can be sent to another thread.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};

use super::Found;
use super::layout::{Layout, RowCodec};
use super::merge::Merge;
use super::probe::{Wanted, lookup};
use super::run::Run;
use super::segment::Segment;
use crate::Delta;
use crate::key::KeyEncoder;

/// A scan ends a batch early when its encoded rows reach this size, however few they are.
const BATCH_BYTES_MAX: usize = 16 << 20;

/// The sealed runs of a trace at one moment.
#[derive(Debug)]
pub struct TraceSnapshot {
    codec: Arc<RowCodec>,
    runs: Vec<Arc<Run>>,
}

impl TraceSnapshot {
    pub(crate) fn new(codec: Arc<RowCodec>, runs: Vec<Arc<Run>>) -> Self {
        Self { codec, runs }
    }

    /// The columns and their roles.
    pub fn layout(&self) -> &Layout {
        &self.codec.layout
    }

    /// The runs, oldest first.
    pub fn runs(&self) -> &[Arc<Run>] {
        &self.runs
    }

    /// As [`super::Trace::lookup`], on what was sealed.
    pub fn lookup(&self, keys: &[ArrayRef], rows: usize) -> Found {
        lookup(&self.codec, &self.segments(), keys, rows, Wanted::All)
    }

    /// As [`super::Trace::lookup_n`], on what was sealed.
    pub fn lookup_n(&self, keys: &[ArrayRef], rows: usize, n: usize, from_end: bool) -> Found {
        lookup(
            &self.codec,
            &self.segments(),
            keys,
            rows,
            Wanted::up_to(n, from_end),
        )
    }

    /// All rows in trace order, consolidated, in batches of at most `batch_rows_max` rows.
    ///
    /// # Panics
    /// When `batch_rows_max` is zero.
    pub fn scan(self: &Arc<Self>, batch_rows_max: usize) -> Scan {
        self.scan_ranges(batch_rows_max, |run| (0, run.len()))
    }

    /// The rows whose first key column is neither below `lower` nor above `upper`, which hold one value each, in trace
    /// order.
    ///
    /// # Panics
    /// When `batch_rows_max` is zero, the key has no columns, or a bound is not of its first column's type.
    pub fn scan_between(
        self: &Arc<Self>,
        lower: Option<&ArrayRef>,
        upper: Option<&ArrayRef>,
        batch_rows_max: usize,
    ) -> Scan {
        let first = self.layout().key_types().swap_remove(0);
        let encoder = KeyEncoder::new(&[first]);
        let encoded = |bound: &ArrayRef| encoder.encode(std::slice::from_ref(bound));
        let (lower, upper) = (lower.map(encoded), upper.map(encoded));
        let (lower, upper) = (
            lower.as_ref().map(|keys| keys.get(0)),
            upper.as_ref().map(|keys| keys.get(0)),
        );
        let range = |run: &Run| run.segment().range_between(lower, upper);
        self.scan_ranges(batch_rows_max, range)
    }

    /// The rows of those runs that were sealed after `stamp`, at least in part, in trace order.
    ///
    /// This is not what changed since: such a run may hold older rows too, and weights are summed only
    /// within the runs read, so a retraction of an older row appears with a negative weight. Callers filter
    /// by their own stamp column and skip weights that are not positive.
    ///
    /// # Panics
    /// When `batch_rows_max` is zero.
    pub fn scan_since(self: &Arc<Self>, stamp: u64, batch_rows_max: usize) -> Scan {
        let is_wanted = |run: &Run| run.stamp_max() > stamp;
        self.scan_ranges(batch_rows_max, |run| {
            (0, if is_wanted(run) { run.len() } else { 0 })
        })
    }

    /// An upper bound of the number of distinct rows.
    pub fn row_count(&self) -> usize {
        self.runs.iter().map(|run| run.len()).sum()
    }

    /// The memory held by rows, in bytes; shared runs are counted in full.
    pub fn bytes(&self) -> usize {
        self.runs.iter().map(|run| run.bytes()).sum()
    }

    pub(crate) fn codec(&self) -> &Arc<RowCodec> {
        &self.codec
    }

    fn segments(&self) -> Vec<&Segment> {
        self.runs.iter().map(|run| run.segment()).collect()
    }

    fn scan_ranges(self: &Arc<Self>, batch_rows_max: usize, range: impl Fn(&Run) -> (usize, usize)) -> Scan {
        assert!(batch_rows_max > 0, "a batch holds at least one row");
        let ranges = self.runs.iter().enumerate().map(|(i, run)| {
            let (start, end) = range(run);
            (i, start, end)
        });
        Scan {
            snapshot: self.clone(),
            ranges: ranges.filter(|(_, start, end)| start < end).collect(),
            batch_rows_max,
        }
    }
}

/// An iterator over the rows of a snapshot, in consolidated batches; no batch is empty.
#[derive(Debug)]
pub struct Scan {
    snapshot: Arc<TraceSnapshot>,
    /// What is left, as (run, start, end).
    ranges: Vec<(usize, usize, usize)>,
    batch_rows_max: usize,
}

impl Iterator for Scan {
    type Item = Delta;

    fn next(&mut self) -> Option<Delta> {
        let mut merge = Merge::forwards();
        for (run, start, end) in &self.ranges {
            merge.add(*run, self.snapshot.runs[*run].segment(), *start, *end);
        }
        let (mut rows, mut weights, mut bytes) = (Vec::new(), Vec::new(), 0);
        while rows.len() < self.batch_rows_max && bytes < BATCH_BYTES_MAX {
            let Some((row, weight)) = merge.next() else { break };
            bytes += row.len();
            rows.push(row);
            weights.push(weight);
        }
        self.ranges = merge.rest();
        if rows.is_empty() {
            return None;
        }
        let batch = self.snapshot.codec.decode(rows.into_iter());
        let weights = weights
            .iter()
            .any(|weight| *weight != 1)
            .then(|| Int64Array::from(weights));
        Some(Delta::new(batch, weights))
    }
}
