//! Groups as they were at one moment, gathered in portions while they change: what a checkpoint keeps of them.
//!
//! ```text
//!   group  0 ……………… next ………………………………………… end …
//!          are gathered │ as they are; if changed since, │ came later
//!                       │ as they were: kept             │
//! ```
//!
//! A batch says which groups it will touch before it changes them, so what they held is kept once, and only of groups
//! whose turn has not come. Rows come out in the order of the groups, whatever happened meanwhile: segments of groups
//! that nobody touched are the same from checkpoint to checkpoint, and are stored once.
//!
//! The ordered multisets are gathered beside them, see [`crate::state::multiset`]. Groups are not numbered anew while
//! there is a cut.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::compute::interleave_record_batch;
use tributary_storage::{ABSENT, RowStore, RowsSnapshot};

use super::GroupState;
use crate::columns::batch_of;

/// Groups whose places are kept together, and the most that are gathered at once.
const CHUNK: usize = 1 << 14;

/// The place of a group that had no rows.
const EMPTY: u32 = ABSENT - 1;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Cut {
    /// Groups from here on came later.
    end: usize,
    /// Groups before this one are gathered.
    next: usize,
    gathered: RowStore,
    /// What groups held that were changed before their turn.
    kept: RowStore,
    /// By chunk, where any group of it is kept: for each group its row in `kept`, [`EMPTY`], or [`ABSENT`] if it is not.
    places: Vec<Vec<u32>>,
    /// Per multiset its values.
    values: Vec<RowStore>,
}

impl Cut {
    fn place(&self, group: usize) -> u32 {
        let chunk = &self.places[group / CHUNK];
        chunk.get(group % CHUNK).copied().unwrap_or(ABSENT)
    }

    fn keep(&mut self, group: usize, place: u32) {
        let chunk = &mut self.places[group / CHUNK];
        chunk.resize(CHUNK, ABSENT);
        chunk[group % CHUNK] = place;
    }

    fn is_whole(&self) -> bool {
        self.next == self.end
    }
}

impl GroupState {
    /// From here on [`GroupState::gather_cut`] gathers what is here now. A cut that was begun before is forgotten.
    pub(crate) fn begin_cut(&mut self) {
        let end = self.len();
        self.multisets
            .iter_mut()
            .for_each(|multiset| multiset.begin_cut(end));
        self.cut = Some(Box::new(Cut {
            end,
            next: 0,
            gathered: RowStore::new(self.schema()),
            kept: RowStore::new(self.schema()),
            places: vec![Vec::new(); end.div_ceil(CHUNK)],
            values: (0..self.multisets.len())
                .map(|number| RowStore::new(self.values_schema(number)))
                .collect(),
        }));
    }

    /// Keeps what groups hold that are about to change, as far as a cut will want it.
    pub(super) fn keep_for_cut(&mut self, groups: &[u32]) {
        let Some(mut cut) = self.cut.take() else { return };
        let is_wanted = |group: &u32| {
            let group = *group as usize;
            (cut.next..cut.end).contains(&group) && cut.place(group) == ABSENT
        };
        let (live, empty): (Vec<u32>, Vec<u32>) = groups
            .iter()
            .copied()
            .filter(is_wanted)
            .partition(|group| self.rows[*group as usize] != 0);
        empty.iter().for_each(|group| cut.keep(*group as usize, EMPTY));
        if !live.is_empty() {
            let first = cut.kept.append(&self.rows_of(&live));
            for (place, group) in (first..).zip(&live) {
                cut.keep(*group as usize, place);
            }
        }
        self.cut = Some(cut);
    }

    /// Gathers about so many rows of the cut, if there is one; tells how many of them are left over when it is whole,
    /// and `None` while it is not.
    pub(crate) fn gather_cut(&mut self, rows_max: usize) -> Option<usize> {
        let mut left = rows_max;
        let Some(mut cut) = self.cut.take() else {
            return Some(left);
        };
        while left > 0 && !cut.is_whole() {
            left -= self.gather_groups(&mut cut, left.min(CHUNK));
        }
        for number in 0..self.multisets.len() {
            while left > 0
                && let Some(portion) = self.multisets[number].gather_cut(left.min(CHUNK))
            {
                left -= portion.cost;
                let mut columns = self.keys(&portion.groups);
                columns.push(portion.values);
                append(&mut cut.values[number], columns, &portion.weights);
            }
        }
        let whole = cut.is_whole() && self.multisets.iter().all(|multiset| !multiset.has_cut());
        self.cut = Some(cut);
        whole.then_some(left)
    }

    /// Takes a cut that is whole: the groups, and the values of each multiset.
    ///
    /// # Panics
    /// When there is none, or it is not whole.
    pub(crate) fn take_cut(&mut self) -> (Arc<RowsSnapshot>, Vec<Arc<RowsSnapshot>>) {
        let cut = self.cut.take().expect("a cut was begun");
        assert!(cut.is_whole(), "the cut was gathered");
        let values = cut.values.iter().map(RowStore::snapshot);
        (cut.gathered.snapshot(), values.collect())
    }

    /// Gathers the next groups, at most `most`; returns how many there were.
    fn gather_groups(&self, cut: &mut Cut, most: usize) -> usize {
        let portion = cut.next..cut.end.min(cut.next + most);
        let (mut present, mut kept, mut order) = (Vec::new(), Vec::new(), Vec::new());
        for group in portion.clone() {
            match cut.place(group) {
                EMPTY => {}
                ABSENT if self.rows[group] == 0 => {}
                ABSENT => {
                    order.push((0, present.len()));
                    present.push(group as u32);
                }
                place => {
                    order.push((1, kept.len()));
                    kept.push(place);
                }
            }
        }
        let present = self.rows_of(&present);
        let rows = match kept.is_empty() {
            true => present,
            false => interleave_record_batch(&[&present, &cut.kept.take(&kept)], &order)
                .expect("both have the columns of groups"),
        };
        cut.gathered.append(&rows);
        cut.next = portion.end;
        portion.len()
    }

    /// Groups as rows: keys, the number of rows, partial columns.
    fn rows_of(&self, groups: &[u32]) -> RecordBatch {
        let state = self.gather(groups);
        let mut columns = self.keys(groups);
        columns.push(Arc::new(Int64Array::from(state.rows.clone())));
        columns.extend(state.partials());
        batch_of(self.schema(), columns, groups.len())
    }
}

fn append(store: &mut RowStore, columns: Vec<ArrayRef>, weights: &[i64]) {
    let first = store.append(&batch_of(store.schema().clone(), columns, weights.len()));
    for (row, weight) in weights.iter().enumerate().filter(|(_, weight)| **weight != 1) {
        store.set_weight(first + row as u32, *weight);
    }
}

#[cfg(test)]
mod tests;
