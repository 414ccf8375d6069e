//! The slots that a lookup found, and picking the live ones among them.

use std::ops::Range;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, UInt32Array};
use tributary_storage::Found;

use super::{LiveSlots, SlotLayout};
use crate::section::{boolean, int64, pick};

/// The slots found for some keys.
pub(super) struct FoundSlots {
    pub(super) columns: Vec<ArrayRef>,
    origins: Int64Array,
    stamps: Int64Array,
    deleted: BooleanArray,
    probe: UInt32Array,
}

impl FoundSlots {
    pub(super) fn new(layout: &SlotLayout, found: &Found) -> Self {
        assert!(
            found.weights.values().iter().all(|weight| *weight == 1),
            "there is one value for each key and origin"
        );
        let columns = found.rows.columns().to_vec();
        let origin = layout.key_types.len();
        Self {
            origins: int64(&columns[origin]).clone(),
            stamps: int64(&columns[origin + 1]).clone(),
            deleted: boolean(&columns[origin + 2]).clone(),
            probe: found.probe.clone(),
            columns,
        }
    }

    pub(super) fn rows(&self) -> usize {
        self.probe.len()
    }

    pub(super) fn origin(&self, row: usize) -> i64 {
        self.origins.value(row)
    }

    pub(super) fn stamp(&self, row: usize) -> i64 {
        self.stamps.value(row)
    }

    pub(super) fn deleted(&self, row: usize) -> bool {
        self.deleted.value(row)
    }

    /// The range of found slots of each of `probes` keys.
    pub(super) fn by_probe(&self, probes: usize) -> Vec<Range<usize>> {
        let mut next = 0;
        (0..probes)
            .map(|probe| {
                let start = next;
                while next < self.rows() && self.probe.value(next) as usize == probe {
                    next += 1;
                }
                start..next
            })
            .collect()
    }
}

/// Live slots, as places in the batches they come from.
#[derive(Default)]
pub(super) struct LivePicks {
    probe: Vec<u32>,
    picks: Vec<(usize, usize)>,
}

impl LivePicks {
    pub(super) fn push(&mut self, key: u32, place: (usize, usize)) {
        self.probe.push(key);
        self.picks.push(place);
    }

    pub(super) fn take(self, sources: &[&[ArrayRef]], key_count: usize) -> LiveSlots {
        let mut columns = pick(sources, &self.picks);
        let partials = columns.split_off(key_count + 3);
        let origins = int64(&columns[key_count]).clone();
        LiveSlots {
            probe: UInt32Array::from(self.probe),
            origins,
            partials,
        }
    }
}
