//! The table of conflicts: acknowledged writes to GLOBAL tables that lost to a concurrent one, and rows that a region could
//! not bring back.
//!
//! It is a GLOBAL table that no catalog names, so it is replicated, kept and collected like any other. Who writes to it is
//! the region of the losing version, when it merges the winner; its own rows are written by the step, so a replay writes
//! them again. Each region has [`CONFLICTS_MAX`] places, used in turn: the oldest conflicts are overwritten, which leaves no
//! tombstones. Another incarnation has places of its own, since the last ones of an earlier one may come when it has begun;
//! the oldest of these are deleted instead. A user may have conflicts removed, from any region; numbers of removed ones may
//! be given out again.
//!
//! What is written here is in [`record`].
//!
//! Invariants: a losing version (table, key, origin, epoch) has one row among those of its region; what is recorded is a
//! function of the log.

mod record;

use std::collections::BTreeSet;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Int64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tributary_planner::catalog::{ColumnDef, TableDef, TableLocality};
use tributary_planner::types::SqlType;
use tributary_replication::{Epoch, Frontier, Hlc};
use tributary_storage::{ObjectId, OriginId, RegionId};

pub(crate) use record::Recorded;

use crate::snapshot::TableSnapshot;

/// The table's id: no catalog gives it out.
pub const CONFLICTS: ObjectId = ObjectId(u32::MAX);

/// How many conflicts of each region are kept.
pub const CONFLICTS_MAX: u64 = 10_000;

/// The most bytes of a row's text; longer ones are cut.
pub const ROW_BYTES_MAX: usize = 64 * 1024;

/// No region comes to number its conflicts so high: a row that says so is damaged, and not counted on from.
const NUMBER_MAX: u64 = 1 << 62;

/// Rows per batch when the table is read.
const SCAN_ROWS: usize = 4096;

/// A write that lost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Conflict {
    /// The table.
    pub table: ObjectId,
    /// Its name at that time.
    pub table_name: String,
    /// The row's key, as a JSON object.
    pub key: String,
    /// The row that was written, as a JSON object.
    pub row: String,
    /// Who wrote it.
    pub origin: OriginId,
    /// In which epoch.
    pub epoch: Epoch,
    /// When.
    pub hlc: Hlc,
    /// What it lost to; `None` when there is nothing under the key.
    pub winner: Option<Winner>,
    /// How it was lost.
    pub reason: Reason,
}

impl Conflict {
    fn loser(&self) -> Loser {
        (self.table, self.key.clone(), self.origin, self.epoch)
    }
}

/// The version that a write lost to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Winner {
    /// Who wrote it.
    pub origin: OriginId,
    /// In which epoch.
    pub epoch: Epoch,
    /// When.
    pub hlc: Hlc,
    /// Whether it deleted the row.
    pub deleted: bool,
}

/// How a write was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Reason {
    /// Another region wrote the row at the same time, as far as the two could know, and its version is the newer one.
    Concurrent,
    /// It had not left the region when its log was given up, and others had changed the row meanwhile.
    NotBroughtBack,
}

impl Reason {
    /// As it stands in the table.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Concurrent => "concurrent write",
            Self::NotBroughtBack => "not brought back",
        }
    }
}

/// A losing version, as a name.
type Loser = (ObjectId, String, OriginId, Epoch);

const COLUMNS: [(&str, SqlType); 16] = [
    ("region", SqlType::Int8),
    ("place", SqlType::Int8),
    ("number", SqlType::Int8),
    ("table_id", SqlType::Int8),
    ("table_name", SqlType::Text),
    ("key", SqlType::Text),
    ("lost_row", SqlType::Text),
    ("lost_origin", SqlType::Int8),
    ("lost_epoch", SqlType::Int8),
    ("lost_hlc", SqlType::Int8),
    ("won_origin", SqlType::Int8),
    ("won_epoch", SqlType::Int8),
    ("won_hlc", SqlType::Int8),
    ("won_deleted", SqlType::Bool),
    ("recorded_hlc", SqlType::Int8),
    ("reason", SqlType::Text),
];

/// The definition of the table.
pub fn definition() -> TableDef {
    let column = |(name, sql_type): &(&str, SqlType)| ColumnDef {
        name: (*name).to_owned(),
        sql_type: *sql_type,
        nullable: name.starts_with("won_"),
        default: None,
        hidden: false,
    };
    TableDef {
        columns: COLUMNS.iter().map(column).collect(),
        primary_key: vec![0, 1],
        locality: TableLocality::Global,
    }
}

/// A conflict as it is recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordedConflict {
    /// Who recorded it.
    pub region: RegionId,
    /// Its place among those of the region.
    pub place: u64,
    /// The how many-th of the region. Two incarnations may have given one number, when the later one had not heard of that.
    pub number: u64,
    /// What was lost.
    pub conflict: Conflict,
    /// When it was recorded.
    pub recorded: Hlc,
}

/// How a recorded conflict is found again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ConflictId {
    /// Who recorded it.
    pub region: RegionId,
    /// Its place.
    pub place: u64,
    /// Its number.
    pub number: u64,
}

