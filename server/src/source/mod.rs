//! Sources: generators and connectors that fill tables on their own.
//!
//! For every source in the catalog each region runs one task, which produces the region's share of the events and
//! commits them like anybody else, with the number of events consumed in the same commit. So after a crash it goes
//! on at the exact event: what was acknowledged is there once, what was not is made again. A task that cannot
//! commit waits for its commit: the region's backpressure is the source's.
//!
//! Files are a source of another kind: a relation that views read. Their task runs while any view reads them.
//!
//! Left out: sources that cannot be read again (they need their offsets acknowledged outward), and moving
//! shares when a region is added to the cluster.

pub mod file;
mod latency;
pub mod nexmark;
mod pace;
pub mod state;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tributary_planner::catalog::{ObjectKind, SourceDef};
use tributary_region::{Rejected, Snapshot, WriteSet};
use tributary_storage::{ObjectId, RegionId};

use crate::node::Node;
use pace::Pace;
use state::Running;

const RETRY: Duration = Duration::from_millis(200);

/// Runs the tasks of all sources, as the catalog has them, until `stop` turns true.
pub async fn run(node: Arc<Node>, mut stop: watch::Receiver<bool>) {
    let mut tasks: BTreeMap<ObjectId, JoinHandle<()>> = BTreeMap::new();
    let mut snapshots = node.snapshots();
    let mut seen_version = None;
    loop {
        let snapshot = snapshots.borrow_and_update().clone();
        if snapshot.origin.is_some() && seen_version != Some(snapshot.catalog.version) {
            seen_version = Some(snapshot.catalog.version);
            start_and_end(&node, &snapshot, &mut tasks);
        }
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            changed = snapshots.changed() => if changed.is_err() { break },
        }
    }
    for task in tasks.into_values() {
        task.abort();
        // A cancelled task answers with an error that says just that.
        let _ = task.await;
    }
}

fn start_and_end(node: &Arc<Node>, snapshot: &Snapshot, tasks: &mut BTreeMap<ObjectId, JoinHandle<()>>) {
    tasks.retain(|id, task| {
        let runs = should_run(node, snapshot, *id);
        if !runs {
            task.abort();
            node.sources().note(*id, Running::Idle);
        }
        runs
    });
    for (id, object) in &snapshot.catalog.objects {
        if let ObjectKind::Source(source) = &object.kind
            && !tasks.contains_key(id)
            && should_run(node, snapshot, *id)
        {
            let (node, id, name, source) = (node.clone(), *id, object.name.clone(), source.clone());
            let task = match source.is_relation() {
                true => tokio::spawn(file::feed(node, id, name, source)),
                false => tokio::spawn(feed(node, id, name, source)),
            };
            tasks.insert(id, task);
        }
    }
}

/// Whether a source has anything to do in this region now. One that views read does nothing without them.
fn should_run(node: &Node, snapshot: &Snapshot, id: ObjectId) -> bool {
    let catalog = &snapshot.catalog;
    let Some(ObjectKind::Source(source)) = catalog.by_id(id).map(|object| &object.kind) else {
        return false;
    };
    !source.is_relation()
        || (!source.is_paused() && source.is_read_in(node.name()) && catalog.is_read_by_views(id))
}

/// One source in this region, to the end of its events.
async fn feed(node: Arc<Node>, id: ObjectId, name: String, source: SourceDef) {
    match try_feed(&node, id, &name, &source).await {
        Ok(events) => tracing::info!(source = name, events, "the source has come to its end"),
        Err(reason) => tracing::error!(source = name, reason, "the source stops"),
    }
}

async fn try_feed(node: &Node, id: ObjectId, name: &str, source: &SourceDef) -> Result<u64, String> {
    if source.connector != "nexmark" {
        return Err(format!(
            "connector \"{}\" is not known to this version",
            source.connector
        ));
    }
    let mut snapshot = node.replayed().await.ok_or("the node is stopping")?;
    let region = own_region(&snapshot)?;
    let generator = Arc::new(nexmark::Generator::new(id, source, &snapshot.catalog, region)?);
    let mut consumed = snapshot.sources.get(&id).copied().unwrap_or(0);
    tracing::info!(
        source = name,
        consumed,
        share = generator.events_total(),
        "the source starts"
    );
    let mut pace = Pace::start(generator.rate(), pace::GATHER);
    let generated = metrics::counter!("tributary_source_events_total", "source" => name.to_owned());
    while let Some(left) = generator
        .events_total()
        .checked_sub(consumed)
        .filter(|left| *left > 0)
    {
        let count = pace.due(left.min(nexmark::BATCH_EVENTS_MAX)).await;
        let maker = generator.clone();
        let tables = tokio::task::spawn_blocking(move || maker.batch(consumed, count))
            .await
            .map_err(|error| format!("the generator failed: {error}"))??;
        loop {
            let writes = WriteSet {
                tables: tables.clone(),
                source: Some((id, consumed + count)),
                catalog_version: snapshot.catalog.version,
                ..WriteSet::default()
            };
            match node.submit(writes).await {
                Ok(_) => break,
                Err(Rejected::CatalogChanged) => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    snapshot = node.newest();
                }
                Err(
                    Rejected::Overloaded
                    | Rejected::DiskFull
                    | Rejected::Joining
                    | Rejected::ClockDrift { .. },
                ) => {
                    tokio::time::sleep(RETRY).await;
                }
                Err(rejected) => return Err(rejected.to_string()),
            }
        }
        consumed += count;
        generated.increment(count);
    }
    Ok(consumed)
}

fn own_region(snapshot: &Snapshot) -> Result<RegionId, String> {
    snapshot
        .origin
        .map(|origin| origin.region)
        .ok_or_else(|| "the region has not joined a cluster".to_owned())
}
