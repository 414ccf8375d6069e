//! Opening a region: storage, the last checkpoint, the log's tail, and the threads.
//!
//! Everything that is wrong with the disk is found here, before anything is served, and reported with the
//! directory it is in and what can be done.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};
use tributary_executor::Workers;
use tributary_region::{Founding, Past, Region, RegionConfig, RegionError, look_into};
use tributary_storage::checkpoint::{self, Loaded};
use tributary_storage::kv::RocksKv;
use tributary_storage::log::{KvLog, Log};
use tributary_storage::{Position, Record, StorageError};

use super::aside;
use super::checkpoints::Checkpoints;
use super::clock::Clock;
use super::data_dir::{DataDir, DataDirError};
use super::driver::{Driver, Ended};
use super::log_writer::LogWriter;
use super::request::REQUESTS_MAX;
use super::spill::SpillFolder;
use super::workers::Pool;
use super::{Node, NodeSettings, salvage};
use crate::far::window::Versions;
use crate::sink::state::SinkState;
use crate::source::file::FileReader;

const READ_RECORDS_MAX: usize = 1024;
/// A checkpoint waits no longer than this for sinks to write what it covers.
const SINKS_SETTLE_MAX: Duration = Duration::from_secs(10);

/// Why a region cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The directory is not ours.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// What is on the disk cannot be read.
    #[error("{source}\n  where: {place}\n  what to do: {advice}")]
    Storage {
        /// The error.
        source: StorageError,
        /// The directory it concerns.
        place: String,
        /// For the operator.
        advice: &'static str,
    },
    /// The log or checkpoint was read and makes no sense.
    #[error("{source}\n  where: {place}\n  what to do: {ADVICE_CORRUPT}")]
    Region {
        /// The error.
        source: RegionError,
        /// The data directory.
        place: String,
    },
    /// The log must not be continued; the error says what is to be done.
    #[error("{source}\n  where: {place}")]
    Over {
        /// The error.
        source: RegionError,
        /// The data directory.
        place: String,
    },
    /// There is no place for rows that do not fit into memory.
    #[error("the folder for spilled rows cannot be made: {0}")]
    Spill(std::io::Error),
    /// A thread could not be started.
    #[error("a thread could not be started: {0}")]
    Thread(std::io::Error),
}

const ADVICE_CORRUPT: &str = "nothing was changed. Restore the data directory from a backup, or try the start \
again with the version that wrote it. What the other regions hold is safe there; do not delete this \
directory while rows of this region exist nowhere else";
const ADVICE_IO: &str = "check the device, the mount and the permissions of the data directory";
const ADVICE_FULL: &str = "free some space on the device and start again";

/// What was found on the disk, before the region is opened on it.
pub struct Stored {
    dir: DataDir,
    state: RocksKv,
    log: KvLog<RocksKv>,
    checkpoint: Option<Loaded>,
    tail: Vec<Record>,
    loaders: Arc<Pool>,
}

impl Stored {
    /// Locks the directory and reads everything in it. Blocking.
    pub fn read(path: &Path) -> Result<Stored, OpenError> {
        let dir = DataDir::lock(path)?;
        aside::finish(path)?;
        let (state_path, log_path) = (dir.state(), dir.log());
        let at = |place: &Path| {
            let place = place.display().to_string();
            move |source: StorageError| {
                let advice = match &source {
                    StorageError::Corrupt { .. } => ADVICE_CORRUPT,
                    StorageError::Io { .. } => ADVICE_IO,
                    StorageError::Full { .. } => ADVICE_FULL,
                };
                OpenError::Storage {
                    source,
                    place: place.clone(),
                    advice,
                }
            }
        };
        let state = RocksKv::open_quietly(&state_path).map_err(at(&state_path))?;
        // Nothing else runs yet, so loading has all processors.
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let loaders = Arc::new(Pool::start(processors).map_err(OpenError::Thread)?);
        let checkpoint = checkpoint::load_with(&state, &|jobs| loaders.run(jobs)).map_err(at(&state_path))?;
        let log = RocksKv::open(&log_path)
            .and_then(KvLog::open)
            .map_err(at(&log_path))?;
        let from = checkpoint
            .as_ref()
            .map_or(Position(1), |loaded| loaded.position.next());
        let tail = read_tail(&log, from).map_err(at(&log_path))?;
        check_log_reaches(&log, from).map_err(at(&log_path))?;
        Ok(Stored {
            dir,
            state,
            log,
            checkpoint,
            tail,
            loaders,
        })
    }

    /// Whether this region has no past: a first start, or a wiped directory.
    pub fn is_empty(&self) -> bool {
        self.checkpoint.is_none() && self.tail.is_empty()
    }

    /// What the log comes to, to be looked at: no thread is started and nothing is written. Blocking.
    pub fn look_into(self, settings: &NodeSettings) -> Result<Past, OpenError> {
        let place = self.dir.path().display().to_string();
        let mut config = RegionConfig::new(settings.region.clone(), Vec::new());
        config.sources = Arc::new(FileReader::new(&settings.region));
        config.loaders = self.loaders;
        look_into(&config, self.checkpoint, self.tail).map_err(|source| OpenError::Region { source, place })
    }

