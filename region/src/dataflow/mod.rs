//! What a record means: tables, slots and views as a function of a log prefix.
//!
//! A step takes sealed records and moves all views together:
//!
//! ```text
//!  own rows ─┐                       ┌─▶ own slots (stamped) ─┐
//!            ├─▶ table deltas ─▶ local fragments              ├─▶ global fragments ─▶ result deltas ─▶ views on views
//!  bundles ──┴─▶ foreign slots ──────────────────────────────┘
//! ```
//!
//! Views are stepped in ascending object id: a view's inputs are older than the view, so this order is
//! topological. Rows carry the position of the record that wrote them, slots the last position of the step
//! that changed them.

mod apply;
mod collect;
pub mod conflicts;
mod cut;
mod members;
mod portions;
mod relation;
mod sources;
mod stages;
mod views;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use tributary_executor::{Scope, View, Workers};
use tributary_planner::catalog::{Catalog, Object, ObjectKind};
use tributary_replication::{Changed, Epoch, Frontier, Hlc, SectionObject};
use tributary_storage::{
    ChainHash, Delta, Fingerprint, FragmentId, KeyEncoder, Keys, ObjectId, OriginId, Position, RegionId,
    SpillArea,
};

pub(crate) use apply::fragment_number;
pub use relation::{Slots, Table};
pub use stages::Stage;
pub(crate) use stages::{StageHead, is_over as is_stage_over};
pub use views::ViewState;
pub(crate) use views::step_global;

use crate::config::{Defects, RegionConfig};
use crate::effect::Rejected;
use crate::error::Result;
use crate::source::{SourceLog, SourceReader};
use crate::tokens::Tokens;

/// The newest log hashes that are kept per origin. A peer that is further behind than this many records of
/// an origin is compared by frontier only.
pub const CHAIN_HASHES_MAX: usize = 65_536;

/// The name of the replicated blob that holds the primary's catalog.
pub const CATALOG_BLOB: &str = "catalog";
/// The name of the replicated blob that lists the views whose backfill an origin has completed.
pub const ATTACHED_BLOB: &str = "attached";

/// The state of a region at one log position.
pub struct Dataflow {
    pub(crate) name: String,
    pub(crate) defects: Defects,
    pub(crate) position: Position,
    pub(crate) chain: ChainHash,
    pub(crate) hlc: Hlc,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) origin: Option<OriginId>,
    pub(crate) frontier: Frontier,
    /// Up to where tombstones were dropped, here or by those whose bundles were applied.
    pub(crate) collected: Frontier,
    /// Of the conflicts that this region has recorded, what the table says; `None` when it has to be read again.
    pub(crate) recorded: Option<conflicts::Recorded>,
    /// Log hashes by origin and epoch, for handshakes and for relaying.
    pub(crate) chains: BTreeMap<OriginId, BTreeMap<Epoch, ChainHash>>,
    pub(crate) tables: BTreeMap<ObjectId, Table>,
    pub(crate) slots: BTreeMap<FragmentId, Slots>,
    pub(crate) views: BTreeMap<ObjectId, ViewState>,
    /// Per origin the views it has attached, and the origin's epoch as of which that is known.
    pub(crate) attached: BTreeMap<OriginId, (Epoch, BTreeSet<ObjectId>)>,
    /// Whether the `Joined` record is in the log: from there on the region announces.
    pub(crate) joined: bool,
    /// Whose record made the catalog, and its epoch as of which the catalog is known.
    pub(crate) catalog_origin: Option<OriginId>,
    pub(crate) catalog_stamp: Epoch,
    /// Rows or events consumed of each source.
    pub(crate) sources: BTreeMap<ObjectId, u64>,
    /// Of the sources whose rows are not stored, what the log says.
    pub(crate) source_logs: BTreeMap<ObjectId, SourceLog>,
    /// Per sender what it has sent of a range that is too large for one bundle.
    pub(crate) stages: BTreeMap<OriginId, Stage>,
    /// What is not merged in full.
    pub(crate) applying: Option<portions::Applying>,
    /// Rows of bundles that are merged in one step.
    apply_rows_max: usize,
    /// Commits that may come again.
    pub(crate) tokens: Tokens,
    pub(crate) reader: Arc<dyn SourceReader>,
    pub(crate) workers: Arc<dyn Workers>,
    pub(crate) spill: Option<Arc<dyn SpillArea>>,
    pub(crate) counts: Counts,
}

