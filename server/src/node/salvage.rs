//! Taking over the rows of a log that counts no more: those that this region itself had written.
//!
//! ```text
//!   superseded-1/  ─▶ own rows of REGIONAL tables ─▶ inserted again, by the new incarnation
//!                  ─▶ own rows of GLOBAL tables that had not arrived anywhere ─▶ written again where the row is still
//!                     as their writer had seen it; the others are reported (REPORT.txt), with their content
//! ```
//!
//! The region takes no writes of clients and runs no sources until this is done, however often it fails, so a row that is
//! there was taken over before, and an interrupted run can be repeated; [`progress`] says which portions need not be.
//! Conflicts that it had recorded, and that had not arrived anywhere, are recorded again.
//! Tables that were dropped or truncated since stay so. Foreign rows and all views come from the other regions.

mod progress;

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch, UInt32Array};
use datafusion::arrow::compute::{filter_record_batch, take_record_batch};
use datafusion::arrow::datatypes::{Field, Int64Type, Schema};
use tributary_planner::catalog::{Catalog, ObjectKind, TableDef};
use tributary_region::dataflow::conflicts::{CONFLICTS, unheard};
use tributary_region::{Past, Snapshot, TableChange, TableSnapshot, WriteSet};
use tributary_replication::rows::has_seen;
use tributary_replication::{Epoch, RowVersion, TableWrites};
use tributary_storage::{ObjectId, OriginId};

use self::progress::Progress;
use super::aside::PENDING;
use super::{Node, NodeSettings, OpenError, Stored};

/// Rows of one commit.
const PORTION_ROWS: usize = 8192;
const RETRY: Duration = Duration::from_millis(100);
/// Where what could not be taken over is listed.
const REPORT: &str = "REPORT.txt";

/// What became of the rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Salvaged {
    /// Rows of REGIONAL tables that are there again.
    pub regional: u64,
    /// Rows of GLOBAL tables that had not arrived, and were written again.
    pub global: u64,
    /// Rows of GLOBAL tables that had not arrived, and were not: others had changed the row meanwhile.
    pub conflicts: u64,
}

/// The directories whose rows are to be taken over yet, the newest incarnation first: it has the newer rows.
pub fn pending(data: &Path) -> Vec<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = Vec::new();
    for entry in std::fs::read_dir(data).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let incarnation = name
            .to_str()
            .and_then(|name| name.strip_prefix(super::data_dir::SUPERSEDED)?.parse().ok());
        if let Some(incarnation) = incarnation.filter(|_| is_pending(&entry.path())) {
            found.push((incarnation, entry.path()));
        }
    }
    found.sort();
    found.into_iter().rev().map(|(_, path)| path).collect()
}

/// Whether the rows of a directory are still to be taken over.
pub fn is_pending(path: &Path) -> bool {
    path.join(PENDING).exists()
}

/// Takes over the rows of one directory, once the region has joined.
///
/// # Errors
/// In words; what was done stays done, and the rest can be tried again.
pub async fn take_over(node: &Node, path: &Path, settings: &NodeSettings) -> Result<Salvaged, String> {
    let (place, known) = (path.to_owned(), settings.clone());
    let read = tokio::task::spawn_blocking(move || Stored::read(&place)?.look_into(&known));
    let past = read.await.map_err(|error| error.to_string())?;
    let past = past.map_err(|error: OpenError| error.to_string())?;
    let Some(origin) = past.origin else {
        return finish(path, Salvaged::default());
    };
    let joined = node
        .wait_until(Duration::MAX, |snapshot| snapshot.origin.is_some())
        .await;
    joined.ok().flatten().ok_or("the node is stopping")?;
    let mut salvaged = Salvaged::default();
    let mut progress = Progress::read(path).map_err(|error| error.to_string())?;
    for (&id, old) in &past.catalog.objects {
        let (Some(def), Some(rows)) = (old.as_table(), past.tables.get(&id)) else {
            continue;
        };
        let portion = Portion {
            id,
            def,
            name: &old.name,
            origin,
            truncated: past.catalog.truncated.get(&id).copied(),
        };
        for (number, delta) in rows.rows.scan(PORTION_ROWS).enumerate() {
            if progress.is_done(id, number) {
                continue;
            }
            take_portion(node, &portion, delta.rows(), path, &mut salvaged).await?;
            progress.done(id, number).map_err(|error| error.to_string())?;
        }
    }
    if let Some(table) = past.tables.get(&CONFLICTS) {
        // What it had told, and nobody has heard.
        let frontier = &node.newest().frontier;
        super::lost::record(node, unheard(table, origin.region, frontier)).await;
    }
    progress_of_sources(node, &past).await;
    finish(path, salvaged)
}

