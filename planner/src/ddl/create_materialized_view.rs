//! CREATE MATERIALIZED VIEW: the only place where a view is planned; every region runs the plan made here.

use std::sync::Arc;

use super::{DdlPlan, PlanSettings, RowCounts, check_name, new_object, rename_columns, view_options};
use crate::catalog::{Catalog, CatalogChange, MaterializedViewDef, ObjectKind};
use crate::datafusion::{PlannedView, plan_view_merging};
use crate::error::PlanError;
use crate::explain::explain_with_hidden;
use crate::parse::CreateMaterializedView;
use crate::plan::{Scan, ViewPlan};
use crate::residency;

const TAG: &str = "CREATE MATERIALIZED VIEW";

pub(super) fn plan(
    create: &CreateMaterializedView,
    catalog: &Catalog,
    settings: &PlanSettings,
    rows: &RowCounts,
) -> Result<DdlPlan, PlanError> {
    if let Some(notice) = check_name(catalog, &create.name, create.if_not_exists)? {
        return Ok(DdlPlan::unchanged(TAG, notice));
    }
    let Planned { view, after, changes } = planned(create, catalog, settings, rows)?;
    let PlannedView {
        mut plan,
        mut columns,
        ..
    } = view;
    rename_columns(&create.name, &mut columns, &create.columns)?;
    for (column, named) in plan.columns.iter_mut().zip(&columns) {
        column.name.clone_from(&named.name);
    }
    for hidden in hidden_plans(&after, &plan) {
        residency::check_view(&after, &create.name, hidden)?;
    }
    residency::check_view(&after, &create.name, &plan)?;
    let mut notices = Vec::new();
    if catalog.members().count() > 1 {
        notices.extend(plan.merged_for_joins().into_iter().map(joined_everywhere));
        notices.extend(hidden_plans(&after, &plan).into_iter().map(merged_alone));
    }
    notices.extend(
        residency::incompleteness(&after, &plan)
            .map(|why| format!("view \"{}\" is incomplete: {why}", create.name)),
    );
    let view = MaterializedViewDef {
        sql: create.query_text.clone(),
        columns,
        fingerprint: plan.fingerprint(),
        plan: Arc::new(plan),
        time_zone: settings.time_zone.clone(),
    };
    let object = new_object(&after, 0, &create.name, ObjectKind::MaterializedView(view))?;
    let created = changes.into_iter().chain([CatalogChange::Create(object)]);
    Ok(DdlPlan {
        changes: created.collect(),
        notices,
        tag: TAG.to_owned(),
    })
}

/// The lines of EXPLAIN CREATE MATERIALIZED VIEW: what the statement would create, hidden views first.
///
/// # Errors
/// As the statement, but for names that are taken and columns that are renamed.
pub fn explain(
    create: &CreateMaterializedView,
    catalog: &Catalog,
    settings: &PlanSettings,
    rows: &RowCounts,
) -> Result<Vec<String>, PlanError> {
    let Planned { view, after, .. } = planned(create, catalog, settings, rows)?;
    Ok(explain_with_hidden(&after, &create.name, &view.plan))
}

/// A view that is planned, and the catalog with the hidden views that it needs.
struct Planned {
    view: PlannedView,
    after: Catalog,
    changes: Vec<CatalogChange>,
}

fn planned(
    create: &CreateMaterializedView,
    catalog: &Catalog,
    settings: &PlanSettings,
    rows: &RowCounts,
) -> Result<Planned, PlanError> {
    let merge = view_options::merge(&create.options)?;
    let mut view = plan_view_merging(&create.query, catalog, settings, &merge, rows)?;
    let hidden = std::mem::take(&mut view.hidden).into_iter();
    let changes: Vec<CatalogChange> = hidden.map(CatalogChange::Create).collect();
    let mut after = catalog.clone();
    changes.iter().for_each(|change| after.apply(change));
    Ok(Planned { view, after, changes })
}

/// The plans of the hidden views that a plan reads, also through other hidden ones.
fn hidden_plans<'a>(catalog: &'a Catalog, plan: &ViewPlan) -> Vec<&'a ViewPlan> {
    let hidden = catalog.hidden_below(plan).into_iter();
    hidden
        .filter_map(|object| catalog.materialized_view(object.id))
        .map(|view| view.plan.as_ref())
        .collect()
}

fn joined_everywhere((left, right): (String, String)) -> String {
    format!(
        "rows of different regions meet in the join of {left} with {right}, so the columns it reads of them go to all \
         regions; if only rows of one region meet, add AND a.tributary_region = b.tributary_region to it; if one side is \
         small, WITH (merge = 'relation') before AS sends only the rows of that one"
    )
}

fn merged_alone(hidden: &ViewPlan) -> String {
    let mut names: Vec<String> = Vec::new();
    for fragment in &hidden.fragments {
        fragment.root.for_each_leaf(&mut |scan: &Scan| {
            if !names.contains(&scan.name) {
                names.push(scan.name.clone());
            }
        });
    }
    format!(
        "what the view reads of {} goes to all regions and joins rows of other relations where those are; the view is \
         the answer to its query at settled frontiers",
        names.join(", ")
    )
}
