//! The first form of a trace: a spine of immutable runs, newest last, and pending segments of the same make.

use std::sync::Arc;

use arrow::array::ArrayRef;

use super::layout::{Layout, RowCodec};
use super::probe::{Wanted, lookup};
use super::run::Run;
use super::segment::{Segment, similar_suffix};
use super::snapshot::TraceSnapshot;
use super::{Found, Trace};
use crate::Delta;

/// A trace of immutable sorted runs and a memory table. See the module's description for the cost.
#[derive(Debug)]
pub struct RunTrace {
    codec: Arc<RowCodec>,
    /// What was applied since the last seal, oldest first.
    pending: Vec<Segment>,
    sealed: Arc<TraceSnapshot>,
}

impl RunTrace {
    /// An empty trace.
    ///
    /// # Panics
    /// When a column has two roles or does not exist, or is of a type that [`crate::KeyEncoder`] does not
    /// support.
    pub fn new(layout: Layout) -> Self {
        Self::from_runs(layout, Vec::new())
    }

    /// A trace of existing runs, oldest first.
    ///
    /// # Panics
    /// As [`RunTrace::new`], and when a run was made with another layout.
    pub fn from_runs(layout: Layout, runs: Vec<Arc<Run>>) -> Self {
        Self::from_codec(RowCodec::new(layout), runs)
    }

    pub(crate) fn from_codec(codec: Arc<RowCodec>, runs: Vec<Arc<Run>>) -> Self {
        let same_layout = runs.iter().all(|run| run.fingerprint() == codec.fingerprint);
        assert!(same_layout, "the runs of a trace were made with its layout");
        let sealed = Arc::new(TraceSnapshot::new(codec.clone(), runs));
        Self {
            codec,
            pending: Vec::new(),
            sealed,
        }
    }

    /// The number of runs and pending segments a lookup has to visit.
    pub fn segment_count(&self) -> usize {
        self.pending.len() + self.sealed.runs().len()
    }

    fn segments(&self) -> Vec<&Segment> {
        let sealed = self.sealed.runs().iter().map(|run| run.segment());
        sealed.chain(self.pending.iter()).collect()
    }

    fn check_types(&self, delta: &Delta) {
        let schema = delta.schema();
        let same = schema.fields().len() == self.codec.layout.schema.fields().len()
            && schema
                .fields()
                .iter()
                .zip(self.codec.layout.schema.fields())
                .all(|(given, own)| given.data_type().equals_datatype(own.data_type()));
        assert!(
            same,
            "a delta has the column types of its trace: got {schema:?}, need {:?}",
            self.codec.layout.schema
        );
    }
}

impl Trace for RunTrace {
    fn layout(&self) -> &Layout {
        &self.codec.layout
    }

    fn apply(&mut self, delta: &Delta) {
        self.check_types(delta);
        let segment = Segment::from_delta(&self.codec, delta);
        if segment.len() == 0 {
            return;
        }
        self.pending.push(segment);
        let first = similar_suffix(self.pending.iter().map(Segment::len));
        if first + 1 < self.pending.len() {
            let merged = Segment::merged(self.pending[first..].iter());
            self.pending.truncate(first);
            if merged.len() > 0 {
                self.pending.push(merged);
            }
        }
    }

    fn lookup(&self, keys: &[ArrayRef], rows: usize) -> Found {
        lookup(&self.codec, &self.segments(), keys, rows, Wanted::All)
    }

    fn lookup_n(&self, keys: &[ArrayRef], rows: usize, n: usize, from_end: bool) -> Found {
        lookup(
            &self.codec,
            &self.segments(),
            keys,
            rows,
            Wanted::up_to(n, from_end),
        )
    }

    fn seal(&mut self, stamp: u64) {
        let mut pending = std::mem::take(&mut self.pending);
        let segment = match pending.len() {
            0 => return,
            1 => pending.remove(0),
            _ => Segment::merged(pending.iter()),
        };
        if segment.len() == 0 {
            return;
        }
        let mut runs = self.sealed.runs().to_vec();
        runs.push(Arc::new(Run::new(&self.codec, segment, stamp, stamp)));
        let first = similar_suffix(runs.iter().map(|run| run.len()));
        if first + 1 < runs.len() {
            let merging = runs.split_off(first);
            let merged = Segment::merged(merging.iter().map(|run| run.segment()));
            if merged.len() > 0 {
                let stamp_min = merging.iter().map(|run| run.stamp_min()).fold(stamp, u64::min);
                let stamp_max = merging.iter().map(|run| run.stamp_max()).fold(stamp, u64::max);
                runs.push(Arc::new(Run::new(&self.codec, merged, stamp_min, stamp_max)));
            }
        }
        self.sealed = Arc::new(TraceSnapshot::new(self.codec.clone(), runs));
    }

    fn snapshot(&self) -> Arc<TraceSnapshot> {
        self.sealed.clone()
    }

    fn row_count(&self) -> usize {
        self.segments().iter().map(|segment| segment.len()).sum()
    }

    fn bytes(&self) -> usize {
        self.segments().iter().map(|segment| segment.bytes()).sum()
    }
}
