//! The extended query protocol: prepared statements, portals, and the wait for Sync after an error.
//!
//! Outside of a transaction, what stands between two Syncs is one implicit transaction. An Execute that is followed by
//! Sync at once is a transaction by itself: it is committed before it is answered, and runs again on a conflict.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::sql::sqlparser::ast;
use tributary_planner::parse::{Parsed, Statement, fold};

use super::connection::{Connection, Guard, guarded};
use super::error::{SqlError, SqlResult};
use super::frame::{Bind, Frontend, Target};
use super::pipeline::PlainValues;
use super::rows::{RowStream, Sent, closed, describe};
use super::simple::{is_prepared_statement, row_tag};
use super::sqlstate::{self, resolve_position};
use crate::session::prepared::PreparedStatement;
use crate::session::{Outcome, Scope, Status};

/// Prepared statements of a connection; more are refused.
const STATEMENTS_MAX: usize = 10_000;
/// Portals of a connection; more are refused.
const PORTALS_MAX: usize = 1_000;

/// Prepared statements and portals of a connection.
#[derive(Default)]
pub(super) struct Extended {
    statements: BTreeMap<String, Arc<PreparedStatement>>,
    portals: BTreeMap<String, Portal>,
    skipping: bool,
    /// So many plain INSERTs are run one by one, since they did not run at once.
    pub(super) singly: usize,
}

pub(super) struct Portal {
    pub(super) statement_name: String,
    pub(super) statement: Arc<PreparedStatement>,
    /// The statement with its values; `None` for an empty one, and for a plain INSERT.
    pub(super) parsed: Option<Parsed>,
    formats: Vec<i16>,
    pub(super) state: PortalState,
}

pub(super) enum PortalState {
    New,
    Plain(PlainValues),
    Rows(Box<RowStream>, &'static str),
    Done,
}

impl Extended {
    /// After an error: nothing is done until Sync.
    pub(super) fn skip_to_sync(&mut self) {
        self.skipping = true;
    }

    /// A simple query makes the unnamed statement and portal void.
    pub(super) fn forget_unnamed(&mut self) {
        self.statements.remove("");
        self.portals.remove("");
    }

    /// Portals live as long as their transaction.
    pub(super) fn end_transaction(&mut self, status: Status) {
        if status != Status::Open {
            self.portals.clear();
        }
    }

    /// DISCARD ALL takes the prepared statements along.
    pub(super) fn completed(&mut self, tag: &str) {
        if tag == "DISCARD ALL" {
            self.statements.clear();
        }
    }

    /// PREPARE, EXECUTE and DEALLOCATE; the tag of those that are done.
    pub(super) fn statement_of_sql(&mut self, statement: &Statement) -> SqlResult<Option<String>> {
        if !is_prepared_statement(statement) {
            return Ok(None);
        }
        let Statement::Sql(sql) = statement else {
            return Ok(None);
        };
        let ast::Statement::Deallocate { name, .. } = sql.as_ref() else {
            return Err(
                SqlError::unsupported("PREPARE and EXECUTE of SQL are not supported")
                    .hint("prepare statements through the driver: Parse and Bind of the protocol"),
            );
        };
        let folded = fold(name);
        if name.quote_style.is_none() && folded == "all" {
            self.statements.clear();
            return Ok(Some("DEALLOCATE ALL".into()));
        }
        self.statements
            .remove(&folded)
            .ok_or_else(|| no_statement(&folded))?;
        Ok(Some("DEALLOCATE".into()))
    }

    fn statement(&self, name: &str) -> SqlResult<&Arc<PreparedStatement>> {
        self.statements.get(name).ok_or_else(|| no_statement(name))
    }
}

fn no_statement(name: &str) -> SqlError {
    SqlError::new(
        sqlstate::INVALID_STATEMENT_NAME,
        format!("prepared statement \"{name}\" does not exist"),
    )
}

fn no_portal(name: &str) -> SqlError {
    SqlError::new(
        sqlstate::INVALID_CURSOR_NAME,
        format!("portal \"{name}\" does not exist"),
    )
}

impl Connection {
    /// Answers a message of the extended protocol. Only an error that ends the connection is returned.
    pub(super) async fn extended_message(&mut self, message: Frontend) -> SqlResult<()> {
        if let Frontend::Sync = message {
            return self.sync().await;
        }
        if self.extended.skipping {
            return Ok(());
        }
        if let Err(error) = self.extended_step(message).await {
            self.session.fail();
            if error.fatal {
                return Err(error);
            }
            self.announce();
            self.out.error(&error);
            self.extended.skip_to_sync();
        }
        Ok(())
    }

