//! What this region's sinks are doing: for `tributary.sinks`, and for checkpoints, which wait for them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tributary_region::replay::KeptResults;
use tributary_storage::{ObjectId, Position, RowsSnapshot};

use super::progress::{Progress, Records};

/// What one sink is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Running {
    /// It has written before and has not gone on yet.
    #[default]
    Resuming,
    /// It waits for its view.
    Waiting,
    /// It writes whenever the view changes.
    Running,
    /// Its last attempt failed; it is tried again.
    Failed,
}

/// The state of one sink.
#[derive(Clone, Debug, Default)]
pub struct Task {
    /// What it is doing.
    pub running: Running,
    /// What it has written.
    pub progress: Progress,
    /// Whether its progress is on the disk: a checkpoint waits for such a sink only.
    pub durable: bool,
    /// The position up to which it has nothing more to write.
    pub position: u64,
    /// Why its last attempt failed.
    pub error: Option<String>,
    /// Whether it may still ask for what the replay has kept.
    needs_kept: bool,
}

/// The state of all sinks.
#[derive(Debug)]
pub struct SinkState {
    tasks: Mutex<BTreeMap<ObjectId, Task>>,
    moved: Condvar,
    wanted: watch::Sender<Position>,
    records: Records,
    kept: Mutex<KeptResults>,
}

impl SinkState {
    /// The state of sinks whose records are in this directory.
    ///
    /// # Errors
    /// When the directory cannot be listed.
    pub fn load(directory: PathBuf) -> std::io::Result<SinkState> {
        let records = Records::new(directory);
        let task = |(id, progress): (ObjectId, Progress)| {
            let task = Task {
                position: progress.settled,
                progress,
                durable: true,
                needs_kept: true,
                ..Task::default()
            };
            (id, task)
        };
        let tasks = records.load()?.into_iter().map(task).collect();
        Ok(SinkState {
            tasks: Mutex::new(tasks),
            moved: Condvar::new(),
            wanted: watch::Sender::new(Position(0)),
            records,
            kept: Mutex::new(KeptResults::new()),
        })
    }

    /// Positions from which sinks may have to go on.
    pub fn positions(&self) -> Vec<Position> {
        let tasks = self.lock();
        let positions = tasks.values().flat_map(|task| task.progress.positions());
        positions.map(Position).collect()
    }

    /// Takes in what the replay has kept at these positions.
    pub fn keep(&self, kept: KeptResults) {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = kept;
    }

    /// The results of a view at a position, if they were kept.
    pub(super) fn kept(&self, position: u64, view: ObjectId) -> Option<Arc<RowsSnapshot>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(&Position(position))?.get(&view).cloned()
    }

    /// Everything as of now.
    pub fn tasks(&self) -> BTreeMap<ObjectId, Task> {
        self.lock().clone()
    }

    /// Where sinks keep how far they are.
    pub(super) fn records(&self) -> &Records {
        &self.records
    }

    /// Lets checkpoints wait until every healthy sink has written what it has to up to a position, but not longer
    /// than this. Blocking; what is later than that costs a snapshot after a crash.
    pub fn settle(&self, position: Position, longest: Duration) {
        self.wanted.send_if_modified(|wanted| {
            let more = position > *wanted;
            *wanted = position.max(*wanted);
            more
        });
        let deadline = Instant::now() + longest;
        let mut tasks = self.lock();
        loop {
            let behind = |task: &Task| {
                let healthy = matches!(task.running, Running::Running | Running::Resuming);
                task.durable && healthy && task.progress.settled < position.0
            };
            if !tasks.values().any(behind) {
                return;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                tracing::warn!(
                    position = position.0,
                    "a sink is slow; the checkpoint does not wait for it any longer"
                );
                return;
            }
            tasks = self
                .moved
                .wait_timeout(tasks, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// The position up to which a checkpoint waits for sinks.
    pub(super) fn wanted(&self) -> watch::Receiver<Position> {
        self.wanted.subscribe()
    }

    pub(super) fn progress(&self, sink: ObjectId) -> Option<Progress> {
        self.lock().get(&sink).map(|task| task.progress.clone())
    }

    /// A sink does this now. One that has written before goes on as resuming until it runs.
    pub(super) fn note(&self, sink: ObjectId, running: Running) {
        self.change(sink, |task| {
            let resumes = task.durable && task.running == Running::Resuming && running == Running::Waiting;
            if !resumes {
                task.running = running;
            }
            task.error = None;
        });
    }

    pub(super) fn fail(&self, sink: ObjectId, error: String) {
        self.change(sink, |task| {
            task.running = Running::Failed;
            task.error = Some(error);
        });
    }

    /// A sink has come so far. `progress` is what a restart knows, if `durable`; there is nothing more to write up to
    /// `position`.
    pub(super) fn advance(&self, sink: ObjectId, progress: &Progress, position: u64, durable: bool) {
        self.change(sink, |task| {
            task.progress = progress.clone();
            task.position = position;
            task.durable = durable;
        });
    }

    /// A sink has taken what was kept for it. After the last one nothing is kept any longer.
    pub(super) fn begun(&self, sink: ObjectId) {
        self.change(sink, |task| task.needs_kept = false);
        self.drop_kept();
    }

    fn drop_kept(&self) {
        if !self.lock().values().any(|task| task.needs_kept) {
            self.kept.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }

    /// Forgets sinks that do not exist, and what was kept for them.
    pub(super) fn forget_unless(&self, known: impl Fn(ObjectId) -> bool) {
        let mut tasks = self.lock();
        let gone: Vec<ObjectId> = tasks.keys().copied().filter(|id| !known(*id)).collect();
        for id in gone {
            tasks.remove(&id);
            self.records.remove(id);
        }
        drop(tasks);
        self.moved.notify_all();
        self.drop_kept();
    }

    fn change(&self, sink: ObjectId, change: impl FnOnce(&mut Task)) {
        let mut tasks = self.lock();
        let new = || Task {
            running: Running::Waiting,
            ..Task::default()
        };
        change(tasks.entry(sink).or_insert_with(new));
        self.moved.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ObjectId, Task>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
