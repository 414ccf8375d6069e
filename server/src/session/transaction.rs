//! Transactions: one snapshot, pending writes, and their commit.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tributary_planner::residency::Copies;
use tributary_region::{Committed, Rejected, Snapshot, WriteSet};

use super::Session;
use crate::pgwire::error::SqlResult;
use crate::pgwire::sqlstate::of_rejected;
use crate::query::reader::Writes;

/// How often a statement that is a transaction by itself runs before its conflict is the client's.
pub const AUTOCOMMIT_ATTEMPTS_MAX: u32 = 30;

/// How often a writer that waits for a region asks whether it is near enough.
const BEHIND_PAUSE: Duration = Duration::from_millis(20);

/// An open transaction.
pub struct Transaction {
    /// What its statements read.
    pub snapshot: Arc<Snapshot>,
    /// What they wrote.
    pub writes: Writes,
    /// What they copied between tables.
    pub copies: Copies,
    /// Begun by BEGIN; an implicit one ends with the query string or at Sync.
    pub is_explicit: bool,
    /// Writes are refused.
    pub is_read_only: bool,
    /// `now()`, in nanoseconds since 1970.
    pub started_ns: i64,
}

impl Transaction {
    /// A transaction over a snapshot.
    pub fn new(snapshot: Arc<Snapshot>, is_explicit: bool) -> Self {
        let started_ns = chrono::Utc::now().timestamp_nanos_opt().unwrap_or(0);
        Self {
            snapshot,
            writes: Writes::new(),
            copies: Copies::new(),
            is_explicit,
            is_read_only: false,
            started_ns,
        }
    }

    /// Everything written, as one change of the region.
    pub fn to_write_set(&self) -> WriteSet {
        let tables = self
            .writes
            .iter()
            .map(|(table, pending)| (*table, pending.to_change()));
        WriteSet {
            tables: tables
                .filter(|(_, change)| change.writes.rows.num_rows() > 0)
                .collect(),
            source: None,
            token: None,
            catalog_version: self.snapshot.catalog.version,
            copies: self.copies.clone(),
        }
    }
}

impl Session {
    /// Commits the transaction; it is gone afterwards, whatever came of it.
    pub(super) async fn commit(&mut self) -> SqlResult<()> {
        let Some(transaction) = self.transaction.take() else {
            return Ok(());
        };
        let writes = transaction.to_write_set();
        if writes.tables.is_empty() {
            return Ok(());
        }
        match self.submit(writes).await {
            Ok(committed) => {
                self.committed(committed);
                Ok(())
            }
            Err(rejected) => Err(of_rejected(&rejected, &transaction.snapshot.catalog)),
        }
    }

    /// Commits writes, after a wait where a table asks for one while a region is behind. Once they are on their way, the
    /// statement is not interrupted: its outcome has to be told. The wait can be.
    pub(super) async fn submit(&self, writes: WriteSet) -> Result<Committed, Rejected> {
        let catalog = Arc::clone(&self.backend.snapshot().catalog);
        let mut tables = writes.tables.keys();
        if !tables.any(|table| catalog.may_wait(*table)) {
            return self.uninterrupted(self.backend.commit(writes)).await;
        }
        let started = Instant::now();
        loop {
            let outcome = self.uninterrupted(self.backend.commit(writes.clone())).await;
            let may_wait = self.behind_max.is_none_or(|max| started.elapsed() < max);
            match outcome {
                Err(Rejected::Behind { waits: true, .. })
                    if may_wait && !self.interruption.take_pending() =>
                {
                    tokio::time::sleep(BEHIND_PAUSE).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// Has nothing interrupt this.
    pub(super) async fn uninterrupted<T>(&self, work: impl Future<Output = T>) -> T {
        self.interruption.is_committing.store(true, Ordering::Release);
        let outcome = work.await;
        self.interruption.is_committing.store(false, Ordering::Release);
        outcome
    }

    /// Remembers a commit of this session.
    pub(super) fn committed(&mut self, committed: Committed) {
        self.own_position = self.own_position.max(committed.position);
        self.own_commit = self.own_commit.max(committed.position);
    }

    /// Whether a statement that is a transaction by itself should run again.
    pub(super) fn is_retriable(rejected: &Rejected) -> bool {
        matches!(
            rejected,
            Rejected::Conflict { .. } | Rejected::CatalogChanged | Rejected::Overloaded
        )
    }
}

/// The pause before an attempt: the winner's commit has to reach a snapshot first. Random, so that two sessions in
/// each other's way part.
pub async fn pause(attempt: u32) {
    let most_ms = (2u64 << attempt.min(6)).min(100);
    let ms = rand::random_range(1..=most_ms);
    tokio::time::sleep(Duration::from_millis(ms)).await;
}
