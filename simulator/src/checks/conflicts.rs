//! Nothing acknowledged is lost silently: of the writes to GLOBAL rows, each is there, or was seen by a later write, or
//! stands in the table of conflicts, once.

use std::collections::{BTreeMap, BTreeSet};

use tributary_region::Snapshot;
use tributary_region::dataflow::conflicts::{
    CONFLICTS, CONFLICTS_MAX, ConflictId, RecordedConflict, conflicts,
};

use crate::failure::{Checked, Violation};
use crate::model::{LogId, Model};
use crate::report::Report;

/// Checks the tables of conflicts of regions that agree.
///
/// # Errors
/// When they differ, when a conflict is recorded twice or was none, or when a write is missing.
pub fn conflicts_are_complete(
    model: &Model,
    snapshots: &[(LogId, std::sync::Arc<Snapshot>)],
    report: &mut Report,
) -> Checked {
    let held = |snapshot: &Snapshot| -> BTreeMap<ConflictId, RecordedConflict> {
        let all = snapshot.tables.get(&CONFLICTS).map(conflicts).unwrap_or_default();
        let named = |conflict: RecordedConflict| (conflict.id(), conflict);
        all.into_iter().map(named).collect()
    };
    let Some((at, first)) = snapshots.first() else {
        return Ok(());
    };
    let expected = held(first);
    for (log, snapshot) in &snapshots[1..] {
        if held(snapshot) != expected {
            let theirs = held(snapshot);
            let ids = theirs.keys().chain(expected.keys());
            let differs = ids.into_iter().find(|id| theirs.get(*id) != expected.get(*id));
            let detail = differs.map_or_else(String::new, |id| {
                let (theirs, ours) = (theirs.get(id), expected.get(id));
                format!("{id:?} is {theirs:?} at {log} and {ours:?} at {at}")
            });
            return Err(Violation::new("conflicts are equal after healing", detail));
        }
    }
    let (mut reported, mut rows) = (BTreeSet::new(), BTreeSet::new());
    for RecordedConflict { conflict, .. } in expected.values() {
        let dot = (conflict.table, conflict.origin, conflict.epoch.0);
        if !rows.insert((dot, conflict.key.clone())) {
            let detail = format!(
                "table {} key {} of {} at {} stands there twice",
                dot.0, conflict.key, dot.1, dot.2
            );
            return Err(Violation::new("a conflict is recorded once", detail));
        }
        reported.insert(dot);
        let is_there = first.catalog.table(dot.0).is_some();
        if is_there && model.log_of(dot.1, *at).is_some() && !model.is_live_version(*at, dot) {
            let detail = format!(
                "nobody wrote table {} key {} as {} at {}",
                dot.0, conflict.key, dot.1, dot.2
            );
            return Err(Violation::new("a conflict was one", detail));
        }
    }
    report.conflicts_found += rows.len() as u64;
    let overflows = expected.keys().any(|id| id.number >= CONFLICTS_MAX);
    match model
        .lost_silently(*at, &first.frontier, &reported)
        .filter(|_| !overflows)
    {
        Some((table, origin, epoch)) => {
            let detail =
                format!("what {origin} wrote to table {table} at {epoch} is neither there nor reported");
            Err(Violation::new("nothing is lost silently", detail))
        }
        None => Ok(()),
    }
}
