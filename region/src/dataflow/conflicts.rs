//! The table of conflicts: acknowledged writes to GLOBAL tables that lost to a concurrent one, and rows that a region could
//! not bring back.
//!
//! It is a GLOBAL table that no catalog names, so it is replicated, kept and collected like any other. Who writes to it is
//! the region of the losing version, when it merges the winner; its own rows are written by the step, so a replay writes
//! them again. Each region has [`CONFLICTS_MAX`] places, used in turn: the oldest conflicts are overwritten, which leaves no
//! tombstones.
//!
//! Invariants: a losing version (table, key, origin, epoch) has one row among those of its region; what is recorded is a
//! function of the log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Int64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tributary_planner::catalog::{ColumnDef, TableDef, TableLocality};
use tributary_planner::types::SqlType;
use tributary_replication::{Changed, Epoch, Hlc, MergedRows, SectionObject, TableWrites};
use tributary_storage::{ObjectId, OriginId, Position, RegionId};

use super::Dataflow;
use super::apply::Gathered;
use crate::snapshot::TableSnapshot;

/// The table's id: no catalog gives it out.
pub const CONFLICTS: ObjectId = ObjectId(u32::MAX);

/// How many conflicts of each region are kept.
pub const CONFLICTS_MAX: u64 = 10_000;

/// The most bytes of a row's text; longer ones are cut.
pub const ROW_BYTES_MAX: usize = 64 * 1024;

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

/// Which losers of this region are recorded, and where the next goes.
#[derive(Default)]
pub(crate) struct Recorded {
    next: u64,
    places: BTreeMap<u64, Loser>,
    losers: BTreeSet<Loser>,
}

impl Recorded {
    fn put(&mut self, number: u64, loser: Loser) {
        if let Some(earlier) = self.places.insert(number % CONFLICTS_MAX, loser.clone()) {
            self.losers.remove(&earlier);
        }
        self.losers.insert(loser);
        self.next = self.next.max(number + 1);
    }
}

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
    /// The how many-th of that region.
    pub number: u64,
    /// What was lost.
    pub conflict: Conflict,
    /// When it was recorded.
    pub recorded: Hlc,
}

