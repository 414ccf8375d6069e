//! TRUNCATE: every region drops its rows of a table, at the record by which it hears of it.

use super::DdlPlan;
use crate::catalog::{Catalog, CatalogChange};
use crate::dml::writable_table;
use crate::error::PlanError;
use crate::parse::Truncate;

pub(super) fn plan(truncate: &Truncate, catalog: &Catalog) -> Result<DdlPlan, PlanError> {
    let mut changes = Vec::new();
    for name in &truncate.tables {
        let (object, table) = writable_table(catalog, name)?;
        if table.is_global() {
            return Err(PlanError::internal(
                "rows of a GLOBAL table are deleted one by one",
            ));
        }
        changes.push(CatalogChange::Truncate(object.id));
    }
    Ok(DdlPlan {
        changes,
        notices: Vec::new(),
        tag: "TRUNCATE TABLE".to_owned(),
    })
}
