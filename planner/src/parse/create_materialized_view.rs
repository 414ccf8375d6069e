//! CREATE MATERIALIZED VIEW [IF NOT EXISTS] name [(columns)] [WITH (option = value, …)] AS query.

use std::collections::BTreeMap;

use sqlparser::ast::Query;

use super::create_source::options;
use super::create_view::{as_query, named};
use super::statement::Statement;
use super::tokens::Tokens;
use crate::error::PlanError;

/// CREATE MATERIALIZED VIEW.
#[derive(Clone, Debug, PartialEq)]
pub struct CreateMaterializedView {
    /// Its name, folded.
    pub name: String,
    /// IF NOT EXISTS.
    pub if_not_exists: bool,
    /// New names of the first columns, folded.
    pub columns: Vec<String>,
    /// Options by lower-case name; values as text.
    pub options: BTreeMap<String, String>,
    /// The query.
    pub query: Box<Query>,
    /// The query's text.
    pub query_text: String,
}

pub(super) fn parse(mut tokens: Tokens<'_>) -> Result<Statement, PlanError> {
    if tokens.peek_is(&["create", "or", "replace"]) {
        let error = PlanError::unsupported("CREATE OR REPLACE MATERIALIZED VIEW", "Drop the view first.");
        return Err(error.at(tokens.position()));
    }
    tokens.expect(&["CREATE"])?;
    Ok(Statement::CreateMaterializedView(Box::new(parse_view(tokens)?)))
}

/// From MATERIALIZED on.
pub(super) fn parse_view(mut tokens: Tokens<'_>) -> Result<CreateMaterializedView, PlanError> {
    tokens.expect(&["MATERIALIZED", "VIEW"])?;
    let if_not_exists = tokens.take(&["IF", "NOT", "EXISTS"]);
    let (name, columns) = named(&mut tokens)?;
    let options = match tokens.peek_is(&["with"]) {
        true => options(&mut tokens)?,
        false => BTreeMap::new(),
    };
    let (query, query_text) = as_query(tokens)?;
    Ok(CreateMaterializedView {
        name,
        if_not_exists,
        columns,
        options,
        query,
        query_text,
    })
}
