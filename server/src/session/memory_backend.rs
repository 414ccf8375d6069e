//! A backend for tests: one real region whose log and disk are memory, stepped on the caller's thread.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tributary_planner::catalog::PlanSettings;
use tributary_planner::ddl::plan_ddl_counting;
use tributary_planner::parse::parse;
use tributary_region::dataflow::conflicts::{Conflict, ConflictId};
use tributary_region::{
    Committed, Effect, Founding, Input, Region, RegionConfig, Rejected, Snapshot, Submission, WriteSet,
};
use tributary_storage::{ObjectId, Position};

use super::backend::{Backend, DdlDone, DdlError, WaitError};

/// The region and what it has not told yet.
struct Machine {
    region: Region,
    replies: BTreeMap<u64, Result<Committed, Rejected>>,
    next_token: u64,
}

/// The backend.
pub(crate) struct MemoryBackend {
    machine: Mutex<Machine>,
    /// Snapshots are not shown, as while a region takes in a lot.
    holds_snapshots: AtomicBool,
    published: watch::Sender<Arc<Snapshot>>,
}

fn now_ms() -> u64 {
    chrono::Utc::now().timestamp_millis() as u64
}

impl MemoryBackend {
    /// A cluster of one region named `here`, or of two, of which the other never answers.
    pub(crate) fn new(peers: &[&str]) -> Arc<Self> {
        Self::with("here", peers, |_| {})
    }

    /// The same under another name.
    pub(crate) fn named(name: &str, peers: &[&str]) -> Arc<Self> {
        Self::with(name, peers, |_| {})
    }

    /// The same with other limits.
    pub(crate) fn with(name: &str, peers: &[&str], set: impl FnOnce(&mut RegionConfig)) -> Arc<Self> {
        let mut config = RegionConfig::new(name, peers.iter().map(|peer| peer.to_string()).collect());
        set(&mut config);
        config.found = Some(Founding { cluster: [7; 16] });
        let mut effects = Vec::new();
        let region = Region::open(config, None, Vec::new(), now_ms(), &mut effects).expect("an empty disk");
        let published = watch::Sender::new(region.snapshot());
        let machine = Machine {
            region,
            replies: BTreeMap::new(),
            next_token: 1,
        };
        let backend = Arc::new(Self {
            machine: Mutex::new(machine),
            holds_snapshots: AtomicBool::new(false),
            published,
        });
        backend.settle(&mut backend.lock(), effects);
        backend
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what the effects ask for until the region rests.
    fn settle(&self, machine: &mut Machine, mut effects: Vec<Effect>) {
        loop {
            let mut appended = None;
            for effect in effects.drain(..) {
                match effect {
                    Effect::Append { record, .. } => appended = Some(record.position),
                    Effect::Reply { token, outcome } => drop(machine.replies.insert(token, outcome)),
                    Effect::Publish(snapshot) if !self.holds_snapshots.load(Ordering::Acquire) => {
                        drop(self.published.send_replace(snapshot))
                    }
                    Effect::Stop { reason } => panic!("the region stopped: {reason}"),
                    _ => {}
                }
            }
            if let Some(position) = appended {
                machine
                    .region
                    .step(now_ms(), Input::Persisted { position }, &mut effects);
            } else if machine.region.has_work() {
                machine.region.step(now_ms(), Input::Work, &mut effects);
            } else {
                return;
            }
        }
    }

    /// Shows no more snapshots, or again the newest.
    pub(crate) fn hold_snapshots(&self, holds: bool) {
        let machine = self.lock();
        self.holds_snapshots.store(holds, Ordering::Release);
        if !holds {
            self.published.send_replace(machine.region.snapshot());
        }
    }

    /// Has writes recorded that were lost.
    pub(crate) fn record(&self, conflicts: Vec<Conflict>) -> Result<Committed, Rejected> {
        self.submit(|token| Input::Lost { token, conflicts })
    }

    fn submit(&self, input: impl FnOnce(u64) -> Input) -> Result<Committed, Rejected> {
        let mut machine = self.lock();
        let token = machine.next_token;
        machine.next_token += 1;
        let mut effects = Vec::new();
        machine.region.step(now_ms(), input(token), &mut effects);
        self.settle(&mut machine, effects);
        machine
            .replies
            .remove(&token)
            .expect("every commit is answered once the region rests")
    }
}

#[async_trait]
impl Backend for MemoryBackend {
    fn snapshot(&self) -> Arc<Snapshot> {
        self.published.borrow().clone()
    }

    async fn wait_for(&self, position: Position, timeout: Duration) -> Result<Arc<Snapshot>, WaitError> {
        let mut seen = self.published.subscribe();
        let found =
            tokio::time::timeout(timeout, seen.wait_for(|snapshot| snapshot.position >= position)).await;
        match found {
            Ok(Ok(snapshot)) => Ok(snapshot.clone()),
            Ok(Err(_)) => Err(WaitError::Stopped),
            Err(_) => Err(WaitError::Timeout),
        }
    }

    async fn commit(&self, writes: WriteSet) -> Result<Committed, Rejected> {
        self.submit(|token| Input::Commits(vec![Submission { token, writes }]))
    }

    async fn forget(&self, conflicts: Vec<ConflictId>) -> Result<Committed, Rejected> {
        self.submit(|token| Input::Forget { token, conflicts })
    }

    async fn find(&self, id: [u8; 16]) -> Result<Option<Committed>, Rejected> {
        match self.submit(|token| Input::Find { token, id }) {
            Ok(committed) => Ok(Some(committed)),
            Err(Rejected::NotCommitted) => Ok(None),
            Err(rejected) => Err(rejected),
        }
    }

    async fn ddl(&self, sql: String, settings: PlanSettings) -> Result<DdlDone, DdlError> {
        let catalog = Arc::clone(&self.snapshot().catalog);
        let statement = parse(&sql).map_err(DdlError::Plan)?.remove(0).statement;
        let rows = self.snapshot().row_counts();
        let plan =
            plan_ddl_counting(&statement, &catalog, &settings, now_ms(), &rows).map_err(DdlError::Plan)?;
        let (changes, base_version) = (plan.changes, catalog.version);
        let committed = self
            .submit(|token| Input::Ddl {
                token,
                changes,
                base_version,
            })
            .map_err(DdlError::Rejected)?;
        Ok(DdlDone {
            tag: plan.tag,
            notices: plan.notices,
            position: committed.position,
        })
    }

    fn region_name(&self) -> String {
        "here".into()
    }

    async fn wait_view_ready(&self, view: ObjectId, _timeout: Duration) -> Result<(), Vec<String>> {
        let snapshot = self.snapshot();
        match snapshot.views.get(&view) {
            Some(found) if found.missing.is_empty() => Ok(()),
            _ => Err(vec!["there".into()]),
        }
    }
}
