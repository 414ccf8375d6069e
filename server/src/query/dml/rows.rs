//! Rows on their way into a table: completed by defaults, and looked up by their keys.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, AsArray, BooleanArray, FixedSizeBinaryBuilder, RecordBatch, UInt32Array, new_null_array,
};
use datafusion::arrow::compute::{concat_batches, filter_record_batch, take, take_record_batch};
use datafusion::arrow::datatypes::Int64Type;
use datafusion::sql::sqlparser::ast::{Expr, Value};
use tributary_planner::catalog::{ColumnDef, ColumnDefault, ROW_ID, TableDef};
use tributary_planner::dml::default_expression;
use tributary_planner::types::SqlType;
use tributary_replication::Epoch;
use tributary_storage::{Keys, OriginId};

use super::Target;
use crate::pgwire::error::{SqlError, SqlResult};
use crate::pgwire::types::datetime::Zone;
use crate::pgwire::types::input::ColumnBuilder;
use crate::pgwire::types::output::{ColumnEncoder, OutputStyle};
use crate::session::pending::{Expected, PendingState};

/// Fills rows given for some columns up to all columns of the table: defaults, hidden keys, nulls.
pub fn complete_rows(
    table: &TableDef,
    columns: &[usize],
    given: &[ArrayRef],
    rows: usize,
    started_ns: i64,
) -> SqlResult<RecordBatch> {
    let column = |(index, column): (usize, &ColumnDef)| -> SqlResult<ArrayRef> {
        match columns.iter().position(|target| *target == index) {
            Some(position) => Ok(Arc::clone(&given[position])),
            None if column.name == ROW_ID => Ok(row_ids(rows)),
            None => default_values(column, rows, started_ns),
        }
    };
    let arrays = table
        .columns
        .iter()
        .enumerate()
        .map(column)
        .collect::<SqlResult<Vec<_>>>()?;
    // Nullability is checked with a message of its own; the schema here must not refuse first.
    let fields: Vec<_> = table
        .schema()
        .fields()
        .iter()
        .map(|field| field.as_ref().clone().with_nullable(true))
        .collect();
    Ok(RecordBatch::try_new(
        Arc::new(datafusion::arrow::datatypes::Schema::new(fields)),
        arrays,
    )?)
}

/// Unique ids in the order of time: 48 bits of milliseconds, then random bits.
fn row_ids(rows: usize) -> ArrayRef {
    let mut builder = FixedSizeBinaryBuilder::with_capacity(rows, 16);
    for _ in 0..rows {
        let now_ms = chrono::Utc::now().timestamp_millis().to_be_bytes();
        let mut id: [u8; 16] = rand::random();
        id[..6].copy_from_slice(&now_ms[2..]);
        builder
            .append_value(id)
            .expect("an id has the builder's 16 bytes");
    }
    Arc::new(builder.finish())
}

fn default_values(column: &ColumnDef, rows: usize, started_ns: i64) -> SqlResult<ArrayRef> {
    let data_type = column.sql_type.arrow();
    match &column.default {
        None => Ok(new_null_array(&data_type, rows)),
        Some(ColumnDefault::GenRandomUuid) => {
            let mut builder = ColumnBuilder::new(column.sql_type, Zone::UTC);
            for _ in 0..rows {
                builder.append_text(&uuid::Uuid::new_v4().to_string())?;
            }
            Ok(builder.finish())
        }
        Some(ColumnDefault::Now) => {
            let mut now = String::new();
            crate::pgwire::types::datetime::write_timestamp(started_ns / 1000, Some(&Zone::UTC), &mut now);
            repeat(column.sql_type, Some(&now), rows)
        }
        Some(default @ ColumnDefault::Literal(_)) => repeat(
            column.sql_type,
            constant_text(&default_expression(default, column.sql_type)).as_deref(),
            rows,
        ),
    }
}

/// The text of a constant, or of a cast of one; `None` for null.
fn constant_text(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Cast { expr, .. } => constant_text(expr),
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => Some(text.clone()),
            Value::Null => None,
            other => Some(other.to_string()),
        },
        _ => None,
    }
}

fn repeat(sql_type: SqlType, text: Option<&str>, rows: usize) -> SqlResult<ArrayRef> {
    let mut builder = ColumnBuilder::new(sql_type, Zone::UTC);
    match text {
        Some(text) => builder.append_text(text)?,
        None => builder.append_null(),
    }
    Ok(take(&builder.finish(), &UInt32Array::from(vec![0; rows]), None)?)
}

/// Rows of a statement with their keys and what is under these keys now.
pub struct KeyedRows {
    /// The encoded key of each row.
    pub keys: Keys,
    /// The version in the snapshot; `None` for no live row there.
    pub versions: Vec<Expected>,
    /// Whether the transaction sees a row under the key.
    pub exists: Vec<bool>,
    /// The rows that exist (table columns), and for each the index of the given row with its key.
    pub existing: RecordBatch,
}