impl RecordedConflict {
    /// How it is found again.
    pub fn id(&self) -> ConflictId {
        ConflictId {
            region: self.region,
            place: self.place,
            number: self.number,
        }
    }
}

/// The conflicts in a snapshot of the table, each loser once, in the order of regions and their numbers. Two incarnations of
/// a region may both have recorded it, when the later one had not heard of that: then the first one counts.
///
/// # Panics
/// When a row has not the columns of the table: bundles were checked.
pub fn conflicts(table: &TableSnapshot) -> Vec<RecordedConflict> {
    let mut all = all_recorded(table);
    all.sort_by_key(|recorded| (recorded.region, recorded.number, recorded.place));
    let mut losers: BTreeSet<(RegionId, Loser)> = BTreeSet::new();
    all.retain(|recorded| losers.insert((recorded.region, recorded.conflict.loser())));
    all
}

/// Of a table of conflicts that is continued no more: what a region's incarnations had recorded beyond what `frontier`, that
/// of others, covers.
pub fn unheard(table: &TableSnapshot, region: RegionId, frontier: &Frontier) -> Vec<Conflict> {
    let mut all = Vec::new();
    for delta in table.rows.scan(SCAN_ROWS) {
        let rows = delta.rows();
        let int = |offset: usize, row: usize| {
            let column = rows.column(COLUMNS.len() + offset).as_primitive::<Int64Type>();
            column.value(row)
        };
        let is_unheard = |row: &usize| {
            let origin = OriginId::from_i64(int(0, *row)).filter(|origin| origin.region == region);
            origin.is_some_and(|origin| int(1, *row) > frontier.get(origin).as_i64())
        };
        let found = (0..rows.num_rows())
            .filter(is_unheard)
            .filter_map(|row| conflict(rows, row));
        all.extend(found);
    }
    all.sort_by_key(|recorded| (recorded.number, recorded.place));
    all.into_iter().map(|recorded| recorded.conflict).collect()
}

/// What stands in the table, in no order that means anything.
fn all_recorded(table: &TableSnapshot) -> Vec<RecordedConflict> {
    let mut all = Vec::new();
    for delta in table.scan_rows(SCAN_ROWS) {
        let rows = delta.rows();
        all.extend((0..rows.num_rows()).filter_map(|row| conflict(rows, row)));
    }
    all
}

fn conflict(rows: &RecordBatch, row: usize) -> Option<RecordedConflict> {
    let int = |column: usize| {
        let column = rows.column(column).as_primitive::<Int64Type>();
        column.is_valid(row).then(|| column.value(row))
    };
    let text = |column: usize| rows.column(column).as_string::<i32>().value(row).to_owned();
    let winner = |origin: i64| {
        Some(Winner {
            origin: OriginId::from_i64(origin)?,
            epoch: Epoch::from_i64(int(11)?)?,
            hlc: Hlc::from_i64(int(12)?)?,
            deleted: rows.column(13).as_boolean().value(row),
        })
    };
    Some(RecordedConflict {
        region: RegionId(u16::try_from(int(0)?).ok()?),
        place: u64::try_from(int(1)?).ok()?,
        number: u64::try_from(int(2)?)
            .ok()
            .filter(|number| *number < NUMBER_MAX)?,
        conflict: Conflict {
            table: ObjectId(u32::try_from(int(3)?).ok()?),
            table_name: text(4),
            key: text(5),
            row: text(6),
            origin: OriginId::from_i64(int(7)?)?,
            epoch: Epoch::from_i64(int(8)?)?,
            hlc: Hlc::from_i64(int(9)?)?,
            winner: int(10).and_then(winner),
            reason: match text(15) == Reason::Concurrent.as_str() {
                true => Reason::Concurrent,
                false => Reason::NotBroughtBack,
            },
        },
        recorded: Hlc::from_i64(int(14)?)?,
    })
}

/// The key and the whole of a row as JSON objects, cut when they are too long.
pub fn describe(def: &TableDef, rows: &RecordBatch, row: usize) -> (String, String) {
    let object = |columns: &mut dyn Iterator<Item = usize>| {
        let fields = columns.map(|column| (def.columns[column].name.clone(), json(rows.column(column), row)));
        let mut text = Value::Object(fields.collect::<Map<_, _>>()).to_string();
        if text.len() > ROW_BYTES_MAX {
            let end = (0..=ROW_BYTES_MAX).rev().find(|end| text.is_char_boundary(*end));
            text.truncate(end.unwrap_or(0));
        }
        text
    };
    let key = object(&mut def.primary_key.iter().copied());
    (key, object(&mut def.visible()))
}

fn json(column: &ArrayRef, row: usize) -> Value {
    if column.is_null(row) {
        return Value::Null;
    }
    match column.data_type() {
        DataType::Boolean => Value::Bool(column.as_boolean().value(row)),
        kind => {
            let options = FormatOptions::default();
            let formatter = ArrayFormatter::try_new(column, &options);
            let text = formatter.map(|formatter| formatter.value(row).to_string());
            let text = text.unwrap_or_default();
            match text.parse::<i64>() {
                Ok(number) if kind.is_integer() => Value::from(number),
                _ => Value::String(text),
            }
        }
    }
}
