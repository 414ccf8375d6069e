//! `tributary.links`: one row per peer, as of the snapshot.

use tributary_planner::types::SqlType;

use super::{Facts, Row, SystemTable, text};

pub(super) const TABLE: SystemTable = SystemTable {
    name: "links",
    columns: &[
        ("peer", SqlType::Text),
        ("state", SqlType::Text),
        ("secure", SqlType::Bool),
        ("bytes_in", SqlType::Int8),
        ("bytes_out", SqlType::Int8),
        ("pending_keys", SqlType::Int8),
        ("pending_bytes", SqlType::Int8),
        ("in_flight", SqlType::Int8),
        ("staged_chunks", SqlType::Int8),
        ("held_chunks", SqlType::Int8),
        ("held_rows", SqlType::Int8),
        ("acked_epoch", SqlType::Int8),
        ("lag_ms", SqlType::Int8),
        ("pressure", SqlType::Int8),
        ("round_trip_ms", SqlType::Int8),
        ("last_error", SqlType::Text),
    ],
    rows,
};

fn rows(facts: &Facts<'_>) -> Vec<Row> {
    let row = |(peer, status): &(String, tributary_replication::link::LinkStatus)| {
        let sender = status.peer.and_then(|peer| peer.origin);
        let held = sender.and_then(|sender| facts.snapshot.held.get(&sender));
        vec![
            text(peer),
            text(format!("{:?}", status.state).to_lowercase()),
            text(facts.secure_links),
            text(status.bytes_in),
            text(status.bytes_out),
            text(status.pending_keys),
            text(status.pending_bytes),
            text(status.in_flight),
            status.staged.and_then(|(at_peer, _)| text(at_peer)),
            held.and_then(|held| text(held.chunks)),
            held.and_then(|held| text(held.rows)),
            text(status.acked.0),
            status.lag_ms.and_then(text),
            text(status.peer_pressure),
            status.round_trip_ms.and_then(text),
            status.last_error.clone(),
        ]
    };
    facts.snapshot.links.iter().map(row).collect()
}
