//! ALTER SOURCE: rest, or go on. What was consumed stays.

use super::DdlPlan;
use crate::catalog::{Catalog, CatalogChange, ObjectKind};
use crate::error::{PlanError, PlanErrorKind};
use crate::parse::AlterSource;

const TAG: &str = "ALTER SOURCE";

pub(super) fn plan(alter: &AlterSource, catalog: &Catalog) -> Result<DdlPlan, PlanError> {
    let object = catalog.object(&alter.name).ok_or_else(|| {
        let message = format!("source \"{}\" does not exist", alter.name);
        PlanError::new(PlanErrorKind::UndefinedTable, message)
    })?;
    let ObjectKind::Source(source) = &object.kind else {
        let message = format!("\"{}\" is not a source", alter.name);
        return Err(PlanError::new(PlanErrorKind::WrongObjectType, message));
    };
    if !source.is_relation() {
        return Err(PlanError::unsupported(
            format_args!("ALTER SOURCE of connector \"{}\"", source.connector),
            "Drop the source; its tables go with it.",
        ));
    }
    if source.is_paused() == alter.paused {
        let state = if alter.paused { "paused" } else { "not paused" };
        return Ok(DdlPlan::unchanged(
            TAG,
            format!("source \"{}\" is {state} already", alter.name),
        ));
    }
    Ok(DdlPlan {
        changes: vec![CatalogChange::PauseSource {
            source: object.id,
            paused: alter.paused,
        }],
        notices: Vec::new(),
        tag: TAG.to_owned(),
    })
}
