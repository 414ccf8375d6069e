//! `tributary.regions`: the members, and those that were, as seen from here.

use tributary_planner::catalog::Standing;
use tributary_planner::types::SqlType;
use tributary_storage::RegionId;

use super::{Facts, Row, SystemTable, options, text};

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
        ("state", SqlType::Text),
        ("address", SqlType::Text),
        ("options", SqlType::Text),
        ("superseded", SqlType::Text),
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
            let is_gateway = region.is_member() && region.name == facts.region;
            vec![
                text(&region.name),
                text(is_gateway),
                text(catalog.primary == Some(*id)),
                text(is_gateway || status.is_some_and(|status| status.connected)),
                text(region.incarnation),
                status.and_then(|status| text(status.epoch.0)),
                status.and_then(|status| status.lag_ms).and_then(text),
                text(state(facts, *id)),
                region.address.clone(),
                options(&catalog.region_options(*id).settings()),
                superseded(facts, *id),
            ]
        })
        .collect()
}

/// Which earlier incarnations are known here, and up to where: what one of them had written after that, nobody has heard of.
fn superseded(facts: &Facts<'_>, id: RegionId) -> Option<String> {
    let region = &facts.snapshot.catalog.regions[&id];
    let ended = |incarnation: u32| incarnation < region.incarnation || !region.is_member();
    let known = facts.snapshot.frontier.iter();
    let known = known.filter(|(origin, _)| origin.region == id && ended(origin.incarnation));
    let known: Vec<String> = known
        .map(|(origin, epoch)| format!("incarnation {} up to epoch {epoch}", origin.incarnation))
        .collect();
    (!known.is_empty()).then(|| known.join(", "))
}

/// How a region stands: what the catalog says, and whether anything of its incarnation is known here.
fn state(facts: &Facts<'_>, id: RegionId) -> &'static str {
    let snapshot = facts.snapshot;
    let region = &snapshot.catalog.regions[&id];
    match region.standing {
        Standing::Dropped => return "dropped",
        Standing::Leaving => return "leaving",
        Standing::Member => {}
    }
    match snapshot.known_as(id) {
        Some(known) if known.incarnation == region.incarnation => "member",
        Some(_) => "fenced",
        None => "joining",
    }
}
