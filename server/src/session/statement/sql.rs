//! Statements that sqlparser knows: the dispatch, and the refusal of the others by name.

use datafusion::sql::sqlparser::ast;
use tributary_planner::parse::Parsed;

use super::super::{Outcome, Scope, Session};
use super::{discard, explain, query, set, show, transactions};
use crate::pgwire::error::{SqlError, SqlResult};

pub(crate) async fn run(
    session: &mut Session,
    statement: &ast::Statement,
    parsed: &Parsed,
    scope: Scope,
) -> SqlResult<Outcome> {
    use ast::Statement as S;
    match statement {
        S::Query(query) => {
            if scope == Scope::Several {
                session.begin_implicit().await?;
            }
            query::run(session, query.as_ref().clone(), Some(parsed)).await
        }
        S::StartTransaction { modes, .. } => transactions::begin(session, modes).await,
        S::Commit { chain, .. } => transactions::commit(session, *chain).await,
        S::Rollback {
            chain,
            savepoint: None,
        } => transactions::rollback(session, *chain).await,
        S::Rollback {
            savepoint: Some(_), ..
        }
        | S::Savepoint { .. }
        | S::ReleaseSavepoint { .. } => Err(SqlError::unsupported("savepoints are not supported")
            .hint("run the statements in a transaction of their own")),
        S::Set(set) => set::run(session, set).await,
        S::Reset(reset) => set::reset(session, reset),
        S::ShowVariable { variable } => show::run(session, variable),
        S::Explain { .. } => explain::query(session, statement).await,
        S::Discard { object_type } => discard::run(session, object_type),
        S::Deallocate { .. } | S::Prepare { .. } | S::Execute { .. } => {
            Err(SqlError::internal("prepared statements are the protocol's"))
        }
        // What a pool sends to clean up; there are no cursors to close and no channels to leave.
        S::Close {
            cursor: ast::CloseCursor::All,
        } => Ok(Outcome::Done("CLOSE CURSOR ALL".into())),
        S::UNLISTEN { .. } => Ok(Outcome::Done("UNLISTEN".into())),
        S::Declare { .. } | S::Fetch { .. } | S::Close { .. } => {
            Err(SqlError::unsupported("cursors of SQL are not supported")
                .hint("use the extended protocol with a row limit (a fetch size) instead"))
        }
        _ => {
            let words: Vec<&str> = parsed.text.split_whitespace().take(2).collect();
            Err(SqlError::unsupported(format!(
                "{} is not supported",
                words.join(" ").to_uppercase()
            )))
        }
    }
}
