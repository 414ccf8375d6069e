//! Healing, and what must be true some time after it.

use tributary_replication::Frontier;

use super::World;
use super::event::Event;
use crate::checks;
use crate::failure::{Checked, Violation};
use crate::report::STEPS_MIN;

/// How long regions may take after healing until they agree, in simulated milliseconds.
const SETTLE_MS_MAX: u64 = 60_000;

/// How long a cluster in agreement is watched, in simulated milliseconds: nothing must happen.
const IDLE_MS: u64 = 400;

/// How often it is looked whether they do.
const LOOK_EVERY_MS: u64 = 50;

impl World {
    /// Trouble ends: cuts are mended, disks have space, messages arrive, crashed regions will restart.
    pub(super) fn heal(&mut self) -> Checked {
        self.healed = true;
        self.network.set_healed(true);
        self.heal_deadline_ms = self.now_ms + SETTLE_MS_MAX;
        for node in 0..self.nodes.len() {
            self.nodes[node].paused_until_ms = 0;
            if self.nodes[node].full {
                self.disk_space(node)?;
            }
        }
        self.trace.add(self.now_ms, 0, "healed", &[]);
        self.queue.plan(self.now_ms + LOOK_EVERY_MS, Event::Settled);
        Ok(())
    }

    /// Looks whether all regions agree; when they do, checks everything and goes on.
    pub(super) fn check_settled(&mut self) -> Checked {
        if let Err(why) = self.agreed() {
            if self.now_ms >= self.heal_deadline_ms {
                let detail = format!("{SETTLE_MS_MAX} ms after healing: {why}");
                return Err(Violation::new("regions agree after healing", detail));
            }
            self.queue.plan(self.now_ms + LOOK_EVERY_MS, Event::Settled);
            return Ok(());
        }
        let records: Vec<u64> = self
            .member_nodes()
            .into_iter()
            .map(|node| self.model.last(self.nodes[node].log()))
            .collect();
        match self.idle_since.take() {
            None => {
                let took_ms = self.now_ms + SETTLE_MS_MAX - self.heal_deadline_ms;
                self.report.settle_ms_max = self.report.settle_ms_max.max(took_ms);
                self.check_everything()?;
                self.idle_since = Some((records, self.report.bundles_sent, self.report.crashes));
                self.queue.plan(self.now_ms + IDLE_MS, Event::Settled);
                return Ok(());
            }
            // A restart announces one epoch (RFC 0001): the idleness begins anew.
            Some((.., crashes)) if self.report.crashes > crashes => {
                self.queue.plan(self.now_ms + IDLE_MS, Event::Settled);
                return Ok(());
            }
            Some((before, ..)) if records != before => {
                let detail = format!("{IDLE_MS} ms of idleness took logs from {before:?} to {records:?}");
                return Err(Violation::new("an idle cluster is silent", detail));
            }
            Some((_, sent, crashes)) if self.report.bundles_sent > sent => {
                // A link whose peer heard everything from others may still have to find that out.
                if self.now_ms >= self.heal_deadline_ms {
                    let detail = format!("bundles are still sent {SETTLE_MS_MAX} ms after healing");
                    return Err(Violation::new("an idle cluster is silent", detail));
                }
                self.idle_since = Some((records, self.report.bundles_sent, crashes));
                self.queue.plan(self.now_ms + IDLE_MS, Event::Settled);
                return Ok(());
            }
            Some(_) => {}
        }
        self.rounds_done += 1;
        if self.rounds_done >= self.options.rounds && self.report.steps >= STEPS_MIN {
            self.finished = true;
            return Ok(());
        }
        self.healed = false;
        self.network.set_healed(false);
        self.queue
            .plan(self.now_ms + self.options.trouble_ms, Event::Heal);
        Ok(())
    }

