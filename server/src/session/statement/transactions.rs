//! BEGIN, COMMIT, ROLLBACK.

use datafusion::sql::sqlparser::ast::{
    self, TransactionAccessMode, TransactionIsolationLevel, TransactionMode,
};
use tributary_planner::parse::Statement;

use super::super::transaction::Transaction;
use super::super::{Outcome, Session};
use crate::pgwire::error::{SqlError, SqlResult};
use crate::pgwire::sqlstate;

/// Whether a statement is allowed in a failed transaction: it ends it.
pub(crate) fn ends_failed(statement: &Statement) -> bool {
    let Statement::Sql(statement) = statement else {
        return false;
    };
    matches!(
        statement.as_ref(),
        ast::Statement::Commit { .. } | ast::Statement::Rollback { savepoint: None, .. }
    )
}

pub(crate) async fn begin(session: &mut Session, modes: &[TransactionMode]) -> SqlResult<Outcome> {
    let is_explicit = session
        .transaction
        .as_ref()
        .is_some_and(|transaction| transaction.is_explicit);
    if is_explicit {
        session.notice(SqlError::new(
            sqlstate::ACTIVE_TRANSACTION,
            "there is already a transaction in progress",
        ));
        return Ok(Outcome::Done("BEGIN".into()));
    }
    let is_read_only = read_only(session, modes)?;
    session.begin_implicit().await?;
    if let Some(transaction) = &mut session.transaction {
        transaction.is_explicit = true;
        transaction.is_read_only = is_read_only;
    }
    Ok(Outcome::Done("BEGIN".into()))
}

fn read_only(session: &Session, modes: &[TransactionMode]) -> SqlResult<bool> {
    let mut is_read_only = session.settings().get("default_transaction_read_only")? == "on";
    for mode in modes {
        match mode {
            TransactionMode::AccessMode(access) => is_read_only = *access == TransactionAccessMode::ReadOnly,
            TransactionMode::IsolationLevel(TransactionIsolationLevel::Serializable) if !is_read_only => {
                // A read-only transaction over one snapshot is serializable as it is; that is known only at the end.
                let is_read_only = modes
                    .iter()
                    .any(|mode| matches!(mode, TransactionMode::AccessMode(TransactionAccessMode::ReadOnly)));
                if !is_read_only {
                    return Err(SqlError::unsupported(
                        "isolation level SERIALIZABLE is not supported for writes",
                    )
                    .hint("use REPEATABLE READ: transactions have snapshot isolation"));
                }
            }
            TransactionMode::IsolationLevel(_) => {}
        }
    }
    Ok(is_read_only)
}

pub(crate) async fn commit(session: &mut Session, chain: bool) -> SqlResult<Outcome> {
    refuse_chain(chain)?;
    if std::mem::take(&mut session.is_failed) {
        session.transaction = None;
        return Ok(Outcome::Done("ROLLBACK".into()));
    }
    if session.transaction.is_none() {
        session.notice(SqlError::new("01000", "there is no transaction in progress"));
    }
    let outcome = session.commit().await;
    session.transaction = None;
    outcome.map(|()| Outcome::Done("COMMIT".into()))
}

pub(crate) async fn rollback(session: &mut Session, chain: bool) -> SqlResult<Outcome> {
    refuse_chain(chain)?;
    if session.transaction.is_none() && !session.is_failed {
        session.notice(SqlError::new("01000", "there is no transaction in progress"));
    }
    session.is_failed = false;
    session.transaction = None;
    Ok(Outcome::Done("ROLLBACK".into()))
}

fn refuse_chain(chain: bool) -> SqlResult<()> {
    match chain {
        true => {
            Err(SqlError::unsupported("AND CHAIN is not supported")
                .hint("BEGIN the next transaction by itself"))
        }
        false => Ok(()),
    }
}

impl Session {
    /// Begins an implicit transaction unless there is one already.
    pub(crate) async fn begin_implicit(&mut self) -> SqlResult<()> {
        if self.transaction.is_none() {
            let snapshot = self.fresh_snapshot().await?;
            self.transaction = Some(Transaction::new(snapshot, false));
        }
        Ok(())
    }
}
