//! The statements, and which parser reads which.

use std::ops::ControlFlow;

use sqlparser::ast;
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::Token;

use super::tokens::Tokens;
use super::{
    AlterDatabase, AlterSource, AlterTable, CopyStatement, CreateMaterializedView, CreateSink, CreateSource,
    CreateTable, CreateView, Drop, Truncate, alter_database, alter_source, alter_table, copy,
    create_materialized_view, create_sink, create_source, create_table, create_view, drop, explain, truncate,
};
use crate::error::{PlanError, PlanErrorKind};

/// A parsed statement.
#[derive(Clone, Debug, PartialEq)]
pub enum Statement {
    /// Queries, EXPLAIN of queries, SET, SHOW, transactions, prepared statements, cursors: the server's.
    Sql(Box<ast::Statement>),
    /// CREATE TABLE.
    CreateTable(Box<CreateTable>),
    /// CREATE SOURCE.
    CreateSource(CreateSource),
    /// ALTER SOURCE.
    AlterSource(AlterSource),
    /// ALTER DATABASE.
    AlterDatabase(AlterDatabase),
    /// ALTER TABLE.
    AlterTable(AlterTable),
    /// CREATE SINK.
    CreateSink(CreateSink),
    /// CREATE VIEW.
    CreateView(Box<CreateView>),
    /// CREATE MATERIALIZED VIEW.
    CreateMaterializedView(Box<CreateMaterializedView>),
    /// DROP of tables, views, materialized views, sources or sinks.
    Drop(Drop),
    /// TRUNCATE.
    Truncate(Truncate),
    /// INSERT.
    Insert(Box<ast::Insert>),
    /// UPDATE.
    Update(Box<ast::Update>),
    /// DELETE.
    Delete(Box<ast::Delete>),
    /// COPY … FROM STDIN.
    Copy(CopyStatement),
    /// EXPLAIN CREATE MATERIALIZED VIEW: plans, creates nothing.
    ExplainCreateMaterializedView(Box<CreateMaterializedView>),
    /// EXPLAIN MATERIALIZED VIEW: the stored plan of the view with this (folded) name.
    ExplainMaterializedView(String),
    /// FLUSH.
    Flush,
    /// SHOW REGIONS.
    ShowRegions,
    /// SHOW TABLES.
    ShowTables,
}

impl Statement {
    /// Whether [`crate::ddl::plan_ddl`] plans it.
    pub fn is_ddl(&self) -> bool {
        matches!(
            self,
            Statement::CreateTable(_)
                | Statement::CreateSource(_)
                | Statement::AlterSource(_)
                | Statement::AlterDatabase(_)
                | Statement::AlterTable(_)
                | Statement::CreateSink(_)
                | Statement::CreateView(_)
                | Statement::CreateMaterializedView(_)
                | Statement::Truncate(_)
                | Statement::Drop(_)
        )
    }

    /// Whether [`crate::dml::bind_dml`] binds it.
    pub fn is_dml(&self) -> bool {
        matches!(
            self,
            Statement::Insert(_) | Statement::Update(_) | Statement::Delete(_)
        )
    }
}

/// Parses the tokens of one statement. Default-deny: what is not listed is refused by name.
pub(super) fn parse_statement(mut tokens: Tokens<'_>) -> Result<Statement, PlanError> {
    match tokens.leading() {
        Keyword::CREATE => parse_create(tokens),
        Keyword::DROP => drop::parse(tokens),
        Keyword::ALTER if tokens.peek_is(&["alter", "source"]) => alter_source::parse(tokens),
        Keyword::ALTER if tokens.peek_is(&["alter", "database"]) => alter_database::parse(tokens),
        Keyword::ALTER if tokens.peek_is(&["alter", "table"]) => alter_table::parse(tokens),
        Keyword::TRUNCATE => truncate::parse(tokens),
        Keyword::EXPLAIN => explain::parse(tokens),
        Keyword::COPY => copy::parse(tokens),
        Keyword::FLUSH => {
            tokens.next();
            tokens.end().map(|()| Statement::Flush)
        }
        Keyword::SHOW if tokens.peek_is(&["show", "regions"]) => {
            tokens.take(&["show", "regions"]);
            tokens.end().map(|()| Statement::ShowRegions)
        }
        Keyword::SHOW if tokens.peek_is(&["show", "tables"]) => {
            tokens.take(&["show", "tables"]);
            tokens.end().map(|()| Statement::ShowTables)
        }
        Keyword::SELECT
        | Keyword::WITH
        | Keyword::VALUES
        | Keyword::INSERT
        | Keyword::UPDATE
        | Keyword::DELETE
        | Keyword::SET
        | Keyword::RESET
        | Keyword::SHOW
        | Keyword::BEGIN
        | Keyword::START
        | Keyword::COMMIT
        | Keyword::END
        | Keyword::ROLLBACK
        | Keyword::SAVEPOINT
        | Keyword::RELEASE
        | Keyword::PREPARE
        | Keyword::EXECUTE
        | Keyword::DEALLOCATE
        | Keyword::DISCARD
        | Keyword::DECLARE
        | Keyword::FETCH
        | Keyword::CLOSE
        | Keyword::UNLISTEN => parse_sql(tokens),
        Keyword::ABORT => {
            // PostgreSQL's other word for ROLLBACK.
            tokens.next();
            tokens.end()?;
            let rollback = ast::Statement::Rollback {
                chain: false,
                savepoint: None,
            };
            Ok(Statement::Sql(Box::new(rollback)))
        }
        Keyword::TABLE => {
            let query = tokens.parse_rest(|parser| parser.parse_query())?;
            Ok(Statement::Sql(Box::new(ast::Statement::Query(query))))
        }
        _ if *tokens.peek() == Token::LParen => parse_sql(tokens),
        _ => Err(refused(&tokens)),
    }
}

