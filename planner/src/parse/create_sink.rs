//! CREATE SINK [IF NOT EXISTS] name FROM view WITH (option = value, …).

use std::collections::BTreeMap;

use super::create_source::options;
use super::statement::Statement;
use super::tokens::Tokens;
use crate::error::PlanError;

/// CREATE SINK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateSink {
    /// Its name, folded.
    pub name: String,
    /// IF NOT EXISTS.
    pub if_not_exists: bool,
    /// The view whose changes it writes, folded.
    pub from: String,
    /// Options by lower-case name; values as text.
    pub options: BTreeMap<String, String>,
}

pub(super) fn parse(mut tokens: Tokens<'_>) -> Result<Statement, PlanError> {
    tokens.expect(&["CREATE", "SINK"])?;
    let if_not_exists = tokens.take(&["IF", "NOT", "EXISTS"]);
    let name = tokens.object_name()?;
    tokens.expect(&["FROM"])?;
    let from = tokens.object_name()?;
    let options = options(&mut tokens)?;
    tokens.end()?;
    Ok(Statement::CreateSink(CreateSink {
        name,
        if_not_exists,
        from,
        options,
    }))
}
