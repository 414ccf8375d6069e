//! Stages: chunks of ranges that peers send piece by piece, held outside the frontier, and how a sealed one is applied.
//!
//! ```text
//!   Chunk 0, 1, 2 … ──▶ stage of the sender: rows as they were shipped      nobody sees them
//!   sealing bundle  ──▶ its step: catalog, rows of tables, the frontier     ─┐ nothing is published or sent
//!                       then slots, fragment by fragment, beside own commits ─┘ before the last portion
//! ```
//!
//! A stage is state like any other: a function of the log, in checkpoints, spilled when memory is short. A replay
//! applies a sealed stage at once; which own commits stood between its portions changes no value (slots have one writer
//! and are merged by key), only the stamps of own slots that no peer has seen.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arrow::array::RecordBatch;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tributary_executor::View;
use tributary_planner::catalog::Catalog;
use tributary_replication::{Bundle, Epoch, RowVersions, SectionObject, SlotLayout, SlotSet};
use tributary_storage::checkpoint::Loaded;
use tributary_storage::{FragmentId, ObjectId, OriginId, RowStore, RowsSnapshot, Spill};

use super::apply::Gathered;
use super::{CATALOG_BLOB, Dataflow, Stepped};
use crate::bundles;
use crate::error::{RegionError, Result};

/// The name of the blob of a checkpoint that lists the stages.
const STAGES_BLOB: &str = "stages";

/// What one sender has sent of a range so far.
pub struct Stage {
    /// As the sender named it.
    pub(crate) id: u64,
    /// Chunks that are in it.
    pub(crate) chunks: u32,
    /// Their bytes, encoded.
    pub(crate) bytes: u64,
    /// The sender's catalog, where it is newer than the one here: chunks may speak of objects that only it names.
    pub(crate) catalog: Option<Arc<Catalog>>,
    /// What all chunks together hold.
    pub(crate) ranges: BTreeMap<OriginId, Epoch>,
    rows: BTreeMap<(SectionObject, OriginId), Staged>,
}

/// Rows of one object and origin, as shipped.
struct Staged {
    store: RowStore,
    /// Where each chunk's rows begin: a key may be in several chunks, but once in each.
    starts: Vec<u32>,
}

/// A sealed stage whose slots are being merged.
#[derive(Default)]
pub(crate) struct Applying {
    queue: VecDeque<(FragmentId, OriginId, Staged)>,
    /// Views that came with it: their jobs begin with the state after the last portion.
    pub(super) backfills: Vec<ObjectId>,
}

impl Staged {
    fn new(store: RowStore) -> Self {
        Self {
            store,
            starts: Vec::new(),
        }
    }

    fn push(&mut self, rows: &RecordBatch) {
        // The schemas differ in names at most: types and nulls were checked.
        let rows = RecordBatch::try_new(self.store.schema().clone(), rows.columns().to_vec());
        self.starts
            .push(self.store.append(&rows.expect("the section was checked")));
    }

    fn portion(&self, number: usize) -> Option<RecordBatch> {
        let start = *self.starts.get(number)?;
        let end = self
            .starts
            .get(number + 1)
            .copied()
            .unwrap_or(self.store.len() as u32);
        Some(self.store.take(&(start..end).collect::<Vec<_>>()))
    }
}

impl Staged {
    /// The newest slot of each key.
    fn newest(&self, origin: OriginId, layout: &SlotLayout) -> Result<Option<RecordBatch>> {
        if self.starts.len() == 1 {
            return Ok(self.portion(0));
        }
        let mut scratch = SlotSet::new(layout.clone());
        let portions = (0..self.starts.len()).filter_map(|number| self.portion(number));
        for rows in portions {
            scratch.merge_foreign(origin, &rows)?;
        }
        Ok(Some(scratch.section(origin, Epoch(0))))
    }
}

impl Stage {
    fn new(id: u64) -> Self {
        Self {
            id,
            chunks: 0,
            bytes: 0,
            catalog: None,
            ranges: BTreeMap::new(),
            rows: BTreeMap::new(),
        }
    }

    /// The rows of GLOBAL tables in it.
    pub(crate) fn table_rows(&self) -> impl Iterator<Item = (ObjectId, RecordBatch)> + '_ {
        self.rows.iter().flat_map(|((object, _), staged)| {
            let table = match object {
                SectionObject::Rows(table) => Some(*table),
                _ => None,
            };
            let batches = table
                .into_iter()
                .flat_map(|table| staged.store.batches().map(move |(_, rows)| (table, rows)));
            batches.map(|(table, rows)| (table, rows.clone()))
        })
    }

    pub(super) fn spillable(&mut self) -> impl Iterator<Item = &mut dyn Spill> {
        self.rows
            .values_mut()
            .map(|staged| &mut staged.store as &mut dyn Spill)
    }
}

