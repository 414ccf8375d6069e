//! Stages: chunks of ranges that peers send piece by piece, held outside the frontier, and how a sealed one is applied.
//!
//! ```text
//!   Chunk 0, 1, 2 … ──▶ stage of the sender: rows as they were shipped             nobody sees them
//!   sealing bundle  ──▶ its step: catalog, frontier; everything else is queued    ─┐ nothing is published or sent
//!                       then portions of the queue are merged, beside own commits ─┘ before the last one
//! ```
//!
//! A stage is state like any other: a function of the log, in checkpoints, spilled when memory is short. A replay
//! applies a sealed stage at once. Which own commits stood between its portions changes no value: slots have one writer,
//! and a commit that writes a key which the stage brings, too, is refused while it is applied (the sequencer's overlay).
//! It changes the stamps of own slots, which no peer has seen.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::{filter_record_batch, not};
use arrow::datatypes::Int64Type;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tributary_executor::View;
use tributary_planner::catalog::Catalog;
use tributary_replication::{Bundle, Epoch, Frontier, Hlc, RowVersions, Section, SectionObject, SlotSet};
use tributary_storage::checkpoint::Loaded;
use tributary_storage::{ObjectId, OriginId, Position, RowStore, RowsSnapshot, Spill};

use super::apply::Gathered;
use super::conflicts::{CONFLICTS, Conflict, definition};
use super::{CATALOG_BLOB, Dataflow, Stepped};
use crate::bundles;
use crate::error::{RegionError, Result};
use crate::sequencer::Sealed;

/// The column of slots, as shipped, that says whether they are gone.
const DELETED: &str = "deleted";

/// The columns of slots and of rows that hold their stamps.
const SLOT_STAMP: &str = "stamp";
const ROW_STAMP: &str = "tributary_stamp";

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
    /// Of the state at which the first of them was read.
    pub(crate) read_at: Frontier,
    rows: BTreeMap<(SectionObject, OriginId), Staged>,
}

/// Rows of one object and origin, as shipped.
struct Staged {
    store: RowStore,
    /// Where each chunk's rows begin: a key may be in several chunks, but once in each.
    starts: Vec<u32>,
}

/// A sealed stage that is being merged.
pub(crate) struct Applying {
    queue: VecDeque<Queued>,
    /// Views that came with it: their jobs begin with the state after the last portion.
    pub(super) backfills: Vec<ObjectId>,
    /// Conflicts that this region has lost by it so far, to be recorded at the end.
    lost: Vec<Conflict>,
    /// Position and time of the record that seals it.
    at: (Position, Hlc),
}

/// What is still to be merged of one object and origin.
struct Queued {
    object: SectionObject,
    origin: OriginId,
    staged: Staged,
    /// What is stamped up to here is here already, or was deleted since and may be forgotten: it is left out.
    known: Epoch,
    /// Whether tombstones are merged, which come before everything else.
    deleting: bool,
    next: u32,
}

impl Applying {
    fn new(record: &Sealed) -> Self {
        Self {
            queue: VecDeque::new(),
            backfills: Vec::new(),
            lost: Vec::new(),
            at: record.at(),
        }
    }

    /// The rows that can be spilled.
    pub(super) fn spillable(&mut self) -> impl Iterator<Item = &mut dyn Spill> {
        let queue = self.queue.iter_mut();
        queue.map(|queued| &mut queued.staged.store as &mut dyn Spill)
    }
}

impl Queued {
    fn new(object: SectionObject, origin: OriginId, staged: Staged, known: Epoch) -> Self {
        Self {
            // Of a table each key has one row at any time.
            deleting: matches!(object, SectionObject::Slots(_)),
            object,
            origin,
            staged,
            known,
            next: 0,
        }
    }

