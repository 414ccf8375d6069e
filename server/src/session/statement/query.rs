//! SELECT, VALUES, TABLE and WITH.

use std::borrow::Cow;

use datafusion::sql::sqlparser::ast;

use tributary_planner::parse::Parsed;
use tributary_planner::residency::incomplete_views;

use super::super::transaction::pause;
use super::super::{Outcome, Session};
use crate::pgwire::error::{SqlError, SqlResult};
use crate::query::readable::check_readable;
use crate::query::reader::{PlanOptions, Reader};

pub(crate) async fn run(
    session: &mut Session,
    query: ast::Query,
    parsed: Option<&Parsed>,
) -> SqlResult<Outcome> {
    if matches!(
        query.body.as_ref(),
        ast::SetExpr::Insert(_) | ast::SetExpr::Update(_) | ast::SetExpr::Delete(_)
    ) {
        return Err(
            SqlError::unsupported("WITH before INSERT, UPDATE or DELETE is not supported")
                .hint("put the query into the statement: INSERT INTO t WITH … SELECT …"),
        );
    }
    if let Some(outcome) = looked_up(session, &query).await? {
        return Ok(outcome);
    }
    let text = parsed.map(Parsed::bound_text).transpose()?.map(Cow::into_owned);
    let mut attempt = 0;
    loop {
        attempt += 1;
        let mut reader = session.reader().await?;
        reader.sends_sides = attempt == 1;
        match start(&reader, query.clone(), text.clone()).await {
            Ok((started, notices)) => {
                for notice in notices {
                    session.notice(notice);
                }
                return Ok(started);
            }
            // Another region no longer has the version that this region shows: a moment later it shows another one.
            Err(error) if session.may_read_again(&error, attempt) => pause(attempt).await,
            Err(error) => return Err(error),
        }
    }
}

/// Starts a query at a snapshot. What other regions may refuse they have refused when this returns.
async fn start(
    reader: &Reader,
    query: ast::Query,
    text: Option<String>,
) -> SqlResult<(Outcome, Vec<SqlError>)> {
    let options = PlanOptions {
        text,
        ..PlanOptions::default()
    };
    let incomplete = incomplete_views(&reader.snapshot.catalog, &query);
    let planned = reader.plan(query, options).await?;
    let schema = planned.schema();
    let (prepared, mut notices) = planned.prepare().await?;
    notices.extend(incomplete.into_iter().map(|text| SqlError::new("00000", text)));
    let rows = prepared.start()?;
    let tag = "SELECT";
    Ok((Outcome::Rows { schema, rows, tag }, notices))
}

/// The rows of a query that is a lookup.
async fn looked_up(session: &mut Session, query: &ast::Query) -> SqlResult<Option<Outcome>> {
    let Some((lookup, relation, snapshot)) = session.lookup(query).await? else {
        return Ok(None);
    };
    check_readable(&snapshot, &lookup.object)?;
    for text in incomplete_views(&snapshot.catalog, query) {
        session.notice(SqlError::new("00000", text));
    }
    Ok(Some(Outcome::Rows {
        schema: lookup.schema(&relation),
        rows: lookup.rows(&relation),
        tag: "SELECT",
    }))
}
