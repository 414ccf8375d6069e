//! What the tasks of this region's sources are doing, for `tributary.sources`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tributary_storage::ObjectId;

/// What one task is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Running {
    /// No task.
    #[default]
    Idle,
    /// It reads.
    Reading,
    /// Everything was read.
    Finished,
    /// It has stopped with an error.
    Failed,
}

/// The state of one task.
#[derive(Clone, Debug, Default)]
pub struct Task {
    /// What it is doing.
    pub running: Running,
    /// The file it read last.
    pub file: Option<PathBuf>,
    /// Why it has stopped.
    pub error: Option<String>,
}

/// The state of all tasks.
#[derive(Debug, Default)]
pub struct SourceState(Mutex<BTreeMap<ObjectId, Task>>);

impl SourceState {
    /// Everything as of now.
    pub fn tasks(&self) -> BTreeMap<ObjectId, Task> {
        self.lock().clone()
    }

    pub(super) fn note(&self, source: ObjectId, running: Running) {
        let mut tasks = self.lock();
        let task = tasks.entry(source).or_default();
        task.running = running;
        task.error = None;
    }

    pub(super) fn file(&self, source: ObjectId, file: &Path) {
        let mut tasks = self.lock();
        let task = tasks.entry(source).or_default();
        if task.file.as_deref() != Some(file) {
            task.file = Some(file.to_owned());
        }
    }

    pub(super) fn fail(&self, source: ObjectId, error: String) {
        let mut tasks = self.lock();
        let task = tasks.entry(source).or_default();
        task.running = Running::Failed;
        task.error = Some(error);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<ObjectId, Task>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