fn parse_create(mut tokens: Tokens<'_>) -> Result<Statement, PlanError> {
    let mut words = tokens.peek_words().skip(1).map(|word| word.value.to_uppercase());
    let object = words.find(|word| !matches!(word.as_str(), "OR" | "REPLACE" | "RECURSIVE"));
    drop(words);
    match object.as_deref() {
        Some("TABLE" | "TEMP" | "TEMPORARY" | "UNLOGGED" | "LOCAL" | "GLOBAL") => create_table::parse(tokens),
        Some("VIEW") => create_view::parse(tokens),
        Some("MATERIALIZED") => create_materialized_view::parse(tokens),
        Some("SOURCE") => create_source::parse(tokens),
        Some("SINK") => create_sink::parse(tokens),
        Some(_) => Err(refused(&tokens)),
        None => {
            tokens.next();
            Err(tokens.unexpected("TABLE, VIEW, MATERIALIZED VIEW, SOURCE or SINK"))
        }
    }
}

fn parse_sql(tokens: Tokens<'_>) -> Result<Statement, PlanError> {
    let position = tokens.position();
    let statement = tokens.parse_rest(|parser| parser.parse_statement())?;
    refuse_writes_within(&statement).map_err(|error| error.at(position))?;
    Ok(match statement {
        ast::Statement::Insert(insert) => Statement::Insert(Box::new(insert)),
        ast::Statement::Update(update) => Statement::Update(Box::new(update)),
        ast::Statement::Delete(delete) => Statement::Delete(Box::new(delete)),
        other => Statement::Sql(Box::new(other)),
    })
}

/// Refuses queries that write, anywhere in the statement (`WITH d AS (DELETE …)`, `WITH … INSERT`).
pub(super) fn refuse_writes_within(statement: &impl ast::Visit) -> Result<(), PlanError> {
    struct Writes;
    impl ast::Visitor for Writes {
        type Break = ();
        fn pre_visit_query(&mut self, query: &ast::Query) -> ControlFlow<()> {
            match query.body.as_ref() {
                ast::SetExpr::Insert(_)
                | ast::SetExpr::Update(_)
                | ast::SetExpr::Delete(_)
                | ast::SetExpr::Merge(_) => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        }
    }
    match statement.visit(&mut Writes) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(PlanError::unsupported(
            "a data-modifying statement within a query",
            "Put the WITH clause into the query: INSERT INTO t WITH … SELECT …",
        )),
    }
}

/// The refusal of a statement that is not listed, with what to do instead where there is something.
fn refused(tokens: &Tokens<'_>) -> PlanError {
    let words: Vec<String> = tokens
        .peek_words()
        .take(2)
        .map(|word| word.value.to_uppercase())
        .collect();
    let Some(first) = words.first() else {
        return tokens.unexpected("a statement");
    };
    let hint = match first.as_str() {
        "SUBSCRIBE" => "Poll the view with SELECT; tributary_frontier() tells whether something changed.",
        "MERGE" => "Use INSERT … ON CONFLICT.",
        "ALTER" => "Create a new object and copy with INSERT … SELECT.",
        "CREATE" => "TABLE, VIEW, MATERIALIZED VIEW, SOURCE and SINK can be created.",
        "GRANT" | "REVOKE" => "There are no roles yet.",
        "VACUUM" | "ANALYZE" | "REINDEX" | "CLUSTER" | "CHECKPOINT" | "REFRESH" => {
            "Maintenance is automatic; leave the statement out."
        }
        "LOCK" => "Transactions have snapshot isolation; a conflict gives 40001 and can be tried again.",
        "LISTEN" | "NOTIFY" => "Poll the view with SELECT.",
        "COMMENT" => "Comments are not kept; leave the statement out.",
        "CALL" | "DO" => "There are no procedures; run the statements from the client.",
        "DESCRIBE" | "DESC" => "Use \\d in psql, or query information_schema.columns.",
        "USE" => "A cluster has one database.",
        "IMPORT" | "LOAD" | "UNLOAD" | "INSTALL" => "Use COPY … FROM STDIN.",
        _ => {
            let message = format!("syntax error at or near \"{}\"", tokens.peek());
            return PlanError::new(PlanErrorKind::Syntax, message).at(tokens.position());
        }
    };
    let named = if matches!(first.as_str(), "CREATE" | "ALTER") {
        words.join(" ")
    } else {
        first.clone()
    };
    PlanError::unsupported(named, hint).at(tokens.position())
}
