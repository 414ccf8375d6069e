//! Random transactions on what a snapshot shows.

use std::collections::BTreeMap;

use arrow::array::{AsArray, BooleanArray};
use arrow::datatypes::{DataType, Int64Type, TimeUnit};
use tributary_planner::catalog::{TableDef, TableLocality};
use tributary_region::dataflow::conflicts::CONFLICTS;
use tributary_region::{Snapshot, TableChange, TableSnapshot, WriteSet};
use tributary_replication::{Epoch, TableWrites};
use tributary_storage::{ObjectId, OriginId};

use crate::checks::residency::MARK;
use crate::rng::Rng;
use crate::value::{Float, Row, Value, batch_of, row_of};

/// Rows per batch when a table is read.
const SCAN_ROWS: usize = 4096;

/// The version that a key must still have.
type Expected = Option<(OriginId, Epoch)>;

/// Inserts, updates and deletes of a few rows in one or more tables.
pub(super) fn draw(rng: &mut Rng, keys: u64, snapshot: &Snapshot) -> Result<Option<WriteSet>, String> {
    let Some(origin) = snapshot.origin else {
        return Ok(None);
    };
    let foreign = |def: &TableDef| matches!(def.locality, TableLocality::RegionalByTable(owner) if owner != origin.region);
    // Another region's table is written to only now and then, to be refused.
    let anywhere = rng.percent(3);
    let tables: Vec<_> = snapshot
        .tables
        .iter()
        .filter(|(id, _)| **id != CONFLICTS)
        .filter(|(_, table)| anywhere || !foreign(&table.def))
        .collect();
    if tables.is_empty() {
        return Ok(None);
    }
    let mut writes = WriteSet {
        token: None,
        catalog_version: snapshot.catalog.version,
        ..WriteSet::default()
    };
    let count = if rng.percent(25) { 2 } else { 1 };
    for _ in 0..count {
        let (id, table) = *rng.pick(&tables);
        writes
            .tables
            .insert(*id, draw_change(rng, keys, table, is_marked(snapshot, *id))?);
    }
    Ok(Some(writes))
}

fn draw_change(rng: &mut Rng, keys: u64, table: &TableSnapshot, marked: bool) -> Result<TableChange, String> {
    let def = &table.def;
    let live = live_rows(table)?;
    let mut changed: BTreeMap<Row, (Row, bool, Expected)> = BTreeMap::new();
    let rows = if rng.percent(10) {
        rng.between(4, 12)
    } else {
        rng.between(1, 3)
    };
    for _ in 0..rows {
        let mut row = draw_row(rng, keys, def)?;
        if marked {
            mark(&mut row);
        }
        let key: Row = def
            .primary_key
            .iter()
            .map(|&column| row[column].clone())
            .collect();
        let held = live.get(&key);
        let deleted = rng.percent(if held.is_some() { 30 } else { 3 });
        let mut expected = held.map(|(_, version)| *version);
        if let Some((old, _)) = held.filter(|_| rng.percent(60)) {
            row = updated(rng, def, old, &row);
        }
        if rng.percent(2) {
            // A client that is wrong about what it read.
            expected = expected.map_or(
                Some((OriginId::first(tributary_storage::RegionId(1)), Epoch(1))),
                |_| None,
            );
        }
        changed.insert(key, (row, deleted, expected));
    }
    let (mut rows, mut deleted, mut expected) = (Vec::new(), Vec::new(), Vec::new());
    for (row, is_deleted, version) in changed.into_values() {
        rows.push(row);
        deleted.push(is_deleted);
        expected.push(version);
    }
    let rows = batch_of(&def.schema(), &rows)?;
    Ok(TableChange {
        writes: TableWrites {
            rows,
            deleted: BooleanArray::from(deleted),
        },
        expected,
    })
}

/// Whether no value of a table may leave its region, not as a key of a group either.
fn is_marked(snapshot: &Snapshot, table: ObjectId) -> bool {
    snapshot.catalog.is_resident(table) && snapshot.catalog.options(table).min_group_size.is_none()
}

/// Makes the texts of a row ones that occur in enforced tables only.
fn mark(row: &mut Row) {
    for value in row {
        if let Value::Text(text) = value {
            *text = format!("{MARK}{text}");
        }
    }
}

/// The old row with some columns of the new one.
fn updated(rng: &mut Rng, def: &TableDef, old: &Row, new: &Row) -> Row {
    let mut row = old.clone();
    for column in (0..row.len()).filter(|column| !def.primary_key.contains(column)) {
        if rng.percent(40) {
            row[column] = new[column].clone();
        }
    }
    row
}

fn live_rows(table: &TableSnapshot) -> Result<BTreeMap<Row, (Row, (OriginId, Epoch))>, String> {
    let columns = table.def.columns.len();
    let mut live = BTreeMap::new();
    for delta in table.scan_live(SCAN_ROWS) {
        let origins = delta.rows().column(columns).as_primitive::<Int64Type>();
        let stamps = delta.rows().column(columns + 1).as_primitive::<Int64Type>();
        for index in 0..delta.len() {
            let row = row_of(delta.rows(), index, columns)?;
            let key = table
                .def
                .primary_key
                .iter()
                .map(|&column| row[column].clone())
                .collect();
            let origin = OriginId::from_i64(origins.value(index)).ok_or("an origin that is none")?;
            let epoch = Epoch::from_i64(stamps.value(index)).ok_or("a stamp that is none")?;
            live.insert(key, (row, (origin, epoch)));
        }
    }
    Ok(live)
}

fn draw_row(rng: &mut Rng, keys: u64, def: &TableDef) -> Result<Row, String> {
    let columns = def.columns.iter().enumerate();
    columns
        .map(|(index, column)| {
            let is_key = def.primary_key.contains(&index);
            if column.nullable && !is_key && rng.percent(15) {
                return Ok(Value::Null);
            }
            draw_value(rng, keys, is_key || column.name == "r", &column.sql_type.arrow())
        })
        .collect()
}

fn draw_value(rng: &mut Rng, keys: u64, key: bool, data_type: &DataType) -> Result<Value, String> {
    let small = |rng: &mut Rng| {
        if key {
            i64::try_from(rng.below(keys)).unwrap_or(0)
        } else {
            rng.between_signed(-20, 60)
        }
    };
    Ok(match data_type {
        DataType::Boolean => Value::Bool(rng.percent(50)),
        DataType::Int16 | DataType::Int32 | DataType::Int64 => Value::Int(small(rng)),
        // Some seconds, so that sessions of seconds grow, meet and part.
        DataType::Timestamp(TimeUnit::Microsecond, None) => {
            Value::Int(rng.between_signed(-10, 50) * 1_000_000)
        }
        // Multiples of a quarter add up exactly in every order.
        DataType::Float64 => Value::Float(Float::new(rng.between_signed(-400, 800) as f64 / 4.0)),
        DataType::Decimal128(_, scale) => Value::Decimal {
            scale: *scale,
            unscaled: i128::from(rng.between_signed(-5_000, 20_000)),
        },
        DataType::Utf8 => Value::Text((*rng.pick(&["a", "b", "ab", "B", "c c", ""])).to_owned()),
        other => return Err(format!("no values of type {other} are drawn")),
    })
}
