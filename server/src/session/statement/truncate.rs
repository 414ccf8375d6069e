//! TRUNCATE: of REGIONAL tables a change of the catalog, by which every region drops its rows; of GLOBAL ones a DELETE,
//! whose tombstones travel like others, so that rows written elsewhere at the same time survive.

use tributary_planner::dml::writable_table;
use tributary_planner::parse::{Parsed, Truncate, parse, quote};

use super::super::{Outcome, Scope, Session};
use super::{ddl, dml};
use crate::pgwire::error::{SqlError, SqlResult};

pub(crate) async fn run(session: &mut Session, truncate: &Truncate, scope: Scope) -> SqlResult<Outcome> {
    let snapshot = session.fresh_snapshot().await?;
    let (mut global, mut regional) = (Vec::new(), Vec::new());
    for name in &truncate.tables {
        match writable_table(&snapshot.catalog, name)?.1.is_global() {
            true => global.push(quote(name)),
            false => regional.push(quote(name)),
        }
    }
    let single = |sql: String| -> SqlResult<Parsed> {
        let parsed = parse(&sql)?.pop();
        parsed.ok_or_else(|| SqlError::internal(format!("not a statement: {sql}")))
    };
    for name in global {
        dml::run(session, &single(format!("DELETE FROM {name}"))?, scope).await?;
    }
    if !regional.is_empty() {
        ddl::run(
            session,
            &single(format!("TRUNCATE TABLE {}", regional.join(", ")))?,
        )
        .await?;
    }
    Ok(Outcome::Done("TRUNCATE TABLE".to_owned()))
}