    /// The next rows to merge, of at most so many that are looked at, and how many were. `None` at the end.
    fn portion(&mut self, rows_max: usize) -> Option<(RecordBatch, usize)> {
        let end = self.staged.store.len() as u32;
        if self.next == end && std::mem::take(&mut self.deleting) {
            self.next = 0;
        }
        if self.next == end {
            return None;
        }
        // A key may be in several chunks, but is once in each.
        let starts = &self.staged.starts;
        let chunk_end = starts.get(starts.partition_point(|start| *start <= self.next));
        let rows_max = u32::try_from(rows_max).unwrap_or(u32::MAX);
        let to = chunk_end
            .copied()
            .unwrap_or(end)
            .min(self.next.saturating_add(rows_max));
        let numbers: Vec<u32> = (self.next..to).collect();
        let rows = self.staged.store.take(&numbers);
        self.next = to;
        let rows = self.beyond_known(rows);
        let rows = match &self.object {
            SectionObject::Slots(_) => {
                let deleted = rows
                    .column_by_name(DELETED)
                    .expect("slots say whether they are deleted");
                let wanted = match self.deleting {
                    true => deleted.as_boolean().clone(),
                    false => not(deleted.as_boolean()).expect("a mask can be negated"),
                };
                filter_record_batch(&rows, &wanted).expect("there is one verdict per row")
            }
            _ => rows,
        };
        Some((rows, numbers.len()))
    }

    fn beyond_known(&self, rows: RecordBatch) -> RecordBatch {
        let stamp = match &self.object {
            SectionObject::Rows(_) => ROW_STAMP,
            _ => SLOT_STAMP,
        };
        // A section that came with the seal is of one moment, and its columns need not have these names.
        let Some(stamps) = rows.column_by_name(stamp).filter(|_| self.known > Epoch(0)) else {
            return rows;
        };
        let stamps = stamps.as_primitive::<Int64Type>().values().iter();
        let wanted = stamps.map(|stamp| Epoch::from_i64(*stamp).is_none_or(|stamp| stamp > self.known));
        let wanted: BooleanArray = wanted.map(Some).collect();
        filter_record_batch(&rows, &wanted).expect("there is one verdict per row")
    }
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
}

