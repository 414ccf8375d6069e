//! Which rows of a table are tombstones: by the write that deleted them, so that those that have become stable are found
//! without reading the table.

use std::collections::BTreeMap;

use tributary_storage::OriginId;

use super::RowVersion;
use crate::frontier::{Epoch, Frontier};
use crate::hlc::Hlc;

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
