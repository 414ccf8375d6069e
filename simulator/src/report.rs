//! What a run did, and what a suite of runs must have done to count.

use std::collections::{BTreeMap, BTreeSet};

use tributary_region::Region;
use tributary_region::dataflow::Counts;

use crate::ledger::LedgerCounts;
use crate::network::NetworkCounts;
use crate::world::members::MemberCounts;

/// A run with fewer steps does not count.
pub const STEPS_MIN: u64 = 2_000;

/// What happened in a run, or in many.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Runs.
    pub runs: u64,
    /// Runs with fewer steps than count.
    pub short_runs: u64,
    /// Steps of regions.
    pub steps: u64,
    /// Simulated milliseconds.
    pub simulated_ms: u64,
    /// The longest time from healing to agreement, in milliseconds.
    pub settle_ms_max: u64,
    /// Snapshots published.
    pub publications: u64,
    /// Bundles sent.
    pub bundles_sent: u64,
    /// Checkpoints written.
    pub checkpoints: u64,
    /// Crashes.
    pub crashes: u64,
    /// Partitions.
    pub partitions: u64,
    /// Regions that were down for days.
    pub absences: u64,
    /// Connections that ended.
    pub resets: u64,
    /// Writes that failed for want of space.
    pub full_disks: u64,
    /// Unsynced writes that crashes took.
    pub lost_writes: u64,
    /// What happened to members.
    pub members: MemberCounts,
    /// Damaged messages that were refused.
    pub damaged_refused: u64,
    /// Bundles and greetings that regions refused.
    pub refused: u64,
    /// Bundles that regions withheld because of residency.
    pub withheld: u64,
    /// Tables whose residency is enforced.
    pub enforced_tables: u64,
    /// Drawn views that residency forbids.
    pub forbidden_views: u64,
    /// Times at which a link began again from where its peer was.
    pub rewinds: u64,
    /// What regions counted.
    pub regions: Counts,
    /// How submissions ended.
    pub ledger: LedgerCounts,
    /// Records of several commits.
    pub shared_records: u64,
    /// What the network did.
    pub network: NetworkCounts,
    /// Tables created.
    pub tables: u64,
    /// Views created, from SQL.
    pub views_from_sql: u64,
    /// Of those the ones in which one side of a join is merged, as a hidden view.
    pub views_merging_one_side: u64,
    /// Views created, from plans built by hand.
    pub views_by_hand: u64,
    /// Objects dropped.
    pub dropped: u64,
    /// Drawn views that the planner refused, by its message.
    pub refused_views: BTreeMap<String, u64>,
    /// Tables compared with the model.
    pub tables_compared: u64,
    /// Views compared with the oracle.
    pub views_compared: u64,
    /// Of these, in regions that are alone.
    pub alone_compared: u64,
    /// Of these, over session windows, and with rows.
    pub sessions_compared: u64,
    /// Of these, without groups that are too small to leave their region.
    pub held_back_compared: u64,
    /// Rows in them.
    pub rows_compared: u64,
    /// Views compared with DataFusion's batch answer.
    pub sql_compared: u64,
    /// Views that DataFusion could not answer.
    pub sql_skipped: u64,
    /// Rows of the table of conflicts that were compared.
    pub conflicts_found: u64,
    /// Comparisons that the oracle could not make.
    pub unknown_to_oracle: u64,
    /// Why not.
    pub unknown: BTreeSet<String>,
    /// The digest of the last run's trace.
    pub digest: [u8; 32],
}

impl Report {
    /// Takes over what a region counted since it started.
    pub fn absorb(&mut self, region: &Region) {
        add_counts(&mut self.regions, &region.counts());
        self.rewinds += region
            .snapshot()
            .links
            .iter()
            .map(|(_, link)| link.counts.rewinds)
            .sum::<u64>();
    }

