//! `tributary.tables`: tables and where their rows are.

use tributary_planner::catalog::{ObjectKind, TableLocality};
use tributary_planner::types::SqlType;

use super::{Facts, Row, SystemTable, options, text};

pub(super) const TABLE: SystemTable = SystemTable {
    name: "tables",
    columns: &[
        ("name", SqlType::Text),
        ("locality", SqlType::Text),
        ("region", SqlType::Text),
        ("primary_key", SqlType::Text),
        ("rows_max", SqlType::Int8),
        ("bytes", SqlType::Int8),
        ("tombstones", SqlType::Int8),
        ("tombstones_kept_by", SqlType::Text),
        ("options", SqlType::Text),
    ],
    rows,
};

fn rows(facts: &Facts<'_>) -> Vec<Row> {
    let mut rows = Vec::new();
    for object in facts.snapshot.catalog.objects.values() {
        let ObjectKind::Table(table) = &object.kind else {
            continue;
        };
        let (locality, region) = match table.locality {
            TableLocality::Global => ("GLOBAL", None),
            TableLocality::RegionalByRow => ("REGIONAL BY ROW", None),
            TableLocality::RegionalByTable(region) => ("REGIONAL BY TABLE", Some(facts.region_name(region))),
        };
        let key = table
            .primary_key
            .iter()
            .map(|&column| &table.columns[column])
            .filter(|column| !column.hidden);
        let key: Vec<&str> = key.map(|column| column.name.as_str()).collect();
        let kept_by = facts.snapshot.tombstones_kept_by(object.id);
        let stored = facts.snapshot.tables.get(&object.id);
        rows.push(vec![
            text(&object.name),
            text(locality),
            region,
            (!key.is_empty()).then(|| key.join(", ")),
            stored.and_then(|table| text(table.rows.row_count())),
            stored.and_then(|table| text(table.rows.bytes())),
            stored.and_then(|table| text(table.tombstones)),
            (!kept_by.is_empty()).then(|| kept_by.join(", ")),
            options(&facts.snapshot.catalog.options(object.id).settings()),
        ]);
    }
    rows
}
