//! The log's own thread: group commit.
//!
//! ```text
//! driver ── Append(records) ──▶ ┌ log thread ─────────────────────┐
//! driver ── Append(records) ──▶ │ append all that waits, one sync │ ── LogStatus { persisted } ──▶ driver
//! driver ── Truncate ─────────▶ └─────────────────────────────────┘
//! ```
//! While one sync runs, the driver steps the dataflow and further records pile up here; the next sync covers
//! all of them. Invariants: positions are reported as persisted only after a sync that covers them returned
//! without error; an error other than a full disk ends the thread for good, since a failed sync that is
//! retried may succeed without the data (the kernel forgets dirty pages that could not be written).
//!
//! A full disk: the append is repeated every [`FULL_RETRY`] until space is back; meanwhile the status says `full`.
//! When it was the sync that found no space, the log is closed and opened again first, which makes durable what
//! it finds and drops what is torn, and what it then lacks is appended.
//!
//! The queue is bounded by the driver, which takes no requests while more than
//! [`BACKLOG_BYTES_MAX`] bytes wait here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tributary_storage::StorageError;
use tributary_storage::log::{Log, Position, Record};

/// The driver pauses intake while more than this waits to be synced.
pub const BACKLOG_BYTES_MAX: usize = 64 << 20;
const FULL_RETRY: Duration = Duration::from_millis(500);

/// Opens the log again after a full disk.
pub type Reopen = Box<dyn Fn() -> Result<Box<dyn Log>, StorageError> + Send>;

/// What the log thread last reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogStatus {
    /// Everything up to here survives a crash.
    pub persisted: Position,
    /// The disk is full; appended records wait.
    pub full: bool,
    /// The thread ended with this error; nothing will be persisted any more.
    pub failed: Option<String>,
}

enum Command {
    Append(Vec<Record>),
    Truncate(Position),
}

/// The driver's end of the log thread.
pub struct LogWriter {
    commands: Option<mpsc::Sender<Command>>,
    backlog_bytes: Arc<AtomicUsize>,
    closing: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl LogWriter {
    /// Starts the thread on an open log whose records up to `persisted` are durable.
    pub fn start(
        log: Box<dyn Log>,
        persisted: Position,
        reopen: Reopen,
    ) -> std::io::Result<(LogWriter, watch::Receiver<LogStatus>)> {
        let (commands, queue) = mpsc::channel();
        let (status, status_reader) = watch::channel(LogStatus {
            persisted,
            full: false,
            failed: None,
        });
        let backlog_bytes = Arc::new(AtomicUsize::new(0));
        let closing = Arc::new(AtomicBool::new(false));
        let mut worker = Worker {
            log: Some(log),
            queue,
            status,
            backlog_bytes: backlog_bytes.clone(),
            closing: closing.clone(),
            reopen,
        };
        let thread = std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || worker.run())?;
        let writer = LogWriter {
            commands: Some(commands),
            backlog_bytes,
            closing,
            thread: Some(thread),
        };
        Ok((writer, status_reader))
    }

    /// Queues records for the next sync.
    pub fn append(&self, records: Vec<Record>) {
        self.backlog_bytes
            .fetch_add(bytes_of(&records), Ordering::Relaxed);
        self.send(Command::Append(records));
    }

    /// Lets records before `position` go; a failure costs disk space only and is logged.
    pub fn truncate_before(&self, position: Position) {
        self.send(Command::Truncate(position));
    }

    /// Bytes that wait to be synced.
    pub fn backlog_bytes(&self) -> usize {
        self.backlog_bytes.load(Ordering::Relaxed)
    }

    fn send(&self, command: Command) {
        // When the thread has ended, its status says why, and the driver stops on that.
        if let Some(commands) = &self.commands {
            let _ = commands.send(command);
        }
    }
}

impl Drop for LogWriter {
    /// Waits until everything queued is durable, unless the thread has failed or the disk is full.
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Relaxed);
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn bytes_of(records: &[Record]) -> usize {
    records.iter().map(|record| record.payload.len()).sum()
}

struct Worker {
    log: Option<Box<dyn Log>>,
    queue: mpsc::Receiver<Command>,
    status: watch::Sender<LogStatus>,
    backlog_bytes: Arc<AtomicUsize>,
    closing: Arc<AtomicBool>,
    reopen: Reopen,
}

impl Worker {
    fn run(&mut self) {
        while let Ok(first) = self.queue.recv() {
            let mut records = Vec::new();
            let mut truncate = None;
            let mut next = Some(first);
            while let Some(command) = next {
                match command {
                    Command::Append(more) => records.extend(more),
                    Command::Truncate(position) => truncate = truncate.max(Some(position)),
                }
                next = self.queue.try_recv().ok();
            }
            if let Err(error) = self.persist(&records) {
                tracing::error!(%error, "the log cannot be written");
                self.status
                    .send_modify(|status| status.failed = Some(error.to_string()));
                return;
            }
            self.backlog_bytes
                .fetch_sub(bytes_of(&records), Ordering::Relaxed);
            if let Some(position) = truncate {
                self.truncate(position);
            }
        }
    }

