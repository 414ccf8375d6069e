//! A trace is the state of a relation or an operator: read and written in batches, never row by row.
//!
//! ```text
//!   apply(delta) ──▶ pending: sorted segments      seal(stamp)      sealed: immutable runs, newest last
//!                    [..] [....]              ───────────────▶      [................] [......] [..]
//!                         │                                                 │              │
//!   lookup(keys) ◀────────┴───────────────── merged per key ────────────────┴──────────────┤
//!   snapshot()   ◀──────────────────────── a few Arc clones ───────────────────────────────┘
//! ```
//!
//! Rows are kept as arrow-row bytes over the key, the order and the remaining columns. The encoded key is a
//! byte prefix of the encoded row, so the rows of a key are one range of every run, found by binary search.
//! Segments and runs are merged when they are of similar size, so there are O(log n) of them, a row is
//! copied O(log n) times in its life, and rows whose weights sum to zero vanish on the way. Weights may be
//! negative at any time: a retraction may arrive before its insert.
//!
//! Invariants: within a run, rows ascend strictly and no weight is zero. What is sealed never changes. Equal
//! calls give equal bytes: nothing depends on addresses, clocks or threads.
//!
//! Left out: versions. A trace holds the sum of all deltas, and only a snapshot remembers the past.

mod layout;
mod merge;
mod probe;
mod run;
mod segment;
mod snapshot;
mod spine;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, UInt32Array};

use crate::Delta;

pub use layout::Layout;
pub(crate) use layout::RowCodec;
pub use run::{Run, RunId};
pub use snapshot::{Scan, TraceSnapshot};
pub use spine::RunTrace;

/// The rows found for a batch of keys: consolidated, without zero weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// The rows, with the trace's schema. Rows of one probe are in trace order.
    pub rows: RecordBatch,
    /// One weight per row, never zero.
    pub weights: Int64Array,
    /// For each row the index of the key it was found for, ascending.
    pub probe: UInt32Array,
}

/// The state of a relation or an operator; the seam behind which run formats and indexes can change.
pub trait Trace: Send + Sync {
    /// The columns and their roles.
    fn layout(&self) -> &Layout;

    /// Adds a delta. It is visible to lookups at once, to snapshots after [`Trace::seal`].
    ///
    /// # Panics
    /// When the delta's column types are not the layout's.
    fn apply(&mut self, delta: &Delta);

    /// The rows of each key. `keys` are the key columns in the order of [`Layout::key`], of `rows` values
    /// each; the number is given because there may be no key column. A key may occur several times.
    ///
    /// # Panics
    /// When the key columns are not the layout's.
    fn lookup(&self, keys: &[ArrayRef], rows: usize) -> Found;

    /// At most `n` distinct rows of positive weight per key: the first ones in trace order, or the last ones
    /// when `from_end`. Either way rows of one probe are returned in trace order.
    ///
    /// # Panics
    /// When the key columns are not the layout's.
    fn lookup_n(&self, keys: &[ArrayRef], rows: usize, n: usize, from_end: bool) -> Found;

    /// Makes everything pending an immutable run that carries `stamp`; nothing pending makes no run.
    fn seal(&mut self, stamp: u64);

    /// What is sealed. Cheap, and never changes afterwards.
    fn snapshot(&self) -> Arc<TraceSnapshot>;

    /// An upper bound of the number of distinct rows: those of all runs, before they are summed.
    fn row_count(&self) -> usize;

    /// The memory held by rows, in bytes; shared runs are counted in full.
    fn bytes(&self) -> usize;
}