    /// Adds a run to a suite.
    pub fn add(&mut self, run: &Report) {
        self.runs += 1;
        self.short_runs += u64::from(run.steps < STEPS_MIN);
        self.settle_ms_max = self.settle_ms_max.max(run.settle_ms_max);
        add_counts(&mut self.regions, &run.regions);
        let sums: [(&mut u64, u64); 25] = [
            (&mut self.steps, run.steps),
            (&mut self.simulated_ms, run.simulated_ms),
            (&mut self.publications, run.publications),
            (&mut self.checkpoints, run.checkpoints),
            (&mut self.crashes, run.crashes),
            (&mut self.partitions, run.partitions),
            (&mut self.absences, run.absences),
            (&mut self.resets, run.resets),
            (&mut self.full_disks, run.full_disks),
            (&mut self.lost_writes, run.lost_writes),
            (&mut self.damaged_refused, run.damaged_refused),
            (&mut self.refused, run.refused),
            (&mut self.withheld, run.withheld),
            (&mut self.enforced_tables, run.enforced_tables),
            (&mut self.forbidden_views, run.forbidden_views),
            (&mut self.rewinds, run.rewinds),
            (&mut self.tables, run.tables),
            (&mut self.views_from_sql, run.views_from_sql),
            (&mut self.views_merging_one_side, run.views_merging_one_side),
            (&mut self.views_by_hand, run.views_by_hand),
            (&mut self.dropped, run.dropped),
            (&mut self.tables_compared, run.tables_compared),
            (&mut self.views_compared, run.views_compared),
            (&mut self.rows_compared, run.rows_compared),
            (&mut self.unknown_to_oracle, run.unknown_to_oracle),
        ];
        sums.into_iter().for_each(|(sum, part)| *sum += part);
        self.shared_records += run.shared_records;
        self.alone_compared += run.alone_compared;
        self.sessions_compared += run.sessions_compared;
        self.held_back_compared += run.held_back_compared;
        self.sql_compared += run.sql_compared;
        self.sql_skipped += run.sql_skipped;
        self.conflicts_found += run.conflicts_found;
        let (ledger, network) = (&run.ledger, &run.network);
        self.ledger.submitted += ledger.submitted;
        self.ledger.acknowledged += ledger.acknowledged;
        self.ledger.conflicts += ledger.conflicts;
        self.ledger.behind += ledger.behind;
        self.ledger.refused += ledger.refused;
        self.ledger.lost += ledger.lost;
        self.ledger.superseded += ledger.superseded;
        self.members.add(&run.members);
        self.network.sent += network.sent;
        self.network.lost += network.lost;
        self.network.duplicated += network.duplicated;
        self.network.reordered += network.reordered;
        self.network.corrupted += network.corrupted;
        for (message, count) in &run.refused_views {
            *self.refused_views.entry(message.clone()).or_default() += count;
        }
        self.unknown.extend(run.unknown.iter().cloned());
    }

