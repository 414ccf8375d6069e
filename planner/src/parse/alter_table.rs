//! ALTER TABLE name SET (option = value, …) and ALTER TABLE name RESET (option, …).

use std::collections::BTreeMap;

use super::create_source::option_list;
use super::statement::Statement;
use super::tokens::Tokens;
use crate::error::PlanError;

/// ALTER TABLE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlterTable {
    /// The table, folded.
    pub name: String,
    /// IF EXISTS.
    pub if_exists: bool,
    /// What happens to it.
    pub action: TableAction,
}

/// What happens to a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TableAction {
    /// Options get values; by lower-case name, values as text.
    Set(BTreeMap<String, String>),
    /// Options get their defaults back.
    Reset(Vec<String>),
}

const FORMS: &str = "Use ALTER TABLE … SET (option = value) or RESET (option). For other changes create a new table and copy with \
     INSERT … SELECT.";

pub(super) fn parse(mut tokens: Tokens<'_>) -> Result<Statement, PlanError> {
    let start = tokens.position();
    tokens.expect(&["ALTER", "TABLE"])?;
    let if_exists = tokens.take(&["IF", "EXISTS"]);
    tokens.take(&["ONLY"]);
    let name = tokens.object_name()?;
    let action = if tokens.take(&["SET"]) {
        TableAction::Set(option_list(&mut tokens)?)
    } else if tokens.take(&["RESET"]) {
        TableAction::Reset(tokens.name_list()?)
    } else {
        return Err(PlanError::unsupported("this form of ALTER TABLE", FORMS).at(start));
    };
    tokens.end()?;
    Ok(Statement::AlterTable(AlterTable {
        name,
        if_exists,
        action,
    }))
}
