//! The shell around one region: its thread, its disk, and the handle by which everybody else reaches it.
//!
//! ```text
//!  sessions, sources, links ──▶ Node (handle) ──▶ queue ──▶ Driver (thread) ──▶ Region
//!            ▲                                                │      └─▶ LogWriter, Checkpoints (threads)
//!            └──────────────── watch: Arc<Snapshot> ◀─────────┘
//! ```
//! Nothing here decides anything about data: the region does. What the shell decides is when to sync, when to
//! checkpoint, and when to stop.

mod aside;
mod backend;
mod checkpoints;
mod clock;
mod data_dir;
mod ddl;
mod driver;
mod found;
mod log_writer;
mod lost;
mod members;
mod open;
mod peers;
mod reincarnation;
mod request;
pub mod salvage;
mod spill;
mod workers;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tributary_planner::catalog::CatalogChange;
use tributary_region::dataflow::conflicts::{Conflict, ConflictId};
use tributary_region::{Committed, Rejected, Snapshot, SourceAppend, WriteSet};
use tributary_storage::Position;

pub use clock::wall_ms;
pub use driver::Ended;
pub use found::{FoundError, founding_unless};
pub use open::{OpenError, Stored};
pub use peers::Peers;
pub use reincarnation::{ReincarnateError, prepare};
pub use request::{LinkEvent, LinkNews, Outbox, Request};

use crate::far::once::Once;
use crate::far::window::Versions;
use crate::links::{PeerClient, PeerTls};
use crate::sink::state::SinkState;
use crate::source::state::SourceState;

/// What a node is told about itself.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    /// This region's name.
    pub region: String,
    /// The names of its peers.
    pub peers: Vec<String>,
    /// The primary region's name.
    pub primary: String,
    /// How the configured peers are reached.
    pub clients: BTreeMap<String, PeerClient>,
    /// Whether the region may go on as another incarnation.
    pub reincarnate: bool,
    /// The least incarnation that it may take when it joins.
    pub incarnation_min: u32,
    /// By which certificates peers prove their names, if any.
    pub tls: Option<PeerTls>,
    /// How many threads compute a step.
    pub workers: usize,
    /// The bytes of rows of views that stay in memory; `None` keeps all.
    pub memory_budget: Option<usize>,
}

/// The handle of a running region. Cheap to use from any task; cancel-safe.
pub struct Node {
    region: String,
    peers: Arc<Peers>,
    requests: mpsc::Sender<Request>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    /// What other regions may still read of this one.
    versions: Arc<Versions>,
    /// What this region carries out for others.
    forwarded: Arc<Once>,
    /// Where the log ended when the region was opened.
    opened_at: Position,
    /// DDL is planned and submitted one at a time, or statements would keep overtaking each other's catalog.
    ddl: tokio::sync::Mutex<()>,
    sources: SourceState,
    sinks: Arc<SinkState>,
    /// Whether rows of an earlier incarnation are being taken over: until then clients write nothing.
    salvaging: AtomicBool,
}

impl Node {
    fn new(
        settings: &NodeSettings,
        requests: mpsc::Sender<Request>,
        snapshots: watch::Receiver<Arc<Snapshot>>,
        versions: Arc<Versions>,
        opened_at: Position,
        sinks: Arc<SinkState>,
    ) -> Node {
        Node {
            region: settings.region.clone(),
            peers: Arc::new(Peers::new(settings, snapshots.clone())),
            requests,
            snapshots,
            versions,
            forwarded: Arc::default(),
            opened_at,
            ddl: tokio::sync::Mutex::new(()),
            sources: SourceState::default(),
            sinks,
            salvaging: AtomicBool::new(false),
        }
    }

    /// Rows of earlier incarnations are being taken over.
    pub fn begin_salvage(&self) {
        self.salvaging.store(true, Ordering::Release);
    }

    /// The rows of earlier incarnations were taken over.
    pub async fn end_salvage(&self) {
        self.salvaging.store(false, Ordering::Release);
        let _ = self.requests.send(Request::TakenOver).await;
    }

    /// Whether clients' writes are taken in.
    pub fn is_ready(&self) -> bool {
        self.newest().origin.is_some() && !self.salvaging.load(Ordering::Acquire)
    }

    /// The newest published snapshot.
    pub fn newest(&self) -> Arc<Snapshot> {
        self.snapshots.borrow().clone()
    }

