//! The state of a join whose sides have at most one row per key: where each key's rows are.
//!
//! ```text
//!   key ──index──▶ k     left[k] ──▶ row     right[k] ──▶ row
//! ```
//!
//! Both sides share the index, so a change looks its keys up once. A newer row of a key is appended, and the older
//! one dies; a side that is mostly dead is compacted, and so is the index when most of its keys have no row.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use tributary_storage::{ABSENT, Delta, KeyIndex, RowStore, RowsSnapshot, Spill};

use crate::canonical::canonical;

/// A side is compacted when it has more dead rows than live ones, and at least so many.
const DEAD_ROWS_MIN: usize = 16_384;

/// One of the two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    Left,
    Right,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Paired {
    index: KeyIndex,
    sides: [Side; 2],
}

#[derive(Debug)]
struct Side {
    key: Vec<usize>,
    rows: RowStore,
    /// Per key its row, [`ABSENT`] where there is none. Keys that came later are missing.
    row_of: Vec<u32>,
}

impl Paired {
    /// Sides without rows, with the key of each.
    pub(crate) fn new(
        key_types: &[DataType],
        left: (SchemaRef, &[usize]),
        right: (SchemaRef, &[usize]),
    ) -> Self {
        let side = |(schema, key): (SchemaRef, &[usize])| Side {
            key: key.to_vec(),
            rows: RowStore::new(schema),
            row_of: Vec::new(),
        };
        Self {
            index: KeyIndex::new(key_types),
            sides: [side(left), side(right)],
        }
    }

    pub(crate) fn schema(&self, of: Of) -> &SchemaRef {
        self.sides[of as usize].rows.schema()
    }

    /// Rows of both sides, dead ones included.
    pub(crate) fn len(&self) -> usize {
        self.sides.iter().map(|side| side.rows.len()).sum()
    }

    pub(crate) fn bytes(&self) -> usize {
        let side = |side: &Side| side.rows.bytes() + side.row_of.capacity() * size_of::<u32>();
        self.index.bytes() + self.sides.iter().map(side).sum::<usize>()
    }

    /// The number of each row's key.
    pub(crate) fn keys_of(&mut self, of: Of, rows: &RecordBatch) -> Vec<u32> {
        let key = self.sides[of as usize].key.iter();
        let columns: Vec<ArrayRef> = key.map(|column| canonical(rows.column(*column))).collect();
        self.index.insert(&columns, rows.num_rows())
    }

    /// The row that a key has now.
    pub(crate) fn row(&self, of: Of, key: u32) -> Option<u32> {
        let row = *self.sides[of as usize].row_of.get(key as usize)?;
        (row != ABSENT).then_some(row)
    }

    /// Takes in a side's changes, which name each key at most once with each sign.
    ///
    /// # Panics
    /// When a row goes that was not there.
    pub(crate) fn apply(&mut self, of: Of, delta: &Delta, keys: &[u32]) {
        let keys_known = self.index.len();
        let side = &mut self.sides[of as usize];
        side.row_of.resize(keys_known, ABSENT);
        for (row, key) in keys.iter().enumerate().filter(|(row, _)| delta.weight(*row) < 0) {
            assert_eq!(delta.weight(row), -1, "a side has one row per key");
            let gone = std::mem::replace(&mut side.row_of[*key as usize], ABSENT);
            assert_ne!(gone, ABSENT, "a row goes that is there");
            side.rows.set_weight(gone, 0);
        }
        let (come, rows): (Vec<u32>, Vec<u32>) = keys
            .iter()
            .enumerate()
            .filter(|(row, _)| delta.weight(*row) > 0)
            .map(|(row, key)| (*key, row as u32))
            .unzip();
        let first = side.rows.append(delta.take(&rows.into()).rows());
        for (row, key) in (first..).zip(come) {
            let earlier = std::mem::replace(&mut side.row_of[key as usize], row);
            assert_eq!(earlier, ABSENT, "a side has one row per key");
        }
    }

    /// Throws out dead rows where they are the majority, and likewise keys without rows. Their numbers change.
    pub(crate) fn compact_if_due(&mut self) {
        let live: usize = self
            .sides
            .iter()
            .map(|side| side.rows.len() - side.rows.dead())
            .sum();
        if self.index.len() >= DEAD_ROWS_MIN && self.index.len() > 2 * live {
            self.forget_keys();
        }
        for side in &mut self.sides {
            if side.rows.dead() >= DEAD_ROWS_MIN && side.rows.dead() * 2 > side.rows.len() {
                side.compact();
            }
        }
    }

