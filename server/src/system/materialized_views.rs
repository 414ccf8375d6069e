//! `tributary.materialized_views`: state, progress of backfill, fragments. Hidden views are listed with the views that
//! they are a part of.

use tributary_planner::catalog::ObjectKind;
use tributary_planner::residency::incompleteness;
use tributary_planner::types::SqlType;

use super::{Facts, Row, SystemTable, text};

pub(super) const TABLE: SystemTable = SystemTable {
    name: "materialized_views",
    columns: &[
        ("name", SqlType::Text),
        ("state", SqlType::Text),
        ("missing_regions", SqlType::Text),
        ("backfill_rows_done", SqlType::Int8),
        ("backfill_rows_total", SqlType::Int8),
        ("fragments", SqlType::Int8),
        ("state_rows", SqlType::Int8),
        ("state_bytes", SqlType::Int8),
        ("errors", SqlType::Int8),
        ("failure", SqlType::Text),
        ("incomplete", SqlType::Text),
        ("groups_held_back", SqlType::Int8),
        ("definition", SqlType::Text),
        ("part_of", SqlType::Text),
    ],
    rows,
};

fn rows(facts: &Facts<'_>) -> Vec<Row> {
    let mut rows = Vec::new();
    for object in facts.snapshot.catalog.objects.values() {
        let ObjectKind::MaterializedView(definition) = &object.kind else {
            continue;
        };
        let view = facts.snapshot.views.get(&object.id);
        let missing: Vec<String> = view
            .iter()
            .flat_map(|view| &view.missing)
            .map(|region| facts.region_name(*region))
            .collect();
        let state = match view {
            None => "creating",
            Some(view) if view.failure.is_some() => "failed",
            Some(view) if view.backfill.0 < view.backfill.1 => "backfilling",
            Some(view) if !view.missing.is_empty() => "waiting",
            Some(_) => "ready",
        };
        rows.push(vec![
            text(&object.name),
            text(state),
            (!missing.is_empty()).then(|| missing.join(", ")),
            view.and_then(|view| text(view.backfill.0)),
            view.and_then(|view| text(view.backfill.1)),
            text(definition.plan.fragments.len()),
            view.and_then(|view| text(view.state_total().0)),
            view.and_then(|view| text(view.state_total().1)),
            view.and_then(|view| text(view.errors.iter().map(|error| error.count).sum::<i64>())),
            view.and_then(|view| text(view.failure.as_ref()?)),
            incompleteness(&facts.snapshot.catalog, &definition.plan),
            view.and_then(|view| text(view.groups_held_back)),
            (!object.is_hidden()).then(|| definition.sql.clone()),
            object
                .is_hidden()
                .then(|| facts.snapshot.catalog.name_for_users(object)),
        ]);
    }
    rows
}
