//! The simple query protocol: a text of statements, each answered in turn; several of them are one transaction unless
//! they say otherwise.

use tributary_planner::parse::{Parsed, Statement, parse};

use super::connection::{Connection, Guard, guarded};
use super::error::{SqlError, SqlResult};
use super::frame::Frontend;
use super::rows::{RowStream, closed, describe};
use super::sqlstate::resolve_position;
use crate::copy::{CopyInput, CopyTarget};
use crate::query::stack::on_large_stack;
use crate::session::{Outcome, Scope};

impl Connection {
    /// Answers a query string. Only an error that ends the connection is returned.
    pub(super) async fn simple_query(&mut self, sql: String) -> SqlResult<()> {
        let result = self.statements(&sql).await;
        if let Err(error) = result {
            let error = resolve_position(error, &sql);
            self.session.fail();
            if error.fatal {
                return Err(error);
            }
            self.announce();
            self.out.error(&error);
        }
        self.extended.end_transaction(self.session.status());
        self.ready();
        Ok(())
    }

    async fn statements(&mut self, sql: &str) -> SqlResult<()> {
        let text = sql.to_string();
        let parsed = on_large_stack(async move { Ok(parse(&text)?) }).await?;
        if parsed.is_empty() {
            self.out.empty_query();
            return Ok(());
        }
        let scope = if parsed.len() == 1 {
            Scope::Alone
        } else {
            Scope::Several
        };
        for statement in &parsed {
            self.statement(statement, scope).await?;
        }
        // The last statement's answer is out already; a conflict now is an error behind it.
        self.session.end_implicit().await
    }

    async fn statement(&mut self, parsed: &Parsed, scope: Scope) -> SqlResult<()> {
        if let Some(tag) = self.extended.statement_of_sql(&parsed.statement)? {
            self.out.complete(&tag);
            return Ok(());
        }
        let signal = self.cancel.signal();
        let guard = Guard::new(
            &signal,
            &self.session,
            self.session.settings().statement_timeout(),
        );
        let outcome = guarded(&guard, &mut self.input, self.session.execute(parsed, scope)).await?;
        self.announce();
        match outcome {
            Outcome::Done(tag) => {
                self.extended.completed(&tag);
                self.out.complete(&tag);
            }
            Outcome::Rows { schema, rows, tag } => {
                self.out.row_description(describe(&schema, &[])?);
                let style = self.session.settings().output_style();
                let mut stream = RowStream::new(schema, rows, &[], style)?;
                let send = stream.send(&mut self.out, 0);
                guarded(&guard, &mut self.input, send).await?;
                self.announce();
                self.out.complete(&row_tag(tag, stream.sent));
            }
            Outcome::CopyIn(target) => {
                drop(guard);
                self.copy_in(target, scope).await?;
            }
        }
        Ok(())
    }

    /// Takes the data of a COPY and loads them.
    pub(super) async fn copy_in(&mut self, target: CopyTarget, scope: Scope) -> SqlResult<()> {
        self.out.copy_in(target.width(), target.is_binary());
        self.out.flush().await.map_err(closed)?;
        let mut input = CopyInput::default();
        loop {
            match self.input.next().await.map_err(closed)? {
                Some(Ok(Frontend::CopyData(chunk))) => input.push(&chunk),
                Some(Ok(Frontend::CopyDone)) => break,
                Some(Ok(Frontend::CopyFail(reason))) => {
                    return Err(SqlError::new(
                        "57014",
                        format!("COPY from stdin failed: {reason}"),
                    ));
                }
                Some(Ok(Frontend::Flush | Frontend::Sync)) => {}
                Some(Ok(_)) => {
                    return Err(SqlError::protocol("unexpected message during COPY from stdin").fatal());
                }
                Some(Err(error)) => return Err(error),
                None => return Err(SqlError::new("08006", "the client went away during COPY").fatal()),
            }
        }
        let bytes = input.finish()?;
        let signal = self.cancel.signal();
        let guard = Guard::new(
            &signal,
            &self.session,
            self.session.settings().statement_timeout(),
        );
        let finish = self.session.finish_copy(target, bytes, scope);
        let outcome = guarded(&guard, &mut self.input, finish).await?;
        self.announce();
        if let Outcome::Done(tag) = outcome {
            self.out.complete(&tag);
        }
        Ok(())
    }
}

/// The command tag of a statement that returned rows.
pub(super) fn row_tag(tag: &str, rows: usize) -> String {
    match tag {
        "SHOW" | "EXPLAIN" => tag.to_string(),
        _ => format!("{tag} {rows}"),
    }
}

/// Whether a statement is one of the protocol's own (prepared statements in SQL).
pub(super) fn is_prepared_statement(statement: &Statement) -> bool {
    use datafusion::sql::sqlparser::ast::Statement as S;
    matches!(statement, Statement::Sql(sql) if matches!(sql.as_ref(), S::Prepare { .. } | S::Execute { .. } | S::Deallocate { .. }))
}
