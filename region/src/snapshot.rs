//! What readers see: an immutable picture of all tables and views at one frontier.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, BooleanArray};
use tributary_executor::RowError;
use tributary_planner::catalog::{Catalog, TableDef, TableLocality};
use tributary_planner::ddl::RowCounts;
use tributary_replication::link::LinkStatus;
use tributary_replication::{Epoch, Frontier, Hlc};
use tributary_storage::{
    ChainHash, Delta, ObjectId, OriginId, Position, RegionId, RowsSnapshot, TraceSnapshot,
};

use crate::collection::standings;
use crate::dataflow::Counts;

/// Everything that is published at once. Cloning shares the state.
#[derive(Clone)]
pub struct Snapshot {
    /// The log position it is a function of.
    pub position: Position,
    /// The moment of the world it shows.
    pub frontier: Frontier,
    /// Up to where tombstones were dropped: whoever has not heard of all of that must begin anew.
    pub collected: Frontier,
    /// What happened in this region since it was started.
    pub counts: Counts,
    /// Whether every region's contribution was computed at this same frontier.
    pub settled: bool,
    /// The time of the last record.
    pub hlc: Hlc,
    /// Who writes this region's log; `None` while joining.
    pub origin: Option<OriginId>,
    /// The catalog.
    pub catalog: Arc<Catalog>,
    /// Tables by id.
    pub tables: BTreeMap<ObjectId, TableSnapshot>,
    /// Materialized views by id.
    pub views: BTreeMap<ObjectId, ViewSnapshot>,
    /// Events or rows consumed so far from each source.
    pub sources: BTreeMap<ObjectId, u64>,
    /// Of sources whose rows are not stored, the reader's digest of what was read so far.
    pub source_marks: BTreeMap<ObjectId, u64>,
    /// The log hash of each origin in the frontier, as far as it is known.
    pub heads: BTreeMap<OriginId, ChainHash>,
    /// State of each link at the time of publication.
    pub links: Vec<(String, LinkStatus)>,
    /// What is known of each member.
    pub regions: Vec<RegionStatus>,
    /// What has come of ranges that are on their way in chunks, by their senders, at the time of publication.
    pub held: BTreeMap<OriginId, HeldStage>,
    /// Rows that have come and are not merged yet, at the time of publication.
    pub rows_to_merge: u64,
}

/// What has come of a range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeldStage {
    /// Chunks.
    pub chunks: u32,
    /// Rows of tables and slots in them.
    pub rows: u64,
    /// Bytes of the chunks as they came.
    pub bytes: u64,
}

impl Snapshot {
    /// As whom a region is known at this frontier: its newest incarnation of which something is known.
    pub fn known_as(&self, region: RegionId) -> Option<OriginId> {
        let known = self.frontier.iter().map(|(origin, _)| origin);
        known.filter(|origin| origin.region == region).max()
    }

    /// How many rows there are of each relation, as an upper bound, as far as this region holds them: of a table that
    /// lives in another region nothing is known, of other regional ones its own part.
    pub fn row_counts(&self) -> RowCounts {
        let own = self.origin.map(|origin| origin.region);
        let is_here = |table: &TableSnapshot| match table.def.locality {
            TableLocality::RegionalByTable(region) => Some(region) == own,
            TableLocality::RegionalByRow | TableLocality::Global => true,
        };
        let tables = self.tables.iter().filter(|(_, table)| is_here(table));
        let tables = tables.map(|(id, table)| (*id, table.rows.row_count() as u64));
        let views = self
            .views
            .iter()
            .map(|(id, view)| (*id, view.rows.row_count() as u64));
        let sources = self.sources.iter().map(|(id, rows)| (*id, *rows));
        RowCounts(tables.chain(views).chain(sources).collect())
    }

