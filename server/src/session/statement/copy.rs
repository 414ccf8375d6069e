//! COPY … FROM STDIN: the start, and the end once the data are there.

use std::sync::Arc;

use tributary_planner::parse::CopyStatement;
use tributary_region::WriteSet;

use super::super::transaction::{AUTOCOMMIT_ATTEMPTS_MAX, Transaction, pause};
use super::super::{Outcome, Scope, Session};
use super::dml::read_only;
use crate::copy::{CopyTarget, rows};
use crate::pgwire::error::SqlResult;
use crate::pgwire::sqlstate;
use crate::query::dml::{apply, load};

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
    if session.transaction.is_some() || scope == Scope::Several {
        session.begin_implicit().await?;
        let reader = session.reader().await?;
        let batch = rows(target, input, zone, reader.facts.started_ns)?;
        let count = batch.num_rows();
        let changes = load(&reader, target.table, batch).await?;
        drop(reader);
        if let Some(transaction) = &mut session.transaction {
            apply(&mut transaction.writes, changes)?;
        }
        return Ok(Outcome::Done(format!("COPY {count}")));
    }
    let mut attempt = 0;
    loop {
        attempt += 1;
        let mut transaction = Transaction::new(session.fresh_snapshot().await?, false);
        let reader = session.reader_of(&transaction);
        let batch = rows(target, input, zone, reader.facts.started_ns)?;
        let count = batch.num_rows();
        let changes = load(&reader, target.table, batch).await?;
        drop(reader);
        apply(&mut transaction.writes, changes)?;
        let writes: WriteSet = transaction.to_write_set();
        if writes.tables.is_empty() {
            return Ok(Outcome::Done("COPY 0".into()));
        }
        match session.submit(writes).await {
            Ok(committed) => {
                session.committed(committed);
                return Ok(Outcome::Done(format!("COPY {count}")));
            }
            Err(rejected) if Session::is_retriable(&rejected) && attempt < AUTOCOMMIT_ATTEMPTS_MAX => {
                pause(attempt).await
            }
            Err(rejected) => return Err(sqlstate::of_rejected(&rejected, &transaction.snapshot.catalog)),
        }
    }
}
