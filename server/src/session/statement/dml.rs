//! INSERT, UPDATE, DELETE. Alone, the statement is a transaction that runs again when it meets a conflict.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast;
use tributary_planner::dml::{BoundDml, bind_dml};
use tributary_planner::parse::{Parsed, Statement};
use tributary_planner::residency::{Copies, check_statement};
use tributary_region::{CommitToken, Committed};

use super::super::transaction::{AUTOCOMMIT_ATTEMPTS_MAX, Transaction, pause};
use super::super::{Outcome, Scope, Session};
use super::{conflicts, forward, rows_of};
use crate::far::forward::other_region;
use crate::pgwire::error::{SqlError, SqlResult};
use crate::pgwire::sqlstate;
use crate::query::dml::{self, Affected, Change};
use crate::query::reader::Reader;

pub(crate) async fn run(session: &mut Session, parsed: &Parsed, scope: Scope) -> SqlResult<Outcome> {
    if session.settings().get("default_transaction_read_only")? == "on" && session.transaction.is_none() {
        return Err(read_only());
    }
    if let Some(delete) = conflicts::of(&parsed.statement) {
        return conflicts::run(session, delete, scope).await;
    }
    let catalog = match &session.transaction {
        Some(transaction) => transaction.snapshot.catalog.clone(),
        None => session.newest_snapshot().await?.catalog.clone(),
    };
    if let Some(region) = other_region(parsed, &catalog, &session.backend.region_name())? {
        return forward::run(session, parsed, &region, scope).await;
    }
    let (affected, verb) = match (&session.transaction, scope) {
        (None, Scope::Alone) => {
            let (affected, verb, _) = alone(session, parsed, None).await?;
            (affected, verb)
        }
        _ => {
            session.begin_implicit().await?;
            within(session, parsed).await?
        }
    };
    for notice in affected.notices {
        session.notice(notice);
    }
    Ok(match affected.returned {
        Some(rows) => rows_of(rows, verb),
        None => Outcome::Done(format!("{verb} {}", affected.count)),
    })
}

pub(crate) fn read_only() -> SqlError {
    SqlError::new(
        sqlstate::READ_ONLY_TRANSACTION,
        "cannot write in a read-only transaction",
    )
}

/// The verb of a statement's tag.
pub(super) fn verb_of(statement: &Statement) -> &'static str {
    match statement {
        Statement::Update(_) => "UPDATE",
        Statement::Delete(_) => "DELETE",
        _ => "INSERT 0",
    }
}

/// Whether a statement reads nothing of its snapshot to know what it writes: an INSERT of values. ON CONFLICT looks at the row
/// that is there, and may find that there is nothing to write; functions of the snapshot say how far it is.
pub(super) fn reads_no_rows(statement: &Statement) -> bool {
    let Statement::Insert(insert) = statement else {
        return false;
    };
    insert.on.is_none() && relations_of(&insert.source) == 0 && !calls(statement, is_of_snapshot)
}

/// Whether a statement reads other rows than those that it writes, or says how far its snapshot is.
pub(super) fn reads_other_rows(statement: &Statement) -> bool {
    match statement {
        Statement::Insert(insert) => {
            relations_of(&insert.source) + relations_of(&insert.on) + relations_of(&insert.returning) > 0
                || calls(statement, is_of_snapshot)
        }
        // The target is one of them.
        Statement::Update(update) => relations_of(update) > 1 || calls(statement, is_of_snapshot),
        Statement::Delete(delete) => relations_of(delete) > 1 || calls(statement, is_of_snapshot),
        Statement::Copy(_) => false,
        _ => true,
    }
}

fn relations_of(part: &impl ast::Visit) -> usize {
    let mut relations = 0;
    let _: ControlFlow<()> = ast::visit_relations(part, |_| {
        relations += 1;
        ControlFlow::Continue(())
    });
    relations
}

/// Whether a statement that writes calls a function of such a name.
pub(super) fn calls(statement: &Statement, is_it: fn(&ast::ObjectName) -> bool) -> bool {
    let called = |expr: &ast::Expr| match expr {
        ast::Expr::Function(function) if is_it(&function.name) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    };
    match statement {
        Statement::Insert(insert) => ast::visit_expressions(insert, called).is_break(),
        Statement::Update(update) => ast::visit_expressions(update, called).is_break(),
        Statement::Delete(delete) => ast::visit_expressions(delete, called).is_break(),
        _ => false,
    }
}