    /// Appends and syncs the records, waiting for space as long as it takes.
    fn persist(&mut self, records: &[Record]) -> Result<(), StorageError> {
        let Some(last) = records.last().map(|record| record.position) else {
            return Ok(());
        };
        loop {
            match self.attempt(records) {
                Ok(()) => break,
                Err(StorageError::Full { operation }) if !self.closing.load(Ordering::Relaxed) => {
                    if !self.status.borrow().full {
                        tracing::error!(
                            operation,
                            "the disk is full; writes are refused until there is space"
                        );
                    }
                    self.status.send_modify(|status| status.full = true);
                    std::thread::sleep(FULL_RETRY);
                }
                Err(error) => return Err(error),
            }
        }
        if self.status.borrow().full {
            tracing::info!("the disk has space again");
        }
        self.status.send_modify(|status| {
            status.persisted = last;
            status.full = false;
        });
        Ok(())
    }

    fn attempt(&mut self, records: &[Record]) -> Result<(), StorageError> {
        let started = Instant::now();
        let log = match &mut self.log {
            Some(log) => {
                log.append(records)?;
                log
            }
            None => {
                let mut log = (self.reopen)()?;
                let held = log.last()?.map_or(Position(0), |(position, _)| position);
                let missing = records.partition_point(|record| record.position <= held);
                log.append(&records[missing..])?;
                self.log.insert(log)
            }
        };
        if let Err(error) = log.sync() {
            // What of it is on the disk is unknown; only opening it again tells.
            self.log = None;
            return Err(error);
        }
        metrics::histogram!("tributary_log_sync_seconds").record(started.elapsed().as_secs_f64());
        metrics::counter!("tributary_log_records_total").increment(records.len() as u64);
        metrics::counter!("tributary_log_bytes_total").increment(bytes_of(records) as u64);
        Ok(())
    }

    fn truncate(&mut self, position: Position) {
        if let Some(log) = &mut self.log
            && let Err(error) = log.truncate_before(position)
        {
            tracing::warn!(%error, "old log records could not be removed; they only cost space");
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tributary_storage::kv::{CrashFaults, Loss};
    use tributary_storage::{ChainHash, KvLog, MemKv};

    use super::*;

    fn records(count: u64) -> Vec<Record> {
        let mut last = (Position(0), ChainHash::GENESIS);
        let mut records = Vec::new();
        for index in 0..count {
            let record = Record::after(last.0, last.1, Bytes::from(vec![index as u8; 10]));
            last = (record.position, record.chain);
            records.push(record);
        }
        records
    }

    fn start(disk: &MemKv) -> (LogWriter, watch::Receiver<LogStatus>) {
        let again = disk.clone();
        let open = move || KvLog::open(again.clone()).map(|log| Box::new(log) as Box<dyn Log>);
        let log = open().expect("an empty disk");
        LogWriter::start(log, Position(0), Box::new(open)).expect("a thread")
    }

    #[tokio::test]
    async fn what_is_reported_as_persisted_is_on_the_disk() {
        let disk = MemKv::new();
        let (writer, mut status) = start(&disk);
        let records = records(5);
        writer.append(records[..2].to_vec());
        writer.append(records[2..].to_vec());
        let seen = status
            .wait_for(|status| status.persisted == Position(5))
            .await
            .expect("the thread lives");
        assert!(!seen.full && seen.failed.is_none());
        drop(seen);
        drop(writer);
        disk.crash(&CrashFaults::everywhere(Loss::All));
        let log = KvLog::open(disk).expect("the log is whole");
        assert_eq!(log.read(Position(1), 10).expect("readable"), records);
    }

    #[tokio::test]
    async fn a_full_disk_is_waited_out_and_loses_nothing() {
        let disk = MemKv::new();
        let (writer, mut status) = start(&disk);
        let records = records(5);
        writer.append(records[..2].to_vec());
        status
            .wait_for(|status| status.persisted == Position(2))
            .await
            .expect("the thread lives");
        disk.set_full(true);
        writer.append(records[2..4].to_vec());
        status
            .wait_for(|status| status.full)
            .await
            .expect("the thread lives");
        assert_eq!(status.borrow().persisted, Position(2));
        assert!(writer.backlog_bytes() > 0);
        disk.set_full(false);
        let healed = |status: &LogStatus| status.persisted == Position(4) && !status.full;
        status.wait_for(healed).await.expect("the thread lives");
        // A stop does not wait for space; what was not acknowledged may go.
        disk.set_full(true);
        writer.append(records[4..].to_vec());
        drop(writer);
        disk.set_full(false);
        assert_eq!(
            KvLog::open(disk)
                .expect("whole")
                .read(Position(1), 10)
                .expect("readable"),
            records[..4]
        );
    }
}
