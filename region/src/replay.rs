//! Replay: the tail of the log, stepped again after a restart.
//!
//! Records are stepped one by one, however they were grouped the first time. A slot's stamp may then name another
//! record than it did; its value there is the same (RFC 0001). Coarser groups would not do: a key that appeared and
//! went again within one group would leave no tombstone, and a value that changed and changed back would keep
//! its old stamp, although peers may have been sent what was in between.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tributary_storage::{ObjectId, Position, Record, RowsSnapshot};

use crate::dataflow::{Dataflow, ViewState};
use crate::entry::Timed;
use crate::error::{RegionError, Result};
use crate::sequencer::Sealed;

/// Results of attached views at some positions.
pub type KeptResults = BTreeMap<Position, BTreeMap<ObjectId, Arc<RowsSnapshot>>>;

/// Steps over the records behind the dataflow's position. All of them are durable.
///
/// # Errors
/// A gap before or between records, or a payload that cannot be read.
pub fn replay(
    dataflow: &mut Dataflow,
    tail: Vec<Record>,
    keep_at: &BTreeSet<Position>,
) -> Result<KeptResults> {
    let mut kept = KeptResults::new();
    keep(dataflow, keep_at, &mut kept);
    let first = dataflow.position().0 + 1;
    for record in tail.into_iter().filter(|record| record.position.0 >= first) {
        let expected = dataflow.position().0 + 1;
        if record.position != Position(expected) {
            return Err(RegionError::Invariant(format!(
                "the log continues at {} where {expected} was expected",
                record.position.0
            )));
        }
        let timed = Timed::decode(record.position, &record.payload)?;
        dataflow.step(&[Sealed {
            position: record.position,
            chain: record.chain,
            timed,
            bundles: Vec::new(),
            rows: Vec::new(),
        }])?;
        keep(dataflow, keep_at, &mut kept);
    }
    Ok(kept)
}

fn keep(dataflow: &Dataflow, keep_at: &BTreeSet<Position>, kept: &mut KeptResults) {
    let position = dataflow.position();
    if !keep_at.contains(&position) {
        return;
    }
    let results = dataflow.views.iter().filter_map(|(&id, state)| match state {
        ViewState::Attached(view) => Some((id, view.result())),
        ViewState::Backfilling(_) => None,
    });
    kept.insert(position, results.collect());
}
