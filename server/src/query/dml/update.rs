//! UPDATE. A row whose key changes is deleted under the old key and inserted under the new one.

use std::collections::BTreeSet;

use datafusion::arrow::array::{BooleanArray, RecordBatch};
use datafusion::arrow::compute::filter_record_batch;
use tributary_planner::dml::BoundUpdate;

use super::rows::{KeyedRows, first_each, key_taken};
use super::{Affected, Target, check_constraints};
use crate::pgwire::error::SqlResult;
use crate::query::reader::PlanOptions;
use crate::session::pending::Expected;

pub(super) async fn run(target: &mut Target<'_>, update: &BoundUpdate) -> SqlResult<Affected> {
    let object = std::sync::Arc::clone(&target.object);
    let table = object.as_table().expect("the target is a table");
    let options = PlanOptions {
        versions: Some(object.id),
        ..PlanOptions::default()
    };
    let found = target
        .reader()
        .plan(update.query.as_ref().clone(), options)
        .await?
        .collect()
        .await?;
    let width = table.columns.len();
    let own: Vec<usize> = (0..width).collect();
    let found = match update.joined {
        true => first_each(target, &found, &own)?,
        false => found,
    };
    let old = RecordBatch::try_new(table.schema(), found.project(&own)?.columns().to_vec())?;
    let mut columns = old.columns().to_vec();
    for (position, &column) in update.assigned.iter().enumerate() {
        columns[column] = std::sync::Arc::clone(found.column(width + 2 + position));
    }
    let fields: Vec<_> = table
        .schema()
        .fields()
        .iter()
        .map(|field| field.as_ref().clone().with_nullable(true))
        .collect();
    let new = RecordBatch::try_new(
        std::sync::Arc::new(datafusion::arrow::datatypes::Schema::new(fields)),
        columns,
    )?;
    check_constraints(table, &object.name, &new)?;
    let new = RecordBatch::try_new(table.schema(), new.columns().to_vec())?;

    let before = KeyedRows::look_up(target, &old)?;
    if update
        .assigned
        .iter()
        .any(|column| table.primary_key.contains(column))
    {
        move_rows(target, &old, &new, &before)?;
    } else {
        target.write(new.clone(), false, &before.versions);
    }
    let returned = target.returning(&update.returning, &new).await?;
    let count = new.num_rows();
    Ok(Affected {
        count,
        returned,
        notices: target.nothing_matched(count),
    })
}

/// Writes rows whose keys may have changed. A new key must be free once the statement is done.
fn move_rows(
    target: &mut Target<'_>,
    old: &RecordBatch,
    new: &RecordBatch,
    before: &KeyedRows,
) -> SqlResult<()> {
    let after = KeyedRows::look_up(target, new)?;
    let left: BTreeSet<&[u8]> = before.keys.iter().collect();
    let taken = (0..new.num_rows()).find(|&row| after.exists[row] && !left.contains(after.keys.get(row)));
    if let Some(row) = taken.or_else(|| after.first_duplicate()) {
        return Err(key_taken(target, new, row));
    }
    let kept: BTreeSet<&[u8]> = after.keys.iter().collect();
    let is_left: BooleanArray = before.keys.iter().map(|key| Some(!kept.contains(key))).collect();
    let expected: Vec<Expected> = is_left
        .iter()
        .zip(&before.versions)
        .filter(|(is_left, _)| *is_left == Some(true))
        .map(|(_, version)| *version)
        .collect();
    target.write(filter_record_batch(old, &is_left)?, true, &expected);
    target.write(new.clone(), false, &after.versions);
    Ok(())
}
