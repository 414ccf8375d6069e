//! CREATE VIEW: a query under a name, read anew wherever it is used.

use super::{DdlPlan, PlanSettings, check_name, new_object, rename_columns};
use crate::catalog::{Catalog, CatalogChange, ObjectKind, ViewDef};
use crate::datafusion::query_columns;
use crate::error::PlanError;
use crate::parse::CreateView;

const TAG: &str = "CREATE VIEW";

pub(super) fn plan(
    create: &CreateView,
    catalog: &Catalog,
    settings: &PlanSettings,
) -> Result<DdlPlan, PlanError> {
    if let Some(notice) = check_name(catalog, &create.name, create.if_not_exists)? {
        return Ok(DdlPlan::unchanged(TAG, notice));
    }
    let mut columns = query_columns(&create.query, catalog, settings)?;
    rename_columns(&create.name, &mut columns, &create.columns)?;
    let view = ViewDef {
        sql: create.query_text.clone(),
        columns,
    };
    let object = new_object(catalog, 0, &create.name, ObjectKind::View(view))?;
    Ok(DdlPlan {
        changes: vec![CatalogChange::Create(object)],
        notices: Vec::new(),
        tag: TAG.to_owned(),
    })
}
