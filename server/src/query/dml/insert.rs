//! INSERT, with ON CONFLICT.

use std::collections::BTreeSet;

use datafusion::arrow::array::{BooleanArray, RecordBatch};
use datafusion::arrow::compute::{concat_batches, filter_record_batch};
use datafusion::arrow::datatypes::DataType;
use tributary_planner::dml::{BoundInsert, EXCLUDED, InsertSource, OnConflict};

use super::rows::{KeyedRows, complete_rows, key_taken};
use super::{Affected, Target, check_constraints};
use crate::pgwire::error::{SqlError, SqlResult};
use crate::pgwire::sqlstate;
use crate::query::reader::PlanOptions;
use crate::session::pending::Expected;

pub(super) async fn run(target: &mut Target<'_>, insert: &BoundInsert) -> SqlResult<Affected> {
    let (proposed, notices) = proposed_rows(target, insert).await?;
    let (inserted, affected) = write(target, proposed, insert.on_conflict.as_ref()).await?;
    let all = match affected.num_rows() {
        0 => inserted,
        _ => concat_batches(&affected.schema(), [&inserted, &affected])?,
    };
    let returned = target.returning(&insert.returning, &all).await?;
    Ok(Affected {
        count: all.num_rows(),
        returned,
        notices,
    })
}

/// Writes rows (all columns of the table) under keys that must be free.
pub(super) fn write_new(target: &mut Target<'_>, proposed: RecordBatch) -> SqlResult<RecordBatch> {
    let object = std::sync::Arc::clone(&target.object);
    let table = object.as_table().expect("the target is a table");
    check_constraints(table, &object.name, &proposed)?;
    let proposed = RecordBatch::try_new(
        std::sync::Arc::clone(target.pending.schema()),
        proposed.columns().to_vec(),
    )?;
    let keyed = KeyedRows::look_up(target, &proposed)?;
    let taken = keyed
        .exists
        .iter()
        .position(|exists| *exists)
        .or_else(|| keyed.first_duplicate());
    if let Some(row) = taken {
        return Err(key_taken(target, &proposed, row));
    }
    target.write_new(proposed.clone(), keyed.versions);
    Ok(proposed)
}

/// Writes proposed rows (all columns of the table); returns those inserted and those that changed others.
async fn write(
    target: &mut Target<'_>,
    proposed: RecordBatch,
    on_conflict: Option<&OnConflict>,
) -> SqlResult<(RecordBatch, RecordBatch)> {
    let object = std::sync::Arc::clone(&target.object);
    let table = object.as_table().expect("the target is a table");
    let Some(on_conflict) = on_conflict else {
        let inserted = write_new(target, proposed)?;
        return Ok((inserted, RecordBatch::new_empty(table.schema())));
    };
    check_constraints(table, &object.name, &proposed)?;
    let proposed = RecordBatch::try_new(table.schema(), proposed.columns().to_vec())?;
    let keyed = KeyedRows::look_up(target, &proposed)?;
    match on_conflict {
        OnConflict::DoNothing => {}
        OnConflict::DoUpdate { .. } => {
            if keyed.first_duplicate().is_some() {
                return Err(SqlError::new(
                    sqlstate::CARDINALITY_VIOLATION,
                    "ON CONFLICT DO UPDATE command cannot affect row a second time",
                )
                .hint("give each key only once in the statement"));
            }
        }
    }
    let mut seen = BTreeSet::new();
    let is_new: BooleanArray = keyed
        .keys
        .iter()
        .zip(&keyed.exists)
        .map(|(key, exists)| Some(!exists && seen.insert(key)))
        .collect();
    let inserted = filter_record_batch(&proposed, &is_new)?;
    let expected: Vec<Expected> = is_new
        .iter()
        .zip(&keyed.versions)
        .filter(|(new, _)| *new == Some(true))
        .map(|(_, version)| *version)
        .collect();
    let changed = match on_conflict {
        OnConflict::DoUpdate { query, .. } if keyed.existing.num_rows() > 0 => {
            let replaced = vec![
                (object.name.clone(), keyed.existing.clone()),
                (EXCLUDED.to_string(), proposed.clone()),
            ];
            let casts = Some(
                table
                    .columns
                    .iter()
                    .map(|column| column.sql_type.arrow())
                    .collect(),
            );
            let planned = target
                .reader()
                .plan(
                    query.as_ref().clone(),
                    PlanOptions {
                        replaced,
                        casts,
                        ..PlanOptions::default()
                    },
                )
                .await?;
            let rows = planned.collect().await?;
            check_constraints(table, &object.name, &rows)?;
            let rows = RecordBatch::try_new(table.schema(), rows.columns().to_vec())?;
            let again = KeyedRows::look_up(target, &rows)?;
            target.write(rows.clone(), false, &again.versions);
            rows
        }
        _ => RecordBatch::new_empty(table.schema()),
    };
    target.write(inserted.clone(), false, &expected);
    Ok((inserted, changed))
}

async fn proposed_rows(target: &Target<'_>, insert: &BoundInsert) -> SqlResult<(RecordBatch, Vec<SqlError>)> {
    let table = target.object.as_table().expect("the target is a table");
    let started_ns = target.started_ns;
    let InsertSource::Query(query) = &insert.source else {
        return Ok((complete_rows(table, &[], &[], 1, started_ns)?, Vec::new()));
    };
    let types: Vec<DataType> = insert
        .columns
        .iter()
        .map(|&column| table.columns[column].sql_type.arrow())
        .collect();
    let options = PlanOptions {
        casts: Some(types),
        ..PlanOptions::default()
    };
    let mut planned = target.reader().plan(query.as_ref().clone(), options).await?;
    let notices = std::mem::take(&mut planned.notices);
    let columns = insert.targets(planned.schema().fields().len())?.to_vec();
    let rows = planned.collect().await?;
    Ok((
        complete_rows(table, &columns, rows.columns(), rows.num_rows(), started_ns)?,
        notices,
    ))
}