    /// Whether all regions run, have published all of their logs, know everything of each other, and have
    /// completed every view.
    fn agreed(&self) -> Result<(), String> {
        self.operated()?;
        let mut common: Option<Frontier> = None;
        for index in self.member_nodes() {
            let node = &self.nodes[index];
            let Some(process) = &node.process else {
                return Err(format!("r{} does not run", index + 1));
            };
            let snapshot = process.region.snapshot();
            let last = self.model.last(self.nodes[index].log());
            if snapshot.position.0 != last {
                return Err(format!(
                    "r{} shows {} of {last} records",
                    index + 1,
                    snapshot.position.0
                ));
            }
            if snapshot.origin.is_none() {
                return Err(format!("r{} has not joined", index + 1));
            }
            if !snapshot.settled {
                return Err(format!("r{} is not settled at {}", index + 1, snapshot.frontier));
            }
            let dataflow = process.region.dataflow();
            let tombstones = (dataflow.row_tombstones(), dataflow.slot_tombstones());
            if tombstones != (0, 0) {
                let (rows, slots) = tombstones;
                return Err(format!(
                    "r{} keeps tombstones of {rows} rows and {slots} slots",
                    index + 1
                ));
            }
            let missing = snapshot.views.iter().find(|(_, view)| !view.missing.is_empty());
            if let Some((id, view)) = missing {
                return Err(format!("r{}: view {id} misses {:?}", index + 1, view.missing));
            }
            let common = common.get_or_insert_with(|| snapshot.frontier.clone());
            if *common != snapshot.frontier {
                let links = snapshot.links.iter();
                let links: Vec<String> = links
                    .map(|(peer, link)| format!("{peer} {:?} acked {}", link.state, link.acked))
                    .collect();
                let here = &snapshot.frontier;
                return Err(format!(
                    "r{} is at {here}, r1 at {common}; links {links:?}",
                    index + 1
                ));
            }
        }
        Ok(())
    }

    /// The places of members, by the newest catalog.
    fn member_nodes(&self) -> Vec<usize> {
        let Some((_, newest)) = self.newest() else {
            return (0..self.options.regions).collect();
        };
        let names = newest.catalog.members().map(|(_, def)| def.name.as_str());
        let mut nodes: Vec<usize> = names.filter_map(|name| self.number(name)).collect();
        nodes.sort_unstable();
        nodes
    }

    /// Everything that was acknowledged in a region that was drained and dropped is everywhere.
    fn check_drained(&self, frontier: &Frontier) -> Checked {
        for log in &self.members.drained {
            let acknowledged = self.ledger.acknowledged(*log);
            let known = self
                .model
                .origin_of(*log)
                .map_or(0, |origin| frontier.get(origin).0);
            if acknowledged > known {
                let detail = format!("{log} was acknowledged at {acknowledged}, others have {known} of it");
                return Err(Violation::new("a region that was drained loses nothing", detail));
            }
        }
        Ok(())
    }

    fn check_everything(&mut self) -> Checked {
        self.ledger
            .check_all(|log, position, token| self.model.holds(log, position, token))?;
        let mut snapshots = Vec::new();
        for node in self.member_nodes() {
            let Some(snapshot) = self.nodes[node].snapshot() else {
                continue;
            };
            checks::contents(&self.model, self.nodes[node].log(), &snapshot, &mut self.report)?;
            checks::contents_plain(&self.model, self.nodes[node].log(), &snapshot, &mut self.report)?;
            self.check_slots(node)?;
            snapshots.push((self.nodes[node].log(), snapshot));
        }
        let members = self.member_nodes().into_iter();
        let regions: Vec<_> = members
            .map(|node| &self.nodes[node])
            .filter_map(|node| Some((node.index, node.process.as_ref()?.region.dataflow())))
            .collect();
        crate::checks::slots::equal_everywhere(&regions)?;
        checks::conflicts::conflicts_are_complete(&self.model, &snapshots, &mut self.report)?;
        if let Some((log, snapshot)) = snapshots.first() {
            self.check_drained(&snapshot.frontier)?;
            crate::checks::sql::views(&self.model, *log, snapshot, &self.workload, &mut self.report)?;
        }
        Ok(())
    }
}