fn is_of_snapshot(function: &ast::ObjectName) -> bool {
    is_named(function, "tributary_frontier")
}

/// Whether a function has this name, whatever its schema.
pub(super) fn is_named(function: &ast::ObjectName, name: &str) -> bool {
    let last = function.0.last().and_then(|part| part.as_ident());
    last.is_some_and(|last| last.value.eq_ignore_ascii_case(name))
}

fn verb(bound: &BoundDml) -> &'static str {
    match bound {
        BoundDml::Insert(_) => "INSERT 0",
        BoundDml::Update(_) => "UPDATE",
        BoundDml::Delete(_) => "DELETE",
    }
}

async fn within(session: &mut Session, parsed: &Parsed) -> SqlResult<(Affected, &'static str)> {
    let ran = match &session.transaction {
        Some(transaction) => changes_of(session.reader_of(transaction), transaction, parsed).await?,
        None => return Err(SqlError::internal("no transaction")),
    };
    match &mut session.transaction {
        Some(transaction) => ran.apply(transaction),
        None => Err(SqlError::internal("no transaction")),
    }
}

/// A statement that was run and has changed nothing yet.
struct Ran {
    affected: Affected,
    changes: Vec<Change>,
    copies: Copies,
    verb: &'static str,
}

impl Ran {
    /// Makes what it changes part of the transaction.
    fn apply(self, transaction: &mut Transaction) -> SqlResult<(Affected, &'static str)> {
        dml::apply(&mut transaction.writes, self.changes)?;
        transaction.copies.extend(self.copies);
        Ok((self.affected, self.verb))
    }
}

/// Runs the statement; the transaction is not changed, so nothing is lost when this is given up half-way.
async fn changes_of(reader: Reader, transaction: &Transaction, parsed: &Parsed) -> SqlResult<Ran> {
    if transaction.is_read_only {
        return Err(read_only());
    }
    let copies = check_statement(&transaction.snapshot.catalog, &parsed.statement)?;
    let bound = bind_dml(&parsed.statement, &transaction.snapshot.catalog)?;
    let (affected, changes) = dml::run(&reader, &bound).await?;
    Ok(Ran {
        affected,
        changes,
        copies,
        verb: verb(&bound),
    })
}

/// Runs the statement as a transaction by itself; with a token only once, however often it is asked for.
pub(super) async fn alone(
    session: &mut Session,
    parsed: &Parsed,
    token: Option<[u8; 16]>,
) -> SqlResult<(Affected, &'static str, Option<Committed>)> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let snapshot = match attempt == 1 && reads_no_rows(&parsed.statement) {
            true => session.newest_snapshot().await?,
            false => session.fresh_snapshot().await?,
        };
        let lacks_own_writes = session.lacks_own_writes(&snapshot);
        let mut transaction = Transaction::new(snapshot, false);
        let mut reader = session.reader_of(&transaction);
        reader.sends_sides = attempt == 1;
        let ran = match changes_of(reader, &transaction, parsed).await {
            // A key that seems taken may be one that this session has deleted.
            Err(_) if lacks_own_writes => continue,
            Err(error) if session.may_read_again(&error, attempt) => {
                pause(attempt).await;
                continue;
            }
            ran => ran?,
        };
        let (affected, verb) = ran.apply(&mut transaction)?;
        let mut writes = transaction.to_write_set();
        if writes.tables.is_empty() {
            return Ok((affected, verb, None));
        }
        writes.token = token.map(|id| CommitToken {
            id,
            rows: affected.count as u64,
        });
        match session.submit(writes).await {
            Ok(committed) => {
                session.committed(committed);
                return Ok((affected, verb, Some(committed)));
            }
            Err(rejected) if Session::is_retriable(&rejected) && attempt < AUTOCOMMIT_ATTEMPTS_MAX => {
                pause(attempt).await
            }
            Err(rejected) => return Err(sqlstate::of_rejected(&rejected, &transaction.snapshot.catalog)),
        }
    }
}
