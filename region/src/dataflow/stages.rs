//! Stages: chunks of ranges that peers send piece by piece, held outside the frontier until they are sealed.
//!
//! ```text
//!   Chunk 0, 1, 2 … ──▶ stage of the sender: rows as they were shipped             nobody sees them
//!   sealing bundle  ──▶ its step: everything in the stage is queued, to be merged in portions ([`super::portions`])
//! ```
//!
//! A stage is state like any other: a function of the log, in checkpoints, spilled when memory is short.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tributary_executor::View;
use tributary_planner::catalog::Catalog;
use tributary_replication::{Bundle, Epoch, Frontier, RowVersions, SectionObject, SlotSet};
use tributary_storage::checkpoint::Loaded;
use tributary_storage::{ObjectId, OriginId, RowStore, RowsSnapshot, Spill};

use super::conflicts::{CONFLICTS, definition};
use super::{CATALOG_BLOB, Dataflow};
use crate::bundles;
use crate::error::{RegionError, Result};
use crate::snapshot::HeldStage;

/// The column of slots, as shipped, that says whether they are gone.
pub(super) const DELETED: &str = "deleted";

/// About the most bytes of rows in one store: it joins thousands of rows to one array, whose offsets have 32 bits.
const STORE_BYTES_MAX: usize = 512 << 20;

/// The name of the blob of a checkpoint that lists the stages.
const STAGES_BLOB: &str = "stages";

/// What one sender has sent of a range so far.
pub struct Stage {
    pub(crate) head: StageHead,
    pub(super) rows: BTreeMap<(SectionObject, OriginId), Staged>,
}

/// What is known of a stage beside its rows.
#[derive(Clone)]
pub(crate) struct StageHead {
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
}

impl StageHead {
    /// The stage that begins with a chunk, still without it.
    pub(crate) fn before(first: &Bundle) -> Self {
        Self {
            id: first.chunk.stage,
            chunks: 0,
            bytes: 0,
            catalog: None,
            ranges: BTreeMap::new(),
            read_at: first.frontier.clone(),
        }
    }

    /// Another chunk is in it, of so many bytes.
    pub(crate) fn grow(&mut self, chunk: &Bundle, bytes: usize) {
        let parts = chunk.included.iter();
        self.ranges.extend(parts.map(|part| (part.origin, part.to)));
        self.chunks = chunk.chunk.number + 1;
        self.bytes += bytes as u64;
    }
}

/// Rows of one object and origin, as shipped.
pub(super) struct Staged {
    schema: SchemaRef,
    /// The rows, one store after the other; those of a chunk are in one.
    stores: Vec<RowStore>,
    /// What chunks brought to the last store, in bytes.
    filled: usize,
    /// Where each chunk's rows begin: a key may be in several chunks, but once in each.
    starts: Vec<u32>,
    /// Whether tombstones of slots may be among them.
    pub(super) may_delete: bool,
}

impl Staged {
    pub(super) fn new(schema: SchemaRef) -> Self {
        Self {
            schema,
            stores: Vec::new(),
            filled: 0,
            starts: Vec::new(),
            may_delete: false,
        }
    }

    pub(super) fn push(&mut self, rows: &RecordBatch) {
        // The schemas differ in names at most: types and nulls were checked.
        let rows = RecordBatch::try_new(self.schema.clone(), rows.columns().to_vec());
        let rows = rows.expect("the section was checked");
        let deleted = rows
            .column_by_name(DELETED)
            .and_then(|deleted| deleted.as_boolean_opt());
        self.may_delete |= deleted.is_some_and(|deleted| deleted.true_count() > 0);
        self.starts.push(self.len());
        let columns = rows.columns().iter();
        let bytes = columns.map(|column| column.to_data().get_slice_memory_size());
        let bytes: usize = bytes.map(|bytes| bytes.unwrap_or(STORE_BYTES_MAX)).sum();
        self.filled += bytes;
        match self.stores.last_mut().filter(|_| self.filled <= STORE_BYTES_MAX) {
            Some(store) => _ = store.append(&rows),
            None => {
                let mut store = RowStore::new(self.schema.clone());
                store.append(&rows);
                self.stores.push(store);
                self.filled = bytes;
            }
        }
    }

