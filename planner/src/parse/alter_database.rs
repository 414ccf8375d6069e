//! ALTER DATABASE name {ADD | DROP | FENCE | SET PRIMARY | ALTER} REGION "r": the members of the cluster.

use std::collections::BTreeMap;

use super::create_source::option_list;
use super::statement::Statement;
use super::tokens::Tokens;
use crate::error::{PlanError, PlanErrorKind};

/// ALTER DATABASE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlterDatabase {
    /// The database, folded.
    pub database: String,
    /// The region it is about, folded.
    pub region: String,
    /// What is to happen to it.
    pub action: RegionAction,
}

/// What ALTER DATABASE may do to a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegionAction {
    /// It becomes a member.
    Add {
        /// Where the others dial it, `host:port`.
        address: Option<String>,
    },
    /// It leaves.
    Drop {
        /// Without what only it has.
        force: bool,
    },
    /// What it wrote and nobody has heard of does not count any more.
    Fence,
    /// It serializes DDL from here on.
    MakePrimary,
    /// Its options get values; by lower-case name, values as text.
    Set(BTreeMap<String, String>),
    /// Its options get their defaults back.
    Reset(Vec<String>),
}

impl AlterDatabase {
    /// The command tag.
    pub const TAG: &str = "ALTER DATABASE";
}

pub(super) fn parse(mut tokens: Tokens<'_>) -> Result<Statement, PlanError> {
    tokens.expect(&["ALTER", "DATABASE"])?;
    let database = super::fold(&tokens.identifier()?);
    if tokens.take(&["ALTER", "REGION"]) {
        return alter_region(tokens, database);
    }
    let mut action = if tokens.take(&["ADD", "REGION"]) {
        RegionAction::Add { address: None }
    } else if tokens.take(&["DROP", "REGION"]) {
        RegionAction::Drop { force: false }
    } else if tokens.take(&["FENCE", "REGION"]) {
        RegionAction::Fence
    } else if tokens.take(&["SET", "PRIMARY", "REGION"]) || tokens.take(&["PRIMARY", "REGION"]) {
        RegionAction::MakePrimary
    } else {
        return Err(
            tokens.unexpected("ADD REGION, DROP REGION, FENCE REGION, ALTER REGION or SET PRIMARY REGION")
        );
    };
    let region = super::fold(&tokens.identifier()?);
    match &mut action {
        RegionAction::Add { address } if tokens.peek_is(&["WITH"]) => {
            let position = tokens.position();
            for (option, value) in super::create_source::options(&mut tokens)? {
                if option != "address" {
                    let message = format!("option \"{option}\" not recognized");
                    return Err(PlanError::new(PlanErrorKind::Syntax, message)
                        .with_hint("The option of ADD REGION is: address.")
                        .at(position));
                }
                *address = Some(value);
            }
        }
        RegionAction::Drop { force } => *force = tokens.take(&["FORCE"]),
        _ => {}
    }
    tokens.end()?;
    Ok(Statement::AlterDatabase(AlterDatabase {
        database,
        region,
        action,
    }))
}

fn alter_region(mut tokens: Tokens<'_>, database: String) -> Result<Statement, PlanError> {
    let region = super::fold(&tokens.identifier()?);
    let action = if tokens.take(&["SET"]) {
        RegionAction::Set(option_list(&mut tokens)?)
    } else if tokens.take(&["RESET"]) {
        RegionAction::Reset(tokens.name_list()?)
    } else {
        return Err(tokens.unexpected("SET (option = value) or RESET (option)"));
    };
    tokens.end()?;
    Ok(Statement::AlterDatabase(AlterDatabase {
        database,
        region,
        action,
    }))
}
