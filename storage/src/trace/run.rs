//! Runs: sealed, immutable rows with the stamps they were sealed under and a name that is their content.
//!
//! A run's id is a hash of everything it holds. So ids never collide across restarts, regions or traces
//! without any counter to persist, equal runs are stored once, and the same history gives the same ids. It is
//! computed only when asked for (by a checkpoint): runs that are merged away before never pay for it.

use std::fmt;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use super::layout::{Layout, RowCodec};
use super::segment::Segment;
use crate::Delta;
use crate::key::Keys;
use arrow::array::Int64Array;

/// The identity of a run: a hash of its layout, stamps, rows and weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RunId(pub [u8; 16]);

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// An immutable sorted run of weighted rows.
#[derive(Debug)]
pub struct Run {
    id: OnceLock<RunId>,
    fingerprint: [u8; 16],
    segment: Segment,
    stamp_min: u64,
    stamp_max: u64,
}

impl Run {
    pub(crate) fn new(codec: &RowCodec, segment: Segment, stamp_min: u64, stamp_max: u64) -> Self {
        assert!(stamp_min <= stamp_max, "the stamps of a run span a range");
        Self {
            id: OnceLock::new(),
            fingerprint: codec.fingerprint,
            segment,
            stamp_min,
            stamp_max,
        }
    }

    /// A run that was stored under a known id. The id is kept although the same rows might hash differently
    /// under another release of the row encoding: names are forever.
    pub(crate) fn stored(
        codec: &RowCodec,
        id: RunId,
        portions: &[Delta],
        stamp_min: u64,
        stamp_max: u64,
    ) -> Self {
        let segments = portions
            .iter()
            .map(|portion| Segment::from_delta(codec, portion))
            .collect();
        let run = Self::new(codec, Segment::joined(segments), stamp_min, stamp_max);
        run.id.get_or_init(|| id);
        run
    }

    /// A run of the given rows, in whatever order they come.
    ///
    /// # Panics
    /// When the delta's columns are not the layout's, or `stamp_min` is above `stamp_max`.
    pub fn from_batch(layout: &Layout, delta: &Delta, stamp_min: u64, stamp_max: u64) -> Self {
        let codec = RowCodec::new(layout.clone());
        Self::new(&codec, Segment::from_delta(&codec, delta), stamp_min, stamp_max)
    }

    /// The rows and weights, in trace order.
    ///
    /// # Panics
    /// When `layout` is not the one the run was made with.
    pub fn to_batch(&self, layout: &Layout) -> Delta {
        self.decode(&RowCodec::new(layout.clone()), 0, self.len())
    }

    /// Rows `start..end` with their weights.
    pub(crate) fn decode(&self, codec: &RowCodec, start: usize, end: usize) -> Delta {
        assert_eq!(
            self.fingerprint, codec.fingerprint,
            "a run is read with the layout it was written with"
        );
        let rows = codec.decode((start..end).map(|i| self.segment.row(i)));
        Delta::new(
            rows,
            Some(Int64Array::from(self.segment.weights()[start..end].to_vec())),
        )
    }

    /// The identity of this run; the first call hashes the content.
    pub fn id(&self) -> RunId {
        *self.id.get_or_init(|| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&self.fingerprint);
            hasher.update(&self.stamp_min.to_le_bytes());
            hasher.update(&self.stamp_max.to_le_bytes());
            hasher.update(&(self.len() as u64).to_le_bytes());
            // Encoded rows are self-delimiting, so their concatenation is unambiguous.
            self.segment.rows().iter().for_each(|row| {
                hasher.update(row);
            });
            self.segment.weights().iter().for_each(|weight| {
                hasher.update(&weight.to_le_bytes());
            });
            let mut id = [0; 16];
            id.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
            RunId(id)
        })
    }

    /// The encoded rows, strictly ascending.
    pub fn rows(&self) -> &Keys {
        self.segment.rows()
    }

    /// One weight per row, never zero.
    pub fn weights(&self) -> &[i64] {
        self.segment.weights()
    }

    /// The number of distinct rows.
    pub fn len(&self) -> usize {
        self.segment.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The stamp of the oldest seal that went into this run.
    pub fn stamp_min(&self) -> u64 {
        self.stamp_min
    }

    /// The stamp of the newest seal that went into this run.
    pub fn stamp_max(&self) -> u64 {
        self.stamp_max
    }

    /// The memory held, in bytes.
    pub fn bytes(&self) -> usize {
        self.segment.bytes()
    }

    pub(crate) fn segment(&self) -> &Segment {
        &self.segment
    }

    pub(crate) fn fingerprint(&self) -> [u8; 16] {
        self.fingerprint
    }
}
