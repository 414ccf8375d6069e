//! The log of one origin: everything that changes a region, in order.
//!
//! ```text
//!   append(records) ─▶ written ── sync() ─▶ durable ─▶ acknowledged, published, sent
//!   truncate_before(p): records below p go; position and hash of the last of them stay as the anchor
//! ```
//!
//! Many records are appended and made durable by one sync: group commit belongs to the caller, who decides
//! what to gather. Records are checksummed, carry the versions they were written under, and are chained:
//! each hash covers the record and the hash before it, so two logs that agree on (position, hash) agree on
//! everything up to there.
//!
//! Invariants: positions follow one another without a hole; a record that is returned had its checksum and
//! its chain verified. Left out: what the payload means.

mod kv_log;
mod record;
#[cfg(test)]
mod tests;

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::Result;

pub use kv_log::KvLog;
pub use record::{ENGINE_VERSION, FORMAT_VERSION, record_key};

/// The index of a record in its origin's log. The first record has 1; 0 means nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position(pub u64);

impl Position {
    /// The position after this one.
    pub fn next(self) -> Self {
        Self(self.0.checked_add(1).expect("a log has fewer than 2^64 records"))
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The hash of a log up to and including some record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ChainHash(pub [u8; 16]);

impl ChainHash {
    /// The hash of the empty log.
    pub const GENESIS: ChainHash = ChainHash([0; 16]);

    /// The hash after one more record.
    pub fn next(self, position: Position, payload: &[u8]) -> ChainHash {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.0);
        hasher.update(&position.0.to_le_bytes());
        hasher.update(payload);
        let mut hash = [0; 16];
        hash.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        ChainHash(hash)
    }
}

impl Default for ChainHash {
    fn default() -> Self {
        Self::GENESIS
    }
}

impl fmt::Display for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// One record of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its index.
    pub position: Position,
    /// The hash of the log up to and including this record.
    pub chain: ChainHash,
    /// What it says; opaque here.
    pub payload: Bytes,
}

impl Record {
    /// The record that follows the one at `position` with hash `chain`.
    pub fn after(position: Position, chain: ChainHash, payload: Bytes) -> Self {
        let position = position.next();
        Self {
            position,
            chain: chain.next(position, &payload),
            payload,
        }
    }
}

/// Records in order, durable after a sync.
pub trait Log: Send {
    /// Writes records after the last one; none is durable before [`Log::sync`]. When it fails, none was
    /// written and the call may be repeated.
    ///
    /// # Panics
    /// When the positions or the chain do not follow the last record: the caller is broken.
    fn append(&mut self, records: &[Record]) -> Result<()>;

    /// Makes everything appended durable. After a failure the node must stop: what is on disk is unknown.
    fn sync(&mut self) -> Result<()>;

    /// At most `records_max` records from `from` on (0 reads as 1), each verified.
    ///
    /// # Errors
    /// [`crate::StorageError::Corrupt`] when a record is damaged or missing, also when `from` was truncated.
    fn read(&self, from: Position, records_max: usize) -> Result<Vec<Record>>;

    /// The oldest record that is kept; `None` when there is none.
    fn first(&self) -> Result<Option<(Position, ChainHash)>>;

    /// The newest record ever appended, also when it was truncated since; `None` in a log that never had one.
    fn last(&self) -> Result<Option<(Position, ChainHash)>>;

    /// Forgets the records before `position`, at most all of them. Durable with the next sync; a crash
    /// before it may bring them back, which harms nobody.
    fn truncate_before(&mut self, position: Position) -> Result<()>;
}
