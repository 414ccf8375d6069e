//! Views compared with a second opinion: DataFusion's batch answer to their SQL.
//!
//! The naive oracle evaluates the planner's plan, so it would not notice a wrong plan. Here the text itself is
//! answered over the same tables. DataFusion's types differ in places (an average of integers is a float), so
//! numbers are compared as numbers with a small tolerance. Views that depend on how ties are broken, those that leave
//! small groups out, and those built by hand, are given to it as rows.

use std::sync::Arc;

use arrow::datatypes::{DataType, Schema};
use datafusion::datasource::MemTable;
use datafusion::prelude::{SessionConfig, SessionContext};
use tributary_planner::catalog::{Object, ObjectKind};
use tributary_planner::residency::incompleteness;
use tributary_region::Snapshot;

use super::contents::view_rows;
use crate::failure::{Checked, Violation};
use crate::model::{LogId, Model};
use crate::report::Report;
use crate::value::{Row, Rows, Value, batch_of, row_of, show_row};
use crate::workload::Workload;

/// How far two numbers may be apart, relative to the larger and at least to 1.
const TOLERANCE: f64 = 1e-9;

/// Compares every view from SQL in a snapshot at which all regions agree. Not when something is known of a region that
/// was dropped: its share of a view is not what SQL says.
///
/// # Errors
/// The first view that differs.
pub fn views(
    model: &Model,
    at: LogId,
    snapshot: &Snapshot,
    workload: &Workload,
    report: &mut Report,
) -> Checked {
    let mut known = snapshot.frontier.iter().map(|(origin, _)| origin.region);
    if known.any(|region| {
        !snapshot
            .catalog
            .regions
            .get(&region)
            .is_some_and(|def| def.is_member())
    }) {
        report.sql_skipped += 1;
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime =
        runtime.map_err(|error| Violation::new("the simulator can ask DataFusion", error.to_string()))?;
    let mut config = SessionConfig::new()
        .with_target_partitions(1)
        .with_batch_size(256);
    config.options_mut().sql_parser.parse_float_as_decimal = true;
    let context = SessionContext::new_with_config(config);
    for object in snapshot.catalog.objects.values() {
        let held = match &object.kind {
            ObjectKind::Table(_) => model.rows_of_all(object.id, at, &snapshot.frontier),
            ObjectKind::MaterializedView(_) => {
                snapshot.views.get(&object.id).map_or(Ok(Vec::new()), |view| {
                    view_rows(&view.rows).map_err(|detail| Violation::new("contents can be read", detail))
                })?
            }
            ObjectKind::View(_) | ObjectKind::Source(_) | ObjectKind::Sink(_) => continue,
        };
        if let ObjectKind::MaterializedView(def) = &object.kind
            && !def.sql.is_empty()
            && !workload.is_ordered(&object.name)
            && incompleteness(&snapshot.catalog, &def.plan).is_none()
        {
            match runtime.block_on(answer(&context, &query_of(&def.sql))) {
                Ok(expected) => {
                    compare(object, &def.sql, held.clone(), expected)?;
                    report.sql_compared += 1;
                }
                // Where DataFusion fails on a row, the view leaves the row out.
                Err(_) => report.sql_skipped += 1,
            }
        }
        register(&context, object, &held)
            .map_err(|detail| Violation::new("the simulator can ask DataFusion", detail))?;
    }
    Ok(())
}

/// The query of a view's text, which may be the whole statement.
fn query_of(sql: &str) -> String {
    match sql.find(" AS SELECT") {
        Some(start) if sql.starts_with("CREATE") => sql[start + 4..].to_owned(),
        _ => sql.to_owned(),
    }
}

async fn answer(context: &SessionContext, sql: &str) -> Result<Rows, String> {
    let frame = context.sql(sql).await.map_err(|error| error.to_string())?;
    let batches = frame.collect().await.map_err(|error| error.to_string())?;
    let mut rows = Vec::new();
    for batch in &batches {
        for row in 0..batch.num_rows() {
            rows.push(row_of(batch, row, batch.num_columns())?);
        }
    }
    Ok(rows)
}

fn register(context: &SessionContext, object: &Object, rows: &[Row]) -> Result<(), String> {
    let fields = object.columns_arrow();
    let fields: Vec<_> = fields
        .fields()
        .iter()
        .map(|field| field.as_ref().clone().with_nullable(true))
        .collect();
    let schema = Arc::new(Schema::new(fields));
    if schema
        .fields()
        .iter()
        .any(|field| matches!(field.data_type(), DataType::FixedSizeBinary(_)))
    {
        return Err("a hidden key column".into());
    }
    let batch = batch_of(&schema, rows)?;
    let table = MemTable::try_new(schema, vec![vec![batch]]).map_err(|error| error.to_string())?;
    context
        .register_table(object.name.as_str(), Arc::new(table))
        .map_err(|error| error.to_string())?;
    Ok(())
}

fn compare(object: &Object, sql: &str, held: Rows, mut expected: Rows) -> Checked {
    let mut surplus = Vec::new();
    for row in held {
        match expected.iter().position(|other| alike(&row, other)) {
            Some(index) => drop(expected.swap_remove(index)),
            None => surplus.push(show_row(&row)),
        }
    }
    if surplus.is_empty() && expected.is_empty() {
        return Ok(());
    }
    surplus.truncate(6);
    let missing: Vec<String> = expected.iter().take(6).map(|row| show_row(row)).collect();
    let detail = format!(
        "view {} ({sql}): surplus {surplus:?}, missing {missing:?}",
        object.name
    );
    Err(Violation::new(
        "settled view = SQL according to DataFusion",
        detail,
    ))
}

/// Whether a row is the expected one, as far as DataFusion's answer says: its decimals may have fewer digits.
fn alike(held: &Row, expected: &Row) -> bool {
    held.len() == expected.len()
        && held
            .iter()
            .zip(expected)
            .all(|(held, expected)| match (number(held), number(expected)) {
                (Some(a), Some(b)) => {
                    let digits = match expected {
                        Value::Decimal { scale, .. } => 10f64.powi(-i32::from(*scale)),
                        _ => 0.0,
                    };
                    (a - b).abs() <= digits + TOLERANCE * a.abs().max(b.abs()).max(1.0)
                }
                _ => held == expected,
            })
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Int(value) => Some(*value as f64),
        Value::Decimal { scale, unscaled } => Some(*unscaled as f64 / 10f64.powi(i32::from(*scale))),
        Value::Float(value) => Some(value.get()),
        Value::Null | Value::Bool(_) | Value::Text(_) => None,
    }
}
