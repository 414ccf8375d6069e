//! DELETE FROM tributary.conflicts: what was read and dealt with can go. The one change of a system table that there is.
//!
//! Its rows are not a user's, so the statement is no part of a transaction: the conflicts that fulfil its condition now are
//! removed by name.

use std::collections::BTreeSet;

use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use datafusion::sql::sqlparser::ast::{self, FromTable, ObjectNamePart, TableFactor};
use futures::TryStreamExt;
use tributary_planner::parse::{Statement, parse};
use tributary_region::dataflow::conflicts::{CONFLICTS, ConflictId, RecordedConflict, conflicts};

use super::super::{Outcome, Scope, Session};
use super::query;
use crate::pgwire::error::{SqlError, SqlResult};
use crate::pgwire::sqlstate;

/// The DELETE, if the statement is one of `tributary.conflicts`.
pub(crate) fn of(statement: &Statement) -> Option<&ast::Delete> {
    let Statement::Delete(delete) = statement else {
        return None;
    };
    let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = &delete.from;
    let [from] = from.as_slice() else { return None };
    let TableFactor::Table { name, .. } = &from.relation else {
        return None;
    };
    let is = |part: &ObjectNamePart, name: &str| match part {
        ObjectNamePart::Identifier(ident) if ident.quote_style.is_some() => ident.value == name,
        ObjectNamePart::Identifier(ident) => ident.value.eq_ignore_ascii_case(name),
        ObjectNamePart::Function(_) => false,
    };
    let [schema, table] = name.0.as_slice() else {
        return None;
    };
    (is(schema, "tributary") && is(table, "conflicts")).then_some(delete)
}

/// Carries it out.
pub(crate) async fn run(session: &mut Session, delete: &ast::Delete, scope: Scope) -> SqlResult<Outcome> {
    if session.transaction.is_some() || scope == Scope::Several {
        let message = "DELETE FROM tributary.conflicts cannot run inside a transaction block";
        return Err(SqlError::new(sqlstate::ACTIVE_TRANSACTION, message));
    }
    let named = named(session, query_of(delete)?).await?;
    let snapshot = session.fresh_snapshot().await?;
    let region = |recorded: &RecordedConflict| {
        let known = snapshot.catalog.regions.get(&recorded.region);
        known.map_or_else(|| format!("r{}", recorded.region.0), |region| region.name.clone())
    };
    let all = snapshot.tables.get(&CONFLICTS).map(conflicts).unwrap_or_default();
    let is_named = |recorded: &&RecordedConflict| {
        let at_ms = i64::try_from(recorded.recorded.ms()).unwrap_or(i64::MAX);
        let number = i64::try_from(recorded.number).unwrap_or(i64::MAX);
        named.contains(&(region(recorded), number, at_ms))
    };
    let chosen: Vec<ConflictId> = all.iter().filter(is_named).map(RecordedConflict::id).collect();
    let count = chosen.len();
    if count > 0 {
        let committed = session.backend.forget(chosen).await;
        let committed = committed.map_err(|rejected| sqlstate::of_rejected(&rejected, &snapshot.catalog))?;
        session.committed(committed);
    }
    Ok(Outcome::Done(format!("DELETE {count}")))
}

/// The query for the rows that are to go.
fn query_of(delete: &ast::Delete) -> SqlResult<ast::Query> {
    let is_plain = delete.using.is_none()
        && delete.returning.is_none()
        && delete.limit.is_none()
        && delete.order_by.is_empty()
        && delete.tables.is_empty();
    let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = &delete.from;
    let [from] = from.as_slice() else {
        return Err(SqlError::internal("not a DELETE of one table"));
    };
    if !is_plain || !from.joins.is_empty() {
        return Err(
            SqlError::unsupported("this form of DELETE is not supported for tributary.conflicts")
                .hint("use DELETE FROM tributary.conflicts WHERE condition"),
        );
    }
    let condition = delete.selection.as_ref();
    let condition = condition.map_or_else(String::new, |condition| format!(" WHERE {condition}"));
    let sql = format!("SELECT region, number, recorded_at FROM {from}{condition}");
    let not_a_query = || SqlError::internal(format!("not a query: {sql}"));
    let Some(Statement::Sql(statement)) = parse(&sql)?.pop().map(|parsed| parsed.statement) else {
        return Err(not_a_query());
    };
    match *statement {
        ast::Statement::Query(query) => Ok(*query),
        _ => Err(not_a_query()),
    }
}

/// What the query names: the region, the number, and when it was recorded, in milliseconds. A name alone might be that
/// of an earlier region.
async fn named(session: &mut Session, query: ast::Query) -> SqlResult<BTreeSet<(String, i64, i64)>> {
    let Outcome::Rows { rows, .. } = query::run(session, query, None).await? else {
        return Err(SqlError::internal("a query without rows"));
    };
    let mut named = BTreeSet::new();
    for batch in rows.try_collect::<Vec<_>>().await? {
        let (regions, numbers) = (
            batch.column(0).as_string::<i32>(),
            batch.column(1).as_primitive::<Int64Type>(),
        );
        let moments = batch.column(2).as_primitive::<TimestampMicrosecondType>();
        for row in 0..batch.num_rows() {
            named.insert((
                regions.value(row).to_owned(),
                numbers.value(row),
                moments.value(row) / 1000,
            ));
        }
    }
    Ok(named)
}
