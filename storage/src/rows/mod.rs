//! Rows by number: the columnar store behind results, join sides and top-k.
//!
//! ```text
//!   append ──▶ tail: a few small batches ──full──▶ sealed segments of SEGMENT_ROWS rows, immutable, shared
//!   row id = segment number · SEGMENT_ROWS + offset               weights: per segment, copied on write
//! ```
//!
//! A row is written once and never moves until its store is compacted; what changes is its weight, which is 1 for
//! all rows of most segments and then costs nothing. So a snapshot is a list of shared segments, and only the weights
//! of segments that change while it lives are copied: two kilobytes each as long as rows merely die.
//!
//! When memory is short, sealed segments are replaced by copies in a file that the system maps ([`SpillFiles`]).
//!
//! [`RowStore`] only appends and weighs; [`ZSet`] finds rows by their values, and so takes any delta. A compaction
//! drops dead rows and renumbers the others when more than half are dead; [`ZSet::apply`] says when it did.

mod changes;
mod lookup;
mod segment;
mod snapshot;
mod spill;
mod store;
#[cfg(test)]
mod tests;
mod weights;
mod zset;

pub use segment::Segment;
pub use snapshot::{RowScan, RowsSnapshot};
pub use spill::{Spill, SpillArea, SpillFiles};
pub use store::RowStore;
pub use zset::{Renumbered, ZSet};

/// Rows of a sealed segment.
pub const SEGMENT_ROWS: usize = 16_384;
