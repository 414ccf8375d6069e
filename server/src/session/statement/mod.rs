//! One file per kind of statement.

pub(super) mod conflicts;
pub(super) mod copy;
pub(super) mod ddl;
pub(super) mod discard;
pub(super) mod dml;
pub(super) mod explain;
pub(super) mod flush;
pub(super) mod forward;
pub(super) mod load;
pub(super) mod query;
pub(super) mod set;
pub(super) mod show;
pub(super) mod sql;
pub(super) mod transactions;
pub(super) mod truncate;

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::sql::sqlparser::ast;
use tributary_planner::parse::{Statement, parse};

use super::{Outcome, Session};
use crate::pgwire::error::{SqlError, SqlResult};

/// Rows that are there already.
pub(super) fn rows_of(batch: RecordBatch, tag: &'static str) -> Outcome {
    let schema = batch.schema();
    let stream = futures::stream::once(async move { Ok(batch) });
    let rows = Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&schema), stream));
    Outcome::Rows { schema, rows, tag }
}

/// A table of texts.
pub(super) fn texts(columns: &[&str], rows: Vec<Vec<String>>, tag: &'static str) -> SqlResult<Outcome> {
    let fields: Vec<Field> = columns
        .iter()
        .map(|name| Field::new(*name, DataType::Utf8, true))
        .collect();
    let column = |index: usize| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(
            rows.iter().map(|row| row[index].as_str()),
        ))
    };
    let arrays = (0..columns.len()).map(column).collect();
    Ok(rows_of(
        RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?,
        tag,
    ))
}

/// Runs a query of our own.
pub(super) async fn system_query(session: &mut Session, sql: &str) -> SqlResult<Outcome> {
    let not_a_query = || SqlError::internal(format!("not a query: {sql}"));
    let parsed = parse(sql)?.into_iter().next().ok_or_else(not_a_query)?;
    let Statement::Sql(statement) = parsed.statement else {
        return Err(not_a_query());
    };
    let ast::Statement::Query(query) = *statement else {
        return Err(not_a_query());
    };
    let Outcome::Rows { schema, rows, .. } = query::run(session, *query, None).await? else {
        return Err(not_a_query());
    };
    Ok(Outcome::Rows {
        schema,
        rows,
        tag: "SHOW",
    })
}
