//! `tributary.operators`: what each operator of each view holds in memory.

use tributary_planner::types::SqlType;

use super::{Facts, Row, SystemTable, text};

pub(super) const TABLE: SystemTable = SystemTable {
    name: "operators",
    columns: &[
        ("view", SqlType::Text),
        ("state", SqlType::Text),
        ("rows", SqlType::Int8),
        ("bytes", SqlType::Int8),
        ("bytes_per_row", SqlType::Int8),
    ],
    rows,
};

fn rows(facts: &Facts<'_>) -> Vec<Row> {
    let mut rows = Vec::new();
    for (id, view) in &facts.snapshot.views {
        let Some(object) = facts.snapshot.catalog.by_id(*id) else {
            continue;
        };
        for (name, count, bytes) in view.state.iter() {
            rows.push(vec![
                text(&object.name),
                text(name),
                text(count),
                text(bytes),
                bytes.checked_div(*count).and_then(text),
            ]);
        }
    }
    rows
}