    async fn sync(&mut self) -> SqlResult<()> {
        if !std::mem::take(&mut self.extended.skipping)
            && let Err(error) = self.session.end_implicit().await
        {
            self.out.error(&error);
        }
        self.extended.end_transaction(self.session.status());
        self.ready();
        self.out.flush().await.map_err(closed)
    }

    async fn extended_step(&mut self, message: Frontend) -> SqlResult<()> {
        match message {
            Frontend::Parse { name, sql, types } => Box::pin(self.parse(name, sql, &types)).await,
            Frontend::Bind(bind) => self.bind(bind),
            Frontend::Describe(Target::Statement(name)) => Box::pin(self.describe_statement(&name)).await,
            Frontend::Describe(Target::Portal(name)) => Box::pin(self.describe_portal(&name)).await,
            Frontend::Execute { portal, rows_max } => {
                let statement = self.extended.portals.get(&portal);
                let statement = statement.map(|portal| Arc::clone(&portal.statement));
                self.execute(&portal, rows_max).await.map_err(|error| {
                    let text = statement.as_ref().map_or("", |statement| &statement.text);
                    resolve_position(error, text)
                })
            }
            Frontend::Close(target) => {
                match target {
                    Target::Statement(name) => drop(self.extended.statements.remove(&name)),
                    Target::Portal(name) => drop(self.extended.portals.remove(&name)),
                }
                self.out.close_complete();
                Ok(())
            }
            Frontend::Flush => {
                self.announce();
                self.out.flush().await.map_err(closed)
            }
            _ => Err(SqlError::protocol("unexpected message")),
        }
    }

    async fn parse(&mut self, name: String, sql: String, types: &[u32]) -> SqlResult<()> {
        if !name.is_empty() && self.extended.statements.contains_key(&name) {
            let message = format!("prepared statement \"{name}\" already exists");
            return Err(SqlError::new(sqlstate::DUPLICATE_STATEMENT, message));
        }
        if self.extended.statements.len() >= STATEMENTS_MAX {
            return Err(SqlError::new(
                sqlstate::PROGRAM_LIMIT,
                format!("a connection has at most {STATEMENTS_MAX} prepared statements"),
            )
            .hint("close those that are not needed, or DEALLOCATE ALL"));
        }
        let text = sql.clone();
        let signal = self.cancel.signal();
        let guard = Guard::new(&signal, &self.session, None);
        let prepare = self.session.prepare(sql, types);
        let prepared = guarded(&guard, &mut self.input, prepare).await;
        let prepared = prepared.map_err(|error| resolve_position(error, &text))?;
        self.extended.statements.insert(name, Arc::new(prepared));
        self.out.parse_complete();
        Ok(())
    }

    fn bind(&mut self, bind: Bind) -> SqlResult<()> {
        if !bind.portal.is_empty() && self.extended.portals.contains_key(&bind.portal) {
            let message = format!("portal \"{}\" already exists", bind.portal);
            return Err(SqlError::new(sqlstate::DUPLICATE_CURSOR, message));
        }
        if self.extended.portals.len() >= PORTALS_MAX {
            return Err(SqlError::new(
                sqlstate::PROGRAM_LIMIT,
                format!("a connection has at most {PORTALS_MAX} portals"),
            ));
        }
        let statement = Arc::clone(self.extended.statement(&bind.statement)?);
        let zone = self.session.with_settings(|settings| settings.zone());
        let (name, statement_name) = (bind.portal.clone(), bind.statement.clone());
        let formats = bind.result_formats.clone();
        let (parsed, state) = match &statement.plain {
            Some(plain) => {
                let values = PlainValues::read(&statement, plain, bind, zone)?;
                (None, PortalState::Plain(values))
            }
            None => {
                let parsed = statement.bind(&bind.parameters, &bind.parameter_formats, zone)?;
                (parsed, PortalState::New)
            }
        };
        let portal = Portal {
            statement_name,
            statement,
            parsed,
            formats,
            state,
        };
        self.extended.portals.insert(name, portal);
        self.out.bind_complete();
        Ok(())
    }

