//! When a checkpoint is due, and the thread that writes it.
//!
//! A checkpoint is due after [`LOG_BYTES_MAX`] bytes or [`LOG_RECORDS_MAX`] records of log since the last one,
//! or after [`INTERVAL`] if anything changed at all. One is written at a time; the dataflow goes on meanwhile,
//! since a checkpoint holds only immutable runs.
//!
//! A full disk fails the attempt and nothing else; it is repeated after [`RETRY`]. Any other error stops the node, as for the log.

use std::collections::VecDeque;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tributary_storage::StorageError;
use tributary_storage::checkpoint::{self, Checkpoint};
use tributary_storage::kv::{Kv, RocksKv};
use tributary_storage::log::Position;

const INTERVAL: Duration = Duration::from_secs(30);
const LOG_BYTES_MAX: u64 = 16 << 20;
const LOG_RECORDS_MAX: usize = 20_000;
/// After a failed attempt (a full disk) the next one waits this long.
const RETRY: Duration = Duration::from_secs(5);
/// The region is held for about so long by a portion of a checkpoint.
const PORTION: Duration = Duration::from_millis(2);
const PORTION_ROWS_MIN: usize = 2_048;
const PORTION_ROWS_MAX: usize = 1 << 20;

/// How an attempt to write a checkpoint ended.
#[derive(Debug)]
pub enum Outcome {
    /// Durable; the log before it may go.
    Written(Position),
    /// The disk is full; tried again later.
    NoSpace,
    /// Fatal.
    Failed(String),
}

/// The driver's end of the checkpoint thread, and the policy.
pub struct Checkpoints {
    commands: Option<mpsc::Sender<Checkpoint>>,
    thread: Option<JoinHandle<()>>,
    in_flight: bool,
    asked: bool,
    /// Log records that no checkpoint has, with their bytes.
    uncovered: VecDeque<(Position, u64)>,
    uncovered_bytes: u64,
    /// The last checkpoint found no space.
    owed: bool,
    last: Instant,
    retry_after: Option<Instant>,
    portion_rows: usize,
    /// The longest time for which a portion held the region.
    held_max: Duration,
}

impl Checkpoints {
    /// Starts the thread. On it, `settle` is called before each attempt, and may wait for those who would need the log
    /// before the checkpoint; `report` is called after it and must not block for long.
    pub fn start(
        state: RocksKv,
        settle: impl Fn(Position) + Send + 'static,
        report: impl Fn(Outcome) + Send + 'static,
    ) -> std::io::Result<Checkpoints> {
        let (commands, queue) = mpsc::channel::<Checkpoint>();
        let thread = std::thread::Builder::new()
            .name("checkpoint".to_owned())
            .spawn(move || {
                while let Ok(checkpoint) = queue.recv() {
                    settle(checkpoint.position);
                    report(attempt(&state, &checkpoint));
                }
            })?;
        Ok(Checkpoints {
            commands: Some(commands),
            thread: Some(thread),
            in_flight: false,
            asked: false,
            uncovered: VecDeque::new(),
            uncovered_bytes: 0,
            owed: false,
            last: Instant::now(),
            retry_after: None,
            portion_rows: PORTION_ROWS_MIN,
            held_max: Duration::ZERO,
        })
    }

    /// Takes note of an appended log record.
    pub fn logged(&mut self, position: Position, bytes: usize) {
        self.uncovered.push_back((position, bytes as u64));
        self.uncovered_bytes += bytes as u64;
    }

    /// Whether the region should be asked for a checkpoint now; asks once.
    pub fn ask_if_due(&mut self, now: Instant) -> bool {
        let due = self.owed
            || self.uncovered_bytes >= LOG_BYTES_MAX
            || self.uncovered.len() >= LOG_RECORDS_MAX
            || (self.is_dirty() && now.duration_since(self.last) >= INTERVAL);
        let waiting = self.retry_after.is_some_and(|at| now < at);
        if !due || waiting || self.in_flight || self.asked {
            return false;
        }
        self.asked = true;
        true
    }

    /// Hands a checkpoint to the thread.
    pub fn write(&mut self, checkpoint: Checkpoint) {
        self.asked = false;
        self.in_flight = true;
        self.owed = false;
        // What was logged while it was gathered is not in it.
        while let Some((_, bytes)) = self
            .uncovered
            .pop_front_if(|(position, _)| *position <= checkpoint.position)
        {
            self.uncovered_bytes -= bytes;
        }
        self.last = Instant::now();
        if let Some(commands) = &self.commands {
            let _ = commands.send(checkpoint);
        }
    }