/// The conflicts in a snapshot of the table, in no order that means anything.
///
/// # Panics
/// When a row is not one that a region writes: bundles were checked.
pub fn conflicts(table: &TableSnapshot) -> Vec<RecordedConflict> {
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
        number: u64::try_from(int(2)?).ok()?,
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

impl Dataflow {
    /// The number of the region that this is, as soon as the catalog says so.
    fn own_region(&self) -> Option<RegionId> {
        self.origin
            .map(|origin| origin.region)
            .or_else(|| self.named().map(|origin| origin.region))
    }

    /// Of what was merged the losers that this region has to record.
    pub(super) fn note_conflicts(&self, table: ObjectId, merged: &MergedRows, gathered: &mut Gathered) {
        let (Some(own), Some(held)) = (self.own_region(), self.tables.get(&table)) else {
            return;
        };
        if table == CONFLICTS {
            return;
        }
        for (row, lost) in merged.lost.iter().enumerate() {
            if lost.version.origin.region != own {
                continue;
            }
            let (key, text) = describe(&held.def, &merged.lost_rows, row);
            let object = self.catalog.by_id(table);
            gathered.conflicts.push(Conflict {
                table,
                table_name: object.map(|object| object.name.clone()).unwrap_or_default(),
                key,
                row: text,
                origin: lost.version.origin,
                epoch: lost.version.stamp,
                hlc: lost.hlc,
                winner: Some(Winner {
                    origin: lost.winner.origin,
                    epoch: lost.winner.stamp,
                    hlc: lost.winner_hlc,
                    deleted: lost.winner.deleted,
                }),
                reason: Reason::Concurrent,
            });
        }
    }

    /// Somebody else has written rows of the table: whether they are those of this region, too.
    pub(super) fn conflicts_arrived(&mut self, rows: &RecordBatch) {
        let own = self.own_region().map(|region| i64::from(region.0));
        let regions = rows.column(0).as_primitive::<Int64Type>();
        if regions.iter().any(|region| region == own) {
            self.recorded = None;
        }
    }

    /// Records what was lost, by the record that brought the winners: `at` is its position and time.
    pub(super) fn record_conflicts(
        &mut self,
        lost: Vec<Conflict>,
        at: (Position, Hlc),
        gathered: &mut Gathered,
    ) {
        let is_to_do = !lost.is_empty() && !self.defects.lose_conflicts;
        let Some(origin) = self.origin.filter(|_| is_to_do) else {
            return;
        };
        let mut recorded = match self.recorded.take() {
            Some(recorded) => recorded,
            None => self.find_recorded(origin.region),
        };
        let mut rows: BTreeMap<u64, (u64, Conflict)> = BTreeMap::new();
        for conflict in lost {
            let loser = (
                conflict.table,
                conflict.key.clone(),
                conflict.origin,
                conflict.epoch,
            );
            if recorded.losers.contains(&loser) {
                continue;
            }
            let number = recorded.next;
            recorded.put(number, loser);
            self.counts.conflicts_recorded += 1;
            self.counts.conflicts_overwritten += u64::from(number >= CONFLICTS_MAX);
            rows.insert(number % CONFLICTS_MAX, (number, conflict));
        }
        self.recorded = Some(recorded);
        let table = self.tables.get_mut(&CONFLICTS).filter(|_| !rows.is_empty());
        let Some(table) = table else { return };
        let (position, hlc) = at;
        let writes = writes(origin.region, hlc, &rows);
        table.rows.write_own(origin, Epoch(position.0), hlc, &writes);
        let keys = table.encode_keys(&writes.rows);
        let changes = &mut gathered.stepped.changes;
        changes.insert(SectionObject::Rows(CONFLICTS), Changed::Keys(keys));
    }

    fn find_recorded(&self, own: RegionId) -> Recorded {
        let mut recorded = Recorded::default();
        let all = self.table_snapshot(CONFLICTS).map(|table| conflicts(&table));
        let mut mine: Vec<RecordedConflict> = all.unwrap_or_default();
        mine.retain(|conflict| conflict.region == own);
        mine.sort_by_key(|conflict| conflict.number);
        for RecordedConflict { number, conflict, .. } in mine {
            recorded.put(
                number,
                (conflict.table, conflict.key, conflict.origin, conflict.epoch),
            );
        }
        recorded
    }
}

fn writes(region: RegionId, at: Hlc, rows: &BTreeMap<u64, (u64, Conflict)>) -> TableWrites {
    let all = || rows.values().map(|(_, conflict)| conflict);
    let ints = |value: &dyn Fn(&Conflict) -> Option<i64>| -> ArrayRef {
        Arc::new(all().map(value).collect::<Int64Array>())
    };
    let texts = |value: &dyn Fn(&Conflict) -> String| -> ArrayRef {
        Arc::new(
            all()
                .map(|conflict| Some(value(conflict)))
                .collect::<StringArray>(),
        )
    };
    let number = |number: u64| i64::try_from(number).expect("a region has fewer than 2^63 conflicts");
    let columns: Vec<ArrayRef> = vec![
        ints(&|_| Some(i64::from(region.0))),
        Arc::new(Int64Array::from_iter_values(
            rows.keys().map(|place| number(*place)),
        )),
        Arc::new(Int64Array::from_iter_values(
            rows.values().map(|(n, _)| number(*n)),
        )),
        ints(&|conflict| Some(i64::from(conflict.table.0))),
        texts(&|conflict| conflict.table_name.clone()),
        texts(&|conflict| conflict.key.clone()),
        texts(&|conflict| conflict.row.clone()),
        ints(&|conflict| Some(conflict.origin.as_i64())),
        ints(&|conflict| Some(conflict.epoch.as_i64())),
        ints(&|conflict| Some(conflict.hlc.as_i64())),
        ints(&|conflict| conflict.winner.map(|winner| winner.origin.as_i64())),
        ints(&|conflict| conflict.winner.map(|winner| winner.epoch.as_i64())),
        ints(&|conflict| conflict.winner.map(|winner| winner.hlc.as_i64())),
        Arc::new(
            all()
                .map(|conflict| conflict.winner.map(|winner| winner.deleted))
                .collect::<BooleanArray>(),
        ),
        ints(&|_| Some(at.as_i64())),
        texts(&|conflict| conflict.reason.as_str().to_owned()),
    ];
    TableWrites {
        deleted: BooleanArray::from(vec![false; rows.len()]),
        rows: RecordBatch::try_new(definition().schema(), columns).expect("the columns are the table's"),
    }
}