    /// What a suite must have seen, with how often it did.
    pub fn required(&self) -> [(&'static str, u64); 34] {
        [
            ("relays", self.regions.relayed),
            ("joint applications", self.regions.joint_applications),
            ("rewinds", self.rewinds),
            ("chunks", self.regions.chunks),
            ("stages applied", self.regions.stages),
            ("steps between portions of a stage", self.regions.beside_stages),
            ("lost flushes", self.lost_writes),
            ("conflicts", self.regions.conflicts),
            ("retractions", self.regions.retractions),
            ("commits refused while a region was behind", self.ledger.behind),
            ("tombstones dropped", self.regions.collected),
            ("conflicts in their table", self.conflicts_found),
            ("tables with residency enforced", self.enforced_tables),
            ("views that residency forbids", self.forbidden_views),
            ("damaged messages refused", self.damaged_refused),
            ("views compared with the oracle", self.views_compared),
            ("comparisons in regions that are alone", self.alone_compared),
            ("comparisons of session windows", self.sessions_compared),
            ("comparisons without small groups", self.held_back_compared),
            ("records of several commits", self.shared_records),
            ("rows out of memory", self.regions.spills),
            ("regions wiped", self.members.wiped),
            ("primaries wiped", self.members.primaries_wiped),
            ("starts without a log that must stop", self.members.started_bare),
            ("old copies that others know more of", self.members.restored),
            (
                "old copies that nobody knows more of",
                self.members.restored_unseen,
            ),
            ("forks that were told so", self.members.forked),
            ("regions fenced", self.members.fenced),
            ("regions that stopped as told", self.members.stopped),
            ("later incarnations that joined", self.members.reincarnated),
            ("regions added", self.members.added),
            ("regions drained and dropped", self.members.dropped),
            ("regions dropped by force", self.members.forced),
            ("hand-overs of the primary", self.members.handed_over),
        ]
    }

    /// Why a suite does not count, if it does not.
    pub fn shortfall(&self) -> Option<String> {
        let absent: Vec<&str> = self
            .required()
            .into_iter()
            .filter(|(_, count)| *count == 0)
            .map(|(name, _)| name)
            .collect();
        if self.short_runs > 0 {
            return Some(format!(
                "{} runs took fewer than {STEPS_MIN} steps",
                self.short_runs
            ));
        }
        (!absent.is_empty()).then(|| format!("never seen: {}", absent.join(", ")))
    }

    /// The report as lines for people.
    pub fn lines(&self) -> Vec<String> {
        let (ledger, network) = (&self.ledger, &self.network);
        let required: Vec<String> = self
            .required()
            .iter()
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        vec![
            format!(
                "runs {}, steps {}, simulated {} s",
                self.runs,
                self.steps,
                self.simulated_ms / 1000
            ),
            format!("seen: {}", required.join(", ")),
            format!(
                "commits: submitted {}, acknowledged {}, conflicting {}, refused {}, lost {}, gone with their log {}",
                ledger.submitted,
                ledger.acknowledged,
                ledger.conflicts,
                ledger.refused,
                ledger.lost,
                ledger.superseded
            ),
            format!(
                "faults: crashes {}, partitions {}, absences {}, connections ended {}, full disks {}; messages {} (lost {}, \
                 doubled {}, overtaken {}, damaged {})",
                self.crashes,
                self.partitions,
                self.absences,
                self.resets,
                self.full_disks,
                network.sent,
                network.lost,
                network.duplicated,
                network.reordered,
                network.corrupted
            ),
            format!(
                "catalog: tables {}, views from SQL {} ({} with one side of a join merged), views by hand {}, dropped {}",
                self.tables,
                self.views_from_sql,
                self.views_merging_one_side,
                self.views_by_hand,
                self.dropped
            ),
            format!(
                "compared: tables {}, views {} ({} rows), views with DataFusion {} (not possible {}), unknown to the \
                 oracle {}",
                self.tables_compared,
                self.views_compared,
                self.rows_compared,
                self.sql_compared,
                self.sql_skipped,
                self.unknown_to_oracle
            ),
            format!(
                "publications {}, checkpoints {}, bundles {}, refusals {}, too far behind {}, longest way to \
                 agreement {} ms",
                self.publications,
                self.checkpoints,
                self.regions.bundles,
                self.refused,
                self.members.too_far_behind,
                self.settle_ms_max
            ),
        ]
    }
}

fn add_counts(sum: &mut Counts, part: &Counts) {
    sum.steps += part.steps;
    sum.bundles += part.bundles;
    sum.joint_applications += part.joint_applications;
    sum.relayed += part.relayed;
    sum.chunks += part.chunks;
    sum.stages += part.stages;
    sum.beside_stages += part.beside_stages;
    sum.conflicts += part.conflicts;
    sum.retractions += part.retractions;
    sum.spills += part.spills;
    sum.collected += part.collected;
}
