//! What a region is told at start. Nothing in it may change the meaning of a logged record.

use std::collections::BTreeSet;
use std::sync::Arc;

use tributary_executor::{Inline, Workers};
use tributary_replication::link::LinkConfig;
use tributary_storage::{Position, SpillArea};

use crate::source::{NoSources, SourceReader};

/// Longer than a restart takes.
const MEMBERS_WAIT_MS: u64 = 30_000;

/// The configuration of one region.
#[derive(Clone, Debug)]
pub struct RegionConfig {
    /// The region's name, unique in the cluster.
    pub name: String,
    /// Names of the peers the shell will connect to.
    pub peers: Vec<String>,
    /// Length of the base tick in milliseconds; the same in every region.
    pub tick_ms: u64,
    /// Given at the primary's first start: the cluster to found. `None` joins or continues one.
    pub found: Option<Founding>,
    /// Whether a region that has lost its log may go on as another incarnation.
    pub reincarnate: bool,
    /// The least incarnation that a region which joins may take: earlier ones are given out, as its shell was told. Peers
    /// that know less are not listened to until they know it.
    pub incarnation_min: u32,
    /// Sealed records that may wait for the dataflow; beyond it commits are refused as overloaded.
    pub sealed_records_max: usize,
    /// How far the hybrid clock may run ahead of the wall clock before the region refuses its own writes to
    /// GLOBAL tables.
    pub clock_drift_max_ms: u64,
    /// How long a primary that lost its log waits for members that are away before it goes on: they may know of DDL that
    /// the others have not heard of.
    pub members_wait_ms: u64,
    /// Rows that one backfill poll feeds to a new view.
    pub backfill_rows_max: usize,
    /// Rows of a sealed stage that one `Work` merges, and the most rows of bundles that are merged at once: in between,
    /// commits are taken.
    pub apply_rows_max: usize,
    /// Computes the partitions of views.
    pub workers: Arc<dyn Workers>,
    /// Takes in the state of a checkpoint, while the region opens.
    pub loaders: Arc<dyn Workers>,
    /// Where rows of views go that do not fit into memory; `None` keeps all of them there.
    pub spill: Option<Arc<dyn SpillArea>>,
    /// Reads rows of sources again.
    pub sources: Arc<dyn SourceReader>,
    /// Positions of the log at which the results of all views are kept, to be taken with `Region::take_kept`, when a
    /// replay comes past them: what a sink had written when the process ended.
    pub keep_results_at: BTreeSet<Position>,
    /// How often, at most, stable tombstones are looked for, in milliseconds.
    pub collect_every_ms: u64,
    /// Tombstones that a GLOBAL table may hold: while others have not acknowledged so many, this region deletes no more of
    /// its rows.
    pub tombstones_max: usize,
    /// Whether this region drops no tombstones until it hears [`crate::Input::TakenOver`]: rows of earlier incarnations are
    /// yet to be compared with what there is, and what was deleted concurrently is to be told from what is not there.
    pub keeps_tombstones: bool,
    /// Settings of every link.
    pub link: LinkConfig,
    /// Deliberate faults, for negative controls only.
    pub defects: Defects,
}

/// What the primary writes into a new cluster's catalog.
#[derive(Clone, Debug)]
pub struct Founding {
    /// The new cluster's identity, drawn by the shell.
    pub cluster: [u8; 16],
}

/// Faults that the simulator switches on to prove that its checks can fail. All are off in a server.
#[derive(Clone, Copy, Debug, Default)]
pub struct Defects {
    /// Acknowledge and publish at once, without waiting for the log's sync.
    pub ack_before_sync: bool,
    /// Take the identity that the catalog names although others have heard of it.
    pub reuse_incarnation: bool,
    /// Keep the slots of superseded incarnations.
    pub keep_superseded: bool,
    /// Take part before every view is computed.
    pub join_early: bool,
    /// Drop tombstones that others have not acknowledged, and do not tell.
    pub collect_early: bool,
    /// Do not record conflicts.
    pub lose_conflicts: bool,
    /// Let everything through the door, whatever the residency of its table.
    pub skip_residency_check: bool,
    /// Faults of replication.
    pub replication: tributary_replication::Defects,
    /// Faults of the operators.
    pub executor: tributary_executor::Defects,
}

impl RegionConfig {
    /// A region with default limits.
    pub fn new(name: impl Into<String>, peers: Vec<String>) -> Self {
        Self {
            name: name.into(),
            peers,
            tick_ms: 20,
            found: None,
            reincarnate: false,
            incarnation_min: 0,
            sealed_records_max: 4096,
            clock_drift_max_ms: 10_000,
            members_wait_ms: MEMBERS_WAIT_MS,
            backfill_rows_max: 16_384,
            apply_rows_max: 16_384,
            workers: Arc::new(Inline::new(1)),
            loaders: Arc::new(Inline::new(1)),
            spill: None,
            sources: Arc::new(NoSources),
            keep_results_at: BTreeSet::new(),
            collect_every_ms: 1_000,
            tombstones_max: 1_000_000,
            keeps_tombstones: false,
            link: LinkConfig::default(),
            defects: Defects::default(),
        }
    }
}
