//! DISCARD: what a pool sends before it hands a connection on. Prepared statements are the protocol's part of it.

use datafusion::sql::sqlparser::ast::DiscardObject;

use super::super::{Outcome, Session};
use crate::pgwire::error::{SqlError, SqlResult};
use crate::pgwire::sqlstate;

pub(crate) fn run(session: &mut Session, what: &DiscardObject) -> SqlResult<Outcome> {
    if matches!(what, DiscardObject::ALL) {
        if session
            .transaction
            .as_ref()
            .is_some_and(|transaction| transaction.is_explicit)
        {
            let message = "DISCARD ALL cannot run inside a transaction block";
            return Err(SqlError::new(sqlstate::ACTIVE_TRANSACTION, message));
        }
        session.reset_all_settings();
    }
    Ok(Outcome::Done(format!("DISCARD {what}")))
}
