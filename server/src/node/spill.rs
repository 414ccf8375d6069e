//! Room for rows that do not fit into memory, in the directory of the data.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::RecordBatch;
use tributary_storage::{SpillArea, SpillFiles, StorageError};

/// Failures between two that are logged.
const QUIET_FAILURES: u64 = 10_000;

/// Files, with a word in the log when there is no room.
#[derive(Debug)]
pub struct SpillFolder {
    path: PathBuf,
    files: SpillFiles,
    failures: AtomicU64,
}

impl SpillFolder {
    /// Makes the folder.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(path: &Path, budget: usize) -> std::io::Result<Self> {
        std::fs::create_dir_all(path)?;
        Ok(Self {
            path: path.to_path_buf(),
            files: SpillFiles::new(path, budget),
            failures: AtomicU64::new(0),
        })
    }
}

impl SpillArea for SpillFolder {
    fn budget(&self) -> usize {
        self.files.budget()
    }

    fn store(&self, rows: &RecordBatch) -> Result<RecordBatch, StorageError> {
        let stored = self.files.store(rows);
        if let Err(error) = &stored
            && self
                .failures
                .fetch_add(1, Ordering::Relaxed)
                .is_multiple_of(QUIET_FAILURES)
        {
            tracing::warn!(%error, path = %self.path.display(), "rows stay in memory, beyond the budget");
        }
        stored
    }
}
