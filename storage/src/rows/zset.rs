//! A Z-set that finds rows by their values: any delta can be applied to it.
//!
//! ```text
//!   rows ──hash──▶ probe table ──▶ id ──▶ RowStore (rows, weights)
//! ```
//!
//! A row is looked up by its hash; the rows that a whole batch found are then compared with the batch, column by
//! column. Where they differ, which takes two rows with one 64-bit hash, the row is looked up again with each
//! candidate compared.

use std::sync::Arc;

use arrow::array::{Array, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::kernels::cmp::not_distinct;
use arrow::datatypes::{DataType, SchemaRef};

use super::spill::{Spill, SpillArea};
use super::{RowStore, RowsSnapshot};
use crate::Delta;
use crate::delta::batch;
use crate::error::Result;
use crate::index::{Hashed, ProbeTable, hash_rows};
use crate::key::KeyEncoder;

/// A store is compacted when it has more dead rows than live ones, and at least so many.
const DEAD_ROWS_MIN: usize = 16_384;

/// See the module's documentation.
#[derive(Debug)]
pub struct ZSet {
    store: RowStore,
    table: ProbeTable<Hashed>,
}

/// What applying a delta did to row ids.
#[derive(Debug)]
pub struct Applied {
    /// For each row of the delta its id.
    pub ids: Vec<u32>,
    /// Ids from here on are new.
    pub first_new: u32,
}

/// What a compaction did to row ids.
#[derive(Debug)]
pub struct Renumbered {
    /// The ids of the rows that were live, ascending.
    live: Vec<u32>,
}

impl Renumbered {
    /// The id that a row has now.
    ///
    /// # Panics
    /// When the row was dead.
    pub fn now(&self, id: u32) -> u32 {
        self.live
            .binary_search(&id)
            .expect("a row that is asked for is alive") as u32
    }
}

impl ZSet {
    /// A set without rows.
    pub fn new(schema: SchemaRef) -> Self {
        Self {
            store: RowStore::new(schema),
            table: ProbeTable::new(),
        }
    }

    /// The rows.
    pub fn store(&self) -> &RowStore {
        &self.store
    }

    /// What is there now.
    pub fn snapshot(&self) -> Arc<RowsSnapshot> {
        self.store.snapshot()
    }

    /// The memory held, in bytes.
    pub fn bytes(&self) -> usize {
        self.store.bytes() + self.table.bytes()
    }

    /// Adds a delta. Ids stay as they are: whoever keeps none calls [`ZSet::compact_if_due`] then and when.
    ///
    /// # Panics
    /// When the columns have other types than the set's.
    pub fn apply(&mut self, delta: &Delta) -> Applied {
        let rows = named(self.store.schema(), delta.rows());
        let first_new = self.store.len() as u32;
        let hashes: Vec<Hashed> = hash_rows(rows.columns(), rows.num_rows())
            .into_iter()
            .map(Hashed)
            .collect();
        let mut fresh: Vec<u32> = Vec::new();
        let mut ids = self.table.insert(
            &hashes,
            &mut fresh,
            |_, _, _| true,
            |fresh, row| {
                fresh.push(row as u32);
                first_new + fresh.len() as u32 - 1
            },
        );
        self.append(&rows, &fresh);
        self.tell_apart(&rows, &hashes, &mut ids);
        for (row, id) in ids.iter().enumerate() {
            let weight = if *id >= first_new {
                self.fresh_weight(*id, first_new, &fresh, row)
            } else {
                self.store.weight(*id)
            };
            let sum = weight
                .checked_add(delta.weight(row))
                .expect("a weight is a sum of far fewer than 2^63 entries");
            self.store.set_weight(*id, sum);
        }
        Applied { ids, first_new }
    }

    /// A new row has the weight 0 before its first entry, although it was appended with the weight 1.
    fn fresh_weight(&self, id: u32, first_new: u32, fresh: &[u32], row: usize) -> i64 {
        let is_first = fresh.get((id - first_new) as usize) == Some(&(row as u32));
        if is_first { 0 } else { self.store.weight(id) }
    }

    fn append(&mut self, rows: &RecordBatch, fresh: &[u32]) {
        if fresh.len() == rows.num_rows() {
            self.store.append(rows);
        } else if !fresh.is_empty() {
            let fresh = UInt32Array::from(fresh.to_vec());
            let rows = Delta::inserts(rows.clone()).take(&fresh);
            self.store.append(rows.rows());
        }
    }

    /// Compares each row with the one it was found as; where they differ only in having one hash, looks again.
    fn tell_apart(&mut self, rows: &RecordBatch, hashes: &[Hashed], ids: &mut [u32]) {
        let found = self.store.take(ids);
        let Some(others) = differing(&found, rows) else {
            return;
        };
        for row in others {
            let own = rows.slice(row, 1);
            let mut state = (&mut self.store, false);
            let same = |state: &(&mut RowStore, bool), id: u32, _: usize| {
                differing(&state.0.take(&[id]), &own).is_none()
            };
            let next = |state: &mut (&mut RowStore, bool), _: usize| {
                state.1 = true;
                state.0.append(&own)
            };
            let id = self.table.insert(&hashes[row..=row], &mut state, same, next)[0];
            if state.1 {
                // Like every row before its first entry, it begins with nothing.
                self.store.set_weight(id, 0);
            }
            ids[row] = id;
        }
    }

    /// Drops dead rows when they are the majority, and then tells how ids changed.
    pub fn compact_if_due(&mut self) -> Option<Renumbered> {
        let dead = self.store.dead();
        if dead < DEAD_ROWS_MIN || dead * 2 < self.store.len() {
            return None;
        }
        let live = self.store.live();
        let snapshot = self.snapshot();
        let mut compact = Self::new(self.store.schema().clone());
        for delta in snapshot.scan(super::SEGMENT_ROWS) {
            compact.apply(&delta);
        }
        *self = compact;
        Some(Renumbered { live })
    }

    /// The set of the rows that a store holds, which keep their ids. Dead ones are not found again.
    ///
    /// The store was one of a set, so no live row is there twice: rows are entered without being compared.
    pub fn from_store(store: RowStore) -> Self {
        let mut table = ProbeTable::new();
        table.reserve(store.len() - store.dead());
        for (mut ids, rows) in store.live_batches() {
            let hashes = hash_rows(rows.columns(), rows.num_rows());
            let hashes: Vec<Hashed> = hashes.into_iter().map(Hashed).collect();
            table.insert(&hashes, &mut ids, |_, _, _| false, |ids, row| ids[row]);
        }
        Self { store, table }
    }
}

fn named(schema: &SchemaRef, rows: &RecordBatch) -> RecordBatch {
    batch(schema.clone(), rows.columns().to_vec(), rows.num_rows())
}

/// The rows in which two batches differ bit by bit; `None` when there are none.
fn differing(a: &RecordBatch, b: &RecordBatch) -> Option<Vec<usize>> {
    let mut same: Option<BooleanArray> = None;
    for (a, b) in a.columns().iter().zip(b.columns()) {
        let equal = match a.data_type() {
            DataType::Null => continue,
            other if other.is_nested() => {
                let encoder = KeyEncoder::new(std::slice::from_ref(other));
                let (a, b) = (
                    encoder.encode(std::slice::from_ref(a)),
                    encoder.encode(std::slice::from_ref(b)),
                );
                (0..a.len()).map(|row| Some(a.get(row) == b.get(row))).collect()
            }
            _ => not_distinct(a, b).expect("columns of one type can be compared"),
        };
        same = Some(match same {
            None => equal,
            Some(same) => arrow::compute::and(&same, &equal).expect("masks of one batch"),
        });
    }
    let same = same.filter(|same| same.true_count() < same.len())?;
    Some((0..same.len()).filter(|row| !same.value(*row)).collect())
}

impl Spill for ZSet {
    fn resident_bytes(&self) -> usize {
        self.store.resident_bytes()
    }

    fn spill(&mut self, area: &dyn SpillArea, bytes: usize) -> Result<usize> {
        self.store.spill(area, bytes)
    }

    fn spill_all(&mut self, area: &dyn SpillArea) -> Result<()> {
        self.store.spill_all(area)
    }
}
