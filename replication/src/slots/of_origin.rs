//! The slots of one origin, in the order in which they were written.

use std::sync::Arc;

use arrow::array::{Array, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use tributary_storage::{ABSENT, KeyIndex, RowStore, RowsSnapshot, Spill};

use crate::frontier::Epoch;
use crate::section::{boolean, int64};

/// Dead rows are thrown out when they are the majority and at least so many.
const DEAD_ROWS_MIN: usize = 16_384;

/// Rows per batch when slots are read back or rewritten.
const PORTION_ROWS: usize = 65_536;

/// Where the slot of a key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The row's id in the store.
    pub(super) row: u32,
    /// Whether the slot is a tombstone.
    pub(super) deleted: bool,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct OfOrigin {
    rows: RowStore,
    /// Per key the row of its slot, [`ABSENT`] where there is none. Keys that came later are missing.
    row_of: Vec<u32>,
    /// Per row its stamp.
    stamps: Vec<u64>,
    /// Per row whether it is a tombstone.
    deleted: Vec<bool>,
    /// The rows that became tombstones, ascending. Some may be dead by now.
    tombstones: Vec<u32>,
    /// Whether stamps never fall from row to row: always so for what is written here, and for what arrives in order.
    ascending: bool,
}

impl OfOrigin {
    pub(super) fn new(schema: SchemaRef) -> Self {
        Self {
            rows: RowStore::new(schema),
            row_of: Vec::new(),
            stamps: Vec::new(),
            deleted: Vec::new(),
            tombstones: Vec::new(),
            ascending: true,
        }
    }

    /// The slots that a checkpoint brought back; their first `keys` columns are the key.
    pub(super) fn restored(rows: RowStore, keys: usize, index: &mut KeyIndex) -> Self {
        let mut slots = Self::new(rows.schema().clone());
        for (_, batch) in rows.batches() {
            slots.note(batch, keys);
        }
        for (ids, batch) in rows.live_batches() {
            let found = index.insert(&batch.columns()[..keys], batch.num_rows());
            slots.row_of.resize(index.len(), ABSENT);
            for (key, id) in found.into_iter().zip(ids) {
                slots.row_of[key as usize] = id;
            }
        }
        slots.rows = rows;
        slots
    }

    pub(super) fn place(&self, key: u32) -> Option<Place> {
        let row = *self.row_of.get(key as usize)?;
        (row != ABSENT).then(|| Place {
            row,
            deleted: self.deleted[row as usize],
        })
    }

    pub(super) fn stamp(&self, place: Place) -> Epoch {
        Epoch(self.stamps[place.row as usize])
    }

    /// The newest stamp among the slots of some keys, 0 when there is none.
    pub(super) fn newest_stamp(&self, keys: &[u32]) -> Epoch {
        let stamps = keys.iter().filter_map(|key| self.place(*key));
        stamps.map(|place| self.stamp(place)).max().unwrap_or(Epoch(0))
    }

    /// The rows of the slots that are no tombstones, in the order in which they were written.
    pub(super) fn live(&self) -> Vec<u32> {
        let mut rows = self.rows.live();
        rows.retain(|row| !self.deleted[*row as usize]);
        rows
    }

    /// Whole rows.
    pub(super) fn take(&self, rows: &[u32]) -> RecordBatch {
        self.rows.take(rows)
    }

    /// The columns from `first` on of some rows.
    pub(super) fn take_from(&self, first: usize, rows: &[u32]) -> Vec<arrow::array::ArrayRef> {
        let columns: Vec<usize> = (first..self.rows.schema().fields().len()).collect();
        self.rows.take_columns(&columns, rows)
    }

    /// The slots stamped later than an epoch, in the order in which they were written.
    pub(super) fn since(&self, since: Epoch) -> RecordBatch {
        let first = self.first_since(since);
        let wanted = |row: &u32| self.stamps[*row as usize] > since.0 && self.rows.weight(*row) != 0;
        let rows: Vec<u32> = (first as u32..self.stamps.len() as u32).filter(wanted).collect();
        self.rows.take(&rows)
    }

    /// The first row that can be stamped later than an epoch.
    pub(super) fn first_since(&self, since: Epoch) -> usize {
        match self.ascending {
            true => self.stamps.partition_point(|stamp| *stamp <= since.0),
            false => 0,
        }
    }

    /// The bytes of rows stamped later than an epoch, by their number and the mean of the newest ones.
    pub(super) fn bytes_since(&self, since: Epoch) -> usize {
        let wanted = |row: usize| self.stamps[row] > since.0 && self.rows.weight(row as u32) != 0;
        let rows = (self.first_since(since)..self.stamps.len())
            .filter(|row| wanted(*row))
            .count();
        let newest = self.rows.batches().last();
        newest.map_or(0, |(_, newest)| rows * row_bytes(newest))
    }

    /// Writes values, each over the one of its key. `keep_unknown_tombstones`: see [`super::SlotSet`].
    pub(super) fn write(
        &mut self,
        keys: &[u32],
        rows: &RecordBatch,
        key_count: usize,
        keep_unknown_tombstones: bool,
    ) {
        let deleted = boolean(rows.column(key_count + 1));
        let is_kept =
            |row: usize| keep_unknown_tombstones || !deleted.value(row) || self.place(keys[row]).is_some();
        if deleted.true_count() == 0 || (0..keys.len()).all(is_kept) {
            self.append(keys, rows, key_count);
        } else {
            let kept: BooleanArray = (0..keys.len()).map(|row| Some(is_kept(row))).collect();
            let keys = keys.iter().zip(kept.values()).filter(|(_, kept)| *kept);
            let keys: Vec<u32> = keys.map(|(key, _)| *key).collect();
            let rows = filter_record_batch(rows, &kept).expect("there is one verdict per row");
            self.append(&keys, &rows, key_count);
        }
        if self.rows.dead() >= DEAD_ROWS_MIN && self.rows.dead() * 2 > self.rows.len() {
            self.compact();
        }
    }

    fn append(&mut self, keys: &[u32], rows: &RecordBatch, key_count: usize) {
        let Some(longest) = keys.iter().max() else {
            return;
        };
        if self.row_of.len() <= *longest as usize {
            self.row_of.resize(*longest as usize + 1, ABSENT);
        }
        let first = self.rows.append(rows);
        for (row, key) in (first..).zip(keys) {
            let older = std::mem::replace(&mut self.row_of[*key as usize], row);
            if older != ABSENT {
                self.rows.set_weight(older, 0);
            }
        }
        self.note(rows, key_count);
    }

    /// Takes note of the stamps and tombstones of rows at the end.
    fn note(&mut self, rows: &RecordBatch, key_count: usize) {
        let mut newest = self.stamps.last().copied().unwrap_or(0);
        for stamp in int64(rows.column(key_count)).values() {
            let stamp = u64::try_from(*stamp).expect("stamps were checked");
            self.ascending &= stamp >= newest;
            newest = newest.max(stamp);
            self.stamps.push(stamp);
        }
        let deleted = boolean(rows.column(key_count + 1));
        let first = self.deleted.len();
        let gone = (0..deleted.len()).filter(|row| deleted.value(*row));
        self.tombstones.extend(gone.map(|row| (first + row) as u32));
        self.deleted.extend(deleted.values());
    }

    /// The number of tombstones.
    pub(super) fn tombstones(&self) -> usize {
        self.held_tombstones().count()
    }

    /// Whether a tombstone is not stamped later than an epoch.
    pub(super) fn has_stable(&self, to: Epoch) -> bool {
        let mut stamps = self.held_tombstones().map(|row| self.stamps[row as usize]);
        match self.ascending {
            // The first is the oldest.
            true => stamps.next().is_some_and(|oldest| oldest <= to.0),
            false => stamps.any(|stamp| stamp <= to.0),
        }
    }

    fn held_tombstones(&self) -> impl Iterator<Item = u32> + '_ {
        let held = |row: &u32| self.rows.weight(*row) != 0;
        self.tombstones.iter().copied().filter(held)
    }

    /// Drops the tombstones that are not stamped later than an epoch. Returns how many.
    pub(super) fn collect(&mut self, to: Epoch) -> usize {
        let stable: Vec<u32> = self
            .held_tombstones()
            .filter(|row| self.stamps[*row as usize] <= to.0)
            .collect();
        if stable.is_empty() {
            return 0;
        }
        for row in self.row_of.iter_mut().filter(|row| **row != ABSENT) {
            if stable.binary_search(row).is_ok() {
                *row = ABSENT;
            }
        }
        stable.iter().for_each(|row| self.rows.set_weight(*row, 0));
        let rows = &self.rows;
        self.tombstones.retain(|row| rows.weight(*row) != 0);
        if self.rows.dead() * 2 > self.rows.len() {
            self.compact();
        }
        stable.len()
    }

    /// The same slots under the numbers of another index.
    pub(super) fn reindexed(self, keys: usize, index: &mut KeyIndex) -> Self {
        Self::restored(self.rows, keys, index)
    }

    /// Throws out dead rows; the others keep their order.
    fn compact(&mut self) {
        let live = self.rows.live();
        let mut rows = RowStore::new(self.rows.schema().clone());
        for portion in live.chunks(PORTION_ROWS) {
            rows.append(&self.rows.take(portion));
        }
        let mut moved = vec![ABSENT; self.rows.len()];
        for (new, old) in live.iter().enumerate() {
            moved[*old as usize] = new as u32;
        }
        for row in self.row_of.iter_mut().filter(|row| **row != ABSENT) {
            *row = moved[*row as usize];
        }
        self.stamps = live.iter().map(|row| self.stamps[*row as usize]).collect();
        self.deleted = live.iter().map(|row| self.deleted[*row as usize]).collect();
        let gone = self.deleted.iter().enumerate().filter(|(_, deleted)| **deleted);
        self.tombstones = gone.map(|(row, _)| row as u32).collect();
        self.ascending = self.stamps.is_sorted();
        self.rows = rows;
    }

    pub(super) fn spillable(&mut self) -> &mut dyn Spill {
        &mut self.rows
    }

    pub(super) fn snapshot(&self) -> Arc<RowsSnapshot> {
        self.rows.snapshot()
    }

    pub(super) fn row_count(&self) -> usize {
        self.rows.len() - self.rows.dead()
    }

    pub(super) fn bytes(&self) -> usize {
        let numbers = self.row_of.capacity() + self.tombstones.capacity();
        self.rows.bytes() + numbers * 4 + self.stamps.capacity() * 8 + self.deleted.capacity()
    }
}

/// The mean size of a row.
fn row_bytes(rows: &RecordBatch) -> usize {
    let bytes: usize = rows
        .columns()
        .iter()
        .map(|column| column.get_buffer_memory_size())
        .sum();
    bytes.div_ceil(rows.num_rows().max(1))
}
