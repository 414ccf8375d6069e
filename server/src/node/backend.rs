//! The node as sessions see it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tributary_planner::catalog::PlanSettings;
use tributary_region::dataflow::conflicts::ConflictId;
use tributary_region::{Committed, Rejected, Snapshot, WriteSet};
use tributary_replication::Epoch;
use tributary_storage::{ObjectId, OriginId, Position};

use super::Node;
use crate::far::FarReads;
use crate::session::backend::{Backend, DdlDone, DdlError, WaitError};
use crate::source::state::Task;

#[async_trait]
impl Backend for Node {
    fn snapshot(&self) -> Arc<Snapshot> {
        self.newest()
    }

    async fn wait_for(&self, position: Position, timeout: Duration) -> Result<Arc<Snapshot>, WaitError> {
        match self
            .wait_until(timeout, |snapshot| snapshot.position >= position)
            .await
        {
            Ok(Some(snapshot)) => Ok(snapshot),
            Ok(None) => Err(WaitError::Timeout),
            Err(_) => Err(WaitError::Stopped),
        }
    }

    async fn commit(&self, writes: WriteSet) -> Result<Committed, Rejected> {
        if !self.is_ready() {
            return Err(Rejected::Joining);
        }
        self.submit(writes).await
    }

    async fn forget(&self, conflicts: Vec<ConflictId>) -> Result<Committed, Rejected> {
        if !self.is_ready() {
            return Err(Rejected::Joining);
        }
        Node::forget(self, conflicts).await
    }

    async fn find(&self, token: [u8; 16]) -> Result<Option<Committed>, Rejected> {
        Node::find(self, token).await
    }

    async fn ddl(&self, sql: String, settings: PlanSettings) -> Result<DdlDone, DdlError> {
        self.run_ddl(sql, settings).await
    }

    fn region_name(&self) -> String {
        self.region.clone()
    }

    fn source_tasks(&self) -> BTreeMap<ObjectId, Task> {
        self.sources().tasks()
    }

    fn sink_tasks(&self) -> BTreeMap<ObjectId, crate::sink::state::Task> {
        self.sinks().tasks()
    }

    async fn wait_for_epoch(&self, origin: OriginId, epoch: Epoch, timeout: Duration) -> bool {
        let shown = |snapshot: &Snapshot| snapshot.frontier.get(origin) >= epoch;
        matches!(self.wait_until(timeout, shown).await, Ok(Some(_)))
    }

    fn far(&self) -> Option<Arc<dyn FarReads>> {
        Some(Arc::clone(&self.peers) as _)
    }

    fn secure_links(&self) -> bool {
        self.peers.are_secure()
    }

    async fn wait_view_ready(&self, view: ObjectId, timeout: Duration) -> Result<(), Vec<String>> {
        let is_ready = |snapshot: &Snapshot| {
            snapshot.views.get(&view).is_some_and(|view| view.missing.is_empty())
                // Dropped meanwhile: there is nothing left to wait for.
                || !snapshot.catalog.objects.contains_key(&view)
        };
        match self.wait_until(timeout, is_ready).await {
            Ok(Some(_)) => Ok(()),
            Ok(None) | Err(_) => Err(self.missing_regions(view)),
        }
    }
}

impl Node {
    fn missing_regions(&self, view: ObjectId) -> Vec<String> {
        let snapshot = self.newest();
        let Some(found) = snapshot.views.get(&view) else {
            return vec![self.region.clone()];
        };
        let name = |id| {
            snapshot
                .catalog
                .regions
                .get(id)
                .map_or_else(|| "?".to_owned(), |def| def.name.clone())
        };
        found.missing.iter().map(name).collect()
    }
}