    async fn describe_statement(&mut self, name: &str) -> SqlResult<()> {
        let statement = Arc::clone(self.extended.statement(name)?);
        let signal = self.cancel.signal();
        let guard = Guard::new(&signal, &self.session, None);
        let columns = guarded(&guard, &mut self.input, self.session.describe(&statement)).await;
        let columns = columns.map_err(|error| resolve_position(error, &statement.text))?;
        self.session.take_notices();
        self.out.parameter_description(statement.oids.clone());
        match columns {
            Some(schema) => self.out.row_description(describe(&schema, &[])?),
            None => self.out.no_data(),
        }
        Ok(())
    }

    async fn describe_portal(&mut self, name: &str) -> SqlResult<()> {
        let portal = self.extended.portals.get(name).ok_or_else(|| no_portal(name))?;
        let (parsed, formats) = (portal.parsed.clone(), portal.formats.clone());
        let statement = Arc::clone(&portal.statement);
        // A plain INSERT returns nothing.
        let Some(parsed) = parsed else {
            self.out.no_data();
            return Ok(());
        };
        let signal = self.cancel.signal();
        let guard = Guard::new(&signal, &self.session, None);
        let columns = guarded(&guard, &mut self.input, self.session.columns(&parsed)).await;
        let columns = columns.map_err(|error| resolve_position(error, &statement.text))?;
        self.session.take_notices();
        match columns {
            Some(schema) => self.out.row_description(describe(&schema, &formats)?),
            None => self.out.no_data(),
        }
        Ok(())
    }

    async fn execute(&mut self, name: &str, rows_max: usize) -> SqlResult<()> {
        let mut portal = self
            .extended
            .portals
            .remove(name)
            .ok_or_else(|| no_portal(name))?;
        let result = self.run_portal(name, &mut portal, rows_max).await;
        self.extended.portals.insert(name.to_string(), portal);
        result
    }

    async fn run_portal(&mut self, name: &str, portal: &mut Portal, rows_max: usize) -> SqlResult<()> {
        if let PortalState::Plain(_) = portal.state
            && let PortalState::Plain(values) = std::mem::replace(&mut portal.state, PortalState::Done)
            && self.run_plain(name, portal, values).await?
        {
            return Ok(());
        }
        if let (PortalState::Done, Some(_)) = (&portal.state, &portal.statement.plain) {
            self.out.complete(&row_tag("SELECT", 0));
            return Ok(());
        }
        Box::pin(self.run_any(portal, rows_max)).await
    }

    /// Runs a portal of any statement. Its future is large, and lives on the heap, so that those of other messages
    /// need not move it.
    async fn run_any(&mut self, portal: &mut Portal, rows_max: usize) -> SqlResult<()> {
        let Some(parsed) = portal.parsed.clone() else {
            self.out.empty_query();
            return Ok(());
        };
        let signal = self.cancel.signal();
        let guard = Guard::new(
            &signal,
            &self.session,
            self.session.settings().statement_timeout(),
        );
        if let PortalState::New = portal.state {
            portal.state = PortalState::Done;
            if let Some(tag) = self.extended.statement_of_sql(&parsed.statement)? {
                self.out.complete(&tag);
                return Ok(());
            }
            self.input.arrive().await;
            let scope = if self.input.next_is_sync() {
                Scope::Alone
            } else {
                Scope::Several
            };
            let outcome = guarded(&guard, &mut self.input, self.session.execute(&parsed, scope)).await?;
            self.announce();
            match outcome {
                Outcome::Done(tag) => {
                    self.extended.completed(&tag);
                    self.out.complete(&tag);
                    return Ok(());
                }
                Outcome::CopyIn(target) => {
                    drop(guard);
                    return self.copy_in(target, scope).await;
                }
                Outcome::Rows { schema, rows, tag } => {
                    let style = self.session.settings().output_style();
                    let stream = RowStream::new(schema, rows, &portal.formats, style)?;
                    portal.state = PortalState::Rows(Box::new(stream), tag);
                }
            }
        }
        let PortalState::Rows(stream, tag) = &mut portal.state else {
            // Run to its end before: there are no more rows.
            self.out.complete(&row_tag("SELECT", 0));
            return Ok(());
        };
        let before = stream.sent;
        let send = stream.send(&mut self.out, rows_max);
        let sent = guarded(&guard, &mut self.input, send).await?;
        self.announce();
        match sent {
            Sent::Suspended => self.out.portal_suspended(),
            Sent::Complete => {
                self.out.complete(&row_tag(tag, stream.sent - before));
                portal.state = PortalState::Done;
            }
        }
        Ok(())
    }
}