impl Stage {
    fn new(id: u64, read_at: Frontier) -> Self {
        Self {
            id,
            chunks: 0,
            bytes: 0,
            catalog: None,
            ranges: BTreeMap::new(),
            read_at,
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
            let conflicts = (*id == CONFLICTS).then(definition);
            let def = conflicts.as_ref().or_else(|| catalog.table(*id))?;
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
    frontier: &Frontier,
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

    /// The bytes of all chunks that are held, encoded.
    pub fn staged_bytes(&self) -> u64 {
        self.stages.values().map(|stage| stage.bytes).sum()
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
            self.stages
                .insert(sender, Stage::new(chunk.stage, bundle.frontier.clone()));
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

    /// Queues what a sealed stage has of `origin`, of which everything up to `known` is here.
    pub(super) fn queue_stage(&mut self, stage: &mut Stage, origin: OriginId, known: Epoch, record: &Sealed) {
        let keys = stage.rows.keys().filter(|(_, of)| *of == origin);
        let keys: Vec<_> = keys.cloned().collect();
        for key in keys {
            let staged = stage.rows.remove(&key).expect("just listed");
            let applying = self.applying.get_or_insert_with(|| Applying::new(record));
            applying
                .queue
                .push_back(Queued::new(key.0, origin, staged, known));
        }
    }

    /// Rows that come with or after a sealing bundle are merged after those of its stage. False when there is none.
    pub(super) fn queue_section(&mut self, section: &Section) -> bool {
        let travels_by_rows = !matches!(section.object, SectionObject::Blob(_));
        let Some(applying) = self.applying.as_mut().filter(|_| travels_by_rows) else {
            return false;
        };
        let (object, origin) = (&section.object, section.origin);
        let mut queued = applying.queue.iter_mut().rev();
        if let Some(queued) = queued.find(|queued| (&queued.object, queued.origin) == (object, origin)) {
            queued.staged.push(&section.rows);
            return true;
        }
        let mut staged = Staged::new(RowStore::new(section.rows.schema()));
        staged.push(&section.rows);
        let queued = Queued::new(object.clone(), origin, staged, Epoch(0));
        applying.queue.push_back(queued);
        true
    }

    /// Merges about so many rows of a sealed stage.
    ///
    /// Operators count on what holds in every state of an origin, as one row per key. What is left out of such a state
    /// breaks none of it, what is mixed of two does. So of each fragment and origin all that is gone goes first: what is
    /// there then is a part of the earlier state, and from there on a part of the later one.
    pub fn apply_portion(&mut self, rows_max: usize) -> Result<Stepped> {
        let mut left = rows_max.max(1);
        let mut all = Stepped::default();
        let mut begun = Vec::new();
        while left > 0
            && let Some(applying) = &mut self.applying
        {
            let mut gathered = Gathered::default();
            gathered.stepped.backfills.clone_from(&applying.backfills);
            let Some(queued) = applying.queue.front_mut() else {
                begun = self.end_applying(&mut all);
                break;
            };
            let Some((rows, looked_at)) = queued.portion(left) else {
                applying.queue.pop_front();
                continue;
            };
            left -= looked_at;
            let (object, origin) = (queued.object.clone(), queued.origin);
            if rows.num_rows() > 0 {
                self.merge_section(origin, &object, &rows, &mut gathered)?;
            }
            if let Some(applying) = &mut self.applying {
                applying.lost.append(&mut gathered.conflicts);
            }
            join_changes(&mut all, self.step_views(gathered)?);
        }
        all.announced = !all.changes.is_empty() && self.joined;
        if let Some(origin) = self.origin.filter(|_| all.announced) {
            self.frontier.advance(origin, Epoch(self.position.0));
        }
        // What the jobs read are sealed runs.
        self.seal_traces();
        self.spill();
        self.begin_backfills(&begun)?;
        Ok(all)
    }

    /// Ends the application of a stage. Returns the views whose jobs begin with the state after it.
    fn end_applying(&mut self, all: &mut Stepped) -> Vec<ObjectId> {
        let Some(done) = self.applying.take() else {
            return Vec::new();
        };
        let mut gathered = Gathered::default();
        self.record_conflicts(done.lost, done.at, &mut gathered);
        join_changes(all, gathered.stepped);
        done.backfills
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
                read_at: stage.read_at.clone(),
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
                read_at: saved.read_at,
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
    read_at: Frontier,
}

/// Adds what one step changed to what others before it did.
fn join_changes(all: &mut Stepped, stepped: Stepped) {
    for (object, changed) in stepped.changes {
        match all.changes.get_mut(&object) {
            Some(earlier) => earlier.join(changed),
            None => drop(all.changes.insert(object, changed)),
        }
    }
}

fn rows_name(sender: OriginId, number: usize) -> String {
    format!("stage/{sender}/{number}")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array};
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    #[test]
    fn what_was_known_by_then_is_not_merged_again() {
        let int = |name: &str| Field::new(name, DataType::Int64, false);
        let schema = Arc::new(Schema::new(vec![int("id"), int(ROW_STAMP)]));
        let column = |values: [i64; 3]| Arc::new(Int64Array::from(values.to_vec())) as ArrayRef;
        let rows = RecordBatch::try_new(schema.clone(), vec![column([1, 2, 3]), column([5, 11, 12])]);
        let rows = rows.expect("two columns");
        let merged = |known: u64| {
            let mut staged = Staged::new(RowStore::new(schema.clone()));
            staged.push(&rows);
            let object = SectionObject::Rows(ObjectId(7));
            let mut queued = Queued::new(
                object,
                OriginId::first(tributary_storage::RegionId(1)),
                staged,
                Epoch(known),
            );
            let mut ids = Vec::new();
            while let Some((rows, _)) = queued.portion(2) {
                ids.extend(rows.column(0).as_primitive::<Int64Type>().values().to_vec());
            }
            ids
        };
        assert_eq!(merged(0), [1, 2, 3]);
        assert_eq!(
            merged(11),
            [3],
            "1 may have been deleted by somebody else, and that be forgotten"
        );
        assert_eq!(merged(12), Vec::<i64>::new());
    }
}
