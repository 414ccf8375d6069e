//! One region with its shell: its disks, its clock, and what the shell has in hand.

use std::collections::VecDeque;
use std::sync::Arc;

use tributary_executor::Inline;
use tributary_region::{Defects, Founding, Region, RegionConfig, Snapshot};
use tributary_replication::Frontier;
use tributary_storage::kv::Defect;
use tributary_storage::{KvLog, Log, MemKv, Position, Record, SpillFiles, StorageError, checkpoint};

use crate::clock::Clock;
use crate::model::LogId;
use crate::options::{Control, Options};

use super::members::Copy;
use super::operator::{Lost, Suspect};

/// Older snapshots that clients may still hold.
const SNAPSHOTS_HELD_MAX: usize = 4;

/// A region that runs.
pub struct Process {
    /// The machine.
    pub region: Region,
    /// Its log.
    pub log: KvLog<MemKv>,
    /// The last appended position.
    pub appended: u64,
    /// Whether a sync is planned or under way.
    pub syncing: bool,
    /// Whether the dataflow's turn is planned.
    pub working: bool,
    /// Records that found no space on the disk and wait for it, in order.
    pub unwritten: Vec<Record>,
    /// Snapshots that clients read a while ago, oldest first.
    pub snapshots: VecDeque<Arc<Snapshot>>,
}

/// How a region's place stands to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It was never a member.
    Outside,
    /// It is, or is taken for, a member.
    Member,
    /// It was dropped.
    Dropped,
}

/// A region's place in the world; the process in it comes and goes.
pub struct Node {
    /// Its number in the world.
    pub index: usize,
    /// How many logs it had before this one.
    pub life: u32,
    /// What the region is told at each start.
    pub config: RegionConfig,
    /// How often it was started.
    pub boot: u64,
    /// The process, while it runs.
    pub process: Option<Process>,
    /// The disk of checkpoints.
    pub state_disk: MemKv,
    /// The disk of the log.
    pub log_disk: MemKv,
    /// Its clock.
    pub clock: Clock,
    /// The greatest frontier it has ever published.
    pub announced: Frontier,
    /// The log position of its last publication; 0 after a start.
    pub published: u64,
    /// The position of the checkpoint on its disk.
    pub checkpointed: u64,
    /// Whether its disk is full.
    pub full: bool,
    /// Until when the process stands still.
    pub paused_until_ms: u64,
    /// Until when it is not started.
    pub away_until_ms: u64,
    /// How it stands to the cluster.
    pub place: Place,
    /// Whether its operator keeps it from starting.
    pub is_held: bool,
    /// Whether it is to become a member.
    pub is_adding: bool,
    /// Without a log to go on with: what is to be done.
    pub lost: Option<Lost>,
    /// Runs, and must stop.
    pub suspect: Option<Suspect>,
    /// An earlier state of its disks.
    pub copy: Option<Copy>,
    /// Whether its disks were put back to an earlier state that nobody knows more of than it does itself: it may still
    /// lack what it had acknowledged of others.
    pub put_back: bool,
}

/// The name of region number `index`.
pub fn name(index: usize) -> String {
    format!("r{}", index + 1)
}

impl Node {
    /// A region that has never run. The last ones are no members yet.
    pub fn new(index: usize, options: &Options, clock: Clock) -> Self {
        let is_member = index < options.regions;
        let peers = (0..options.regions)
            .filter(|peer| *peer != index)
            .map(name)
            .collect();
        let mut config = RegionConfig::new(name(index), peers);
        config.backfill_rows_max = options.limits.backfill_rows_max;
        config.sealed_records_max = options.limits.sealed_records_max;
        config.link.pending_keys_max = options.limits.pending_keys_max;
        config.link.pending_bytes_max = options.limits.pending_bytes_max;
        config.link.window_bundles_max = options.limits.window_bundles_max;
        config.link.bundle_bytes_max = options.limits.bundle_bytes_max;
        config.link.chunk_bytes_max = options.limits.chunk_bytes_max;
        config.link.window_chunks_max = options.limits.window_chunks_max;
        config.link.stage_keep_ms = options.limits.stage_keep_ms;
        config.apply_rows_max = options.limits.apply_rows_max;
        // Longer than most regions are away.
        config.members_wait_ms = 2_000;
        config.collect_every_ms = options.limits.collect_every_ms;
        config.defects = defects(options.control);
        config.workers = Arc::new(Inline::new(options.partitions));
        if options.spilled {
            config.spill = Some(Arc::new(SpillFiles::new(&std::env::temp_dir(), 0)));
        }
        if index == 0 {
            let mut cluster = [0; 16];
            cluster[..8].copy_from_slice(&options.seed.to_le_bytes());
            config.found = Some(Founding { cluster });
        }
        let (state_disk, log_disk) = Self::disks(options);
        Self {
            index,
            life: 0,
            config,
            boot: 0,
            process: None,
            state_disk,
            log_disk,
            clock,
            announced: Frontier::default(),
            published: 0,
            checkpointed: 0,
            full: false,
            paused_until_ms: 0,
            away_until_ms: 0,
            place: match is_member {
                true => Place::Member,
                false => Place::Outside,
            },
            is_held: !is_member,
            is_adding: false,
            lost: None,
            suspect: None,
            copy: None,
            put_back: false,
        }
    }

