//! What goes wrong.

use std::collections::BTreeMap;

use tributary_region::{Input, Region, RegionError};
use tributary_storage::kv::{CrashFaults, Loss};
use tributary_storage::{Family, Log};

use super::World;
use super::event::{Event, Fault};
use super::node::Process;
use crate::failure::{Checked, Violation};
use crate::network::Direction;
use crate::rng::Rng;

/// How far a clock jumps, in milliseconds.
const CLOCK_JUMP_MS: u64 = 1_500;

const DAY_MS: u64 = 24 * 3_600_000;

impl World {
    /// Plans the next fault of a kind, at about the rate that the options give.
    pub(super) fn plan_fault(&mut self, fault: Fault) {
        let (faults, members) = (&self.options.faults, &self.options.members);
        let every_ms = match fault {
            Fault::Crash => faults.crash_every_ms,
            Fault::Partition => faults.partition_every_ms,
            Fault::Reset => faults.reset_every_ms,
            Fault::ClockJump => faults.clock_jump_every_ms,
            Fault::FullDisk => faults.full_disk_every_ms,
            Fault::Pause => faults.pause_every_ms,
            Fault::Absence => faults.absence_every_ms,
            Fault::Wipe => members.wipe_every_ms,
            Fault::WipePrimary => members.wipe_primary_every_ms,
            Fault::Restore => members.restore_every_ms,
            Fault::Fence => members.fence_every_ms,
            Fault::AddRegion => members.add_every_ms,
            Fault::DropRegion => members.drop_every_ms,
            Fault::SetPrimary => members.set_primary_every_ms,
        };
        if every_ms > 0 {
            let rng = match fault.is_of_members() {
                true => &mut self.members.rng,
                false => &mut self.rng,
            };
            let at = self.now_ms + rng.about(every_ms);
            self.queue.plan(at, Event::Fault(fault));
        }
    }

    pub(super) fn fault(&mut self, fault: Fault) -> Checked {
        self.plan_fault(fault);
        if self.healed {
            return Ok(());
        }
        if fault.is_of_members() {
            return self.member_fault(fault);
        }
        let node = self.rng.index(self.nodes.len());
        match fault {
            // Power fails at once, or during one of the next writes.
            Fault::Crash if self.rng.percent(60) => self.crash(node)?,
            Fault::Crash if self.nodes[node].process.is_some() => {
                self.nodes[node].log_disk.set_power_fails_after(self.rng.below(6));
            }
            Fault::Crash => {}
            Fault::Partition | Fault::Reset if self.nodes.len() < 2 => {}
            Fault::Partition => {
                let cut = draw_partition(&mut self.rng, self.nodes.len());
                let until = self.now_ms + self.rng.between(100, 1_500);
                self.trace
                    .add(self.now_ms, node, format_args!("partition {cut:?}"), &[]);
                self.report.partitions += 1;
                cut.iter().for_each(|direction| self.network.cut(*direction));
                if self.rng.percent(30) {
                    cut.iter().for_each(|&(a, b)| self.hang_up(a, b));
                }
                self.queue.plan(until, Event::Mend(cut));
            }
            Fault::Reset => {
                let (a, b) = *self.rng.pick(&self.network.pairs());
                self.hang_up(a, b);
            }
            Fault::ClockJump => {
                self.trace.add(self.now_ms, node, "clock jumps", &[]);
                self.nodes[node].clock.jump(&mut self.rng, CLOCK_JUMP_MS);
            }
            Fault::FullDisk => {
                self.nodes[node].full = true;
                let until = self.now_ms + self.rng.between(50, 400);
                self.queue.plan(until, Event::DiskSpace(node));
                self.nodes[node].state_disk.set_full(true);
                self.nodes[node].log_disk.set_full(true);
                if self.rng.percent(50) {
                    // The shell may learn of it before it hits it, or by hitting it.
                    self.step(node, Input::DiskFull(true))?;
                }
            }
            Fault::Pause => {
                self.nodes[node].paused_until_ms = self.now_ms + self.rng.between(50, 7_000);
                self.trace.add(self.now_ms, node, "stands still", &[]);
            }
            Fault::Absence => self.go_away(node)?,
            _ => {}
        }
        Ok(())
    }

    /// A region is down for days. The others go on before and after these days; what happens in them is no more than that.
    fn go_away(&mut self, node: usize) -> Checked {
        if self.nodes[node].process.is_none() || self.nodes[node].suspect.is_some() {
            return Ok(());
        }
        self.crash(node)?;
        let leaving_ms = self.now_ms + self.rng.between(200, 1_500);
        self.nodes[node].away_until_ms = leaving_ms + self.rng.between(200, 1_500);
        let days = self.rng.between(1, 9);
        self.trace
            .add(self.now_ms, node, format_args!("is away for {days} days"), &[]);
        self.report.absences += 1;
        self.queue.plan(leaving_ms, Event::Days(days));
        Ok(())
    }

    /// All clocks go on by days.
    pub(super) fn pass_days(&mut self, days: u64) {
        self.trace
            .add(self.now_ms, 0, format_args!("{days} days pass"), &[]);
        let nodes = self.nodes.iter_mut();
        nodes.for_each(|node| node.clock.pass(days * DAY_MS));
    }

    pub(super) fn disk_space(&mut self, node: usize) -> Checked {
        self.nodes[node].full = false;
        self.nodes[node].state_disk.set_full(false);
        self.nodes[node].log_disk.set_full(false);
        let waiting = self.nodes[node]
            .process
            .as_mut()
            .map(|process| std::mem::take(&mut process.unwritten));
        for record in waiting.into_iter().flatten() {
            self.write_record(node, record)?;
        }
        self.plan_sync(node);
        self.step(node, Input::DiskFull(false))
    }

