//! A transaction's writes, as bound by a session at a snapshot.

use std::collections::BTreeMap;

use tributary_planner::residency::Copies;
use tributary_replication::{Epoch, TableWrites};
use tributary_storage::{ObjectId, OriginId};

use crate::tokens::CommitToken;

/// All writes of one transaction: they are in one log record, all or none.
#[derive(Clone, Debug, Default)]
pub struct WriteSet {
    /// Per table the new rows.
    pub tables: BTreeMap<ObjectId, TableChange>,
    /// A source and the number of its events consumed once this commit is in: kept with the rows, so that a
    /// crash neither repeats nor skips an event.
    pub source: Option<(ObjectId, u64)>,
    /// For a commit that may come again.
    pub token: Option<CommitToken>,
    /// The catalog version the writes were bound against.
    pub catalog_version: u64,
    /// What its statements copied between tables: refused when residency has come to forbid it since.
    pub copies: Copies,
}

impl WriteSet {
    /// The number of rows and deletions.
    pub fn rows(&self) -> usize {
        self.tables
            .values()
            .map(|change| change.writes.rows.num_rows())
            .sum()
    }

    /// The memory that the rows keep, in bytes.
    pub fn bytes(&self) -> usize {
        let rows = self.tables.values().map(|change| &change.writes.rows);
        rows.map(|rows| rows.get_array_memory_size()).sum()
    }
}

/// Writes to one table; each key at most once.
#[derive(Clone, Debug)]
pub struct TableChange {
    /// New rows and deletions.
    pub writes: TableWrites,
    /// Per row, the version its key must still have: `None` for a key that must have no live row.
    pub expected: Vec<Option<(OriginId, Epoch)>>,
}
