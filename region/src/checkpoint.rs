//! A region's state as a checkpoint, and back.
//!
//! Traces and rows hold tables, slots and operator state; one blob holds the rest. Views whose backfill is still
//! running are not saved: their job begins anew from the tables of the checkpoint.
//!
//! A checkpoint shows one moment, and is gathered from then on in portions, between steps:
//!
//! ```text
//!   begin: traces, rows, the blob ──▶ gather: groups of view 1 … ▶ groups of view 2 … ──▶ whole, as of `begin`
//!                                 ▲ steps in between: a group keeps what it held until its turn has come
//! ```
//!
//! A view that is dropped meanwhile takes its part with it: then the checkpoint is lost, and another is begun.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tributary_executor::{Job, Saved, SavedState, View, Workers};
use tributary_planner::catalog::{Catalog, ObjectKind};
use tributary_planner::residency::groups_rows_min;
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
use crate::tokens::Tokens;

/// The blob's name.
const STATE_BLOB: &str = "region";

/// What every version of the state has; the later ones have [`Identity`] and [`Later`] behind it.
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

/// Who the region is. Checkpoints from before regions had several incarnations lack it.
#[derive(Serialize, Deserialize)]
struct Identity {
    origin: Option<OriginId>,
    joined: bool,
    catalog_origin: Option<OriginId>,
    tokens: Tokens,
}

/// What came later; checkpoints from before tombstones were dropped lack it.
#[derive(Default, Serialize, Deserialize)]
struct Later {
    collected: Frontier,
}

/// A checkpoint of which the groups of some views are missing yet.
pub(crate) struct Gathering {
    checkpoint: Checkpoint,
    /// Ascending.
    views: Vec<ObjectId>,
}

/// What gathering a portion has brought.
pub(crate) enum Gathered {
    /// Everything.
    Whole(Checkpoint),
    /// There is more.
    Part(Gathering),
    /// A view is gone.
    Lost,
}

impl Dataflow {
    /// Begins a checkpoint of the state as of the last step: what is shared is taken at once, groups come later.
    pub(crate) fn begin_checkpoint(&mut self) -> Gathering {
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
        let identity = Identity {
            origin: self.origin,
            joined: self.joined,
            catalog_origin: self.catalog_origin,
            tokens: self.tokens.clone(),
        };
        let later = Later {
            collected: self.collected.clone(),
        };
        let bytes = postcard::to_stdvec(&(state, identity, later)).expect("the state is plain data");
        let mut traces = BTreeMap::new();
        for (&id, table) in &self.tables {
            traces.insert(Table::trace_name(id), table.rows.snapshot());
        }
        let mut rows = BTreeMap::new();
        for (&id, slots) in &self.slots {
            for (origin, held) in slots.set.snapshots() {
                rows.insert(Slots::rows_name(id, origin), held);
            }
        }
        let mut views = Vec::new();
        for (&id, state) in &mut self.views {
            if let ViewState::Attached(view) = state {
                view.begin_save();
                views.push(id);
            }
        }
        let checkpoint = Checkpoint {
            position: self.position,
            chain: self.chain,
            traces,
            rows,
            blobs: BTreeMap::from([(STATE_BLOB.to_owned(), Bytes::from(bytes))]),
        };
        Gathering { checkpoint, views }
    }

