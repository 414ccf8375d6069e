//! One side of a join: rows in segments, chained by key.
//!
//! ```text
//!   key ──index──▶ k     heads[k] ──▶ newest row ──next──▶ older row ──▶ …
//! ```
//!
//! A side whose rows only come keeps no weights and no way to find a row by its values. The other kind is a
//! [`ZSet`]; a row that died stays in its chain, and is stepped over, until its side is compacted.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use tributary_storage::{ABSENT, Delta, KeyIndex, RowStore, RowsSnapshot, Spill, ZSet};

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct JoinSide {
    key: Vec<usize>,
    key_types: Vec<DataType>,
    rows: Rows,
    index: KeyIndex,
    /// Per key its newest row.
    heads: Vec<u32>,
    /// Per row the next older one of its key.
    next: Vec<u32>,
}

#[derive(Debug)]
enum Rows {
    Appended(RowStore),
    Weighted(Box<ZSet>),
}

/// The rows found for a batch of keys.
pub(crate) struct Matches {
    /// The rows' ids, those of one key together.
    ids: Vec<u32>,
    /// For each the index of the key it was found for, ascending.
    pub(crate) probe: Vec<u32>,
}

impl JoinSide {
    /// A side without rows, whose rows are found by the columns at `key`.
    pub(crate) fn new(schema: SchemaRef, key: &[usize], append_only: bool) -> Self {
        let key_types: Vec<DataType> = key.iter().map(|k| schema.field(*k).data_type().clone()).collect();
        Self {
            key: key.to_vec(),
            index: KeyIndex::new(&key_types),
            key_types,
            rows: match append_only {
                true => Rows::Appended(RowStore::new(schema)),
                false => Rows::Weighted(Box::new(ZSet::new(schema))),
            },
            heads: Vec::new(),
            next: Vec::new(),
        }
    }

    fn store(&self) -> &RowStore {
        match &self.rows {
            Rows::Appended(rows) => rows,
            Rows::Weighted(rows) => rows.store(),
        }
    }

    pub(crate) fn schema(&self) -> &SchemaRef {
        self.store().schema()
    }

    /// The number of rows, dead ones included.
    pub(crate) fn len(&self) -> usize {
        self.store().len()
    }

    pub(crate) fn bytes(&self) -> usize {
        let rows = match &self.rows {
            Rows::Appended(rows) => rows.bytes(),
            Rows::Weighted(rows) => rows.bytes(),
        };
        rows + self.index.bytes() + (self.heads.capacity() + self.next.capacity()) * size_of::<u32>()
    }

    /// Takes in a delta.
    pub(crate) fn apply(&mut self, delta: &Delta) {
        if delta.is_empty() {
            return;
        }
        self.link(delta);
        let compacted = match &mut self.rows {
            Rows::Appended(_) => false,
            Rows::Weighted(rows) => rows.compact_if_due().is_some(),
        };
        if compacted {
            self.rechain();
        }
    }

    fn link(&mut self, delta: &Delta) {
        let keys: Vec<ArrayRef> = self.key.iter().map(|k| delta.rows().column(*k).clone()).collect();
        let groups = self.index.insert(&keys, delta.len());
        self.heads.resize(self.index.len(), ABSENT);
        match &mut self.rows {
            Rows::Appended(rows) => {
                assert!(
                    delta.weights().is_none(),
                    "a side that only grows takes no weights"
                );
                let first = rows.append(delta.rows());
                for (row, group) in groups.iter().enumerate() {
                    let head = &mut self.heads[*group as usize];
                    self.next.push(std::mem::replace(head, first + row as u32));
                }
            }
            Rows::Weighted(rows) => {
                let applied = rows.apply(delta);
                let len = rows.store().len();
                self.next.resize(len, ABSENT);
                let mut linked = vec![false; len - applied.first_new as usize];
                for (id, group) in applied.ids.iter().zip(&groups) {
                    let Some(new) = id.checked_sub(applied.first_new) else {
                        continue;
                    };
                    if !std::mem::replace(&mut linked[new as usize], true) {
                        let head = &mut self.heads[*group as usize];
                        self.next[*id as usize] = std::mem::replace(head, *id);
                    }
                }
            }
        }
    }

    /// Builds the chains again over the live rows as they are numbered now.
    fn rechain(&mut self) {
        let store = match &self.rows {
            Rows::Appended(rows) => rows,
            Rows::Weighted(rows) => rows.store(),
        };
        self.index = KeyIndex::new(&self.key_types);
        self.heads.clear();
        self.next = vec![ABSENT; store.len()];
        for (ids, rows) in store.live_batches() {
            let keys: Vec<ArrayRef> = self.key.iter().map(|k| rows.column(*k).clone()).collect();
            let groups = self.index.insert(&keys, ids.len());
            self.heads.resize(self.index.len(), ABSENT);
            for (id, group) in ids.into_iter().zip(groups) {
                self.next[id as usize] = std::mem::replace(&mut self.heads[group as usize], id);
            }
        }
    }

    /// The live rows of each key. Null keys are keys like any other here.
    pub(crate) fn lookup(&self, keys: &[ArrayRef], rows: usize) -> Matches {
        let found = self.index.find(keys, rows);
        let mut ids = Vec::with_capacity(rows);
        let mut probe = Vec::with_capacity(rows);
        let store = self.store();
        let weighted = matches!(self.rows, Rows::Weighted(_)) && store.dead() > 0;
        let heads = found.iter().map(|group| match *group {
            ABSENT => ABSENT,
            group => self.heads[group as usize],
        });
        for (row, head) in heads.enumerate() {
            let mut id = head;
            while id != ABSENT {
                if !weighted || store.weight(id) != 0 {
                    ids.push(id);
                    probe.push(row as u32);
                }
                id = self.next[id as usize];
            }
        }
        Matches { ids, probe }
    }

    /// The rows of some matches.
    pub(crate) fn rows(&self, matches: &Matches) -> RecordBatch {
        self.store().take(&matches.ids)
    }

    /// The weights of some matches; `None` when each is 1.
    pub(crate) fn weights(&self, matches: &Matches) -> Option<Int64Array> {
        let Rows::Weighted(rows) = &self.rows else {
            return None;
        };
        let weights = matches.ids.iter().map(|id| rows.store().weight(*id));
        let weights = Int64Array::from_iter_values(weights);
        weights
            .values()
            .iter()
            .any(|weight| *weight != 1)
            .then_some(weights)
    }

    pub(crate) fn spillable(&mut self) -> &mut dyn Spill {
        match &mut self.rows {
            Rows::Appended(rows) => rows,
            Rows::Weighted(rows) => &mut **rows,
        }
    }

    pub(crate) fn save(&self) -> Arc<RowsSnapshot> {
        self.store().snapshot()
    }

    /// Takes in the rows that were saved, as they are.
    pub(crate) fn restore(&mut self, saved: RowStore) {
        self.rows = match &self.rows {
            Rows::Appended(_) => Rows::Appended(saved),
            Rows::Weighted(_) => Rows::Weighted(Box::new(ZSet::from_store(saved))),
        };
        self.rechain();
    }
}
