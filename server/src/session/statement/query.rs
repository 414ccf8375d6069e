//! SELECT, VALUES, TABLE and WITH.

use datafusion::sql::sqlparser::ast;

use super::super::{Outcome, Session};
use crate::pgwire::error::{SqlError, SqlResult};
use crate::query::readable::check_readable;
use crate::query::reader::PlanOptions;

pub(crate) async fn run(
    session: &mut Session,
    query: ast::Query,
    text: Option<String>,
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
    let reader = session.reader().await?;
    let planned = reader
        .plan(
            query,
            PlanOptions {
                text,
                ..PlanOptions::default()
            },
        )
        .await?;
    let schema = planned.schema();
    let (prepared, notices) = planned.prepare().await?;
    for notice in notices {
        session.notice(notice);
    }
    Ok(Outcome::Rows {
        schema,
        rows: prepared.start()?,
        tag: "SELECT",
    })
}

/// The rows of a query that is a lookup.
async fn looked_up(session: &mut Session, query: &ast::Query) -> SqlResult<Option<Outcome>> {
    let Some((lookup, relation, snapshot)) = session.lookup(query).await? else {
        return Ok(None);
    };
    check_readable(&snapshot, &lookup.object)?;
    Ok(Some(Outcome::Rows {
        schema: lookup.schema(&relation),
        rows: lookup.rows(&relation),
        tag: "SELECT",
    }))
}
