//! What a run is made of, drawn from its seed.

use std::fmt;

use tributary_storage::Family;

use crate::rng::Rng;

/// A deliberate fault that the checks must find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Acknowledge and publish without waiting for the log's sync.
    AckBeforeSync,
    /// Let older stamps overwrite newer ones.
    SkipDuplicateCheck,
    /// Add a partial to the one it replaces.
    MergeByAdding,
    /// Apply a bundle whose causes are missing.
    IgnoreCauses,
    /// A region that lost its log writes as the incarnation that others have heard of.
    ReuseIncarnation,
    /// Slots of superseded incarnations go on counting.
    KeepSuperseded,
    /// A region takes part before its views are computed.
    JoinEarly,
    /// A stage is applied although chunks of it are missing.
    TornStage,
    /// Tombstones are dropped before everybody has acknowledged them.
    CollectEarly,
    /// Conflicts are resolved and not recorded.
    LoseConflicts,
    /// Views may read what they like of enforced tables, and nothing is stopped at the door.
    SkipResidencyCheck,
    /// A sync that leaves one family out.
    LoseFlush(Family),
}

impl Control {
    /// All of them.
    pub const ALL: [Control; 14] = [
        Control::AckBeforeSync,
        Control::SkipDuplicateCheck,
        Control::MergeByAdding,
        Control::IgnoreCauses,
        Control::ReuseIncarnation,
        Control::KeepSuperseded,
        Control::JoinEarly,
        Control::TornStage,
        Control::CollectEarly,
        Control::LoseConflicts,
        Control::SkipResidencyCheck,
        Control::LoseFlush(Family::Log),
        Control::LoseFlush(Family::Runs),
        Control::LoseFlush(Family::Manifest),
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Control::AckBeforeSync => "ack-before-sync",
            Control::SkipDuplicateCheck => "skip-duplicate-check",
            Control::MergeByAdding => "merge-by-adding",
            Control::IgnoreCauses => "ignore-causes",
            Control::ReuseIncarnation => "reuse-incarnation",
            Control::KeepSuperseded => "keep-superseded",
            Control::JoinEarly => "join-early",
            Control::TornStage => "torn-stage",
            Control::CollectEarly => "collect-early",
            Control::LoseConflicts => "lose-conflicts",
            Control::SkipResidencyCheck => "skip-residency-check",
            Control::LoseFlush(Family::Log) => "lose-log-flush",
            Control::LoseFlush(Family::Runs) => "lose-runs-flush",
            Control::LoseFlush(Family::Manifest) => "lose-manifest-flush",
        }
    }

    /// The control of this name.
    pub fn named(name: &str) -> Option<Control> {
        Control::ALL.into_iter().find(|control| control.name() == name)
    }
}

/// How messages travel on a directed link.
#[derive(Clone, Copy, Debug)]
pub struct LinkProfile {
    /// Milliseconds under way, at least.
    pub delay_ms: u64,
    /// Further milliseconds, at most.
    pub jitter_ms: u64,
    /// Of a thousand messages so many are lost.
    pub loss: u64,
    /// Of a thousand messages so many arrive twice.
    pub duplication: u64,
    /// Of a thousand messages so many may be overtaken.
    pub reordering: u64,
    /// Of a thousand messages so many arrive with a wrong bit.
    pub corruption: u64,
}

/// How often things go wrong: mean milliseconds between two of a kind, over the whole world; 0 is never.
#[derive(Clone, Copy, Debug)]
pub struct FaultProfile {
    /// Crashes.
    pub crash_every_ms: u64,
    /// Partitions.
    pub partition_every_ms: u64,
    /// Connections reset.
    pub reset_every_ms: u64,
    /// Jumps of a clock.
    pub clock_jump_every_ms: u64,
    /// Disks that are full for a while.
    pub full_disk_every_ms: u64,
    /// Processes that stand still for a while.
    pub pause_every_ms: u64,
    /// Regions that are down for days while the others go on.
    pub absence_every_ms: u64,
}

/// How often members come and go: mean milliseconds between two of a kind, over the whole world; 0 is never.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemberProfile {
    /// Regions other than the primary whose disks are lost.
    pub wipe_every_ms: u64,
    /// Primaries whose disks are lost.
    pub wipe_primary_every_ms: u64,
    /// Disks put back to an earlier copy.
    pub restore_every_ms: u64,
    /// Regions fenced.
    pub fence_every_ms: u64,
    /// Regions added.
    pub add_every_ms: u64,
    /// Regions dropped.
    pub drop_every_ms: u64,
    /// Hand-overs of the primary.
    pub set_primary_every_ms: u64,
}

