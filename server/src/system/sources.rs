//! `tributary.sources`: generators, the tables they fill, and how far this region's part has come.

use tributary_planner::catalog::ObjectKind;
use tributary_planner::types::SqlType;

use super::{Facts, Row, SystemTable, text};

pub(super) const TABLE: SystemTable = SystemTable {
    name: "sources",
    columns: &[
        ("name", SqlType::Text),
        ("connector", SqlType::Text),
        ("tables", SqlType::Text),
        ("options", SqlType::Text),
        ("events", SqlType::Int8),
    ],
    rows,
};

fn rows(facts: &Facts<'_>) -> Vec<Row> {
    let mut rows = Vec::new();
    for object in facts.snapshot.catalog.objects.values() {
        let ObjectKind::Source(source) = &object.kind else {
            continue;
        };
        let tables: Vec<String> = source
            .tables
            .iter()
            .filter_map(|id| facts.snapshot.catalog.by_id(*id))
            .map(|table| table.name.clone())
            .collect();
        let options: Vec<String> = source
            .options
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        rows.push(vec![
            text(&object.name),
            text(&source.connector),
            text(tables.join(", ")),
            text(options.join(", ")),
            text(facts.snapshot.sources.get(&object.id).copied().unwrap_or(0)),
        ]);
    }
    rows
}