/// What happened so far; observed by tests and metrics, never by the logic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Steps taken.
    pub steps: u64,
    /// Bundles applied.
    pub bundles: u64,
    /// Chunks of stages held.
    pub chunks: u64,
    /// Chunks of peers that came while too many waited; they come again.
    pub chunks_dropped: u64,
    /// Stages applied.
    pub stages: u64,
    /// Steps over own rows between portions of a stage, or of a large set of bundles.
    pub beside_stages: u64,
    /// Steps that applied more than one bundle together.
    pub joint_applications: u64,
    /// Bundles that carried an origin other than their sender.
    pub relayed: u64,
    /// GLOBAL row versions that were concurrent with the one they met.
    pub conflicts: u64,
    /// Retractions (rows of negative weight) that entered the views.
    pub retractions: u64,
    /// Conflicts that this region lost and recorded.
    pub conflicts_recorded: u64,
    /// Of those the ones that took the place of older ones.
    pub conflicts_overwritten: u64,
    /// How often rows went out of memory.
    pub spills: u64,
    /// Tombstones of rows and slots that were dropped.
    pub collected: u64,
}

/// The outcome of a step.
#[derive(Debug, Default)]
pub struct Stepped {
    /// Whether the step announced an epoch.
    pub announced: bool,
    /// What changed of our own and others need.
    pub changes: BTreeMap<SectionObject, Changed>,
    /// Views whose backfill began with this step.
    pub backfills: Vec<ObjectId>,
}

impl Dataflow {
    /// The state before the first record.
    pub fn new(config: &RegionConfig) -> Self {
        let mut dataflow = Self {
            name: config.name.clone(),
            defects: config.defects,
            position: Position(0),
            chain: ChainHash::GENESIS,
            hlc: Hlc::default(),
            catalog: Arc::new(Catalog::default()),
            origin: None,
            frontier: Frontier::default(),
            collected: Frontier::default(),
            recorded: None,
            chains: BTreeMap::new(),
            tables: BTreeMap::new(),
            slots: BTreeMap::new(),
            views: BTreeMap::new(),
            attached: BTreeMap::new(),
            joined: false,
            catalog_origin: None,
            catalog_stamp: Epoch(0),
            sources: BTreeMap::new(),
            source_logs: BTreeMap::new(),
            stages: BTreeMap::new(),
            applying: None,
            apply_rows_max: config.apply_rows_max,
            tokens: Tokens::default(),
            reader: config.sources.clone(),
            workers: config.workers.clone(),
            spill: config.spill.clone(),
            counts: Counts::default(),
        };
        let conflicts = dataflow.restore_conflicts(&mut |_, _| Ok(None));
        conflicts.expect("nothing is restored");
        dataflow
    }

    /// Has the table of conflicts, as it was stored.
    pub(crate) fn restore_conflicts(&mut self, restore: relation::Restore<'_>) -> Result<()> {
        let def = Arc::new(conflicts::definition());
        let table = Table::new(conflicts::CONFLICTS, def, self.defects, restore)?;
        self.tables.insert(conflicts::CONFLICTS, table);
        self.recorded = None;
        Ok(())
    }

    /// The position of the last stepped record.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Who writes this log; `None` while joining.
    pub fn origin(&self) -> Option<OriginId> {
        self.origin
    }

    /// The frontier at [`Dataflow::position`].
    pub fn frontier(&self) -> &Frontier {
        &self.frontier
    }

    /// The catalog at [`Dataflow::position`].
    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The log hash of an origin at one of its epochs, when it is still known.
    pub fn chain_at(&self, origin: OriginId, epoch: Epoch) -> Option<ChainHash> {
        if epoch == Epoch(0) {
            return Some(ChainHash::GENESIS);
        }
        self.chains.get(&origin)?.get(&epoch).copied()
    }

    /// The encoded keys of rows of a table; `None` when the table does not exist at this position.
    pub fn encode_keys(&self, table: ObjectId, rows: &RecordBatch) -> Option<Keys> {
        Some(self.tables.get(&table)?.encode_keys(rows))
    }

    /// Whether this is a table whose rows are kept.
    pub fn has_table(&self, table: ObjectId) -> bool {
        self.tables.contains_key(&table)
    }

    /// How keys of a table are encoded, and which columns they are.
    pub fn key_encoder(&self, table: ObjectId) -> Option<(Arc<KeyEncoder>, Vec<usize>)> {
        self.tables
            .get(&table)
            .map(|table| (table.encoder.clone(), table.def.primary_key.clone()))
    }

    /// The live version of each row's key.
    pub fn versions(&self, table: ObjectId, rows: &RecordBatch) -> Vec<Option<(OriginId, Epoch)>> {
        let Some(table) = self.tables.get(&table) else {
            return vec![None; rows.num_rows()];
        };
        let keys: Vec<ArrayRef> = table
            .def
            .primary_key
            .iter()
            .map(|&key| rows.column(key).clone())
            .collect();
        let versions = table.rows.versions(&keys, rows.num_rows());
        let live = |version: tributary_replication::RowVersion| {
            (!version.deleted).then_some((version.origin, version.stamp))
        };
        versions
            .into_iter()
            .map(|version| version.and_then(live))
            .collect()
    }