struct Portion<'a> {
    id: ObjectId,
    def: &'a TableDef,
    name: &'a str,
    /// Whose rows.
    origin: OriginId,
    /// By which version of the catalog the table was truncated last, as far as the superseded log knew.
    truncated: Option<u64>,
}

impl Portion<'_> {
    /// Whether the rows are wanted: the table is there, and was not truncated since.
    fn is_wanted(&self, catalog: &Catalog) -> bool {
        catalog.table(self.id).is_some() && catalog.truncated.get(&self.id).copied() == self.truncated
    }
}

async fn take_portion(
    node: &Node,
    of: &Portion<'_>,
    rows: &RecordBatch,
    path: &Path,
    salvaged: &mut Salvaged,
) -> Result<(), String> {
    let own = own_rows(of, rows);
    let own = filter_record_batch(rows, &own).map_err(|error| error.to_string())?;
    if own.num_rows() == 0 {
        return Ok(());
    }
    loop {
        let snapshot = node.newest();
        if !of.is_wanted(&snapshot.catalog) {
            return Ok(());
        }
        let table = snapshot.tables.get(&of.id).ok_or("a table has no rows")?;
        let decided = match of.def.is_global() {
            true => decide_global(of, &own, table, &snapshot),
            false => decide_regional(of, &own, table),
        };
        if !decided.rows.is_empty() {
            let change = change(of, &own, &decided)?;
            // By this version the sequencer knows a TRUNCATE that comes in between.
            let writes = WriteSet {
                tables: [(of.id, change)].into(),
                catalog_version: snapshot.catalog.version,
                ..WriteSet::default()
            };
            match node.submit(writes).await {
                Ok(committed) => {
                    let shown = |snapshot: &Snapshot| snapshot.position >= committed.position;
                    let _ = node.wait_until(Duration::from_secs(60), shown).await;
                }
                Err(rejected) => {
                    tracing::debug!(%rejected, "rows of an earlier incarnation wait");
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            }
        }
        let count = decided.rows.len() as u64;
        match of.def.is_global() {
            true => salvaged.global += count,
            false => salvaged.regional += count,
        }
        salvaged.conflicts += decided.conflicts.len() as u64;
        if of.def.is_global() {
            let (id, def, name, rows) = (of.id, of.def, of.name, &own);
            let rows = super::lost::Rows { id, def, name, rows };
            rows.record_lost(node, &decided.conflicts).await;
        }
        return report(path, of, &own, &decided.conflicts).map_err(|error| error.to_string());
    }
}

/// Which of a region's own rows are to be written, over which version, and which cannot be.
#[derive(Default)]
struct Decided {
    rows: Vec<u32>,
    expected: Vec<Option<(OriginId, Epoch)>>,
    conflicts: Vec<u32>,
}

/// The rows that the region itself had written; of REGIONAL tables those that live.
fn own_rows(of: &Portion<'_>, rows: &RecordBatch) -> BooleanArray {
    let width = of.def.columns.len();
    let origins = rows.column(width).as_primitive::<Int64Type>();
    let deleted = rows.column(width + 3).as_boolean();
    let is_own = |row: usize| {
        OriginId::from_i64(origins.value(row)).is_some_and(|origin| origin.region == of.origin.region)
    };
    (0..rows.num_rows())
        .map(|row| Some(is_own(row) && (of.def.is_global() || !deleted.value(row))))
        .collect()
}

fn key_columns(def: &TableDef, rows: &RecordBatch) -> Vec<ArrayRef> {
    def.primary_key
        .iter()
        .map(|key| rows.column(*key).clone())
        .collect()
}

/// The version under each key, as of a snapshot; tombstones included.
fn versions(of: &Portion<'_>, rows: &RecordBatch, table: &TableSnapshot) -> Vec<Option<RowVersion>> {
    let found = table.rows.lookup(&key_columns(of.def, rows), rows.num_rows());
    let width = of.def.columns.len();
    let origins = found.rows.column(width).as_primitive::<Int64Type>();
    let stamps = found.rows.column(width + 1).as_primitive::<Int64Type>();
    let deleted = found.rows.column(width + 3).as_boolean();
    let mut versions = vec![None; rows.num_rows()];
    for (at, probe) in found.probe.values().iter().enumerate() {
        let origin = OriginId::from_i64(origins.value(at));
        let stamp = Epoch::from_i64(stamps.value(at));
        if let (Some(origin), Some(stamp), 1..) = (origin, stamp, found.weights.value(at)) {
            let deleted = deleted.value(at);
            versions[*probe as usize] = Some(RowVersion {
                origin,
                stamp,
                deleted,
            });
        }
    }
    versions
}

fn decide_regional(of: &Portion<'_>, rows: &RecordBatch, table: &TableSnapshot) -> Decided {
    let mut decided = Decided::default();
    for (row, held) in versions(of, rows, table).into_iter().enumerate() {
        if held.is_none() {
            decided.rows.push(row as u32);
            decided.expected.push(None);
        }
    }
    decided
}

fn decide_global(
    of: &Portion<'_>,
    rows: &RecordBatch,
    table: &TableSnapshot,
    snapshot: &Snapshot,
) -> Decided {
    let width = of.def.columns.len();
    let origins = rows.column(width).as_primitive::<Int64Type>();
    let stamps = rows.column(width + 1).as_primitive::<Int64Type>();
    let contexts = rows.column(width + 4).as_binary::<i32>();
    let mut decided = Decided::default();
    for (row, held) in versions(of, rows, table).into_iter().enumerate() {
        let origin = OriginId::from_i64(origins.value(row));
        let arrived = origin.map_or(Epoch(0), |origin| snapshot.frontier.get(origin));
        let stamp = Epoch::from_i64(stamps.value(row)).unwrap_or_default();
        if stamp <= arrived || held.is_some_and(|held| Some(held.origin) == snapshot.origin) {
            // The others had it, whatever became of it since; or it was taken over already.
            continue;
        }
        if has_seen(contexts.value(row), held) {
            decided.rows.push(row as u32);
            let live = held.filter(|held| !held.deleted);
            decided.expected.push(live.map(|held| (held.origin, held.stamp)));
        } else {
            decided.conflicts.push(row as u32);
        }
    }
    decided
}

fn change(of: &Portion<'_>, rows: &RecordBatch, decided: &Decided) -> Result<TableChange, String> {
    let taken = take_record_batch(rows, &UInt32Array::from(decided.rows.clone()))
        .map_err(|error| error.to_string())?;
    let width = of.def.columns.len();
    let deleted = taken.column(width + 3).as_boolean().clone();
    let columns = taken.columns()[..width].to_vec();
    // Of a deleted row only its key is there.
    let schema = of.def.schema();
    let field = |field: &Arc<Field>| field.as_ref().clone().with_nullable(true);
    let schema = match deleted.true_count() {
        0 => schema,
        _ => Arc::new(Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>())),
    };
    Ok(TableChange {
        writes: TableWrites {
            rows: RecordBatch::try_new(schema, columns).map_err(|error| error.to_string())?,
            deleted,
        },
        expected: decided.expected.clone(),
    })
}

