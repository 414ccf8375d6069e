//! ALTER TABLE … SET and RESET: options of a table.

use super::{DdlPlan, table_options};
use crate::catalog::{Catalog, CatalogChange, ObjectKind};
use crate::error::{PlanError, PlanErrorKind};
use crate::parse::{AlterTable, TableAction};
use crate::residency;

const TAG: &str = "ALTER TABLE";

pub(super) fn plan(alter: &AlterTable, catalog: &Catalog) -> Result<DdlPlan, PlanError> {
    let Some(object) = catalog.object(&alter.name) else {
        if alter.if_exists {
            let notice = format!("relation \"{}\" does not exist, skipping", alter.name);
            return Ok(DdlPlan::unchanged(TAG, notice));
        }
        return Err(PlanError::undefined_table(&alter.name));
    };
    let ObjectKind::Table(table) = &object.kind else {
        let message = format!("\"{}\" is a {} and not a table", object.name, object.kind_name());
        return Err(PlanError::new(PlanErrorKind::WrongObjectType, message));
    };
    let before = catalog.options(object.id);
    let mut options = before;
    match &alter.action {
        TableAction::Set(given) => table_options::set(&mut options, given)?,
        TableAction::Reset(names) => table_options::reset(&mut options, names)?,
    }
    table_options::check(&object.name, table, &options)?;
    let mut plan = DdlPlan {
        changes: Vec::new(),
        notices: Vec::new(),
        tag: TAG.to_owned(),
    };
    if options != before {
        let change = CatalogChange::SetOptions {
            table: object.id,
            options,
        };
        let mut after = catalog.clone();
        after.apply(&change);
        residency::check_dependents(catalog, &after, object.id)?;
        plan.changes.push(change);
    }
    Ok(plan)
}