impl MemberProfile {
    /// Whether any of it happens.
    pub fn happen(&self) -> bool {
        let Self {
            wipe_every_ms,
            wipe_primary_every_ms,
            restore_every_ms,
            fence_every_ms,
            add_every_ms,
            drop_every_ms,
            set_primary_every_ms,
        } = *self;
        let all = [
            wipe_every_ms,
            wipe_primary_every_ms,
            restore_every_ms,
            fence_every_ms,
            add_every_ms,
            drop_every_ms,
            set_primary_every_ms,
        ];
        all.iter().any(|every_ms| *every_ms > 0)
    }

    /// None of it in many runs; in the others a few kinds.
    fn draw(rng: &mut Rng) -> Self {
        if rng.percent(45) {
            return Self::default();
        }
        let mut often = |every_ms: u64| *rng.pick(&[0, every_ms, 2 * every_ms]);
        Self {
            wipe_every_ms: often(1_500),
            wipe_primary_every_ms: often(2_500),
            restore_every_ms: often(1_500),
            fence_every_ms: often(2_000),
            add_every_ms: often(1_000),
            drop_every_ms: often(2_500),
            set_primary_every_ms: often(1_500),
        }
    }
}

/// Limits of a region that a run makes small, so that they are met.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Rows that a backfill takes at once.
    pub backfill_rows_max: usize,
    /// Sealed records that wait for the dataflow.
    pub sealed_records_max: usize,
    /// Changed keys that a link remembers.
    pub pending_keys_max: usize,
    /// Bytes of changed keys that a link remembers.
    pub pending_bytes_max: usize,
    /// Bundles that a link has under way.
    pub window_bundles_max: usize,
    /// Bytes of rows beyond which a bundle goes in chunks.
    pub bundle_bytes_max: usize,
    /// Bytes of rows in each chunk.
    pub chunk_bytes_max: usize,
    /// Chunks that a link has under way.
    pub window_chunks_max: usize,
    /// Slots of a stage that are merged at once.
    pub apply_rows_max: usize,
    /// How long a half-sent stage is kept, in milliseconds.
    pub stage_keep_ms: u64,
    /// Milliseconds between two looks for stable tombstones, at least.
    pub collect_every_ms: u64,
}

/// Everything a run depends on.
#[derive(Clone, Debug)]
pub struct Options {
    /// The seed that all of this, and all chance in the run, is drawn from.
    pub seed: u64,
    /// The number of regions at first, 1 to 5, now and then 10.
    pub regions: usize,
    /// Regions that may be added.
    pub spare: usize,
    /// Partitions of each view of a region that is alone.
    pub partitions: usize,
    /// Whether all rows of views are out of memory.
    pub spilled: bool,
    /// Milliseconds of trouble before each healing.
    pub trouble_ms: u64,
    /// How often trouble and healing alternate.
    pub rounds: u32,
    /// The profile from which each link's own is drawn.
    pub link: LinkProfile,
    /// What goes wrong.
    pub faults: FaultProfile,
    /// What happens to members.
    pub members: MemberProfile,
    /// How far clocks are apart, in milliseconds.
    pub clock_skew_ms: u64,
    /// Mean milliseconds between two commits of a region.
    pub write_every_ms: u64,
    /// Milliseconds between the end of a write and its sync, at most.
    pub sync_ms: u64,
    /// Milliseconds from an input to the step of the dataflow, at most.
    pub work_ms: u64,
    /// Mean milliseconds between two checkpoints of a region.
    pub checkpoint_every_ms: u64,
    /// Limits of each region.
    pub limits: Limits,
    /// Of a hundred views so many are planned from SQL; the others are built by hand.
    pub sql_views: u64,
    /// Of a hundred publications so many are compared with the oracle in full.
    pub compared: u64,
    /// Whether the residency of some REGIONAL tables is enforced.
    pub enforced: bool,
    /// Whether some tables are written only while connected regions are near.
    pub sheds: bool,
    /// The deliberate fault, if any.
    pub control: Option<Control>,
}