    /// Rows so far; the next one's number.
    pub(super) fn len(&self) -> u32 {
        let rows: usize = self.stores.iter().map(RowStore::len).sum();
        u32::try_from(rows).expect("a stage holds fewer than 2^32 rows of an object")
    }

    /// At most so many of the rows from this number on, all of one chunk.
    pub(super) fn rows_from(&self, first: u32, rows_max: u32) -> RecordBatch {
        let end = self.starts.partition_point(|start| *start <= first);
        let end = self.starts.get(end).copied().unwrap_or_else(|| self.len());
        let end = end.min(first.saturating_add(rows_max));
        let mut before = 0;
        for store in &self.stores {
            let after = before + store.len() as u32;
            if first < after {
                let numbers: Vec<u32> = (first - before..end - before).collect();
                return store.take(&numbers);
            }
            before = after;
        }
        RecordBatch::new_empty(self.schema.clone())
    }

    pub(super) fn spillable(&mut self) -> impl Iterator<Item = &mut dyn Spill> {
        self.stores.iter_mut().map(|store| store as &mut dyn Spill)
    }
}

impl Stage {
    /// The rows of GLOBAL tables in it.
    pub(crate) fn table_rows(&self) -> impl Iterator<Item = (ObjectId, RecordBatch)> + '_ {
        self.rows.iter().flat_map(|((object, _), staged)| {
            let table = match object {
                SectionObject::Rows(table) => Some(*table),
                _ => None,
            };
            let batches = table
                .into_iter()
                .flat_map(|table| staged.stores.iter().map(move |store| (table, store)));
            let batches =
                batches.flat_map(|(table, store)| store.batches().map(move |(_, rows)| (table, rows)));
            batches.map(|(table, rows)| (table, rows.clone()))
        })
    }

    pub(super) fn spillable(&mut self) -> impl Iterator<Item = &mut dyn Spill> {
        self.rows.values_mut().flat_map(Staged::spillable)
    }
}