    /// Empty disks: of checkpoints, and of the log.
    pub fn disks(options: &Options) -> (MemKv, MemKv) {
        let (state_disk, log_disk) = (MemKv::new(), MemKv::new());
        if let Some(Control::LoseFlush(family)) = options.control {
            state_disk.set_defect(Defect::SkipSync(family));
            log_disk.set_defect(Defect::SkipSync(family));
        }
        (state_disk, log_disk)
    }

    /// Nothing of what it has shown so far binds it, and it may start.
    pub fn begin_life(&mut self) {
        self.announced = Frontier::default();
        (self.published, self.checkpointed) = (0, 0);
        self.config.found = None;
        (self.config.reincarnate, self.config.incarnation_min) = (false, 0);
        self.state_disk.set_full(self.full);
        self.log_disk.set_full(self.full);
        (self.copy, self.lost) = (None, None);
        (self.is_held, self.put_back) = (false, false);
    }

    /// The log of its present life.
    pub fn log(&self) -> LogId {
        LogId {
            node: self.index,
            life: self.life,
        }
    }

    /// The region's last published snapshot, while it runs.
    pub fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.process.as_ref().map(|process| process.region.snapshot())
    }

    /// Opens the log, and reads the checkpoint and what came after it.
    ///
    /// # Errors
    /// When the disks cannot be read.
    pub fn read_disks(&self) -> Result<Stored, StorageError> {
        let log = KvLog::open(self.log_disk.clone())?;
        let loaded = checkpoint::load(&self.state_disk)?;
        let after = loaded.as_ref().map_or(0, |loaded| loaded.position.0);
        let tail = log.read(Position(after + 1), usize::MAX)?;
        Ok(Stored { log, loaded, tail })
    }
}

/// What was found on the disks.
pub struct Stored {
    /// The log.
    pub log: KvLog<MemKv>,
    /// The newest checkpoint.
    pub loaded: Option<checkpoint::Loaded>,
    /// The records after it.
    pub tail: Vec<Record>,
}

impl Process {
    /// Keeps a snapshot for clients that are slow.
    pub fn hold_snapshot(&mut self, snapshot: Arc<Snapshot>) {
        self.snapshots.push_back(snapshot);
        while self.snapshots.len() > SNAPSHOTS_HELD_MAX {
            self.snapshots.pop_front();
        }
    }
}

fn defects(control: Option<Control>) -> Defects {
    let mut defects = Defects::default();
    match control {
        Some(Control::AckBeforeSync) => defects.ack_before_sync = true,
        Some(Control::SkipDuplicateCheck) => defects.replication.skip_duplicate_check = true,
        Some(Control::MergeByAdding) => defects.executor.merge_by_adding = true,
        Some(Control::IgnoreCauses) => defects.replication.ignore_causes = true,
        Some(Control::ReuseIncarnation) => defects.reuse_incarnation = true,
        Some(Control::KeepSuperseded) => defects.keep_superseded = true,
        Some(Control::JoinEarly) => defects.join_early = true,
        Some(Control::TornStage) => defects.replication.torn_stages = true,
        Some(Control::CollectEarly) => defects.collect_early = true,
        Some(Control::LoseConflicts) => defects.lose_conflicts = true,
        Some(Control::SkipResidencyCheck) => defects.skip_residency_check = true,
        Some(Control::LoseFlush(_)) | None => {}
    }
    defects
}
