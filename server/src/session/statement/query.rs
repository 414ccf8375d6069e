//! SELECT, VALUES, TABLE and WITH.

use datafusion::sql::sqlparser::ast;

use super::super::{Outcome, Session};
use crate::pgwire::error::{SqlError, SqlResult};
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
