//! The data directory: its layout, and the lock that keeps a second process out.
//!
//! ```text
//! DATA/LOCK    held by flock for the life of the process; holds its pid
//! DATA/state   RocksDB: runs and checkpoint manifests
//! DATA/sinks   a file per sink: how far it has written
//! DATA/log     RocksDB: the log, an instance of its own so that its syncs wait for nothing else
//! DATA/superseded-N   what was here of incarnation N, which counts no more
//! DATA/MOVING  while it is being put there
//! ```
//! The lock belongs to the open file: the kernel frees it however the process ends, so a stale LOCK file
//! never has to be removed by hand.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// How the directory of an incarnation that counts no more begins; its number follows.
pub(super) const SUPERSEDED: &str = "superseded-";

/// The data directory of a running region; dropping it frees the lock.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

/// Why a data directory cannot be used.
#[derive(Debug, Error)]
pub enum DataDirError {
    /// Another process runs on it.
    #[error(
        "the data directory {path} is in use by process {pid}; stop it first, or give --data another directory"
    )]
    Locked {
        /// The directory.
        path: PathBuf,
        /// What the LOCK file says.
        pid: String,
    },
    /// It cannot be created or written.
    #[error("the data directory {path} cannot be used: {source}")]
    Io {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl DataDir {
    /// Creates the directory when it is missing, and locks it.
    pub fn lock(path: &Path) -> Result<DataDir, DataDirError> {
        let io = |source| DataDirError::Io {
            path: path.to_owned(),
            source,
        };
        std::fs::create_dir_all(path).map_err(io)?;
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path.join("LOCK"))
            .map_err(io)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                lock.read_to_string(&mut pid).map_err(io)?;
                let pid = if pid.trim().is_empty() {
                    "?".to_owned()
                } else {
                    pid.trim().to_owned()
                };
                return Err(DataDirError::Locked {
                    path: path.to_owned(),
                    pid,
                });
            }
            Err(TryLockError::Error(error)) => return Err(io(error)),
        }
        lock.set_len(0).map_err(io)?;
        lock.rewind().map_err(io)?;
        writeln!(lock, "{}", std::process::id()).map_err(io)?;
        Ok(DataDir {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where runs and manifests are.
    pub fn state(&self) -> PathBuf {
        self.path.join("state")
    }

    /// Where rows go that do not fit into memory.
    pub fn spill(&self) -> PathBuf {
        self.path.join("spill")
    }

    /// Where sinks keep how far they are.
    pub fn sinks(&self) -> PathBuf {
        self.path.join("sinks")
    }

    /// Where the log is.
    pub fn log(&self) -> PathBuf {
        self.path.join("log")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_is_refused_with_the_pid_until_the_first_is_dropped() {
        let parent = tempfile::tempdir().expect("a temporary directory");
        let path = parent.path().join("data");
        let first = DataDir::lock(&path).expect("the directory is new");
        match DataDir::lock(&path) {
            Err(DataDirError::Locked { pid, .. }) => assert_eq!(pid, std::process::id().to_string()),
            other => panic!("expected Locked, got {other:?}"),
        }
        drop(first);
        DataDir::lock(&path).expect("the lock went with its holder");
    }
}
