//! CREATE VIEW name [(columns)] AS query.

use sqlparser::ast::Query;
use sqlparser::tokenizer::Token;

use super::statement::{Statement, refuse_writes_within};
use super::tokens::Tokens;
use crate::error::PlanError;

/// CREATE VIEW.
#[derive(Clone, Debug, PartialEq)]
pub struct CreateView {
    /// Its name, folded.
    pub name: String,
    /// IF NOT EXISTS.
    pub if_not_exists: bool,
    /// New names of the first columns, folded.
    pub columns: Vec<String>,
    /// The query.
    pub query: Box<Query>,
    /// The query's text.
    pub query_text: String,
}

pub(super) fn parse(mut tokens: Tokens<'_>) -> Result<Statement, PlanError> {
    let position = tokens.position();
    tokens.expect(&["CREATE"])?;
    for (words, hint) in [
        (["OR", "REPLACE"].as_slice(), "Drop the view first."),
        (["RECURSIVE"].as_slice(), "Recursive views do not exist yet."),
    ] {
        if tokens.take(words) {
            let what = format!("CREATE {} VIEW", words.join(" "));
            return Err(PlanError::unsupported(what, hint).at(position));
        }
    }
    tokens.expect(&["VIEW"])?;
    let if_not_exists = tokens.take(&["IF", "NOT", "EXISTS"]);
    let (name, columns) = named(&mut tokens)?;
    if tokens.peek_is(&["with"]) {
        return Err(
            PlanError::unsupported("WITH (options) of a view", "Leave it out.").at(tokens.position()),
        );
    }
    let (query, query_text) = as_query(tokens)?;
    Ok(Statement::CreateView(Box::new(CreateView {
        name,
        if_not_exists,
        columns,
        query,
        query_text,
    })))
}

/// `name [(columns)]`.
pub(super) fn named(tokens: &mut Tokens<'_>) -> Result<(String, Vec<String>), PlanError> {
    let name = tokens.object_name()?;
    let columns = if *tokens.peek() == Token::LParen {
        tokens.name_list()?
    } else {
        Vec::new()
    };
    Ok((name, columns))
}

/// `AS query` up to the statement's end: the query and its text.
pub(super) fn as_query(mut tokens: Tokens<'_>) -> Result<(Box<Query>, String), PlanError> {
    tokens.expect(&["AS"])?;
    let query_text = tokens.rest_text().to_owned();
    let position = tokens.position();
    let query = tokens.parse_rest(|parser| parser.parse_query())?;
    refuse_writes_within(query.as_ref()).map_err(|error| error.at(position))?;
    Ok((query, query_text))
}
