//! `tributary.regions`: the members, as seen from here.

use tributary_planner::types::SqlType;

use super::{Facts, Row, SystemTable, text};

pub(super) const TABLE: SystemTable = SystemTable {
    name: "regions",
    columns: &[
        ("name", SqlType::Text),
        ("is_gateway", SqlType::Bool),
        ("is_primary", SqlType::Bool),
        ("connected", SqlType::Bool),
        ("incarnation", SqlType::Int8),
        ("epoch", SqlType::Int8),
        ("lag_ms", SqlType::Int8),
    ],
    rows,
};

fn rows(facts: &Facts<'_>) -> Vec<Row> {
    let catalog = &facts.snapshot.catalog;
    catalog
        .regions
        .iter()
        .map(|(id, region)| {
            let status = facts.snapshot.regions.iter().find(|status| status.id == *id);
            let is_gateway = region.name == facts.region;
            vec![
                text(&region.name),
                text(is_gateway),
                text(catalog.primary == Some(*id)),
                text(is_gateway || status.is_some_and(|status| status.connected)),
                text(region.incarnation),
                status.and_then(|status| text(status.epoch.0)),
                status.and_then(|status| status.lag_ms).and_then(text),
            ]
        })
        .collect()
}
