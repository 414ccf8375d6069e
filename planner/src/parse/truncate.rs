//! TRUNCATE [TABLE] name, … [RESTART IDENTITY | CONTINUE IDENTITY] [CASCADE | RESTRICT].

use sqlparser::tokenizer::Token;

use super::statement::Statement;
use super::tokens::Tokens;
use crate::error::PlanError;

/// TRUNCATE. There are no sequences and no foreign keys, so its options mean nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Truncate {
    /// The tables, folded.
    pub tables: Vec<String>,
}

pub(super) fn parse(mut tokens: Tokens<'_>) -> Result<Statement, PlanError> {
    tokens.expect(&["TRUNCATE"])?;
    tokens.take(&["TABLE"]);
    tokens.take(&["ONLY"]);
    let mut tables = vec![tokens.object_name()?];
    while tokens.take_token(&Token::Comma) {
        tables.push(tokens.object_name()?);
    }
    let _ = tokens.take(&["RESTART", "IDENTITY"]) || tokens.take(&["CONTINUE", "IDENTITY"]);
    let _ = tokens.take(&["CASCADE"]) || tokens.take(&["RESTRICT"]);
    tokens.end()?;
    Ok(Statement::Truncate(Truncate { tables }))
}
