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
//! RocksDB locks the directory, so a second process is refused.
//!
//! When space runs out, writes fail with [`StorageError::Full`] and reads go on. RocksDB does not come back
//! by itself from a log it could not write, so the next write first looks whether there is space again (by
//! taking it: a file as large as reopening may need), and if so closes the database and opens it anew.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{RwLock, RwLockReadGuard};

use bytes::Bytes;
use rocksdb::{
    ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, DBRecoveryMode, Direction, ErrorKind,
    IteratorMode, Options, ReadOptions,
};

use super::{Family, Kv, Operation, WriteBatch};
use crate::checkpoint::CHUNK_HEADER_BYTES;
use crate::error::{Result, StorageError};

/// From this size on the write-ahead log is shortened by flushing all families, which bounds the time that
/// opening takes.
const WAL_BYTES_MAX: u64 = 256 << 20;

/// Values of the runs family from this size on lie in blob files.
const BLOB_BYTES_MIN: u64 = 4 << 10;

/// How much space opening needs, beside what it copies from the write-ahead log into files.
const SPARE_BYTES: u64 = 16 << 20;

/// The file that finds out whether there is space.
const PROBE_FILE: &str = "space.probe";

/// A RocksDB directory.
#[derive(Debug)]
pub struct RocksKv {
    path: PathBuf,
    /// `None` only when opening anew failed after space had returned.
    db: RwLock<Option<DB>>,
    /// Whether a write has found the device full since the database was opened.
    full: AtomicBool,
}

impl RocksKv {
    /// Opens or creates the database in a directory.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] when the stored bytes are damaged, [`StorageError::Io`] when the directory
    /// cannot be used or another process has it open.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_tidying(path, true)
    }

    /// Opens like [`RocksKv::open`], but nothing is rewritten in the background until [`RocksKv::tidy`]: whoever opens
    /// reads everything first, and would wait for it.
    ///
    /// # Errors
    /// As [`RocksKv::open`].
    pub fn open_quietly(path: &Path) -> Result<Self> {
        Self::open_tidying(path, false)
    }

    fn open_tidying(path: &Path, tidying: bool) -> Result<Self> {
        let db = RwLock::new(Some(open_database(path, tidying)?));
        Ok(Self {
            path: path.to_path_buf(),
            db,
            full: AtomicBool::new(false),
        })
    }

    /// Lets files be rewritten in the background from now on.
    ///
    /// # Errors
    /// When RocksDB does not take the option.
    pub fn tidy(&self) -> Result<()> {
        let set = |db: &DB| {
            let mut families = Family::ALL.into_iter();
            families.try_for_each(|family| {
                db.set_options_cf(handle(db, family), &[("disable_auto_compactions", "false")])
            })
        };
        self.with_database("options", set)
    }

    /// Writes one family's memory table to its files and leaves the others as they are.
    pub fn flush_family(&self, family: Family) -> Result<()> {
        self.with_database("flush", |db| db.flush_cf(handle(db, family)))
    }

    fn with_database<T>(
        &self,
        operation: &str,
        action: impl FnOnce(&DB) -> std::result::Result<T, rocksdb::Error>,
    ) -> Result<T> {
        let guard = self.read_lock();
        let Some(db) = guard.as_ref() else {
            return Err(StorageError::Full {
                operation: format!("{operation} of {}", self.path.display()),
            });
        };
        let result = action(db).map_err(|error| storage_error(&self.path, operation, error));
        if let Err(StorageError::Full { .. }) = &result {
            self.full.store(true, Ordering::Release);
        }
        result
    }

    fn read_lock(&self) -> RwLockReadGuard<'_, Option<DB>> {
        self.db.read().expect("no holder of the database's lock panics")
    }

    /// After the device was full: opens anew when there is space, and fails otherwise.
    fn heal(&self) -> Result<()> {
        if !self.full.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut guard = self.db.write().expect("no holder of the database's lock panics");
        if !self.full.load(Ordering::Acquire) {
            return Ok(());
        }
        if find_space(&self.path).is_err() {
            return Err(StorageError::Full {
                operation: format!("write of {}", self.path.display()),
            });
        }
        // The old one holds the directory's lock, so it must go first.
        *guard = None;
        *guard = Some(open_database(&self.path, true)?);
        self.full.store(false, Ordering::Release);
        Ok(())
    }
}

