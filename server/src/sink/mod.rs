//! Sinks: tasks that carry the changes of views out of this region.
//!
//! ```text
//!   snapshot at `from` ─┐
//!                       ├─▶ RowsSnapshot::changes_since ─▶ segment (from, to] ─▶ file, renamed when complete
//!   snapshot at `to` ───┘                                        └─▶ DATA/sinks/ID: how far it is
//! ```
//!
//! A sink looks at snapshots, so it sees durable positions only, is never in the way of a commit, and when it is slow
//! writes fewer, larger segments: what came and went between two of them is not written. It holds one old
//! snapshot, whose segments of rows are shared with the newer ones.
//!
//! # Exactly once
//!
//! A segment says from which log position to which it goes. After a crash the region's replay comes past the position
//! up to which the sink had written, and keeps the views' results there (`RegionConfig::keep_results_at`): the sink
//! goes on from them as if nothing had happened. For that the region's newest checkpoint must not be younger than
//! what was written, so a checkpoint waits for its sinks ([`state::SinkState::settle`]), though not for ever: a sink
//! that fails meanwhile, or needs too long, begins with a snapshot after a crash, and its file says so.
//!
//! Left out: sinks whose other end takes part in a commit (a database, a queue), and changes in the order of
//! commits within a segment.

mod carrier;
mod files;
mod format;
pub mod progress;
mod segment;
pub mod state;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tributary_planner::catalog::{BLACKHOLE_CONNECTOR, FILE_CONNECTOR, ObjectKind, SinkDef};
use tributary_region::Snapshot;
use tributary_storage::ObjectId;

use crate::node::Node;
use carrier::{Carrier, Target};
use files::Directory;
use state::Running;

/// After a failure the next attempt waits this long.
const RETRY: Duration = Duration::from_secs(5);

/// Runs the tasks of all sinks, as the catalog has them, until `stop` turns true.
pub async fn run(node: Arc<Node>, mut stop: watch::Receiver<bool>) {
    let Some(replayed) = node.replayed().await else {
        return;
    };
    // What was dropped while the region was down.
    let known = |id: ObjectId| replayed.origin.is_none() || replayed.catalog.sink(id).is_some();
    node.sinks().forget_unless(known);
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
        let exists = snapshot.catalog.sink(*id).is_some();
        if !exists {
            task.abort();
        }
        exists
    });
    node.sinks()
        .forget_unless(|id| snapshot.catalog.sink(id).is_some());
    for (id, object) in &snapshot.catalog.objects {
        if let ObjectKind::Sink(def) = &object.kind
            && def.is_written_in(node.name())
            && !tasks.contains_key(id)
        {
            let task = carry(node.clone(), *id, object.name.clone(), def.clone());
            tasks.insert(*id, tokio::spawn(task));
        }
    }
}

/// One sink in this region, for as long as it exists.
async fn carry(node: Arc<Node>, id: ObjectId, name: String, def: SinkDef) {
    let (mut carrier, interval) = match prepared(&node, id, &name, &def) {
        Ok(prepared) => prepared,
        Err(reason) => {
            tracing::error!(sink = name, reason, "the sink does not start");
            return node.sinks().fail(id, reason);
        }
    };
    let mut snapshots = node.snapshots();
    let mut wanted = node.sinks().wanted();
    loop {
        let snapshot = snapshots.borrow_and_update().clone();
        let wanted_up_to = *wanted.borrow_and_update();
        let state = node.clone();
        let step = tokio::task::spawn_blocking(move || {
            let outcome = carrier.step(state.sinks(), &snapshot, wanted_up_to);
            (carrier, outcome)
        });
        // Without its outcome the task was cancelled, or the step panicked and said so.
        let Ok((back, outcome)) = step.await else {
            return node.sinks().fail(id, "its task ended; see the log".to_owned());
        };
        carrier = back;
        match outcome {
            Ok(written) => {
                if written.rows > 0 {
                    metrics::counter!("tributary_sink_rows_total", "sink" => name.clone())
                        .increment(written.rows);
                    metrics::counter!("tributary_sink_bytes_total", "sink" => name.clone())
                        .increment(written.bytes);
                }
                // A checkpoint that waits is worth a segment of its own.
                let settled = carrier.settled();
                tokio::select! {
                    () = tokio::time::sleep(interval) => {}
                    _ = wanted.wait_for(|wanted| *wanted > settled) => {}
                }
            }
            Err(reason) => {
                tracing::error!(sink = name, reason, "the sink fails; it is tried again");
                node.sinks().fail(id, reason);
                tokio::time::sleep(RETRY).await;
                continue;
            }
        }
        tokio::select! {
            changed = snapshots.changed() => if changed.is_err() { return },
            changed = wanted.changed() => if changed.is_err() { return },
        }
    }
}

/// A sink that is about to start, and how long it waits between two segments.
fn prepared(node: &Node, id: ObjectId, name: &str, def: &SinkDef) -> Result<(Carrier, Duration), String> {
    let unknown = |what: &str| format!("{what} is not known to this version");
    let interval_ms = def.option("interval_ms").and_then(|text| text.parse().ok());
    let interval_ms: u64 = interval_ms.ok_or_else(|| unknown("option interval_ms"))?;
    let target = match def.connector.as_str() {
        BLACKHOLE_CONNECTOR => Target::Blackhole,
        FILE_CONNECTOR => {
            let path = def
                .path_in(node.name())
                .ok_or_else(|| "option path is missing".to_owned())?;
            let format = def.option("format").and_then(format::Format::named);
            Target::Files(Directory {
                path: path.into(),
                sink: name.to_owned(),
                region: node.name().to_owned(),
                format: format.ok_or_else(|| unknown("its format"))?,
            })
        }
        other => return Err(unknown(&format!("connector \"{other}\""))),
    };
    node.sinks().note(id, Running::Waiting);
    let carrier = Carrier::new(id, def.view, target, node.sinks());
    Ok((carrier, Duration::from_millis(interval_ms)))
}
