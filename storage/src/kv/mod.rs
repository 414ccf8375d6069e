//! Families of bytes: the narrow door to the disk.
//!
//! What a caller may rely on, and nothing more:
//!
//! 1. a [`WriteBatch`] is atomic for readers of this process, over all families;
//! 2. after [`Kv::sync`] everything written before it survives a crash;
//! 3. of what was written and not synced, a crash leaves *in each family* some prefix of the writes, and the
//!    families need not agree (a database flushes its families one by one); the last write kept may be torn.
//!
//! So a record that makes other families' bytes live is written after they were synced, and every record
//! that could be torn carries a checksum. [`MemKv`] produces exactly these faults on demand; one conformance
//! suite holds both implementations to the promises.
//!
//! Left out: transactions, merge operators, snapshots. State that is read in bulk lives in traces.

#[cfg(test)]
pub(crate) mod conformance;
mod mem;
mod rocks;

use bytes::Bytes;

use crate::error::Result;

pub use mem::{CrashFaults, Defect, Loss, MemKv};
pub use rocks::RocksKv;

/// The closed set of families.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// Immutable runs and blobs of checkpoints, in chunks.
    Runs,
    /// The few records that say which runs are live.
    Manifest,
    /// Log records by position.
    Log,
}

impl Family {
    /// All families, in a fixed order.
    pub const ALL: [Family; 3] = [Family::Runs, Family::Manifest, Family::Log];

    /// The family's name on disk and in messages.
    pub fn name(self) -> &'static str {
        match self {
            Family::Runs => "runs",
            Family::Manifest => "manifest",
            Family::Log => "log",
        }
    }
}

/// Ordered maps of bytes with an explicit sync. See the module's description for what a crash may take.
pub trait Kv: Send + Sync {
    /// The value of a key.
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>>;

    /// At most `limit` entries with `from <= key < to` (no upper end when `to` is `None`), in key order.
    fn scan(
        &self,
        family: Family,
        from: &[u8],
        to: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>>;

    /// Applies all operations of the batch, in order and at once. Not durable before [`Kv::sync`]. When it
    /// fails nothing was applied.
    fn write(&self, batch: WriteBatch) -> Result<()>;

    /// Everything written before is durable when this returns. When it fails, what of it survives a crash
    /// is unknown, and the caller must not go on as if it had succeeded later.
    fn sync(&self) -> Result<()>;
}

impl<K: Kv + ?Sized> Kv for std::sync::Arc<K> {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>> {
        (**self).get(family, key)
    }

    fn scan(
        &self,
        family: Family,
        from: &[u8],
        to: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>> {
        (**self).scan(family, from, to, limit)
    }

    fn write(&self, batch: WriteBatch) -> Result<()> {
        (**self).write(batch)
    }

    fn sync(&self) -> Result<()> {
        (**self).sync()
    }
}

/// One change of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Put { key: Bytes, value: Bytes },
    Delete { key: Bytes },
    DeleteRange { from: Bytes, to: Bytes },
}

/// Changes that are applied in order and at once.
#[derive(Clone, Debug, Default)]
pub struct WriteBatch {
    pub(crate) operations: Vec<(Family, Operation)>,
}

impl WriteBatch {
    /// A batch without operations.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a value.
    pub fn put(&mut self, family: Family, key: impl AsRef<[u8]>, value: impl Into<Bytes>) {
        let key = Bytes::copy_from_slice(key.as_ref());
        self.operations.push((
            family,
            Operation::Put {
                key,
                value: value.into(),
            },
        ));
    }

    /// Removes a key; a missing one is no error.
    pub fn delete(&mut self, family: Family, key: impl AsRef<[u8]>) {
        let key = Bytes::copy_from_slice(key.as_ref());
        self.operations.push((family, Operation::Delete { key }));
    }

    /// Removes every key with `from <= key < to`; an empty range removes nothing.
    pub fn delete_range(&mut self, family: Family, from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) {
        let (from, to) = (from.as_ref(), to.as_ref());
        if from < to {
            let (from, to) = (Bytes::copy_from_slice(from), Bytes::copy_from_slice(to));
            self.operations
                .push((family, Operation::DeleteRange { from, to }));
        }
    }

    /// Whether there is nothing to apply.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// The number of operations.
    pub fn len(&self) -> usize {
        self.operations.len()
    }
}
