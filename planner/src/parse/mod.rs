//! From text to [`Statement`]s.
//!
//! ```text
//!  text ─▶ limits ─▶ tokens ─▶ one run of tokens per statement ─┬─▶ own parsers (what no dialect knows)
//!                                                               └─▶ sqlparser, PostgreSQL dialect
//! ```
//!
//! Which of the two parses a statement is decided by its leading words, from a closed list: a statement that is
//! not listed is refused by name and never reaches a parser. Statements are cut at semicolons, which
//! cannot stand inside of any statement supported.
//!
//! Invariants: the size and depth of the text are bounded before it is parsed (see [`limits`]); no text
//! overflows the stack; parsing knows no catalog.

mod alter_database;
mod alter_source;
mod alter_table;
mod bound;
mod copy;
mod create_materialized_view;
mod create_sink;
mod create_source;
mod create_table;
mod create_view;
mod dialect;
mod drop;
mod explain;
pub mod limits;
mod names;
mod position;
mod relations;
mod statement;
mod tokens;
mod truncate;
mod window_function;

use sqlparser::ast::{Expr, Query, Statement as AstStatement};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer, Whitespace};

use crate::error::{PlanError, PlanErrorKind};
pub use alter_database::{AlterDatabase, RegionAction};
pub use alter_source::AlterSource;
pub use alter_table::{AlterTable, TableAction};
pub use copy::{CopyFormat, CopyOptions, CopyStatement};
pub use create_materialized_view::CreateMaterializedView;
pub use create_sink::CreateSink;
pub use create_source::{CreateSource, quote};
pub use create_table::{CreateTable, LocalityClause};
pub use create_view::CreateView;
pub use drop::{Drop, DropKind};
pub use names::{fold, public_name};
use position::{Offsets, position};
pub use relations::{relation_names, relation_names_in, windowed_relations};
pub use statement::Statement;
use tokens::Tokens;
pub use truncate::Truncate;
pub use window_function::{argument_relation, table_factor, window_function};

/// A statement and the text it was parsed from.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    /// The statement.
    pub statement: Statement,
    /// Its text, without the semicolon and surrounding space.
    pub text: String,
    /// The constants that stand in the statement where the text has `$1`, `$2`, …; none while it is not bound.
    pub parameters: Vec<Expr>,
}

/// Parses a text of any number of statements. Empty ones are left out, so the result may be empty.
///
/// # Errors
/// `TooLong` and `TooDeep` before parsing; `Syntax` and `Unsupported`. Positions are characters of `sql` from 1.
pub fn parse(sql: &str) -> Result<Vec<Parsed>, PlanError> {
    limits::check_text(sql)?;
    let tokens = tokenize(sql)?;
    limits::check_tokens(sql, &tokens)?;

    let mut offsets = Offsets::new(sql);
    let mut statements = Vec::new();
    for run in statement_runs(tokens) {
        let (Some(first), Some(last)) = (run.first(), run.last()) else {
            continue;
        };
        let start = offsets.of(first.span.start);
        let text = sql[start..offsets.of(last.span.end)].to_owned();
        let statement = statement::parse_statement(Tokens::new(sql, start, run))?;
        statements.push(Parsed {
            statement,
            text,
            parameters: Vec::new(),
        });
    }
    Ok(statements)
}

fn tokenize(sql: &str) -> Result<Vec<TokenWithSpan>, PlanError> {
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, sql).tokenize_with_location();
    tokens.map_err(|error| {
        PlanError::new(PlanErrorKind::Syntax, tokens::lower_first(&error.message))
            .at(position(sql, error.location))
    })
}

/// Parses the text of one query, as the catalog keeps it.
///
/// # Errors
/// As [`parse`]; `Syntax` for anything but one query.
pub fn parse_query(sql: &str) -> Result<Box<Query>, PlanError> {
    let mut statements = parse(sql)?.into_iter().map(|parsed| parsed.statement);
    if let (Some(Statement::Sql(statement)), None) = (statements.next(), statements.next())
        && let AstStatement::Query(query) = *statement
    {
        return Ok(query);
    }
    Err(PlanError::new(PlanErrorKind::Syntax, "the text is not one query"))
}

/// The tokens of each statement, without semicolons and without space at either end.
fn statement_runs(tokens: Vec<TokenWithSpan>) -> Vec<Vec<TokenWithSpan>> {
    let mut runs = vec![Vec::new()];
    for token in tokens {
        match (&token.token, runs.last_mut()) {
            (Token::SemiColon, _) | (_, None) => runs.push(Vec::new()),
            (Token::EOF, _) => {}
            (Token::Whitespace(_), Some(run)) if run.is_empty() => {}
            (_, Some(run)) => run.push(token),
        }
    }
    for run in &mut runs {
        while run.last().is_some_and(|token| is_space(&token.token)) {
            run.pop();
        }
    }
    runs
}

fn is_space(token: &Token) -> bool {
    matches!(
        token,
        Token::Whitespace(
            Whitespace::Space
                | Whitespace::Newline
                | Whitespace::Tab
                | Whitespace::SingleLineComment { .. }
                | Whitespace::MultiLineComment(_)
        )
    )
}

#[cfg(test)]
mod tests;
