//! `tributary.frontier`: the snapshot's frontier, one row per origin, with how old what it shows of each region is.

use tributary_planner::types::SqlType;

use super::{Facts, Row, SystemTable, moment, text};

pub(super) const TABLE: SystemTable = SystemTable {
    name: "frontier",
    columns: &[
        ("origin", SqlType::Text),
        ("incarnation", SqlType::Int8),
        ("epoch", SqlType::Int8),
        ("time", SqlType::TimestampTz),
        ("lag_ms", SqlType::Int8),
        ("settled", SqlType::Bool),
    ],
    rows,
};

fn rows(facts: &Facts<'_>) -> Vec<Row> {
    let snapshot = facts.snapshot;
    let row = |(origin, epoch): (tributary_storage::OriginId, tributary_replication::Epoch)| {
        let status = snapshot.regions.iter().find(|status| status.id == origin.region);
        let lag_ms = status.and_then(|status| status.lag_ms);
        vec![
            text(facts.region_name(origin.region)),
            text(origin.incarnation),
            text(epoch.0),
            lag_ms.and_then(|lag_ms| moment(snapshot.hlc.ms().saturating_sub(lag_ms))),
            lag_ms.and_then(text),
            text(snapshot.settled),
        ]
    };
    snapshot.frontier.iter().map(row).collect()
}
