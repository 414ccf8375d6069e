//! `tributary.conflicts`: writes to GLOBAL tables that were acknowledged and lost, in all regions.

use tributary_planner::types::SqlType;
use tributary_region::dataflow::conflicts::{CONFLICTS, conflicts};
use tributary_replication::Hlc;
use tributary_storage::OriginId;

use super::{Facts, Row, SystemTable, moment, text};

pub(super) const TABLE: SystemTable = SystemTable {
    name: "conflicts",
    columns: &[
        ("region", SqlType::Text),
        ("number", SqlType::Int8),
        ("table", SqlType::Text),
        ("key", SqlType::Text),
        ("lost_row", SqlType::Text),
        ("lost_by", SqlType::Text),
        ("lost_epoch", SqlType::Int8),
        ("lost_at", SqlType::TimestampTz),
        ("won_by", SqlType::Text),
        ("won_epoch", SqlType::Int8),
        ("won_at", SqlType::TimestampTz),
        ("won_deleted", SqlType::Bool),
        ("recorded_at", SqlType::TimestampTz),
        ("reason", SqlType::Text),
    ],
    rows,
};

fn rows(facts: &Facts<'_>) -> Vec<Row> {
    let Some(table) = facts.snapshot.tables.get(&CONFLICTS) else {
        return Vec::new();
    };
    let mut all = conflicts(table);
    all.sort_by_key(|recorded| (recorded.recorded, recorded.region, recorded.number));
    let writer = |origin: OriginId| {
        let name = facts.region_name(origin.region);
        match origin.incarnation {
            1 => name,
            incarnation => format!("{name}.{incarnation}"),
        }
    };
    let at = |hlc: Hlc| moment(hlc.ms());
    let row = |recorded: tributary_region::dataflow::conflicts::RecordedConflict| {
        let conflict = recorded.conflict;
        let winner = conflict.winner;
        vec![
            text(facts.region_name(recorded.region)),
            text(recorded.number),
            text(conflict.table_name),
            text(conflict.key),
            text(conflict.row),
            text(writer(conflict.origin)),
            text(conflict.epoch),
            at(conflict.hlc),
            winner.map(|winner| writer(winner.origin)),
            winner.and_then(|winner| text(winner.epoch)),
            winner.and_then(|winner| at(winner.hlc)),
            winner.and_then(|winner| text(winner.deleted)),
            at(recorded.recorded),
            text(conflict.reason.as_str()),
        ]
    };
    all.into_iter().map(row).collect()
}
