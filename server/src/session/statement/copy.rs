//! COPY … FROM STDIN: the start, and the end once the data are there.

use std::sync::Arc;

use tributary_planner::parse::CopyStatement;

use super::super::{Outcome, Scope, Session};
use super::dml::read_only;
use super::{forward, load};
use crate::copy::CopyTarget;
use crate::pgwire::error::SqlResult;

pub(crate) async fn start(
    session: &mut Session,
    copy: &CopyStatement,
    text: &str,
    scope: Scope,
) -> SqlResult<Outcome> {
    let snapshot = match &session.transaction {
        Some(transaction) if transaction.is_read_only => return Err(read_only()),
        Some(transaction) => Arc::clone(&transaction.snapshot),
        None => session.newest_snapshot().await?,
    };
    let target = CopyTarget::bind(copy, text, &snapshot)?;
    // Before the client sends its data.
    if let Some(region) = target.other_region(&snapshot.catalog, &session.backend.region_name())? {
        forward::check(session, &region, scope)?;
    }
    Ok(Outcome::CopyIn(target))
}

pub(crate) async fn finish(
    session: &mut Session,
    target: &CopyTarget,
    input: Vec<u8>,
    scope: Scope,
) -> SqlResult<Outcome> {
    let catalog = Arc::clone(&session.backend.snapshot().catalog);
    if let Some(region) = target.other_region(&catalog, &session.backend.region_name())? {
        return forward::copy(session, target.text(), input, &region, scope).await;
    }
    let zone = session.settings().zone();
    let rows = target.read(&input, zone)?;
    load::run(session, scope, |_| Ok((target.table, rows.given()))).await?;
    Ok(Outcome::Done(format!("COPY {}", rows.count)))
}