/// Lists rows that were acknowledged once and are in no table any more.
fn report(path: &Path, of: &Portion<'_>, rows: &RecordBatch, lost: &[u32]) -> std::io::Result<()> {
    if lost.is_empty() {
        return Ok(());
    }
    let taken = take_record_batch(rows, &UInt32Array::from(lost.to_vec())).map_err(std::io::Error::other)?;
    let own: Vec<usize> = (0..of.def.columns.len()).collect();
    let own = taken.project(&own).map_err(std::io::Error::other)?;
    let shown =
        datafusion::arrow::util::pretty::pretty_format_batches(&[own]).map_err(std::io::Error::other)?;
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path.join(REPORT))?;
    writeln!(
        file,
        "table \"{}\": these rows had been written here and had not arrived anywhere; the rows under their keys were \
         changed elsewhere meanwhile, so they were not written again\n{shown}",
        of.name
    )
}

/// A source that fills tables goes on where it was: its rows are there. Where it is further already, it stays there.
async fn progress_of_sources(node: &Node, past: &Past) {
    for (&source, &consumed) in &past.sources {
        loop {
            let snapshot = node.newest();
            let kind = snapshot.catalog.by_id(source).map(|object| &object.kind);
            let is_filling = matches!(kind, Some(ObjectKind::Source(def)) if !def.is_relation());
            let is_further = snapshot.sources.get(&source).is_some_and(|now| *now >= consumed);
            if !is_filling || is_further {
                break;
            }
            let writes = WriteSet {
                tables: Default::default(),
                source: Some((source, consumed)),
                catalog_version: snapshot.catalog.version,
                ..WriteSet::default()
            };
            match node.submit(writes).await {
                Ok(_) => break,
                Err(rejected) => {
                    tracing::info!(%rejected, "the progress of a source waits");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}

fn finish(path: &Path, salvaged: Salvaged) -> Result<Salvaged, String> {
    std::fs::remove_file(path.join(PENDING)).map_err(|error| error.to_string())?;
    tracing::warn!(
        regional = salvaged.regional,
        global = salvaged.global,
        conflicts = salvaged.conflicts,
        from = %path.display(),
        "the rows of the superseded log were taken over"
    );
    Ok(salvaged)
}