    /// Opens the region and starts its threads. `found` is given to the primary's first start only.
    pub fn open(
        self,
        settings: &NodeSettings,
        found: Option<Founding>,
    ) -> Result<(Arc<Node>, oneshot::Receiver<Ended>), OpenError> {
        let Stored {
            dir,
            state,
            log,
            checkpoint,
            tail,
            loaders,
        } = self;
        let place = dir.path().display().to_string();
        let mut config = RegionConfig::new(settings.region.clone(), settings.peers.clone());
        config.found = found;
        config.reincarnate = settings.reincarnate;
        config.incarnation_min = settings.incarnation_min;
        config.keeps_tombstones = !salvage::pending(dir.path()).is_empty();
        config.sources = Arc::new(FileReader::new(&settings.region));
        if let Some(budget) = settings.memory_budget {
            let folder = SpillFolder::open(&dir.spill(), budget).map_err(OpenError::Spill)?;
            config.spill = Some(Arc::new(folder));
        }
        let sinks = SinkState::load(dir.sinks()).map_err(|source| DataDirError::Io {
            path: dir.sinks(),
            source,
        })?;
        let sinks = Arc::new(sinks);
        config.keep_results_at = sinks.positions().into_iter().collect();
        config.loaders = loaders;
        config.workers = Arc::new(Pool::start(settings.workers).map_err(OpenError::Thread)?);
        let tick = Duration::from_millis(config.tick_ms);
        let clock = Clock::start();
        let mut effects = Vec::new();
        let durable = last_position(&checkpoint, &tail);
        let replayed = tail.iter().map(|record| (record.position, record.payload.len()));
        let replayed: Vec<(Position, usize)> = replayed.collect();
        let mut region = Region::open(config, checkpoint, tail, clock.now_ms(), &mut effects)
            .map_err(|source| of_region(source, place))?;
        tracing::info!(
            position = durable.0,
            replayed = replayed.len(),
            "the log was replayed"
        );
        sinks.keep(region.take_kept());
        state.tidy().map_err(|source| OpenError::Storage {
            source,
            place: dir.state().display().to_string(),
            advice: ADVICE_IO,
        })?;

        let (snapshots, snapshot_reader) = watch::channel(region.snapshot());
        let (sender, requests) = mpsc::channel(REQUESTS_MAX);
        let log_path = dir.log();
        let reopen = Box::new(move || {
            RocksKv::open(&log_path)
                .and_then(KvLog::open)
                .map(|log| Box::new(log) as Box<dyn Log>)
        });
        let (log, log_status) =
            LogWriter::start(Box::new(log), durable, reopen).map_err(OpenError::Thread)?;
        let (outcomes, checkpoint_outcomes) = mpsc::unbounded_channel();
        let report = move |outcome| drop(outcomes.send(outcome));
        let settling = sinks.clone();
        let settle = move |position| settling.settle(position, SINKS_SETTLE_MAX);
        let mut checkpoints = Checkpoints::start(state, settle, report).map_err(OpenError::Thread)?;
        // The next start should not have to replay it again.
        for (position, bytes) in replayed {
            checkpoints.logged(position, bytes);
        }
        let versions = Arc::new(Versions::default());
        let driver = Driver {
            region,
            clock,
            tick,
            requests,
            log,
            log_status,
            checkpoints,
            checkpoint_outcomes,
            snapshots,
            versions: versions.clone(),
            links: BTreeMap::new(),
            replies: BTreeMap::new(),
            next_token: 1,
            appended: durable,
            persisted: durable,
            disk_full: false,
        };
        let runtime = tokio::runtime::Handle::current();
        let (ended, ended_reader) = oneshot::channel();
        std::thread::Builder::new()
            .name("region".to_owned())
            .spawn(move || {
                let why = driver.run(&runtime, effects);
                // The log thread has ended with the driver; only now may another process have the directory.
                drop(dir);
                let _ = ended.send(why);
            })
            .map_err(OpenError::Thread)?;
        Ok((
            Arc::new(Node::new(
                settings,
                sender,
                snapshot_reader,
                versions,
                durable,
                sinks,
            )),
            ended_reader,
        ))
    }
}

/// Why a region does not open. A log that must not be continued is sound: no backup would help.
fn of_region(source: RegionError, place: String) -> OpenError {
    match source {
        RegionError::Superseded(_) | RegionError::TooFarBehind { .. } => OpenError::Over { source, place },
        _ => OpenError::Region { source, place },
    }
}

fn read_tail(log: &KvLog<RocksKv>, from: Position) -> Result<Vec<Record>, StorageError> {
    let mut tail: Vec<Record> = Vec::new();
    loop {
        let next = tail.last().map_or(from, |record| record.position.next());
        let records = log.read(next, READ_RECORDS_MAX)?;
        if records.is_empty() {
            return Ok(tail);
        }
        tail.extend(records);
    }
}

/// A log that ends before the checkpoint was lost or replaced: what it held after would be forgotten silently.
fn check_log_reaches(log: &KvLog<RocksKv>, from: Position) -> Result<(), StorageError> {
    let last = log.last()?.map_or(Position(0), |(position, _)| position);
    if last.next() >= from {
        return Ok(());
    }
    Err(StorageError::Corrupt {
        what: "the log".to_owned(),
        detail: format!(
            "it ends at position {last}, before the checkpoint at {}",
            from.0 - 1
        ),
    })
}

fn last_position(checkpoint: &Option<Loaded>, tail: &[Record]) -> Position {
    let covered = checkpoint.as_ref().map_or(Position(0), |loaded| loaded.position);
    tail.last().map_or(covered, |record| record.position)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_cannot_be_read_is_to_be_restored() {
        let told = |source: RegionError| of_region(source, "/data".to_owned()).to_string();
        let over = told(RegionError::Superseded("start it with --reincarnate".to_owned()));
        assert!(over.contains("--reincarnate") && over.contains("/data"), "{over}");
        assert!(!over.contains(ADVICE_CORRUPT), "{over}");
        let broken = told(RegionError::Invariant("a hole".to_owned()));
        assert!(broken.contains(ADVICE_CORRUPT), "{broken}");
    }
}
