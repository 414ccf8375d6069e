//! ALTER SOURCE name {PAUSE | RESUME}.

use super::statement::Statement;
use super::tokens::Tokens;
use crate::error::PlanError;

/// ALTER SOURCE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlterSource {
    /// The source, folded.
    pub name: String,
    /// Whether it is to rest, or to go on.
    pub paused: bool,
}

pub(super) fn parse(mut tokens: Tokens<'_>) -> Result<Statement, PlanError> {
    tokens.expect(&["ALTER", "SOURCE"])?;
    let name = tokens.object_name()?;
    let paused = if tokens.take(&["PAUSE"]) {
        true
    } else if tokens.take(&["RESUME"]) {
        false
    } else {
        return Err(tokens.unexpected("PAUSE or RESUME"));
    };
    tokens.end()?;
    Ok(Statement::AlterSource(AlterSource { name, paused }))
}
