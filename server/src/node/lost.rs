//! Rows of a log that counts no more, and that are in no table any more: they go to the table of conflicts, see
//! [`super::salvage`].
//!
//! What was recorded before is not recorded again, so this may be repeated.

use std::time::Duration;

use datafusion::arrow::array::{ArrayRef, AsArray, RecordBatch};
use datafusion::arrow::datatypes::Int64Type;
use tributary_planner::catalog::TableDef;
use tributary_region::dataflow::conflicts::{Conflict, Reason, Winner, describe};
use tributary_region::{Snapshot, TableSnapshot};
use tributary_replication::rows::has_seen;
use tributary_replication::{Epoch, Hlc, RowVersion};
use tributary_storage::{ObjectId, OriginId};

use super::Node;

const RETRY: Duration = Duration::from_millis(100);

/// A GLOBAL table, and rows of it with their versions that a log that counts no more had written.
pub(super) struct Rows<'a> {
    pub(super) id: ObjectId,
    pub(super) def: &'a TableDef,
    pub(super) name: &'a str,
    pub(super) rows: &'a RecordBatch,
}

/// The version that is held under a key, and the context it was written in.
struct Held {
    winner: Winner,
    context: Vec<u8>,
}

impl Rows<'_> {
    fn ints(&self, offset: usize, row: usize) -> i64 {
        let column = self.rows.column(self.def.columns.len() + offset);
        column.as_primitive::<Int64Type>().value(row)
    }

    /// The dot of a row and its time.
    fn version(&self, row: usize) -> Option<(RowVersion, Hlc)> {
        let deleted = self.rows.column(self.def.columns.len() + 3).as_boolean();
        let version = RowVersion {
            origin: OriginId::from_i64(self.ints(0, row))?,
            stamp: Epoch::from_i64(self.ints(1, row))?,
            deleted: deleted.value(row),
        };
        Some((version, Hlc::from_i64(self.ints(2, row))?))
    }

    fn held(&self, table: &TableSnapshot) -> Vec<Option<Held>> {
        let key = self.def.primary_key.iter();
        let key: Vec<ArrayRef> = key.map(|column| self.rows.column(*column).clone()).collect();
        let found = table.rows.lookup(&key, self.rows.num_rows());
        let width = self.def.columns.len();
        let int = |offset: usize, at: usize| {
            let column = found.rows.column(width + offset);
            column.as_primitive::<Int64Type>().value(at)
        };
        let mut held: Vec<Option<Held>> = (0..self.rows.num_rows()).map(|_| None).collect();
        for (at, probe) in found.probe.values().iter().enumerate() {
            let winner = OriginId::from_i64(int(0, at))
                .zip(Epoch::from_i64(int(1, at)))
                .zip(Hlc::from_i64(int(2, at)));
            let Some(((origin, epoch), hlc)) = winner.filter(|_| found.weights.value(at) > 0) else {
                continue;
            };
            held[*probe as usize] = Some(Held {
                winner: Winner {
                    origin,
                    epoch,
                    hlc,
                    deleted: found.rows.column(width + 3).as_boolean().value(at),
                },
                context: found.rows.column(width + 4).as_binary::<i32>().value(at).to_vec(),
            });
        }
        held
    }

    /// What of these rows is lost: those in `not_brought_back`, and those that others have, but that had lost there to a
    /// write that their region never heard of.
    fn lost(&self, not_brought_back: &[u32], snapshot: &Snapshot) -> Vec<Conflict> {
        let Some(table) = snapshot.tables.get(&self.id) else {
            return Vec::new();
        };
        let lost = |(row, held): (usize, Option<Held>)| {
            let (version, hlc) = self.version(row)?;
            let reason = match u32::try_from(row).is_ok_and(|row| not_brought_back.contains(&row)) {
                true if version.deleted && held.as_ref().is_none_or(|held| held.winner.deleted) => {
                    // What it was to delete is gone.
                    return None;
                }
                true => Reason::NotBroughtBack,
                false => {
                    let held = held.as_ref()?;
                    let is_held = (held.winner.origin, held.winner.epoch) == (version.origin, version.stamp);
                    let has_arrived = version.stamp <= snapshot.frontier.get(version.origin);
                    let is_known = is_held || has_seen(&held.context, Some(version));
                    if version.deleted || !has_arrived || is_known {
                        return None;
                    }
                    Reason::Concurrent
                }
            };
            let (key, text) = describe(self.def, self.rows, row);
            Some(Conflict {
                table: self.id,
                table_name: self.name.to_owned(),
                key,
                row: text,
                origin: version.origin,
                epoch: version.stamp,
                hlc,
                winner: held.map(|held| held.winner),
                reason,
            })
        };
        let held = self.held(table);
        held.into_iter().enumerate().filter_map(lost).collect()
    }

    /// Records what of these rows is lost.
    pub(super) async fn record_lost(&self, node: &Node, not_brought_back: &[u32]) {
        // What is lost by now stays lost, however long it takes to record it.
        record(node, self.lost(not_brought_back, &node.newest())).await;
    }
}

/// Has conflicts recorded, as soon as the region can.
pub(super) async fn record(node: &Node, lost: Vec<Conflict>) {
    if lost.is_empty() {
        return;
    }
    while let Err(rejected) = node.submit_lost(lost.clone()).await {
        tracing::info!(%rejected, "what was lost waits to be recorded");
        tokio::time::sleep(RETRY).await;
    }
}