    /// How many rows to gather next.
    pub fn portion_rows(&self) -> usize {
        self.portion_rows
    }

    /// Takes note of how long the region was held by gathering a portion, and chooses the next one accordingly.
    pub fn gathered(&mut self, held: Duration) {
        metrics::histogram!("tributary_checkpoint_stall_seconds").record(held.as_secs_f64());
        self.held_max = self.held_max.max(held);
        metrics::gauge!("tributary_checkpoint_stall_max_seconds").set(self.held_max.as_secs_f64());
        if held > PORTION {
            self.portion_rows = (self.portion_rows / 2).max(PORTION_ROWS_MIN);
        } else if held < PORTION / 2 {
            self.portion_rows = (self.portion_rows * 2).min(PORTION_ROWS_MAX);
        }
    }

    /// Takes note of a finished attempt.
    pub fn finished(&mut self, outcome: &Outcome) {
        self.in_flight = false;
        self.retry_after = match outcome {
            Outcome::NoSpace => {
                self.owed = true;
                Some(Instant::now() + RETRY)
            }
            _ => None,
        };
    }

    /// Whether the thread is writing.
    pub fn in_flight(&self) -> bool {
        self.in_flight
    }

    /// Whether the last attempt found the disk full.
    pub fn lacks_space(&self) -> bool {
        self.retry_after.is_some()
    }

    /// Whether anything was logged that no checkpoint has.
    pub fn is_dirty(&self) -> bool {
        self.owed || !self.uncovered.is_empty()
    }
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn attempt(state: &RocksKv, checkpoint: &Checkpoint) -> Outcome {
    let started = Instant::now();
    match checkpoint::write(state as &dyn Kv, checkpoint) {
        Ok(written) => {
            metrics::histogram!("tributary_checkpoint_seconds").record(started.elapsed().as_secs_f64());
            metrics::counter!("tributary_checkpoint_bytes_total").increment(written.bytes_written);
            tracing::debug!(
                position = checkpoint.position.0,
                bytes = written.bytes_written,
                "checkpoint written"
            );
            Outcome::Written(checkpoint.position)
        }
        Err(StorageError::Full { operation }) => {
            tracing::warn!(operation, "no space for a checkpoint; it is tried again");
            Outcome::NoSpace
        }
        Err(error) => Outcome::Failed(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tributary_storage::ChainHash;

    use super::*;

    fn checkpoint(position: u64) -> Checkpoint {
        Checkpoint {
            position: Position(position),
            chain: ChainHash::GENESIS,
            traces: BTreeMap::new(),
            rows: BTreeMap::new(),
            blobs: BTreeMap::new(),
        }
    }

    #[test]
    fn what_is_logged_while_a_checkpoint_is_gathered_is_not_in_it() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let state = RocksKv::open(directory.path()).expect("opens");
        let mut checkpoints = Checkpoints::start(state, |_| {}, |_| {}).expect("a thread");
        assert!(!checkpoints.is_dirty());
        (1..=3).for_each(|position| checkpoints.logged(Position(position), 10));
        checkpoints.write(checkpoint(2));
        checkpoints.finished(&Outcome::Written(Position(2)));
        assert!(checkpoints.is_dirty(), "record 3 is in no checkpoint");
        checkpoints.logged(Position(4), LOG_BYTES_MAX as usize - 10);
        assert!(
            checkpoints.ask_if_due(Instant::now()),
            "records 3 and 4 are large enough"
        );
        checkpoints.write(checkpoint(4));
        checkpoints.finished(&Outcome::Written(Position(4)));
        assert!(!checkpoints.is_dirty() && !checkpoints.ask_if_due(Instant::now()));
        checkpoints.logged(Position(5), 10);
        checkpoints.write(checkpoint(5));
        checkpoints.finished(&Outcome::NoSpace);
        assert!(checkpoints.is_dirty() && checkpoints.lacks_space());
        assert!(
            !checkpoints.ask_if_due(Instant::now()),
            "it waits before the next attempt"
        );
        assert!(checkpoints.ask_if_due(Instant::now() + 2 * RETRY));
    }
}