    /// Gathers about so many rows of each partition of a view, or the last ones of several views.
    pub(crate) fn gather(&mut self, mut gathering: Gathering, rows_max: usize) -> Gathered {
        let mut left = rows_max.max(1);
        while let Some(&id) = gathering.views.last() {
            let Some(ViewState::Attached(view)) = self.views.get_mut(&id) else {
                return Gathered::Lost;
            };
            let Some(unused) = view.gather(left) else {
                return Gathered::Part(gathering);
            };
            left = unused;
            gathering.views.pop();
            let checkpoint = &mut gathering.checkpoint;
            for (name, saved) in view.take_saved() {
                let name = format!("view/{id}/{name}");
                match saved {
                    Saved::Trace(trace) => drop(checkpoint.traces.insert(name, trace)),
                    Saved::Rows(rows) => drop(checkpoint.rows.insert(name, rows)),
                }
            }
        }
        Gathered::Whole(gathering.checkpoint)
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
        let (state, rest) =
            postcard::take_from_bytes::<State>(blob).map_err(|error| unreadable(error.to_string()))?;
        let (identity, rest) = match rest.is_empty() {
            true => (None, rest),
            false => postcard::take_from_bytes::<Identity>(rest)
                .map(|(identity, rest)| (Some(identity), rest))
                .map_err(|error| unreadable(error.to_string()))?,
        };
        let later: Later = match rest.is_empty() {
            true => Later::default(),
            false => postcard::from_bytes(rest).map_err(|error| unreadable(error.to_string()))?,
        };
        let catalog = Catalog::from_bytes(&state.catalog).map_err(|error| unreadable(error.to_string()))?;
        let mut dataflow = Self::new(config);
        dataflow.position = position;
        dataflow.chain = loaded.chain;
        dataflow.hlc = state.hlc;
        dataflow.frontier = state.frontier;
        dataflow.collected = later.collected;
        dataflow.chains = state.chains;
        dataflow.attached = state.attached;
        dataflow.catalog_stamp = state.catalog_stamp;
        dataflow.sources = state.sources;
        dataflow.source_logs = state.source_logs;
        dataflow.catalog = Arc::new(catalog);
        match identity {
            Some(identity) => {
                dataflow.origin = identity.origin;
                dataflow.joined = identity.joined;
                dataflow.catalog_origin = identity.catalog_origin;
                dataflow.tokens = identity.tokens;
            }
            None => {
                dataflow.origin = dataflow.named();
                dataflow.joined = dataflow.origin.is_some();
                let primary = dataflow.catalog.primary;
                dataflow.catalog_origin = primary.and_then(|primary| dataflow.catalog.origin_of(primary));
            }
        }
        let backfills = dataflow.restore_objects(&mut loaded, &*config.loaders)?;
        dataflow.begin_backfills(&backfills)?;
        Ok(dataflow)
    }

    /// Loads every object's traces; returns the views whose backfill must begin anew.
    fn restore_objects(&mut self, loaded: &mut Loaded, loaders: &dyn Workers) -> Result<Vec<ObjectId>> {
        let catalog = self.catalog.clone();
        let attached = self
            .origin
            .and_then(|origin| self.attached.get(&origin))
            .map(|(_, views)| views.clone());
        let attached = attached.unwrap_or_default();
        let mut backfills = Vec::new();
        let mut slots_saved: Vec<(FragmentId, OriginId, RowStore)> = Vec::new();
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
                        let slots = Slots::new(at, &def.plan, self.defects);
                        for (origin, _) in self.frontier.iter() {
                            let schema = SlotSet::row_schema(&slots.layout);
                            if let Some(rows) = loaded.rows(&Slots::rows_name(at, origin), schema)? {
                                slots_saved.push((at, origin, rows));
                            }
                        }
                        self.slots.insert(at, slots);
                    }
                    let rows_min = groups_rows_min(&self.catalog, &def.plan);
                    let state = if attached.contains(&id) {
                        let mut saved = OfView { view: id, loaded };
                        let mut view = View::begin_restore(
                            id,
                            def.plan.clone(),
                            self.scope(),
                            self.workers.clone(),
                            &mut saved,
                        )?;
                        view.set_defects(self.defects.executor);
                        view.hold_back_groups(&rows_min);
                        ViewState::Attached(Box::new(view))
                    } else {
                        backfills.push(id);
                        let backfill = Backfill::new(
                            id,
                            def.plan.clone(),
                            self.scope(),
                            self.workers.clone(),
                            self.defects,
                        )?;
                        ViewState::Backfilling(Box::new(backfill.holding_back(&rows_min)))
                    };
                    self.views.insert(id, state);
                }
                ObjectKind::View(_) | ObjectKind::Source(_) | ObjectKind::Sink(_) => {}
            }
        }
        self.restore_conflicts(&mut |name, layout| loaded.trace(name, layout))?;
        self.restore_states(slots_saved, loaders);
        Ok(backfills)
    }

    /// Fills slots and the states of views from what was saved, several at a time.
    fn restore_states(&mut self, slots_saved: Vec<(FragmentId, OriginId, RowStore)>, loaders: &dyn Workers) {
        let mut slots_saved = slots_saved.into_iter().peekable();
        let mut jobs: Vec<Job<'_>> = Vec::new();
        for (id, slots) in &mut self.slots {
            let mut own = Vec::new();
            while let Some((_, origin, rows)) = slots_saved.next_if(|(of, ..)| of == id) {
                own.push((origin, rows));
            }
            jobs.push(Box::new(move || {
                own.into_iter()
                    .for_each(|(origin, rows)| slots.set.restore(origin, rows));
            }));
        }
        assert!(
            slots_saved.next().is_none(),
            "slots are in the order of their fragments"
        );
        for state in self.views.values_mut() {
            if let ViewState::Attached(view) = state {
                jobs.extend(view.restore_jobs());
            }
        }
        loaders.run(jobs);
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
