//! Rows that are there already: the data of a COPY, the parameters of prepared INSERTs. Alone they are a transaction
//! that is tried again when it meets a conflict. It begins with the newest snapshot, whether or not that shows what the session
//! wrote: keys are checked again when it is committed.

use tributary_planner::catalog::Catalog;
use tributary_region::{CommitToken, Committed};
use tributary_storage::ObjectId;

use super::super::transaction::{AUTOCOMMIT_ATTEMPTS_MAX, Transaction, pause};
use super::super::{Scope, Session};
use crate::pgwire::error::SqlResult;
use crate::pgwire::sqlstate;
use crate::query::dml::{self, GivenRows};

/// Inserts the rows; `given` says into which table and columns they go, by the catalog of the transaction.
pub(crate) async fn run<'a>(
    session: &mut Session,
    scope: Scope,
    given: impl Fn(&Catalog) -> SqlResult<(ObjectId, GivenRows<'a>)>,
) -> SqlResult<()> {
    if session.transaction.is_some() || scope == Scope::Several {
        session.begin_implicit().await?;
        if let Some(transaction) = &mut session.transaction {
            insert(transaction, &given)?;
        }
        return Ok(());
    }
    alone(session, None, given).await.map(drop)
}

/// Inserts the rows as a transaction by itself; with a token only once, however often it is asked for.
pub(super) async fn alone<'a>(
    session: &mut Session,
    token: Option<CommitToken>,
    given: impl Fn(&Catalog) -> SqlResult<(ObjectId, GivenRows<'a>)>,
) -> SqlResult<Option<Committed>> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let snapshot = match attempt {
            1 => session.newest_snapshot().await?,
            _ => session.fresh_snapshot().await?,
        };
        let lacks_own_writes = session.lacks_own_writes(&snapshot);
        let mut transaction = Transaction::new(snapshot, false);
        match insert(&mut transaction, &given) {
            // A key that seems taken may be one that this session has deleted.
            Err(_) if lacks_own_writes => continue,
            inserted => inserted?,
        }
        let mut writes = transaction.to_write_set();
        if writes.tables.is_empty() {
            return Ok(None);
        }
        writes.token = token;
        match session.submit(writes).await {
            Ok(committed) => {
                session.committed(committed);
                return Ok(Some(committed));
            }
            Err(rejected) if Session::is_retriable(&rejected) && attempt < AUTOCOMMIT_ATTEMPTS_MAX => {
                pause(attempt).await
            }
            Err(rejected) => return Err(sqlstate::of_rejected(&rejected, &transaction.snapshot.catalog)),
        }
    }
}

fn insert<'a>(
    transaction: &mut Transaction,
    given: impl Fn(&Catalog) -> SqlResult<(ObjectId, GivenRows<'a>)>,
) -> SqlResult<()> {
    let (table, rows) = given(&transaction.snapshot.catalog)?;
    let changes = dml::load(transaction, table, &rows)?;
    dml::apply(&mut transaction.writes, changes)
}
