//! Which rows of a table are tombstones: by the write that deleted them, so that those that have become stable are found
//! without reading the table.

use std::collections::BTreeMap;

use arrow::array::{ArrayRef, Int64Array};
use tributary_storage::{Delta, Keys, OriginId, Trace};

use super::version::Held;
use super::{RowVersion, RowVersions, stored_hlc, stored_version};
use crate::frontier::{Epoch, Frontier};
use crate::hlc::Hlc;
use crate::section::{boolean, int64};

/// Rows per batch when the tombstones of a checkpoint are looked for.
const RESTORE_ROWS: usize = 8192;

/// The tombstones of one table. Keys are encoded as the table encodes them.
#[derive(Debug, Default)]
pub(super) struct Tombstones(BTreeMap<(OriginId, Epoch, Box<[u8]>), Hlc>);

impl Tombstones {
    pub(super) fn insert(&mut self, version: RowVersion, key: &[u8], hlc: Hlc) {
        self.0.insert((version.origin, version.stamp, key.into()), hlc);
    }

    pub(super) fn remove(&mut self, version: RowVersion, key: &[u8]) {
        self.0.remove(&(version.origin, version.stamp, key.into()));
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The oldest that each origin wrote.
    pub(super) fn oldest(&self) -> Vec<(OriginId, Epoch)> {
        let mut oldest: Vec<(OriginId, Epoch)> = Vec::new();
        let mut rest = self.0.keys().next();
        while let Some((origin, epoch, _)) = rest {
            oldest.push((*origin, *epoch));
            let behind = (*origin, Epoch(u64::MAX), Box::default());
            rest = self.0.range(behind..).next().map(|(key, _)| key);
        }
        oldest
    }

    /// The keys of those that `stable` covers and that are older than `before`.
    pub(super) fn stable<'a>(&'a self, stable: &'a Frontier, before: Hlc) -> impl Iterator<Item = &'a [u8]> {
        stable.iter().flat_map(move |(origin, epoch)| {
            let none: Box<[u8]> = Box::default();
            let after = Epoch(epoch.0.saturating_add(1));
            let mine = self
                .0
                .range((origin, Epoch(0), none.clone())..(origin, after, none));
            mine.filter(move |(_, hlc)| **hlc < before)
                .map(|((.., key), _)| &**key)
        })
    }
}

impl RowVersions {
    /// The number of tombstones.
    pub fn tombstones(&self) -> usize {
        self.tombstones.len()
    }

    /// The epoch of the oldest tombstone that each origin wrote.
    pub fn oldest_tombstones(&self) -> Vec<(OriginId, Epoch)> {
        self.tombstones.oldest()
    }

    /// Whether [`RowVersions::collect`] would drop anything.
    pub fn has_stable(&self, stable: &Frontier, before: Hlc) -> bool {
        self.tombstones.stable(stable, before).next().is_some()
    }

    /// Drops the tombstones of writes that `stable` covers: nothing older than they are can arrive any more. Those that
    /// are not older than `before` stay, so that whatever is written from then on under their keys is later. Returns how
    /// many were dropped.
    pub fn collect(&mut self, stable: &Frontier, before: Hlc) -> usize {
        let keys: Keys = self
            .tombstones
            .stable(stable, before)
            .map(<[u8]>::to_vec)
            .collect();
        if keys.is_empty() {
            return 0;
        }
        let found = self.trace.lookup(&self.keys.decode(&keys), keys.len());
        for (row, held) in self.held(&found, keys.len()).iter().enumerate() {
            let held = held.as_ref().filter(|held| held.version.deleted);
            let held = held.expect("every tombstone that is listed is held");
            self.tombstones.remove(held.version, keys.get(row));
        }
        let gone = Int64Array::from(vec![-1; found.rows.num_rows()]);
        self.trace.apply(&Delta::new(found.rows, Some(gone)));
        self.sealed = false;
        keys.len()
    }

    /// Lists the tombstones of rows that a checkpoint brought back.
    pub(super) fn find_tombstones(&mut self) {
        if !self.global {
            return;
        }
        let width = self.columns.fields().len();
        for delta in self.trace.snapshot().scan(RESTORE_ROWS) {
            let rows = delta.rows();
            let deleted = boolean(rows.column(width + 3));
            if deleted.true_count() == 0 {
                continue;
            }
            let (origins, stamps) = (int64(rows.column(width)), int64(rows.column(width + 1)));
            let hlcs = int64(rows.column(width + 2));
            let keys = self
                .keys
                .encode_rows(&self.key_columns(rows.columns()), rows.num_rows());
            for row in (0..rows.num_rows()).filter(|row| deleted.value(*row)) {
                let version = stored_version(origins.value(row), stamps.value(row), true);
                self.tombstones
                    .insert(version, keys.get(row), stored_hlc(hlcs.value(row)));
            }
        }
    }

    /// Keeps the list of tombstones.
    pub(super) fn note_tombstones(
        &mut self,
        columns: &[ArrayRef],
        held: &[Option<Held<'_>>],
        accepted: &[bool],
    ) {
        let width = self.columns.fields().len();
        let deleted = boolean(&columns[width + 3]);
        let was_deleted = |held: &Option<Held<'_>>| held.as_ref().is_some_and(|held| held.version.deleted);
        if !self.global || (deleted.true_count() == 0 && !held.iter().any(was_deleted)) {
            return;
        }
        let (origins, stamps) = (int64(&columns[width]), int64(&columns[width + 1]));
        let hlcs = int64(&columns[width + 2]);
        let keys = self.keys.encode_rows(&self.key_columns(columns), held.len());
        for (row, held) in held.iter().enumerate().filter(|(row, _)| accepted[*row]) {
            if let Some(held) = held.as_ref().filter(|held| held.version.deleted) {
                self.tombstones.remove(held.version, keys.get(row));
            }
            if deleted.value(row) {
                let version = stored_version(origins.value(row), stamps.value(row), true);
                self.tombstones
                    .insert(version, keys.get(row), stored_hlc(hlcs.value(row)));
            }
        }
    }
}
