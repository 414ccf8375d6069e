//! `tributary.errors`: rows left out of materialized views because an expression failed on them, until they are gone.

use tributary_planner::types::SqlType;

use super::{Facts, Row, SystemTable, text};

pub(super) const TABLE: SystemTable = SystemTable {
    name: "errors",
    columns: &[
        ("view", SqlType::Text),
        ("operator", SqlType::Text),
        ("message", SqlType::Text),
        ("row", SqlType::Text),
        ("count", SqlType::Int8),
    ],
    rows,
};

fn rows(facts: &Facts<'_>) -> Vec<Row> {
    let mut rows = Vec::new();
    for (id, view) in &facts.snapshot.views {
        let Some(object) = facts.snapshot.catalog.by_id(*id) else {
            continue;
        };
        for error in view.errors.iter() {
            rows.push(vec![
                text(facts.snapshot.catalog.name_for_users(object)),
                text(&error.operator),
                text(&error.message),
                text(&error.row),
                text(error.count),
            ]);
        }
    }
    rows
}