/// The columns in which rows of an object are shipped; `None` when the catalog does not name it.
fn shipped(object: &SectionObject, catalog: &Catalog) -> Option<arrow::datatypes::SchemaRef> {
    match object {
        SectionObject::Rows(id) => {
            let def = catalog.table(*id)?;
            let rows = RowVersions::new(def.schema(), def.primary_key.clone(), true);
            Some(rows.section_schema())
        }
        SectionObject::Slots(id) => {
            let def = catalog.materialized_view(id.view)?;
            let layout = View::slot_layout(&def.plan, usize::from(id.number));
            Some(SlotSet::new(layout).section_schema())
        }
        SectionObject::Blob(_) => None,
    }
}

/// Whether nothing more of a stage will be wanted: its range is known, or its sender is no member any more.
pub(crate) fn is_over(
    sender: OriginId,
    ranges: &BTreeMap<OriginId, Epoch>,
    frontier: &tributary_replication::Frontier,
    catalog: &Catalog,
) -> bool {
    let region = catalog.regions.get(&sender.region);
    ranges.iter().all(|(origin, to)| *to <= frontier.get(*origin))
        || region.is_some_and(|region| !region.is_member() || region.incarnation > sender.incarnation)
}

impl Dataflow {
    /// The stage of a sender.
    pub(crate) fn stage(&self, sender: OriginId) -> Option<&Stage> {
        self.stages.get(&sender)
    }

    /// Whether a sealed stage is not applied in full yet. What is here then is of no one moment: it must not be shown.
    pub fn is_applying(&self) -> bool {
        self.applying.is_some()
    }

