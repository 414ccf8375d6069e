//! Replay: the tail of the log, stepped again after a restart.
//!
//! Records are stepped one by one, however they were grouped the first time. A slot's stamp may then name another
//! record than it did; its value there is the same (RFC 0001). Coarser groups would not do: a key that appeared and
//! went again within one group would leave no tombstone, and a value that changed and changed back would keep
//! its old stamp, although peers may have been sent what was in between.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tributary_planner::catalog::Catalog;
use tributary_replication::{Epoch, Frontier};
use tributary_storage::checkpoint::Loaded;
use tributary_storage::{ChainHash, ObjectId, OriginId, Position, Record, RowsSnapshot};

use crate::config::RegionConfig;
use crate::dataflow::{Dataflow, ViewState};
use crate::entry::Timed;
use crate::error::{RegionError, Result};
use crate::sequencer::Sealed;
use crate::snapshot::TableSnapshot;

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
        while dataflow.is_applying() {
            dataflow.apply_portion(usize::MAX)?;
        }
        keep(dataflow, keep_at, &mut kept);
    }
    Ok(kept)
}

/// What a log comes to that nobody goes on with.
#[derive(Clone)]
pub struct Past {
    /// Who wrote it; `None` when the region had not joined a cluster.
    pub origin: Option<OriginId>,
    /// Its last record.
    pub position: Position,
    /// How far it knew all logs.
    pub frontier: Frontier,
    /// Its hashes, as far back as they are kept.
    pub chains: BTreeMap<Epoch, ChainHash>,
    /// Its catalog.
    pub catalog: Arc<Catalog>,
    /// All tables.
    pub tables: BTreeMap<ObjectId, TableSnapshot>,
    /// Rows or events consumed of each source.
    pub sources: BTreeMap<ObjectId, u64>,
}

/// What a checkpoint and the records after it come to.
///
/// # Errors
/// Anything that makes the stored state unreadable.
pub fn look_into(config: &RegionConfig, checkpoint: Option<Loaded>, tail: Vec<Record>) -> Result<Past> {
    let mut dataflow = match checkpoint {
        Some(loaded) => Dataflow::restore(config, loaded)?,
        None => Dataflow::new(config),
    };
    replay(&mut dataflow, tail, &BTreeSet::new())?;
    let origin = dataflow.writes_as();
    let snapshot = dataflow.snapshot();
    Ok(Past {
        origin,
        position: dataflow.position(),
        frontier: snapshot.frontier,
        chains: origin
            .and_then(|origin| dataflow.chains.remove(&origin))
            .unwrap_or_default(),
        catalog: snapshot.catalog,
        tables: snapshot.tables,
        sources: snapshot.sources,
    })
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
