//! [`Kv`] on RocksDB.
//!
//! All families share RocksDB's write-ahead log, and [`Kv::sync`] is one fsync of that log, so many writes
//! before it share its cost. Choices that matter:
//!
//! - the log is replayed tolerating only an *incomplete* last record: damage before it refuses to open,
//!   instead of silently forgetting what was acknowledged (RocksDB's default stops at the damage);
//! - `atomic_flush`, so that flushes RocksDB starts by itself do not pull the families apart;
//! - chunks of runs lie in blob files, so that compaction does not copy them again and again, compressed.
//!
//! RocksDB locks the directory, so a second process is refused. Space that runs out makes writes fail with
//! [`StorageError::Full`]; RocksDB recovers by itself, within seconds, once there is space.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use rocksdb::{
    ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, DBRecoveryMode, Direction, ErrorKind,
    IteratorMode, Options, ReadOptions,
};

use super::{Family, Kv, Operation, WriteBatch};
use crate::error::{Result, StorageError};

/// From this size on the write-ahead log is shortened by flushing all families, which bounds the time that
/// opening takes.
const WAL_BYTES_MAX: u64 = 256 << 20;

/// Values of the runs family from this size on lie in blob files.
const BLOB_BYTES_MIN: u64 = 4 << 10;

/// A RocksDB directory.
#[derive(Debug)]
pub struct RocksKv {
    path: PathBuf,
    db: DB,
}

impl RocksKv {
    /// Opens or creates the database in a directory.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] when the stored bytes are damaged, [`StorageError::Io`] when the directory
    /// cannot be used or another process has it open.
    pub fn open(path: &Path) -> Result<Self> {
        let families = Family::ALL
            .into_iter()
            .map(|family| ColumnFamilyDescriptor::new(family.name(), family_options(family)));
        let db = DB::open_cf_descriptors(&database_options(), path, families)
            .map_err(|error| storage_error(path, "open", error))?;
        Ok(Self {
            path: path.to_path_buf(),
            db,
        })
    }

    /// Writes one family's memory table to its files and leaves the others as they are.
    pub fn flush_family(&self, family: Family) -> Result<()> {
        self.db
            .flush_cf(self.family(family))
            .map_err(|error| self.error("flush", error))
    }

    fn family(&self, family: Family) -> &ColumnFamily {
        self.db
            .cf_handle(family.name())
            .expect("every family is opened with the database")
    }

    fn error(&self, operation: &str, error: rocksdb::Error) -> StorageError {
        storage_error(&self.path, operation, error)
    }
}

impl Kv for RocksKv {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>> {
        let value = self
            .db
            .get_cf(self.family(family), key)
            .map_err(|error| self.error("read", error))?;
        Ok(value.map(Bytes::from))
    }

    fn scan(
        &self,
        family: Family,
        from: &[u8],
        to: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>> {
        let mut options = ReadOptions::default();
        if let Some(to) = to {
            if to <= from {
                return Ok(Vec::new());
            }
            options.set_iterate_upper_bound(to);
        }
        let start = IteratorMode::From(from, Direction::Forward);
        let entries = self.db.iterator_cf_opt(self.family(family), options, start);
        entries
            .take(limit)
            .map(|entry| {
                let (key, value) = entry.map_err(|error| self.error("scan", error))?;
                Ok((Bytes::from(key), Bytes::from(value)))
            })
            .collect()
    }

    fn write(&self, batch: WriteBatch) -> Result<()> {
        let mut writes = rocksdb::WriteBatch::default();
        for (family, operation) in &batch.operations {
            let family = self.family(*family);
            match operation {
                Operation::Put { key, value } => writes.put_cf(family, key, value),
                Operation::Delete { key } => writes.delete_cf(family, key),
                Operation::DeleteRange { from, to } => writes.delete_range_cf(family, from, to),
            }
        }
        self.db.write(writes).map_err(|error| self.error("write", error))
    }

    fn sync(&self) -> Result<()> {
        self.db.flush_wal(true).map_err(|error| self.error("sync", error))
    }
}

fn database_options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_atomic_flush(true);
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_paranoid_checks(true);
    options.set_max_background_jobs(2);
    options.set_max_total_wal_size(WAL_BYTES_MAX);
    options.set_keep_log_file_num(4);
    options.set_max_log_file_size(4 << 20);
    options
}

fn family_options(family: Family) -> Options {
    let mut options = Options::default();
    match family {
        Family::Runs => {
            options.set_enable_blob_files(true);
            options.set_min_blob_size(BLOB_BYTES_MIN);
            options.set_enable_blob_gc(true);
            options.set_blob_compression_type(DBCompressionType::Lz4);
        }
        Family::Manifest => {}
        Family::Log => options.set_compression_type(DBCompressionType::Lz4),
    }
    options
}

fn storage_error(path: &Path, operation: &str, error: rocksdb::Error) -> StorageError {
    let message = error.to_string();
    let operation = format!("{operation} of {}", path.display());
    if message.contains("No space left") {
        return StorageError::Full { operation };
    }
    match error.kind() {
        ErrorKind::Corruption => StorageError::Corrupt {
            what: damaged_file(&message).unwrap_or_else(|| path.display().to_string()),
            detail: format!(
                "{message} (during {operation}). Restore this directory from a copy, or remove it and let \
                 the region join its peers again"
            ),
        },
        _ => StorageError::Io { operation, message },
    }
}

/// The file that RocksDB's message names, if it names one.
fn damaged_file(message: &str) -> Option<String> {
    let is_file = |word: &&str| [".sst", ".log", ".blob"].iter().any(|end| word.ends_with(end));
    let words = message.split(|c: char| c.is_whitespace() || c == ',' || c == ';');
    words
        .map(|word| word.trim_matches([':', '.', '\'', '"', '(', ')']))
        .find(is_file)
        .map(String::from)
}