    /// Numbers anew the keys that have a row.
    fn forget_keys(&mut self) {
        let has_row = |key: &u32| self.row(Of::Left, *key).or(self.row(Of::Right, *key)).is_some();
        let live: Vec<u32> = (0..self.index.len() as u32).filter(has_row).collect();
        let mut index = KeyIndex::new(self.index.types());
        index.insert(&self.index.columns(&live), live.len());
        self.index = index;
        for side in &mut self.sides {
            let row_of = |key: &u32| side.row_of.get(*key as usize).copied().unwrap_or(ABSENT);
            side.row_of = live.iter().map(row_of).collect();
        }
    }

    /// Some rows of a side.
    pub(crate) fn take(&self, of: Of, rows: &[u32]) -> Vec<ArrayRef> {
        self.sides[of as usize].rows.take(rows).columns().to_vec()
    }

    pub(crate) fn spillable(&mut self) -> [&mut dyn Spill; 2] {
        let [left, right] = &mut self.sides;
        [&mut left.rows, &mut right.rows]
    }

    pub(crate) fn save(&self, of: Of) -> Arc<RowsSnapshot> {
        self.sides[of as usize].rows.snapshot()
    }

    /// Takes in the rows of a side that were saved, as they are.
    pub(crate) fn restore(&mut self, of: Of, saved: RowStore) {
        self.index
            .reserve((saved.len() - saved.dead()).saturating_sub(self.index.len()));
        for (ids, rows) in saved.live_batches() {
            let keys = self.keys_of(of, &rows);
            let row_of = &mut self.sides[of as usize].row_of;
            row_of.resize(self.index.len(), ABSENT);
            for (id, key) in ids.into_iter().zip(keys) {
                let earlier = std::mem::replace(&mut row_of[key as usize], id);
                assert_eq!(earlier, ABSENT, "a side has one row per key");
            }
        }
        self.sides[of as usize].rows = saved;
    }
}

impl Side {
    fn compact(&mut self) {
        let live = self.rows.live();
        let mut rows = RowStore::new(self.rows.schema().clone());
        for portion in live.chunks(1 << 16) {
            rows.append(&self.rows.take(portion));
        }
        self.rows = rows;
        for row in self.row_of.iter_mut().filter(|row| **row != ABSENT) {
            *row = live.binary_search(row).expect("a key's row is alive") as u32;
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::Int64Type;

    use super::*;
    use crate::columns::{batch_of, schema_of};

    fn delta(keys: std::ops::Range<i64>, weight: i64) -> Delta {
        let key: ArrayRef = Arc::new(Int64Array::from_iter_values(keys.clone()));
        let tenfold: ArrayRef = Arc::new(Int64Array::from_iter_values(keys.clone().map(|key| key * 10)));
        let rows = key.len();
        let batch = batch_of(
            schema_of(&[DataType::Int64, DataType::Int64]),
            vec![key, tenfold],
            rows,
        );
        Delta::new(batch, Some(Int64Array::from(vec![weight; rows])))
    }

    #[test]
    fn keys_that_come_and_go_leave_nothing() {
        let schema = schema_of(&[DataType::Int64, DataType::Int64]);
        let mut paired = Paired::new(&[DataType::Int64], (schema.clone(), &[0]), (schema, &[0]));
        let mut change = |of: Of, keys: std::ops::Range<i64>, weight: i64| {
            let delta = delta(keys, weight);
            let numbers = paired.keys_of(of, delta.rows());
            paired.apply(of, &delta, &numbers);
            paired.compact_if_due();
            paired.index.len()
        };
        change(Of::Left, 0..100, 1);
        change(Of::Right, 50..120, 1);
        for round in 1..20 {
            let keys = round * 10_000..(round + 1) * 10_000;
            change(Of::Left, keys.clone(), 1);
            assert!(change(Of::Left, keys, -1) < 3 * DEAD_ROWS_MIN);
        }
        let probe = delta(0..130, 1);
        let numbers = paired.keys_of(Of::Left, probe.rows());
        for (key, number) in (0..130).zip(numbers) {
            for (of, held) in [(Of::Left, 0..100), (Of::Right, 50..120)] {
                let row = paired.row(of, number);
                assert_eq!(row.is_some(), held.contains(&key), "{of:?} of key {key}");
                if let Some(row) = row {
                    let tenfold = paired.take(of, &[row])[1].as_primitive::<Int64Type>().value(0);
                    assert_eq!(tenfold, key * 10);
                }
            }
        }
    }
}
