//! Checkpoints: the state of all traces at one log position, made live by one record.
//!
//! ```text
//!   1. write the runs and blobs that are not stored yet          Runs
//!   2. sync
//!   3. write the manifest, under the next number                 Manifest
//!   4. sync                                   <- from here on this checkpoint is the one that is loaded
//!   5. remove older manifests, and what the new one does not name (durable with the next sync)
//! ```
//!
//! A crash before the end of 4 leaves the old checkpoint whole, a crash after it the new one; never a mix,
//! because what a manifest names was durable before it, and is removed only after its successor is. Families
//! may be flushed in any order: nothing is concluded from a family but what the manifest names.
//!
//! Runs never change and are named by their content, so a checkpoint writes only runs that were made since
//! the last one *and* are still alive: whatever was merged away in between is never written.
//!
//! Runs are stored as Arrow IPC (columns, not encoded rows, whose form belongs to a release of arrow-row),
//! in checksummed chunks. Bytes are verified before they are decoded; damage is an error that names the run
//! and says what to do, never a panic.
//!
//! Left out: who decides when; truncation of the log, which the caller does after [`write()`] has returned. A
//! caller also compares: a log whose first record lies beyond `position + 1` does not fit its checkpoint.

mod load;
mod manifest;
mod object;
mod rows_file;
mod run_file;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::error::Result;
use crate::kv::{Family, Kv, WriteBatch};
use crate::log::{ChainHash, Position};
use crate::rows::RowsSnapshot;
use crate::trace::{Run, RunId, TraceSnapshot};

pub use load::{LoadJob, Loaded, load, load_with};
pub use manifest::manifest_key;
use manifest::{Manifest, StoredBlob, StoredRun, StoredTrace};
pub(crate) use object::HEADER_BYTES as CHUNK_HEADER_BYTES;

/// What a checkpoint makes live. Layouts of traces are known to the caller by name; blobs are opaque.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// The last log record that is contained in it.
    pub position: Position,
    /// The hash of the log up to there.
    pub chain: ChainHash,
    /// The traces, by a name that is never reused for another layout.
    pub traces: BTreeMap<String, Arc<TraceSnapshot>>,
    /// Rows that are no trace, likewise.
    pub rows: BTreeMap<String, Arc<RowsSnapshot>>,
    /// Everything else the caller needs to start from here.
    pub blobs: BTreeMap<String, Bytes>,
}

/// What writing a checkpoint took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckpointStats {
    /// Distinct runs and segments the checkpoint names.
    pub runs_live: usize,
    /// Runs and segments that were not stored before.
    pub runs_written: usize,
    /// Bytes of new runs, blobs and the manifest, as stored.
    pub bytes_written: u64,
    /// Runs and blobs that were removed because nothing names them any more.
    pub objects_removed: usize,
}

/// Writes a checkpoint and makes it the one that is loaded. See the module's description.
///
/// # Errors
/// When it fails, either the old or the new checkpoint is loaded next, and calling again is safe, except
/// after a failed sync, which is fatal to the node.
pub fn write(kv: &dyn Kv, checkpoint: &Checkpoint) -> Result<CheckpointStats> {
    let current = manifest::current(kv)?;
    let mut stats = CheckpointStats::default();
    if let Some(current) = &current {
        // Before anything else can go wrong with it: from here on damage to it is not taken for a torn write.
        manifest::mark_durable(kv, current.number)?;
    }
    let stored = current.map(|current| current.manifest).unwrap_or_default();
    let manifest = write_objects(kv, checkpoint, &stored, &mut stats)?;
    kv.sync()?;
    let number = manifest::last_number(kv)? + 1;
    stats.bytes_written += manifest::put(kv, number, &manifest)?;
    kv.sync()?;
    stats.objects_removed = collect_garbage(kv, number, &manifest)?;
    Ok(stats)
}

/// Stores what is not stored yet, and returns the manifest of the whole.
fn write_objects(
    kv: &dyn Kv,
    checkpoint: &Checkpoint,
    stored: &Manifest,
    stats: &mut CheckpointStats,
) -> Result<Manifest> {
    let mut manifest = Manifest {
        position: checkpoint.position,
        chain: checkpoint.chain,
        ..Manifest::default()
    };
    for (name, snapshot) in &checkpoint.traces {
        let mut ids = Vec::with_capacity(snapshot.runs().len());
        for run in snapshot.runs() {
            let id = run.id();
            ids.push(id);
            if manifest.runs.contains_key(&id) {
                continue;
            }
            let entry = match stored.runs.get(&id) {
                Some(entry) => *entry,
                None => write_run(kv, snapshot, run, stats)?,
            };
            manifest.runs.insert(id, entry);
        }
        let fingerprint = snapshot.codec().fingerprint;
        manifest.traces.insert(
            name.clone(),
            StoredTrace {
                fingerprint,
                runs: ids,
            },
        );
    }
    for (name, rows) in &checkpoint.rows {
        rows_file::write(kv, name, rows, stored, &mut manifest, stats)?;
    }
    for (name, blob) in &checkpoint.blobs {
        let id = object::blob_id(blob);
        let known = stored
            .blobs
            .values()
            .chain(manifest.blobs.values())
            .find(|entry| entry.id == id);
        let entry = match known {
            Some(entry) => *entry,
            None => {
                let object = object::write_all(kv, id, blob)?;
                stats.bytes_written += object.bytes;
                StoredBlob { id, object }
            }
        };
        manifest.blobs.insert(name.clone(), entry);
    }
    stats.runs_live = manifest.runs.len() + manifest.segments.len();
    Ok(manifest)
}

fn write_run(
    kv: &dyn Kv,
    snapshot: &TraceSnapshot,
    run: &Run,
    stats: &mut CheckpointStats,
) -> Result<StoredRun> {
    let object = run_file::write(kv, snapshot.codec(), run)?;
    stats.runs_written += 1;
    stats.bytes_written += object.bytes;
    let (rows, stamp_min, stamp_max) = (run.len() as u64, run.stamp_min(), run.stamp_max());
    Ok(StoredRun {
        object,
        rows,
        stamp_min,
        stamp_max,
    })
}

/// Removes every object the live manifest does not name, and all other manifests.
fn collect_garbage(kv: &dyn Kv, number: u64, live: &Manifest) -> Result<usize> {
    let named: BTreeSet<RunId> = live
        .runs
        .keys()
        .chain(live.segments.keys())
        .copied()
        .chain(live.blobs.values().map(|blob| blob.id))
        .collect();
    let mut batch = WriteBatch::new();
    let mut removed = 0;
    for id in object::list(kv)? {
        if !named.contains(&id) {
            object::remove(&mut batch, id);
            removed += 1;
        }
    }
    manifest::retire_before(&mut batch, number);
    kv.write(batch)?;
    Ok(removed)
}

/// What a node does about stored bytes that are damaged.
const ADVICE: &str =
    "Keep this directory as evidence and restore it from a copy taken while the region was stopped";

/// The families a checkpoint writes to; the log's is not among them.
pub const FAMILIES: [Family; 2] = [Family::Runs, Family::Manifest];