/// Takes, and gives back, the space that opening may need.
fn find_space(path: &Path) -> io::Result<()> {
    let mut needed = SPARE_BYTES;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry
            .path()
            .extension()
            .is_some_and(|extension| extension == "log")
        {
            needed += entry.metadata()?.len();
        }
    }
    let probe = path.join(PROBE_FILE);
    let block = vec![0x5a; 1 << 20];
    let written = File::create(&probe).and_then(|mut file| {
        for _ in 0..needed.div_ceil(block.len() as u64) {
            file.write_all(&block)?;
        }
        file.sync_all()
    });
    fs::remove_file(&probe)?;
    written
}

fn handle(db: &DB, family: Family) -> &ColumnFamily {
    db.cf_handle(family.name())
        .expect("every family is opened with the database")
}

fn open_database(path: &Path, tidying: bool) -> Result<DB> {
    let families = Family::ALL.into_iter().map(|family| {
        let mut options = family_options(family);
        options.set_disable_auto_compactions(!tidying);
        ColumnFamilyDescriptor::new(family.name(), options)
    });
    DB::open_cf_descriptors(&database_options(), path, families)
        .map_err(|error| storage_error(path, "open", error))
}

impl Kv for RocksKv {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>> {
        let mut options = ReadOptions::default();
        // What is in a run's chunk has a checksum of its own, which its reader verifies.
        options.set_verify_checksums(family != Family::Runs);
        self.with_database("read", |db| {
            let value = db.get_pinned_cf_opt(handle(db, family), key, &options)?;
            Ok(value.map(|value| aligned(&value)))
        })
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
        self.with_database("scan", |db| {
            let entries = db.iterator_cf_opt(handle(db, family), options, start).take(limit);
            entries
                .map(|entry| entry.map(|(key, value)| (Bytes::from(key), Bytes::from(value))))
                .collect()
        })
    }

    fn write(&self, batch: WriteBatch) -> Result<()> {
        self.heal()?;
        self.with_database("write", |db| {
            let mut writes = rocksdb::WriteBatch::default();
            for (family, operation) in &batch.operations {
                let family = handle(db, *family);
                match operation {
                    Operation::Put { key, value } => writes.put_cf(family, key, value),
                    Operation::Delete { key } => writes.delete_cf(family, key),
                    Operation::DeleteRange { from, to } => writes.delete_range_cf(family, from, to),
                }
            }
            db.write(writes)
        })
    }

    fn sync(&self) -> Result<()> {
        self.heal()?;
        self.with_database("sync", |db| db.flush_wal(true))
    }
}

/// A copy whose bytes behind the header of a chunk lie where columns may lie, so that these are not copied once more.
fn aligned(value: &[u8]) -> Bytes {
    const COLUMN_ALIGNMENT: usize = 16;
    const PADDING: usize = COLUMN_ALIGNMENT - CHUNK_HEADER_BYTES;
    let mut padded = Vec::with_capacity(PADDING + value.len());
    padded.extend_from_slice(&[0; PADDING]);
    padded.extend_from_slice(value);
    Bytes::from(padded).slice(PADDING..)
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
                "{message} (during {operation}). Keep this directory as evidence and restore it from a copy taken while \
                 the region was stopped"
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_that_was_full_is_opened_anew_with_all_it_had() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let kv = RocksKv::open(directory.path()).expect("opens");
        let put = |key: &str| {
            let mut batch = WriteBatch::new();
            batch.put(Family::Log, key, "x");
            kv.write(batch)
        };
        put("before").expect("the disk works");
        kv.full.store(true, Ordering::Release);
        put("after").expect("there is space");
        assert!(
            !kv.full.load(Ordering::Acquire),
            "the flag falls once there is space"
        );
        let found = kv.scan(Family::Log, b"", None, 9).expect("readable");
        assert_eq!(
            found.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>(),
            ["after", "before"]
        );
        assert!(!directory.path().join(PROBE_FILE).exists());
    }

    #[test]
    fn messages_of_rocksdb_become_errors_with_a_file() {
        let message = "Corruption: block checksum mismatch: stored = 1, computed = 2 in /data/000012.sst offset 0 size 9";
        assert_eq!(damaged_file(message), Some("/data/000012.sst".into()));
        assert_eq!(damaged_file("Corruption: bad magic"), None);
    }
}
