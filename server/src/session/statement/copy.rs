//! COPY … FROM STDIN: the start, and the end once the data are there.

use std::sync::Arc;

use tributary_planner::parse::CopyStatement;

use super::super::{Outcome, Scope, Session};
use super::dml::read_only;
use super::load;
use crate::copy::CopyTarget;
use crate::pgwire::error::SqlResult;

pub(crate) async fn start(session: &mut Session, copy: &CopyStatement) -> SqlResult<Outcome> {
    let snapshot = match &session.transaction {
        Some(transaction) if transaction.is_read_only => return Err(read_only()),
        Some(transaction) => Arc::clone(&transaction.snapshot),
        None => session.fresh_snapshot().await?,
    };
    CopyTarget::bind(copy, &snapshot).map(Outcome::CopyIn)
}

pub(crate) async fn finish(
    session: &mut Session,
    target: &CopyTarget,
    input: &[u8],
    scope: Scope,
) -> SqlResult<Outcome> {
    let zone = session.settings().zone();
    let rows = target.read(input, zone)?;
    load::run(session, scope, |_| Ok((target.table, rows.given()))).await?;
    Ok(Outcome::Done(format!("COPY {}", rows.count)))
}