    /// The members that have not acknowledged the oldest tombstones of a table, by name.
    pub fn tombstones_kept_by(&self, table: ObjectId) -> Vec<String> {
        let (Some(own), Some(table)) = (self.origin, self.tables.get(&table)) else {
            return Vec::new();
        };
        let standings = standings(own, &self.catalog, &self.links);
        let lacks = |frontier: &Frontier| {
            let mut oldest = table.oldest_tombstones.iter();
            oldest.any(|(origin, epoch)| frontier.get(*origin) < *epoch)
        };
        let keep = standings
            .into_iter()
            .filter(|(_, known)| known.is_none_or(|(_, frontier)| lacks(frontier)));
        let names = keep.filter_map(|(region, _)| self.catalog.region_name(region));
        names
            .filter(|_| table.tombstones > 0)
            .map(str::to_owned)
            .collect()
    }
}

/// One member as seen from here.
#[derive(Clone, Debug)]
pub struct RegionStatus {
    /// Its id.
    pub id: RegionId,
    /// Its name.
    pub name: String,
    /// Its newest epoch in the frontier; 0 when nothing has come from it.
    pub epoch: Epoch,
    /// This region's monotonic time, in milliseconds, as of which the member's rows are complete; `None`
    /// before the first echo. For the region itself it is the time of the snapshot.
    pub as_of_ms: Option<u64>,
    /// Milliseconds between that time and the snapshot.
    pub lag_ms: Option<u64>,
    /// Whether the member is reachable, as far as its link knows.
    pub connected: bool,
}

/// Where the deletion flag stands among the hidden columns of `RowVersions`.
const DELETED_OFFSET: usize = 3;

/// A table in a snapshot.
#[derive(Clone)]
pub struct TableSnapshot {
    /// Its definition.
    pub def: Arc<TableDef>,
    /// Row versions: the table's columns, then the hidden version columns of `RowVersions`.
    pub rows: Arc<TraceSnapshot>,
    /// How many of them are tombstones.
    pub tombstones: usize,
    /// The epoch of the oldest tombstone that each origin wrote.
    pub oldest_tombstones: Vec<(OriginId, Epoch)>,
}

impl TableSnapshot {
    /// Live rows with all trace columns, in key order.
    pub fn scan_live(&self, batch_rows_max: usize) -> impl Iterator<Item = Delta> + Send + use<> {
        let deleted = self.def.columns.len() + DELETED_OFFSET;
        self.rows
            .scan(batch_rows_max)
            .map(move |delta| without_tombstones(&delta, deleted))
    }

    /// Live rows in the table's own columns, in key order.
    pub fn scan_rows(&self, batch_rows_max: usize) -> impl Iterator<Item = Delta> + Send + use<> {
        let own: Vec<usize> = (0..self.def.columns.len()).collect();
        self.scan_live(batch_rows_max)
            .map(move |delta| delta.project(&own))
    }
}

fn without_tombstones(delta: &Delta, deleted: usize) -> Delta {
    let flags = delta.rows().column(deleted);
    let flags = flags
        .as_any()
        .downcast_ref::<BooleanArray>()
        .expect("the deleted column is boolean");
    if flags.true_count() == 0 {
        return delta.clone();
    }
    let live: BooleanArray = (0..flags.len()).map(|row| Some(!flags.value(row))).collect();
    delta.filter(&live)
}

/// A materialized view in a snapshot.
#[derive(Clone)]
pub struct ViewSnapshot {
    /// Result rows in the view's columns; a weight counts equal rows.
    pub rows: Arc<RowsSnapshot>,
    /// Members whose backfill is not in the frontier: while there are any the view cannot be read.
    pub missing: Vec<RegionId>,
    /// Rows fed and rows to feed of this region's backfill; equal once it is attached.
    pub backfill: (u64, u64),
    /// Why the backfill cannot go on, when an input cannot be read.
    pub failure: Option<Arc<str>>,
    /// Rows left out because an expression failed on them.
    pub errors: Arc<Vec<RowError>>,
    /// Groups of this region's own rows that are too small to be shown, see `min_group_size`.
    pub groups_held_back: usize,
    /// The name of each operator state, its rows as an upper bound, and the bytes it holds.
    pub state: Arc<Vec<(String, usize, usize)>>,
}

impl ViewSnapshot {
    /// Rows and bytes of all operator states together.
    pub fn state_total(&self) -> (usize, usize) {
        let add = |(rows, bytes), (_, more, size): &(String, usize, usize)| (rows + more, bytes + size);
        self.state.iter().fold((0, 0), add)
    }
}
