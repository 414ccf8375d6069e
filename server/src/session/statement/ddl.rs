//! CREATE, DROP, TRUNCATE and ALTER DATABASE: forwarded to the primary region; visible here when they return.

use std::time::Duration;

use tributary_planner::catalog::ObjectKind;
use tributary_planner::parse::{Parsed, Statement};

use super::super::backend::DdlError;
use super::super::{Outcome, Session};
use crate::pgwire::error::{SqlError, SqlResult};
use crate::pgwire::sqlstate;

/// How long CREATE MATERIALIZED VIEW waits until the view can be read.
const VIEW_READY_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) async fn run(session: &mut Session, parsed: &Parsed) -> SqlResult<Outcome> {
    match &session.transaction {
        Some(transaction) if transaction.is_explicit => {
            return Err(SqlError::unsupported(
                "a statement that changes the catalog cannot run inside a transaction block",
            )
            .hint("COMMIT first: a change of the catalog is a commit of its own"));
        }
        // Several statements in one query string: what came before is committed by itself.
        Some(_) => session.commit().await?,
        None => {}
    }
    let sql = parsed.text.clone();
    let done = session
        .backend
        .ddl(sql, session.plan_settings())
        .await
        .map_err(|error| of_ddl_error(session, error))?;
    session.own_position = session.own_position.max(done.position);
    session.own_catalog = session.own_catalog.max(done.position);
    for notice in done.notices {
        session.notice(SqlError::new("00000", notice));
    }
    if let Statement::CreateMaterializedView(create) = &parsed.statement {
        wait_until_ready(session, &create.name).await?;
    }
    Ok(Outcome::Done(done.tag))
}

async fn wait_until_ready(session: &mut Session, name: &str) -> SqlResult<()> {
    let snapshot = session.fresh_snapshot().await?;
    let Some(view) = snapshot.catalog.object(name) else {
        return Ok(());
    };
    if !matches!(view.kind, ObjectKind::MaterializedView(_)) {
        return Ok(());
    }
    if let Err(missing) = session.backend.wait_view_ready(view.id, VIEW_READY_TIMEOUT).await {
        let message = format!(
            "materialized view \"{name}\" waits for rows of {}",
            missing.join(", ")
        );
        session.notice(
            SqlError::new("00000", message)
                .hint("it can be read once they are here; see tributary.materialized_views"),
        );
    }
    Ok(())
}

fn of_ddl_error(session: &Session, error: DdlError) -> SqlError {
    match error {
        DdlError::Plan(error) => error.into(),
        DdlError::Unreachable { primary } => SqlError::new(
            sqlstate::CANNOT_CONNECT_NOW,
            format!("the primary region \"{primary}\" cannot be reached"),
        )
        .hint("CREATE and DROP need it; everything else goes on"),
        DdlError::Rejected(rejected) => sqlstate::of_rejected(&rejected, &session.backend.snapshot().catalog),
    }
}
