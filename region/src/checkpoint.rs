//! A region's state as a checkpoint, and back.
//!
//! Traces and rows hold tables, slots and operator state; one blob holds the rest. Views whose backfill is still
//! running are not saved: their job begins anew from the tables of the checkpoint.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tributary_executor::{SavedState, View};
use tributary_planner::catalog::{Catalog, ObjectKind};
use tributary_replication::{Epoch, Frontier, Hlc, SlotSet};
use tributary_storage::checkpoint::{Checkpoint, Loaded};
use tributary_storage::{
    ChainHash, FragmentId, Layout, ObjectId, OriginId, RowStore, RunTrace, StorageError,
};

use crate::backfill::Backfill;
use crate::config::RegionConfig;
use crate::dataflow::{Dataflow, Slots, Table, ViewState, fragment_number};
use crate::error::{RegionError, Result};
use crate::source::SourceLog;

/// The blob's name.
const STATE_BLOB: &str = "region";

#[derive(Serialize, Deserialize)]
struct State {
    hlc: Hlc,
    catalog: Vec<u8>,
    catalog_stamp: Epoch,
    frontier: Frontier,
    chains: BTreeMap<OriginId, BTreeMap<Epoch, ChainHash>>,
    attached: BTreeMap<OriginId, (Epoch, BTreeSet<ObjectId>)>,
    sources: BTreeMap<ObjectId, u64>,
    source_logs: BTreeMap<ObjectId, SourceLog>,
}

impl Dataflow {
    /// The state as of the last step.
    pub fn checkpoint(&self) -> Checkpoint {
        let state = State {
            hlc: self.hlc,
            catalog: self.catalog.to_bytes(),
            catalog_stamp: self.catalog_stamp,
            frontier: self.frontier.clone(),
            chains: self.chains.clone(),
            attached: self.attached.clone(),
            sources: self.sources.clone(),
            source_logs: self.source_logs.clone(),
        };
        let bytes = postcard::to_stdvec(&state).expect("the state is plain data");
        let (traces, rows) = self.state();
        Checkpoint {
            position: self.position,
            chain: self.chain,
            traces,
            rows,
            blobs: BTreeMap::from([(STATE_BLOB.to_owned(), Bytes::from(bytes))]),
        }
    }

    /// The state that a checkpoint holds.
    pub fn restore(config: &RegionConfig, mut loaded: Loaded) -> Result<Self> {
        let position = loaded.position;
        let unreadable = |detail: String| RegionError::Unreadable {
            what: "checkpoint",
            position: position.0,
            detail,
        };
        let blob = loaded
            .blobs
            .get(STATE_BLOB)
            .ok_or_else(|| unreadable("it has no region state".into()))?;
        let state: State = postcard::from_bytes(blob).map_err(|error| unreadable(error.to_string()))?;
        let catalog = Catalog::from_bytes(&state.catalog).map_err(|error| unreadable(error.to_string()))?;
        let mut dataflow = Self::new(config);
        dataflow.position = position;
        dataflow.chain = loaded.chain;
        dataflow.hlc = state.hlc;
        dataflow.frontier = state.frontier;
        dataflow.chains = state.chains;
        dataflow.attached = state.attached;
        dataflow.catalog_stamp = state.catalog_stamp;
        dataflow.sources = state.sources;
        dataflow.source_logs = state.source_logs;
        dataflow.catalog = Arc::new(catalog);
        dataflow.identify();
        let backfills = dataflow.restore_objects(&mut loaded)?;
        dataflow.begin_backfills(&backfills)?;
        Ok(dataflow)
    }

    /// Loads every object's traces; returns the views whose backfill must begin anew.
    fn restore_objects(&mut self, loaded: &mut Loaded) -> Result<Vec<ObjectId>> {
        let catalog = self.catalog.clone();
        let attached = self
            .origin
            .and_then(|origin| self.attached.get(&origin))
            .map(|(_, views)| views.clone());
        let attached = attached.unwrap_or_default();
        let mut backfills = Vec::new();
        for (&id, object) in &catalog.objects {
            match &object.kind {
                ObjectKind::Table(def) => {
                    let mut restore = |name: &str, layout| loaded.trace(name, layout);
                    let table = Table::new(id, Arc::new(def.clone()), self.defects, &mut restore)?;
                    self.tables.insert(id, table);
                }
                ObjectKind::MaterializedView(def) => {
                    for number in 0..def.plan.fragments.len() {
                        let at = FragmentId {
                            view: id,
                            number: fragment_number(number),
                        };
                        let mut slots = Slots::new(at, &def.plan, self.defects);
                        for (origin, _) in self.frontier.iter() {
                            let schema = SlotSet::row_schema(&slots.layout);
                            if let Some(rows) = loaded.rows(&Slots::rows_name(at, origin), schema)? {
                                slots.set.restore(origin, rows);
                            }
                        }
                        self.slots.insert(at, slots);
                    }
                    let state = if attached.contains(&id) {
                        let mut saved = OfView { view: id, loaded };
                        let mut view = View::restore(
                            id,
                            def.plan.clone(),
                            self.scope(),
                            self.workers.clone(),
                            &mut saved,
                        )?;
                        view.set_defects(self.defects.executor);
                        ViewState::Attached(Box::new(view))
                    } else {
                        backfills.push(id);
                        ViewState::Backfilling(Box::new(Backfill::new(
                            id,
                            def.plan.clone(),
                            self.scope(),
                            self.workers.clone(),
                            self.defects,
                        )?))
                    };
                    self.views.insert(id, state);
                }
                ObjectKind::View(_) | ObjectKind::Source(_) | ObjectKind::Sink(_) => {}
            }
        }
        Ok(backfills)
    }
}

/// The part of a checkpoint that belongs to one view.
struct OfView<'a> {
    view: ObjectId,
    loaded: &'a mut Loaded,
}

impl SavedState for OfView<'_> {
    fn trace(&mut self, name: &str, layout: Layout) -> std::result::Result<Option<RunTrace>, StorageError> {
        self.loaded.trace(&format!("view/{}/{name}", self.view), layout)
    }

    fn rows(&mut self, name: &str, schema: SchemaRef) -> std::result::Result<Option<RowStore>, StorageError> {
        self.loaded.rows(&format!("view/{}/{name}", self.view), schema)
    }
}
