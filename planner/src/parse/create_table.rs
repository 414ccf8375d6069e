//! CREATE TABLE … [LOCALITY …] [WITH (option = value, …)].
//!
//! sqlparser reads the table, we read the clauses that follow its columns, in any order:
//! `LOCALITY GLOBAL`, `LOCALITY REGIONAL BY ROW`, `LOCALITY REGIONAL BY TABLE IN "region"`, and the options.

use std::collections::BTreeMap;

use sqlparser::ast;
use sqlparser::tokenizer::Token;

use super::create_source::options;
use super::statement::Statement;
use super::tokens::Tokens;
use crate::error::{PlanError, PlanErrorKind};

/// CREATE TABLE.
#[derive(Clone, Debug, PartialEq)]
pub struct CreateTable {
    /// The table without its locality.
    pub table: ast::CreateTable,
    /// Its locality, if given.
    pub locality: Option<LocalityClause>,
    /// Its options by lower-case name; values as text.
    pub options: BTreeMap<String, String>,
}

/// Where rows are to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalityClause {
    /// `GLOBAL`.
    Global,
    /// `REGIONAL BY ROW`.
    RegionalByRow,
    /// `REGIONAL BY TABLE IN region`: the region's name.
    RegionalByTable(String),
}

pub(super) fn parse(mut tokens: Tokens<'_>) -> Result<Statement, PlanError> {
    refuse_kind(&tokens)?;
    let (mut columns_closed, mut is_query) = (false, false);
    let clauses = tokens.split_at(|token| match token {
        Token::RParen => {
            columns_closed = true;
            false
        }
        Token::Word(word) if word.quote_style.is_none() => {
            let is = |keyword| word.value.eq_ignore_ascii_case(keyword);
            // In CREATE TABLE … AS WITH … the word is the query's.
            is_query |= is("as");
            columns_closed && (is("locality") || is("with") && !is_query)
        }
        _ => false,
    });
    let statement = tokens.parse_rest(|parser| parser.parse_statement())?;
    let (locality, options) = clauses.map_or_else(|| Ok((None, BTreeMap::new())), parse_clauses)?;
    match statement {
        ast::Statement::CreateTable(table) => Ok(Statement::CreateTable(Box::new(CreateTable {
            table,
            locality,
            options,
        }))),
        other => Err(PlanError::unsupported(other, "Use CREATE TABLE name (columns).")),
    }
}

/// Refuses tables of other kinds before sqlparser sees words that mean something else to it.
fn refuse_kind(tokens: &Tokens<'_>) -> Result<(), PlanError> {
    for kind in ["TEMP", "TEMPORARY", "UNLOGGED", "LOCAL", "GLOBAL"] {
        if tokens.peek_is(&["create", kind]) {
            let hint = match kind {
                "GLOBAL" => "Write CREATE TABLE … LOCALITY GLOBAL for a table that every region may write.",
                "UNLOGGED" => "Every table is logged; leave UNLOGGED out.",
                _ => "Use a table and drop it, or a WITH clause.",
            };
            return Err(
                PlanError::unsupported(format_args!("CREATE {kind} TABLE"), hint).at(tokens.position())
            );
        }
    }
    if tokens.peek_is(&["create", "or"]) {
        let error = PlanError::unsupported("CREATE OR REPLACE TABLE", "Drop the table first.");
        return Err(error.at(tokens.position()));
    }
    Ok(())
}

fn parse_clauses(
    mut tokens: Tokens<'_>,
) -> Result<(Option<LocalityClause>, BTreeMap<String, String>), PlanError> {
    let (mut locality, mut given) = (None, BTreeMap::new());
    while *tokens.peek() != Token::EOF {
        let twice = match tokens.peek_is(&["with"]) {
            true => !given.is_empty(),
            false => locality.is_some() && tokens.peek_is(&["locality"]),
        };
        if twice {
            let message = format!("{} is given twice", tokens.peek());
            return Err(PlanError::new(PlanErrorKind::Syntax, message).at(tokens.position()));
        }
        if tokens.peek_is(&["with"]) {
            given = options(&mut tokens)?;
        } else if locality.is_some() {
            tokens.end()?;
        } else {
            locality = Some(parse_locality(&mut tokens)?);
        }
    }
    Ok((locality, given))
}

fn parse_locality(tokens: &mut Tokens<'_>) -> Result<LocalityClause, PlanError> {
    tokens.expect(&["LOCALITY"])?;
    let locality = if tokens.take(&["GLOBAL"]) {
        LocalityClause::Global
    } else if tokens.take(&["REGIONAL", "BY", "ROW"]) {
        LocalityClause::RegionalByRow
    } else if tokens.take(&["REGIONAL", "BY", "TABLE", "IN"]) {
        let region = match tokens.peek() {
            Token::SingleQuotedString(_) => tokens.string("a region's name")?,
            _ => super::fold(&tokens.identifier()?),
        };
        LocalityClause::RegionalByTable(region)
    } else {
        return Err(tokens.unexpected("GLOBAL, REGIONAL BY ROW or REGIONAL BY TABLE IN region"));
    };
    Ok(locality)
}
