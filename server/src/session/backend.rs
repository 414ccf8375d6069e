//! What a session needs of the node it runs in: snapshots to read, a door for commits, a road for DDL.
//!
//! The node implements it over the region's machine; tests implement it in memory. A session never sees the log,
//! the links or the disk.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tributary_planner::catalog::PlanSettings;
use tributary_planner::error::PlanError;
use tributary_region::dataflow::conflicts::ConflictId;
use tributary_region::{Committed, Rejected, Snapshot, WriteSet};
use tributary_replication::Epoch;
use tributary_storage::{ObjectId, OriginId, Position};

use crate::far::forward::{Errand, ForwardReply};
use crate::far::{FarError, FarReads};
use crate::pgwire::error::SqlResult;
use crate::source::state::Task;

/// The node, as seen by sessions.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// The newest published snapshot.
    fn snapshot(&self) -> Arc<Snapshot>;

    /// The first snapshot published at or after `position`.
    async fn wait_for(&self, position: Position, timeout: Duration) -> Result<Arc<Snapshot>, WaitError>;

    /// Commits; the writes are durable in this region when it returns.
    async fn commit(&self, writes: WriteSet) -> Result<Committed, Rejected>;

    /// Removes conflicts from the table of conflicts; durable in this
    /// region when it returns.
    async fn forget(&self, conflicts: Vec<ConflictId>) -> Result<Committed, Rejected>;

    /// The commit that carries a token, if it is in.
    async fn find(&self, token: [u8; 16]) -> Result<Option<Committed>, Rejected>;

    /// Runs a DDL statement: forwarded to the primary, visible here when it returns.
    async fn ddl(&self, sql: String, settings: PlanSettings) -> Result<DdlDone, DdlError>;

    /// The name of this region.
    fn region_name(&self) -> String;

    /// Has another region carry out a statement.
    async fn forward(&self, region: &str, errand: &Errand) -> SqlResult<ForwardReply> {
        match self.far() {
            Some(far) => Ok(far.forward(region, errand).await?),
            None => Err(no_road(region).into()),
        }
    }

    /// Waits until a snapshot knows of an epoch; false when the time was up.
    async fn wait_for_epoch(&self, _origin: OriginId, _epoch: Epoch, _timeout: Duration) -> bool {
        false
    }

    /// The road to rows of other regions.
    fn far(&self) -> Option<Arc<dyn FarReads>> {
        None
    }

    /// Waits until the view is readable here; otherwise names the regions it waits for.
    async fn wait_view_ready(&self, view: ObjectId, timeout: Duration) -> Result<(), Vec<String>>;

    /// What the tasks of this region's sources are doing.
    fn source_tasks(&self) -> BTreeMap<ObjectId, Task> {
        BTreeMap::new()
    }

    /// What this region's sinks are doing.
    fn sink_tasks(&self) -> BTreeMap<ObjectId, crate::sink::state::Task> {
        BTreeMap::new()
    }

    /// Whether links are encrypted and both their ends proven.
    fn secure_links(&self) -> bool {
        false
    }

    /// The build's version, for `version()`.
    fn version(&self) -> String {
        env!("CARGO_PKG_VERSION").to_string()
    }
}

/// Why a wait ended without its snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitError {
    /// The time was up.
    Timeout,
    /// The node is stopping.
    Stopped,
}

/// A DDL statement that was carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DdlDone {
    /// The command tag, for example `CREATE TABLE`.
    pub tag: String,
    /// Notices for the client.
    pub notices: Vec<String>,
    /// The local position whose snapshot shows it.
    pub position: Position,
}

/// Why a DDL statement was not carried out.
#[derive(Debug)]
pub enum DdlError {
    /// The statement is wrong, or not supported.
    Plan(PlanError),
    /// The primary region cannot be reached.
    Unreachable {
        /// Its name.
        primary: String,
    },
    /// The primary refused the change.
    Rejected(Rejected),
}

fn no_road(region: &str) -> FarError {
    FarError::Unreachable {
        region: region.to_owned(),
        reason: "there is no road to other regions".to_owned(),
    }
}
