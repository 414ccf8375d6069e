//! CREATE MATERIALIZED VIEW: the only place where a view is planned; every region runs the plan made here.

use std::sync::Arc;

use super::{DdlPlan, PlanSettings, check_name, new_object, rename_columns};
use crate::catalog::{Catalog, CatalogChange, MaterializedViewDef, ObjectKind};
use crate::datafusion::plan_view;
use crate::error::PlanError;
use crate::parse::CreateMaterializedView;
use crate::residency;

const TAG: &str = "CREATE MATERIALIZED VIEW";

pub(super) fn plan(
    create: &CreateMaterializedView,
    catalog: &Catalog,
    settings: &PlanSettings,
) -> Result<DdlPlan, PlanError> {
    if let Some(notice) = check_name(catalog, &create.name, create.if_not_exists)? {
        return Ok(DdlPlan::unchanged(TAG, notice));
    }
    let planned = plan_view(&create.query, catalog, settings)?;
    let (mut plan, mut columns) = (planned.plan, planned.columns);
    rename_columns(&create.name, &mut columns, &create.columns)?;
    for (column, named) in plan.columns.iter_mut().zip(&columns) {
        column.name.clone_from(&named.name);
    }
    residency::check_view(catalog, &create.name, &plan)?;
    let mut notices: Vec<String> = match catalog.members().count() {
        0 | 1 => Vec::new(),
        _ => plan
            .merged_for_joins()
            .into_iter()
            .map(joined_everywhere)
            .collect(),
    };
    notices.extend(
        residency::incompleteness(catalog, &plan)
            .map(|why| format!("view \"{}\" is incomplete: {why}", create.name)),
    );
    let view = MaterializedViewDef {
        sql: create.query_text.clone(),
        columns,
        fingerprint: plan.fingerprint(),
        plan: Arc::new(plan),
        time_zone: settings.time_zone.clone(),
    };
    let object = new_object(catalog, 0, &create.name, ObjectKind::MaterializedView(view))?;
    Ok(DdlPlan {
        changes: vec![CatalogChange::Create(object)],
        notices,
        tag: TAG.to_owned(),
    })
}

fn joined_everywhere((left, right): (String, String)) -> String {
    format!(
        "rows of different regions meet in the join of {left} with {right}, so the columns it reads of them go to all \
         regions; if only rows of one region meet, add AND a.tributary_region = b.tributary_region to it"
    )
}