/// The columns in which rows of an object are shipped; `None` when the catalog does not name it.
pub(super) fn shipped(object: &SectionObject, catalog: &Catalog) -> Option<arrow::datatypes::SchemaRef> {
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

    /// What has come of each stage.
    pub(crate) fn held_stages(&self) -> BTreeMap<OriginId, HeldStage> {
        let held = |(sender, stage): (&OriginId, &Stage)| {
            let rows = stage.rows.values().map(|staged| u64::from(staged.len()));
            let held = HeldStage {
                chunks: stage.head.chunks,
                rows: rows.sum(),
                bytes: stage.head.bytes,
            };
            (*sender, held)
        };
        self.stages.iter().map(held).collect()
    }

    /// The bytes of all chunks that are held, encoded.
    pub fn staged_bytes(&self) -> u64 {
        self.stages.values().map(|stage| stage.head.bytes).sum()
    }

    /// Holds a chunk, which came as so many bytes.
    pub(super) fn apply_chunk(&mut self, chunk: &Bundle, bytes: usize) -> Result<()> {
        self.prune_stages();
        let sender = chunk.sender;
        let known = self.stages.get(&sender);
        if known.is_none_or(|stage| stage.head.id != chunk.chunk.stage) {
            let (head, rows) = (StageHead::before(chunk), BTreeMap::new());
            self.stages.insert(sender, Stage { head, rows });
        }
        let stage = self.stages.get_mut(&sender).expect("just made sure of");
        if chunk.chunk.number != stage.head.chunks && !self.defects.replication.torn_stages {
            return Err(RegionError::Invariant(format!(
                "chunk {} of {sender} follows {}",
                chunk.chunk.number, stage.head.chunks
            )));
        }
        for section in &chunk.sections {
            if section.object == SectionObject::Blob(CATALOG_BLOB.into()) {
                let catalog = bundles::decode_catalog(&section.rows)?;
                stage.head.catalog = (catalog.version > self.catalog.version).then(|| Arc::new(catalog));
            }
        }
        for section in &chunk.sections {
            let catalog = stage.head.catalog.as_ref().unwrap_or(&self.catalog);
            let Some(schema) = shipped(&section.object, catalog) else {
                continue;
            };
            let staged = stage.rows.entry((section.object.clone(), section.origin));
            staged.or_insert_with(|| Staged::new(schema)).push(&section.rows);
        }
        stage.head.grow(chunk, bytes);
        Ok(())
    }

    /// Drops stages of which nothing more will be wanted.
    pub(super) fn prune_stages(&mut self) {
        let (frontier, catalog) = (&self.frontier, &self.catalog);
        self.stages
            .retain(|sender, stage| !is_over(*sender, &stage.head.ranges, frontier, catalog));
    }

    /// The stages as a checkpoint holds them: a blob, and rows by name.
    pub(crate) fn save_stages(&self) -> (String, Bytes, Vec<(String, Arc<RowsSnapshot>)>) {
        let (mut saved, mut rows) = (Vec::new(), Vec::new());
        for (sender, stage) in &self.stages {
            let mut parts = Vec::new();
            for ((object, origin), staged) in &stage.rows {
                // A part for each store; the starts of all chunks are in the first.
                let mut starts = staged.starts.clone();
                for store in &staged.stores {
                    rows.push((rows_name(*sender, parts.len()), store.snapshot()));
                    parts.push((object.clone(), *origin, std::mem::take(&mut starts)));
                }
            }
            let head = stage.head.clone();
            saved.push(Saved {
                sender: *sender,
                id: head.id,
                chunks: head.chunks,
                bytes: head.bytes,
                catalog: head.catalog.map(|catalog| catalog.to_bytes()),
                parts,
                ranges: head.ranges,
                read_at: head.read_at,
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
            let head = StageHead {
                id: saved.id,
                chunks: saved.chunks,
                bytes: saved.bytes,
                catalog: catalog
                    .map_err(|error| unreadable(error.to_string()))?
                    .map(Arc::new),
                ranges: saved.ranges,
                read_at: saved.read_at,
            };
            let mut rows = BTreeMap::new();
            for (number, (object, origin, starts)) in saved.parts.into_iter().enumerate() {
                let catalog = head.catalog.as_ref().unwrap_or(&self.catalog);
                // What was dropped since will not be applied.
                let Some(schema) = shipped(&object, catalog) else {
                    continue;
                };
                let store = loaded.rows(&rows_name(saved.sender, number), schema)?;
                let store = store.ok_or_else(|| unreadable(format!("the rows of {object} are missing")))?;
                let staged = rows
                    .entry((object, origin))
                    .or_insert_with(|| Staged::new(store.schema().clone()));
                staged.stores.push(store);
                staged.starts.extend(starts);
                (staged.filled, staged.may_delete) = (STORE_BYTES_MAX, true);
            }
            self.stages.insert(saved.sender, Stage { head, rows });
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

fn rows_name(sender: OriginId, number: usize) -> String {
    format!("stage/{sender}/{number}")
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};

    use super::*;

    #[test]
    fn rows_of_several_stores_are_read_chunk_by_chunk_as_those_of_one() {
        let schema = Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, false)]));
        let chunk = |ids: std::ops::Range<i64>| {
            let column: ArrayRef = Arc::new(Int64Array::from_iter_values(ids));
            RecordBatch::try_new(schema.clone(), vec![column]).expect("one column")
        };
        let (mut one, mut several) = (Staged::new(schema.clone()), Staged::new(schema.clone()));
        for ids in [0..5, 5..6, 6..20, 20..23] {
            one.push(&chunk(ids.clone()));
            // As if it were full.
            several.filled = STORE_BYTES_MAX;
            several.push(&chunk(ids));
        }
        assert_eq!((one.stores.len(), several.stores.len()), (1, 4));
        assert_eq!((one.len(), several.len()), (23, 23));
        for rows_max in [1, 3, 100] {
            let read = |staged: &Staged| {
                let (mut next, mut portions) = (0, Vec::new());
                while next < staged.len() {
                    let rows = staged.rows_from(next, rows_max);
                    next += rows.num_rows() as u32;
                    portions.push(rows.column(0).as_primitive::<Int64Type>().values().to_vec());
                }
                portions
            };
            assert_eq!(read(&one), read(&several));
            assert_eq!(read(&several).concat(), (0..23).collect::<Vec<_>>());
        }
    }
}