impl Options {
    /// The options of a seed.
    pub fn draw(seed: u64) -> Self {
        let mut rng = Rng::new(seed).fork("options");
        let regions = *rng.pick(&[2, 3, 3, 3, 3, 4, 4, 5]);
        let mut room = Rng::new(seed).fork("room");
        let regions = if room.percent(15) { 1 } else { regions };
        let mut members = Rng::new(seed).fork("members of the cluster");
        let regions = if members.percent(3) { 10 } else { regions };
        let profile = MemberProfile::draw(&mut members);
        let spare = if profile.add_every_ms > 0 {
            *members.pick(&[0, 1, 1, 2])
        } else {
            0
        };
        let calm = rng.percent(15);
        let unless_calm = |value: u64| if calm { 0 } else { value };
        let far = rng.percent(30);
        let mut stages = Rng::new(seed).fork("stages");
        Self {
            seed,
            regions,
            spare,
            members: profile,
            partitions: *room.pick(&[1, 2, 3]),
            spilled: room.percent(20),
            trouble_ms: rng.between(3_000, 6_000) * 3 / (regions as u64).max(3),
            rounds: if rng.percent(30) { 2 } else { 1 },
            link: LinkProfile {
                delay_ms: if far {
                    rng.between(20, 150)
                } else {
                    rng.between(1, 20)
                },
                jitter_ms: if far {
                    rng.between(0, 100)
                } else {
                    rng.between(0, 10)
                },
                loss: unless_calm(*rng.pick(&[0, 5, 30, 150, 300])),
                duplication: unless_calm(*rng.pick(&[0, 10, 100])),
                reordering: unless_calm(*rng.pick(&[0, 10, 200])),
                corruption: unless_calm(*rng.pick(&[0, 0, 3])),
            },
            faults: FaultProfile {
                crash_every_ms: unless_calm(*rng.pick(&[700, 1_500, 4_000])),
                partition_every_ms: unless_calm(*rng.pick(&[0, 1_000, 2_500])),
                reset_every_ms: unless_calm(*rng.pick(&[0, 500, 2_000])),
                clock_jump_every_ms: unless_calm(*rng.pick(&[0, 0, 1_500])),
                full_disk_every_ms: unless_calm(*rng.pick(&[0, 0, 2_000])),
                pause_every_ms: unless_calm(*rng.pick(&[0, 0, 2_000])),
                absence_every_ms: *Rng::new(seed).fork("absence").pick(&[0, 0, 0, 2_000]),
            },
            clock_skew_ms: *rng.pick(&[0, 5, 100, 100, 2_000, 12_000]),
            write_every_ms: *rng.pick(&[15, 30, 60]),
            sync_ms: *rng.pick(&[1, 5, 20, 60]),
            work_ms: *rng.pick(&[0, 2, 10, 40]),
            checkpoint_every_ms: *rng.pick(&[300, 1_000, 3_000]),
            limits: Limits {
                backfill_rows_max: *rng.pick(&[3, 50, 16_384]),
                sealed_records_max: *rng.pick(&[8, 4_096, 4_096]),
                pending_keys_max: *rng.pick(&[4, 1_000_000, 1_000_000]),
                window_bundles_max: *rng.pick(&[1, 8, 32]),
                bundle_bytes_max: *stages.pick(&[300, 1_000, 5_000, 32 << 20]),
                chunk_bytes_max: *stages.pick(&[200, 1_000]),
                window_chunks_max: *stages.pick(&[4, 16]),
                apply_rows_max: *stages.pick(&[3, 40, 16_384]),
                stage_keep_ms: *stages.pick(&[100, 600_000]),
                pending_bytes_max: *stages.pick(&[300, 64 << 20, 64 << 20]),
                collect_every_ms: *room.pick(&[20, 100, 1_000]),
            },
            sql_views: *rng.pick(&[60, 90, 100]),
            compared: 6,
            enforced: Rng::new(seed).fork("residency").percent(25),
            sheds: Rng::new(seed).fork("backpressure").percent(25),
            control: None,
        }
    }

    /// The same run with a deliberate fault, and with enough trouble of the kind that brings it to light.
    pub fn with_control(mut self, control: Control) -> Self {
        self.control = Some(control);
        self.regions = self.regions.max(2);
        self.faults.crash_every_ms = 700;
        self.faults.reset_every_ms = 500;
        self.checkpoint_every_ms = 300;
        self.link.duplication = 100;
        self.link.reordering = 200;
        self.compared = 25;
        if let Control::ReuseIncarnation | Control::KeepSuperseded | Control::JoinEarly = control {
            self.members.wipe_every_ms = 1_000;
            self.members.wipe_primary_every_ms = 2_000;
        }
        if control == Control::TornStage {
            self.link.loss = 150;
            self.limits.bundle_bytes_max = 100;
            self.limits.chunk_bytes_max = 1;
            self.limits.window_chunks_max = 16;
        }
        if control == Control::CollectEarly {
            self.limits.collect_every_ms = 20;
        }
        if control == Control::SkipResidencyCheck {
            self.enforced = true;
            self.sql_views = 40;
        }
        if control == Control::JoinEarly {
            // A view takes several turns to compute.
            self.limits.backfill_rows_max = 1;
        }
        self
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}
