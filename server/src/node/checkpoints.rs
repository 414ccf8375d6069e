//! When a checkpoint is due, and the thread that writes it.
//!
//! A checkpoint is due after [`LOG_BYTES_MAX`] bytes or [`LOG_RECORDS_MAX`] records of log since the last one,
//! or after [`INTERVAL`] if anything changed at all. One is written at a time; the dataflow goes on meanwhile,
//! since a checkpoint holds only immutable runs.
//!
//! A full disk fails the attempt and nothing else; it is repeated after [`RETRY`]. Any other error stops the node, as for the log.

use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tributary_storage::StorageError;
use tributary_storage::checkpoint::{self, Checkpoint};
use tributary_storage::kv::{Kv, RocksKv};
use tributary_storage::log::Position;

const INTERVAL: Duration = Duration::from_secs(30);
const LOG_BYTES_MAX: u64 = 16 << 20;
const LOG_RECORDS_MAX: u64 = 20_000;
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
    log_records: u64,
    log_bytes: u64,
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
            log_records: 0,
            log_bytes: 0,
            last: Instant::now(),
            retry_after: None,
            portion_rows: PORTION_ROWS_MIN,
            held_max: Duration::ZERO,
        })
    }

    /// Counts an appended log record.
    pub fn logged(&mut self, bytes: usize) {
        self.log_records += 1;
        self.log_bytes += bytes as u64;
    }

    /// Whether the region should be asked for a checkpoint now; asks once.
    pub fn ask_if_due(&mut self, now: Instant) -> bool {
        let due = self.log_bytes >= LOG_BYTES_MAX
            || self.log_records >= LOG_RECORDS_MAX
            || (self.log_records > 0 && now.duration_since(self.last) >= INTERVAL);
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
        self.log_records = 0;
        self.log_bytes = 0;
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
                // What was meant to be covered still is to be.
                self.log_records += LOG_RECORDS_MAX;
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

    /// Whether anything was logged since the last checkpoint was cut.
    pub fn is_dirty(&self) -> bool {
        self.log_records > 0
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