    /// Holds a chunk.
    pub(super) fn apply_chunk(&mut self, bytes: &Bytes) -> Result<()> {
        self.prune_stages();
        let bundle = Bundle::decode(bytes)?;
        let (sender, chunk) = (bundle.sender, bundle.chunk);
        let is_other = self
            .stages
            .get(&sender)
            .is_none_or(|stage| stage.id != chunk.stage);
        if is_other {
            self.stages.insert(sender, Stage::new(chunk.stage));
        }
        let stage = self.stages.get_mut(&sender).expect("just made sure of");
        if chunk.number != stage.chunks && !self.defects.replication.torn_stages {
            return Err(RegionError::Invariant(format!(
                "chunk {} of {sender} follows {}",
                chunk.number, stage.chunks
            )));
        }
        for section in &bundle.sections {
            if section.object == SectionObject::Blob(CATALOG_BLOB.into()) {
                let catalog = bundles::decode_catalog(&section.rows)?;
                stage.catalog = (catalog.version > self.catalog.version).then(|| Arc::new(catalog));
            }
        }
        for section in bundle.sections {
            let key = (section.object, section.origin);
            let catalog = stage.catalog.as_ref().unwrap_or(&self.catalog);
            let Some(schema) = shipped(&key.0, catalog) else {
                continue;
            };
            let staged = stage.rows.entry(key);
            staged
                .or_insert_with(|| Staged::new(RowStore::new(schema)))
                .push(&section.rows);
        }
        for part in &bundle.included {
            stage.ranges.insert(part.origin, part.to);
        }
        stage.chunks = chunk.number + 1;
        stage.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Drops stages of which nothing more will be wanted.
    pub(super) fn prune_stages(&mut self) {
        let (frontier, catalog) = (&self.frontier, &self.catalog);
        self.stages
            .retain(|sender, stage| !is_over(*sender, &stage.ranges, frontier, catalog));
    }

    /// The rows of tables that a sealed stage brings are merged, its slots are queued: those of `origin`.
    pub(super) fn apply_stage(
        &mut self,
        stage: &mut Stage,
        origin: OriginId,
        gathered: &mut Gathered,
    ) -> Result<()> {
        let keys: Vec<_> = stage
            .rows
            .keys()
            .filter(|(_, of)| *of == origin)
            .cloned()
            .collect();
        for key in keys {
            let Some(staged) = stage.rows.remove(&key) else {
                continue;
            };
            match key.0 {
                SectionObject::Rows(id) => {
                    let Some(table) = self.tables.get_mut(&id) else {
                        continue;
                    };
                    let mut number = 0;
                    while let Some(rows) = staged.portion(number) {
                        let merged = table.rows.merge_foreign(origin, &rows)?;
                        self.counts.conflicts += merged.conflicts;
                        gathered.deltas.push(id, merged.delta);
                        number += 1;
                    }
                }
                SectionObject::Slots(id) => {
                    let applying = self.applying.get_or_insert_default();
                    applying.queue.push_back((id, origin, staged));
                }
                SectionObject::Blob(_) => {}
            }
        }
        Ok(())
    }

    /// Slots of a sealing bundle come after those of its stage.
    pub(super) fn queue_slots(&mut self, id: FragmentId, origin: OriginId, rows: &RecordBatch) {
        let applying = self.applying.get_or_insert_default();
        let mut queued = applying.queue.iter_mut();
        if let Some((.., staged)) = queued.find(|(of, by, _)| (*of, *by) == (id, origin)) {
            staged.push(rows);
            return;
        }
        let mut staged = Staged::new(RowStore::new(rows.schema()));
        staged.push(rows);
        applying.queue.push_back((id, origin, staged));
    }

    /// Merges about so many slots of a sealed stage: a portion is what it has of one origin in one fragment. A part of that
    /// would be no state the origin ever had, and operators count on what its states obey, as one row per key.
    pub fn apply_portion(&mut self, rows_max: usize) -> Result<Stepped> {
        let mut left = rows_max.max(1);
        let mut all = Stepped::default();
        while left > 0 {
            let Some(applying) = &self.applying else { break };
            let Some((id, origin, staged)) = applying.queue.front() else {
                let done = self.applying.take().expect("it is there");
                self.begin_backfills(&done.backfills)?;
                break;
            };
            let (id, origin) = (*id, *origin);
            let is_wanted = !self.is_superseded(origin) && self.slots.contains_key(&id);
            let rows = match is_wanted {
                true => staged.newest(origin, &self.slots[&id].layout)?,
                false => None,
            };
            let applying = self.applying.as_mut().expect("it was there just now");
            applying.queue.pop_front();
            let mut gathered = Gathered::default();
            gathered.stepped.backfills = applying.backfills.clone();
            if let (Some(rows), Some(slots)) = (rows, self.slots.get_mut(&id)) {
                left = left.saturating_sub(rows.num_rows());
                let delta = slots.set.merge_foreign(origin, &rows)?;
                if delta.rows > 0 {
                    gathered.merges.entry(id).or_default().push(delta);
                }
            }
            let stepped = self.step_views(gathered)?;
            for (object, changed) in stepped.changes {
                match all.changes.get_mut(&object) {
                    Some(earlier) => earlier.join(changed),
                    None => drop(all.changes.insert(object, changed)),
                }
            }
        }
        all.announced = !all.changes.is_empty() && self.joined;
        if let Some(origin) = self.origin.filter(|_| all.announced) {
            self.frontier.advance(origin, Epoch(self.position.0));
        }
        self.seal_traces();
        self.spill();
        Ok(all)
    }

    /// The stages as a checkpoint holds them: a blob, and rows by name.
    pub(crate) fn save_stages(&self) -> (String, Bytes, Vec<(String, Arc<RowsSnapshot>)>) {
        let (mut saved, mut rows) = (Vec::new(), Vec::new());
        for (sender, stage) in &self.stages {
            let parts = stage.rows.iter().enumerate();
            let parts = parts.map(|(number, ((object, origin), staged))| {
                rows.push((rows_name(*sender, number), staged.store.snapshot()));
                (object.clone(), *origin, staged.starts.clone())
            });
            saved.push(Saved {
                sender: *sender,
                id: stage.id,
                chunks: stage.chunks,
                bytes: stage.bytes,
                catalog: stage.catalog.as_ref().map(|catalog| catalog.to_bytes()),
                parts: parts.collect(),
                ranges: stage.ranges.clone(),
            });
        }
        let blob = postcard::to_stdvec(&saved).expect("plain data serializes");
        (STAGES_BLOB.to_owned(), Bytes::from(blob), rows)
    }

    /// Takes in the stages of a checkpoint. One of a version that knew none has none.
    pub(crate) fn restore_stages(&mut self, loaded: &mut Loaded) -> Result<()> {
        let unreadable = |detail: String| RegionError::Unreadable {
            what: "stages of a checkpoint",
            position: 0,
            detail,
        };
        let Some(blob) = loaded.blobs.get(STAGES_BLOB) else {
            return Ok(());
        };
        let saved: Vec<Saved> = postcard::from_bytes(blob).map_err(|error| unreadable(error.to_string()))?;
        for saved in saved {
            let catalog = saved.catalog.as_deref().map(Catalog::from_bytes).transpose();
            let mut stage = Stage {
                id: saved.id,
                chunks: saved.chunks,
                bytes: saved.bytes,
                catalog: catalog
                    .map_err(|error| unreadable(error.to_string()))?
                    .map(Arc::new),
                ranges: saved.ranges,
                rows: BTreeMap::new(),
            };
            for (number, (object, origin, starts)) in saved.parts.into_iter().enumerate() {
                let catalog = stage.catalog.as_ref().unwrap_or(&self.catalog);
                // What was dropped since will not be applied.
                let Some(schema) = shipped(&object, catalog) else {
                    continue;
                };
                let store = loaded.rows(&rows_name(saved.sender, number), schema)?;
                let store = store.ok_or_else(|| unreadable(format!("the rows of {object} are missing")))?;
                stage.rows.insert((object, origin), Staged { store, starts });
            }
            self.stages.insert(saved.sender, stage);
        }
        Ok(())
    }
}

#[derive(Serialize, Deserialize)]
struct Saved {
    sender: OriginId,
    id: u64,
    chunks: u32,
    bytes: u64,
    catalog: Option<Vec<u8>>,
    parts: Vec<(SectionObject, OriginId, Vec<u32>)>,
    ranges: BTreeMap<OriginId, Epoch>,
}

fn rows_name(sender: OriginId, number: usize) -> String {
    format!("stage/{sender}/{number}")
}
