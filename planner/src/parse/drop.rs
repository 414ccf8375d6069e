//! DROP {TABLE | VIEW | MATERIALIZED VIEW | SOURCE | SINK} [IF EXISTS] a, b [CASCADE | RESTRICT].

use std::fmt;

use sqlparser::tokenizer::Token;

use super::statement::Statement;
use super::tokens::Tokens;
use crate::error::PlanError;

/// DROP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drop {
    /// What kind of objects the names have to be.
    pub kind: DropKind,
    /// IF EXISTS.
    pub if_exists: bool,
    /// The objects, folded.
    pub names: Vec<String>,
    /// CASCADE.
    pub cascade: bool,
}

/// What DROP can drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum DropKind {
    Table,
    View,
    MaterializedView,
    Source,
    Sink,
}

impl fmt::Display for DropKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DropKind::Table => "table",
            DropKind::View => "view",
            DropKind::MaterializedView => "materialized view",
            DropKind::Source => "source",
            DropKind::Sink => "sink",
        })
    }
}

pub(super) fn parse(mut tokens: Tokens<'_>) -> Result<Statement, PlanError> {
    let position = tokens.position();
    tokens.expect(&["DROP"])?;
    let kind = if tokens.take(&["TABLE"]) {
        DropKind::Table
    } else if tokens.take(&["VIEW"]) {
        DropKind::View
    } else if tokens.take(&["MATERIALIZED", "VIEW"]) {
        DropKind::MaterializedView
    } else if tokens.take(&["SOURCE"]) {
        DropKind::Source
    } else if tokens.take(&["SINK"]) {
        DropKind::Sink
    } else if let Some(word) = tokens.peek_word() {
        let what = format!("DROP {}", word.value.to_uppercase());
        let hint = "TABLE, VIEW, MATERIALIZED VIEW, SOURCE and SINK can be dropped.";
        return Err(PlanError::unsupported(what, hint).at(position));
    } else {
        return Err(tokens.unexpected("TABLE, VIEW, MATERIALIZED VIEW, SOURCE or SINK"));
    };
    let if_exists = tokens.take(&["IF", "EXISTS"]);
    let mut names = vec![tokens.object_name()?];
    while tokens.take_token(&Token::Comma) {
        names.push(tokens.object_name()?);
    }
    let cascade = tokens.take(&["CASCADE"]);
    if !cascade {
        tokens.take(&["RESTRICT"]);
    }
    tokens.end()?;
    Ok(Statement::Drop(Drop {
        kind,
        if_exists,
        names,
        cascade,
    }))
}
