//! CREATE TABLE … [LOCALITY …].
//!
//! sqlparser reads the table, we read the clause that follows its columns:
//! `LOCALITY GLOBAL`, `LOCALITY REGIONAL BY ROW`, `LOCALITY REGIONAL BY TABLE IN "region"`.

use sqlparser::ast;
use sqlparser::tokenizer::Token;

use super::statement::Statement;
use super::tokens::Tokens;
use crate::error::PlanError;

/// CREATE TABLE.
#[derive(Clone, Debug, PartialEq)]
pub struct CreateTable {
    /// The table without its locality.
    pub table: ast::CreateTable,
    /// Its locality, if given.
    pub locality: Option<LocalityClause>,
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
    let mut columns_closed = false;
    let clause = tokens.split_at(|token| match token {
        Token::RParen => {
            columns_closed = true;
            false
        }
        Token::Word(word) => {
            columns_closed && word.quote_style.is_none() && word.value.eq_ignore_ascii_case("locality")
        }
        _ => false,
    });
    let statement = tokens.parse_rest(|parser| parser.parse_statement())?;
    let locality = clause.map(parse_locality).transpose()?;
    match statement {
        ast::Statement::CreateTable(table) => {
            Ok(Statement::CreateTable(Box::new(CreateTable { table, locality })))
        }
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

fn parse_locality(mut tokens: Tokens<'_>) -> Result<LocalityClause, PlanError> {
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
    tokens.end()?;
    Ok(locality)
}