    /// The first snapshot that shows everything this region had logged before it was opened; `None` when the node
    /// stops first.
    pub async fn replayed(&self) -> Option<Arc<Snapshot>> {
        let mut snapshots = self.snapshots.clone();
        let replayed = snapshots
            .wait_for(|snapshot| snapshot.position >= self.opened_at)
            .await;
        replayed.ok().map(|snapshot| snapshot.clone())
    }

    /// A reader of all snapshots to come.
    pub fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshots.clone()
    }

    /// This region's name.
    pub fn name(&self) -> &str {
        &self.region
    }

    /// The other regions.
    pub fn peers(&self) -> &Arc<Peers> {
        &self.peers
    }

    /// Where connections report.
    pub fn requests(&self) -> mpsc::Sender<Request> {
        self.requests.clone()
    }

    /// Commits and waits until the writes are durable. When the node ends while the outcome is unknown, this
    /// never returns: neither yes nor no would be true.
    pub async fn submit(&self, writes: WriteSet) -> Result<Committed, Rejected> {
        let (reply, outcome) = oneshot::channel();
        self.ask(Request::Commit { writes, reply }, outcome).await
    }

    /// The commit that carries a token, once it is durable; `None` when there is none.
    pub(crate) async fn find(&self, id: [u8; 16]) -> Result<Option<Committed>, Rejected> {
        let (reply, outcome) = oneshot::channel();
        match self.ask(Request::Find { id, reply }, outcome).await {
            Ok(committed) => Ok(Some(committed)),
            Err(Rejected::NotCommitted) => Ok(None),
            Err(rejected) => Err(rejected),
        }
    }

    /// Records writes that were lost, and waits until that is durable.
    pub(crate) async fn submit_lost(&self, conflicts: Vec<Conflict>) -> Result<Committed, Rejected> {
        let (reply, outcome) = oneshot::channel();
        self.ask(Request::Lost { conflicts, reply }, outcome).await
    }

    /// Removes conflicts, and waits until that is durable.
    pub(crate) async fn forget(&self, conflicts: Vec<ConflictId>) -> Result<Committed, Rejected> {
        let (reply, outcome) = oneshot::channel();
        self.ask(Request::Forget { conflicts, reply }, outcome).await
    }

    /// What the tasks of sources are doing.
    pub fn sources(&self) -> &SourceState {
        &self.sources
    }

    /// What this region's sinks are doing.
    pub fn sinks(&self) -> &SinkState {
        &self.sinks
    }

    /// Submits rows of a source; the answer comes when they are durable. Calls one after the other keep their
    /// order. When the node is stopping the answer never comes.
    pub async fn submit_source(
        &self,
        append: SourceAppend,
    ) -> oneshot::Receiver<Result<Committed, Rejected>> {
        let (reply, outcome) = oneshot::channel();
        let _ = self.requests.send(Request::Source { append, reply }).await;
        outcome
    }

    /// Submits catalog changes that were planned against `base_version`.
    pub(crate) async fn submit_ddl(
        &self,
        changes: Vec<CatalogChange>,
        base_version: u64,
    ) -> Result<Committed, Rejected> {
        let (reply, outcome) = oneshot::channel();
        self.ask(
            Request::Ddl {
                changes,
                base_version,
                reply,
            },
            outcome,
        )
        .await
    }

    async fn ask(
        &self,
        request: Request,
        outcome: oneshot::Receiver<Result<Committed, Rejected>>,
    ) -> Result<Committed, Rejected> {
        if self.requests.send(request).await.is_err() {
            // The node is stopping and took nothing in.
            return Err(Rejected::Overloaded);
        }
        match outcome.await {
            Ok(outcome) => outcome,
            Err(_) => std::future::pending().await,
        }
    }

    /// Waits for the first snapshot that satisfies `wanted`; `Ok(None)` when the time is up, `Err` when the
    /// node stops.
    pub async fn wait_until(
        &self,
        timeout: Duration,
        mut wanted: impl FnMut(&Snapshot) -> bool,
    ) -> Result<Option<Arc<Snapshot>>, NodeStopped> {
        let mut snapshots = self.snapshots.clone();
        let waiting = snapshots.wait_for(|snapshot| wanted(snapshot));
        match tokio::time::timeout(timeout, waiting).await {
            Ok(Ok(snapshot)) => Ok(Some(snapshot.clone())),
            Ok(Err(_)) => Err(NodeStopped),
            Err(_) => Ok(None),
        }
    }

    /// Asks the region to checkpoint and end; its end is reported by the receiver that came with the node.
    pub async fn stop(&self) {
        let _ = self.requests.send(Request::Stop).await;
    }
}

/// The region's thread has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeStopped;