    /// Of each view the members whose contribution is not in the frontier yet. Of a view over views that miss some, these, since
    /// they are what it waits for.
    ///
    /// A member from which nothing has come has no rows at this frontier, and so nothing to attach.
    pub fn missing_of_all(&self) -> BTreeMap<ObjectId, Vec<RegionId>> {
        let mut missing: BTreeMap<ObjectId, Vec<RegionId>> = BTreeMap::new();
        // Views that everyone contributes to: those with local fragments, and those over such.
        let mut of_everyone = BTreeSet::new();
        // A view reads only views with smaller ids.
        for &view in self.views.keys() {
            let below = self.views_below(view);
            let has_fragments = self
                .catalog
                .materialized_view(view)
                .is_some_and(|def| !def.plan.fragments.is_empty());
            if has_fragments || below.iter().any(|input| of_everyone.contains(input)) {
                of_everyone.insert(view);
            }
            let of_inputs = below.iter().filter_map(|input| missing.get(input)).flatten();
            let of_inputs: BTreeSet<RegionId> = of_inputs.copied().collect();
            let regions = match of_inputs.is_empty() {
                true => self.not_attached(view, of_everyone.contains(&view)),
                false => of_inputs.into_iter().collect(),
            };
            missing.insert(view, regions);
        }
        missing
    }

    /// The views that a view reads.
    fn views_below(&self, view: ObjectId) -> Vec<ObjectId> {
        let def = self.catalog.materialized_view(view);
        let inputs = def.map(|def| def.plan.inputs()).unwrap_or_default();
        inputs
            .into_iter()
            .filter(|input| self.views.contains_key(input))
            .collect()
    }

    /// The members that have not attached a view at this frontier: of all, or this region only. Whatever is known of an
    /// earlier log of this region, it has not while its job goes on.
    fn not_attached(&self, view: ObjectId, of_everyone: bool) -> Vec<RegionId> {
        let has_job = matches!(self.views.get(&view), Some(ViewState::Backfilling(_)));
        let own = self.catalog.region_named(&self.name).filter(|_| has_job);
        let has_attached = |origin: &OriginId| {
            self.attached
                .get(origin)
                .is_some_and(|(_, views)| views.contains(&view))
        };
        let is_missing = |region: &RegionId| match self.origin.filter(|own| own.region == *region) {
            Some(own) => !has_attached(&own),
            None => of_everyone && self.known_as(*region).is_some_and(|known| !has_attached(&known)),
        };
        let members = self.catalog.members().map(|(region, _)| region);
        members
            .filter(|region| own == Some(*region) || is_missing(region))
            .collect()
    }

    /// The fingerprint under which a table's rows are exchanged.
    pub fn table_fingerprint(&self, table: ObjectId) -> Option<Fingerprint> {
        self.tables.get(&table).map(|table| table.fingerprint)
    }

    /// Whether the views of this region merge slots of several regions.
    pub(crate) fn scope(&self) -> Scope {
        scope_of(&self.catalog)
    }

    /// Whether a new object can be kept here: a view can be built.
    ///
    /// # Errors
    /// [`Rejected::Unsupported`] with what the operators say.
    pub(crate) fn assert_buildable(&self, object: &Object) -> std::result::Result<(), Rejected> {
        let ObjectKind::MaterializedView(def) = &object.kind else {
            return Ok(());
        };
        View::new(object.id, def.plan.clone(), self.scope(), self.workers.clone())
            .map(drop)
            .map_err(|error| Rejected::Unsupported(error.to_string()))
    }

    /// Remembers a log hash.
    pub(crate) fn note_chain(&mut self, origin: OriginId, epoch: Epoch, chain: ChainHash) {
        let hashes = self.chains.entry(origin).or_default();
        hashes.insert(epoch, chain);
        while hashes.len() > CHAIN_HASHES_MAX {
            hashes.pop_first();
        }
    }
}

/// The scope of views under a catalog.
pub(crate) fn scope_of(catalog: &Catalog) -> Scope {
    if catalog.regions.len() > 1 {
        Scope::Cluster
    } else {
        Scope::Alone
    }
}

/// Deltas of one step by object; several records may change the same object.
#[derive(Debug, Default)]
pub(crate) struct Deltas(BTreeMap<ObjectId, Vec<Delta>>);

impl Deltas {
    pub(crate) fn push(&mut self, object: ObjectId, delta: Delta) {
        if !delta.is_empty() {
            self.0.entry(object).or_default().push(delta);
        }
    }

    /// One delta per object: the entries of all, in order.
    pub(crate) fn merged(self) -> BTreeMap<ObjectId, Delta> {
        self.0
            .into_iter()
            .map(|(object, parts)| (object, Delta::concat(parts[0].schema(), &parts)))
            .collect()
    }
}