impl KeyedRows {
    /// Looks the keys of rows (table columns) up.
    pub(crate) fn look_up(target: &Target<'_>, rows: &RecordBatch) -> SqlResult<Self> {
        let table = target.object.as_table().expect("the target is a table");
        let keys = target.pending.keys(rows);
        let mut versions = vec![None; rows.num_rows()];
        let mut exists = vec![false; rows.num_rows()];
        let mut existing = Vec::new();
        if let Some(snapshot) = target.snapshot.tables.get(&target.object.id) {
            let columns: Vec<ArrayRef> = table
                .primary_key
                .iter()
                .map(|&column| Arc::clone(rows.column(column)))
                .collect();
            let found = snapshot.rows.lookup(&columns, rows.num_rows());
            if found.probe.is_empty() && target.pending.is_empty() {
                return Ok(Self {
                    keys,
                    versions,
                    exists,
                    existing: RecordBatch::new_empty(Arc::clone(target.pending.schema())),
                });
            }
            let width = table.columns.len();
            let origins = found.rows.column(width).as_primitive::<Int64Type>();
            let stamps = found.rows.column(width + 1).as_primitive::<Int64Type>();
            let deleted: &BooleanArray = found.rows.column(width + 3).as_boolean();
            let mut met = Vec::new();
            for index in 0..found.rows.num_rows() {
                let row = found.probe.value(index) as usize;
                if found.weights.value(index) <= 0 || deleted.value(index) {
                    continue;
                }
                let origin = OriginId::from_i64(origins.value(index));
                let origin = origin.ok_or_else(|| SqlError::internal("a stored row has no origin"))?;
                versions[row] = Some((origin, Epoch(stamps.value(index) as u64)));
                if target.pending.state(keys.get(row)) == PendingState::Untouched {
                    exists[row] = true;
                    met.push(index as u32);
                }
            }
            let own: Vec<usize> = (0..width).collect();
            existing.push(take_record_batch(
                &found.rows.project(&own)?,
                &UInt32Array::from(met),
            )?);
        }
        if !target.pending.is_empty() {
            for (row, key) in keys.iter().enumerate() {
                exists[row] |= target.pending.state(key) == PendingState::Live;
            }
            existing.push(target.pending.live_rows_of(keys.iter()));
        }
        let existing = concat_batches(target.pending.schema(), existing.iter())?;
        Ok(Self {
            keys,
            versions,
            exists,
            existing,
        })
    }

    /// The index of the first row whose key an earlier row has.
    pub fn first_duplicate(&self) -> Option<usize> {
        self.keys.first_repeated()
    }
}

/// Of rows (the table's columns are at `own`) that come several times, the first ones, in their order.
pub(crate) fn first_each(target: &Target<'_>, rows: &RecordBatch, own: &[usize]) -> SqlResult<RecordBatch> {
    let keys = target.pending.keys(&rows.project(own)?);
    let mut met = BTreeSet::new();
    let is_first: BooleanArray = keys.iter().map(|key| Some(met.insert(key))).collect();
    Ok(filter_record_batch(rows, &is_first)?)
}

/// The same of rows of the table, with their keys.
pub(crate) fn once_each(target: &Target<'_>, rows: RecordBatch) -> SqlResult<(RecordBatch, KeyedRows)> {
    let all: Vec<usize> = (0..rows.num_columns()).collect();
    let rows = first_each(target, &rows, &all)?;
    let keyed = KeyedRows::look_up(target, &rows)?;
    Ok((rows, keyed))
}

/// The error of a key that is taken.
pub fn key_taken(target: &Target<'_>, rows: &RecordBatch, row: usize) -> SqlError {
    let table = target.object.as_table().expect("the target is a table");
    let style = OutputStyle {
        zone: Zone::UTC,
        bytea_hex: true,
    };
    let mut values = Vec::new();
    for &column in &table.primary_key {
        let mut text = String::new();
        if let Ok(encoder) = ColumnEncoder::new(rows.column(column), style, false) {
            // A value without text form leaves its place in the detail empty.
            let _ = encoder.write_text(row, &mut text);
        }
        values.push(text);
    }
    let names: Vec<&str> = table
        .primary_key
        .iter()
        .map(|&column| table.columns[column].name.as_str())
        .collect();
    SqlError::new(
        crate::pgwire::sqlstate::UNIQUE_VIOLATION,
        format!(
            "duplicate key value violates unique constraint \"{}_pkey\"",
            target.object.name
        ),
    )
    .detail(format!(
        "Key ({})=({}) already exists.",
        names.join(", "),
        values.join(", ")
    ))
}