    /// Takes a region's power: its process is gone, its disks lose some of what was not synced.
    pub(super) fn crash(&mut self, index: usize) -> Checked {
        let node = &mut self.nodes[index];
        let Some(process) = node.process.take() else {
            return Ok(());
        };
        node.paused_until_ms = 0;
        self.report.crashes += 1;
        self.report.absorb(&process.region);
        let mut faults = || draw_losses(&mut self.rng);
        let (log_faults, state_faults) = (faults(), faults());
        node.log_disk.crash(&log_faults);
        node.state_disk.crash(&state_faults);
        self.trace.add(
            self.now_ms,
            index,
            format_args!("crashes, {log_faults:?} {state_faults:?}"),
            &[],
        );
        for peer in (0..self.nodes.len()).filter(|peer| *peer != index) {
            self.hang_up(index, peer);
            self.hanging.remove(&(index, peer));
        }
        let at = self.now_ms + self.rng.between(10, 800);
        self.queue.plan(at, Event::Restart(index));
        Ok(())
    }

    /// Starts a region from its disks. Everything that it ever claimed to be durable must be there.
    pub(super) fn restart(&mut self, index: usize) -> Checked {
        let log = self.nodes[index].log();
        let unreadable = |detail: String| {
            Violation::new(
                "a region restarts from its disks",
                format!("r{}: {detail}", index + 1),
            )
        };
        let node = &mut self.nodes[index];
        if node.process.is_some() || node.is_held {
            return Ok(());
        }
        if node.away_until_ms > self.now_ms {
            self.queue.plan(node.away_until_ms, Event::Restart(index));
            return Ok(());
        }
        if node.full {
            // A server that cannot write does not start; it is tried again.
            self.queue.plan(self.now_ms + 100, Event::Restart(index));
            return Ok(());
        }
        let stored = node.read_disks().map_err(|error| unreadable(error.to_string()))?;
        let last = stored.log.last().map_err(|error| unreadable(error.to_string()))?;
        let (last, chain) = last.map_or((0, None), |(position, chain)| (position.0, Some(chain)));
        let covered = stored
            .loaded
            .as_ref()
            .map_or(0, |loaded| loaded.position.0)
            .max(last);
        let durable = self.model.durable(log);
        if covered < durable {
            let detail = format!(
                "r{} restarts at {covered}, a sync had covered {durable}",
                index + 1
            );
            return Err(Violation::new("synced records survive", detail));
        }
        self.ledger.crash(log, covered)?;
        if chain.is_some_and(|chain| chain != self.model.chain(log, last)) {
            return Err(unreadable(format!("its log at {last} is not what was appended")));
        }
        self.model.lose(log, covered);
        // The flag is for a region without a log.
        node.config.reincarnate &= self.model.writes_as(log, covered).is_none();
        let now_ms = node.clock.read(self.now_ms);
        let mut effects = Vec::new();
        let opened = Region::open(
            node.config.clone(),
            stored.loaded,
            stored.tail,
            now_ms,
            &mut effects,
        );
        let region = match opened {
            Ok(region) => region,
            Err(RegionError::Superseded(reason)) => return self.stopped(index, &reason),
            Err(error) => return Err(unreadable(error.to_string())),
        };
        node.boot += 1;
        node.published = 0;
        node.process = Some(Process {
            region,
            log: stored.log,
            appended: covered,
            syncing: false,
            working: false,
            unwritten: Vec::new(),
            snapshots: Default::default(),
        });
        let boot = node.boot;
        self.trace
            .add(self.now_ms, index, format_args!("starts at {covered}"), &[]);
        self.carry_out(index, effects)?;
        self.queue.plan(self.now_ms, Event::Timer { node: index, boot });
        self.plan_work(index);
        self.plan_checkpoint(index);
        Ok(())
    }

    pub(super) fn plan_checkpoint(&mut self, node: usize) {
        let boot = self.nodes[node].boot;
        let every_ms = self.options.checkpoint_every_ms;
        let at = self.now_ms + self.rng.about(every_ms);
        self.queue.plan(at, Event::CheckpointDue { node, boot });
    }
}

fn draw_losses(rng: &mut Rng) -> CrashFaults {
    let mut lose_unsynced = BTreeMap::new();
    for family in Family::ALL {
        let loss = match rng.below(4) {
            0 => Loss::TornLast,
            1 => Loss::Keep(rng.index(6)),
            _ => Loss::All,
        };
        lose_unsynced.insert(family, loss);
    }
    CrashFaults { lose_unsynced }
}

/// Directions to cut: one way, one pair, one region from all others, or the world in two.
fn draw_partition(rng: &mut Rng, regions: usize) -> Vec<Direction> {
    let a = rng.index(regions);
    let b = (a + 1 + rng.index(regions - 1)) % regions;
    let between = |left: &dyn Fn(usize) -> bool| -> Vec<Direction> {
        let all = (0..regions).flat_map(|from| (0..regions).map(move |to| (from, to)));
        all.filter(|(from, to)| left(*from) != left(*to)).collect()
    };
    match rng.below(4) {
        0 => vec![(a, b)],
        1 => vec![(a, b), (b, a)],
        2 => between(&|region| region == a),
        _ => between(&|region| region == a || region == b),
    }
}
