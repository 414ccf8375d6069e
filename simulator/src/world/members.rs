//! Members that come, go, and come back with nothing: what happens to them. What is done about it is the operator's
//! (operator.rs).
//!
//! ```text
//!   wipe ─────────────▶ lost ──▶ (without the flag: stops) ──▶ fenced ──▶ another incarnation, from empty disks
//!   fence ──▶ told, stops ──┘
//!   restore ──▶ others have seen more: told, stops ──┘        nobody has: goes on
//!                  └─▶ goes on alone, further than its original: told that it is a fork, stops
//! ```

use tributary_planner::catalog::{PlanSettings, Standing};
use tributary_planner::ddl::plan_ddl;
use tributary_region::{Input, Snapshot};
use tributary_replication::Epoch;
use tributary_storage::MemKv;

use std::sync::Arc;

use super::World;
use super::event::{Event, Fault};
use super::node::{Node, Place};
use super::operator::{Leaving, Lost};
use crate::failure::{Checked, Violation};
use crate::network::Direction;

/// What happened to members.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemberCounts {
    /// Regions whose disks were lost.
    pub wiped: u64,
    /// Primary regions whose disks were lost.
    pub primaries_wiped: u64,
    /// Starts without a log and without the flag that allows it: they must stop.
    pub started_bare: u64,
    /// Disks put back to an earlier copy that others had seen more of.
    pub restored: u64,
    /// Disks put back to an earlier copy that nobody had seen more of.
    pub restored_unseen: u64,
    /// Of the copies that others had seen more of, those that had gone on beyond that, and were told that they are forks.
    pub forked: u64,
    /// Regions that were fenced while they were cut off.
    pub fenced: u64,
    /// Incarnations after the first that joined.
    pub reincarnated: u64,
    /// Regions added.
    pub added: u64,
    /// Regions drained and dropped.
    pub dropped: u64,
    /// Regions dropped as they were.
    pub forced: u64,
    /// Hand-overs of the primary.
    pub handed_over: u64,
    /// Regions that stopped because they were told so.
    pub stopped: u64,
    /// Of these, because tombstones were gone that they had never seen.
    pub too_far_behind: u64,
}

impl MemberCounts {
    /// Adds those of a run.
    pub fn add(&mut self, run: &MemberCounts) {
        let sums = [
            (&mut self.wiped, run.wiped),
            (&mut self.primaries_wiped, run.primaries_wiped),
            (&mut self.started_bare, run.started_bare),
            (&mut self.restored, run.restored),
            (&mut self.restored_unseen, run.restored_unseen),
            (&mut self.forked, run.forked),
            (&mut self.fenced, run.fenced),
            (&mut self.reincarnated, run.reincarnated),
            (&mut self.added, run.added),
            (&mut self.dropped, run.dropped),
            (&mut self.forced, run.forced),
            (&mut self.handed_over, run.handed_over),
            (&mut self.stopped, run.stopped),
            (&mut self.too_far_behind, run.too_far_behind),
        ];
        sums.into_iter().for_each(|(sum, part)| *sum += part);
    }
}

/// An earlier state of a region's disks.
#[derive(Clone)]
pub struct Copy {
    /// The disk of checkpoints.
    pub state: MemKv,
    /// The disk of the log.
    pub log: MemKv,
}

impl World {
    /// Something happens to a member, if there is one that it can happen to.
    pub(super) fn member_fault(&mut self, fault: Fault) -> Checked {
        let Some((_, newest)) = self.newest() else {
            return Ok(());
        };
        let primary = self.primary_named(&newest);
        let nodes = 0..self.nodes.len();
        let fits = |node: &usize| match fault {
            Fault::AddRegion => self.can_be_added(*node),
            Fault::WipePrimary => Some(*node) == primary && self.is_sound(*node) && self.is_known(*node),
            _ => {
                // Nobody takes away the disks of a primary before all know its heir.
                let is_followed = !self.members.former.contains(node) || self.is_known(*node);
                Some(*node) != primary && self.is_sound(*node) && self.others_go_on(*node) && is_followed
            }
        };
        let fitting: Vec<usize> = nodes.filter(fits).collect();
        if fitting.is_empty() {
            return Ok(());
        }
        let node = *self.members.rng.pick(&fitting);
        match fault {
            Fault::Wipe | Fault::WipePrimary => {
                self.trace.add(self.now_ms, node, "is wiped", &[]);
                match fault {
                    Fault::Wipe => self.report.members.wiped += 1,
                    _ => self.report.members.primaries_wiped += 1,
                }
                let bare = self.members.rng.percent(30);
                self.lose(node, bare)
            }
            Fault::Restore => self.restore(node),
            Fault::Fence => self.fence(node),
            Fault::AddRegion => {
                self.nodes[node].is_adding = true;
                // Now and then it is started too early, and nobody talks to it.
                if self.members.rng.percent(30) && self.is_known_for_gone(node) {
                    self.start_anew(node, false);
                }
                Ok(())
            }
            Fault::DropRegion => self.drop_region(node, &newest),
            Fault::SetPrimary => self.hand_over(node, &newest),
            Fault::Crash
            | Fault::Partition
            | Fault::Reset
            | Fault::ClockJump
            | Fault::FullDisk
            | Fault::Pause
            | Fault::Absence => Ok(()),
        }
    }

    /// A region that takes part, as far as its operator knows.
    fn is_sound(&self, node: usize) -> bool {
        let place = &self.nodes[node];
        let log = place.log();
        place.place == Place::Member
            && place.lost.is_none()
            && place.suspect.is_none()
            && !place.is_adding
            && self.model.writes_as(log, self.model.last(log)).is_some()
    }

    /// Whether another region runs and takes part.
    fn others_go_on(&self, node: usize) -> bool {
        (0..self.nodes.len()).any(|other| other != node && self.takes_part(other))
    }

    /// Whether all regions that are members are so in everybody's eyes: what only the primary knows goes with it.
    fn is_known(&self, node: usize) -> bool {
        let others: Vec<usize> = (0..self.nodes.len())
            .filter(|other| *other != node && self.nodes[*other].place == Place::Member)
            .collect();
        let knows = |other: &usize| {
            let snapshot = self.nodes[*other].snapshot();
            snapshot.is_some_and(|snapshot| {
                snapshot.catalog.primary == self.newest().and_then(|(_, newest)| newest.catalog.primary)
                    && self
                        .nodes
                        .iter()
                        .filter(|node| node.place == Place::Member)
                        .all(|node| snapshot.catalog.region_named(&node.config.name).is_some())
            })
        };
        self.others_go_on(node) && others.iter().all(|other| self.takes_part(*other) && knows(other))
    }

    /// Whether every member either knows that a region is none, or what it had written when it was one.
    fn is_known_for_gone(&self, node: usize) -> bool {
        let name = &self.nodes[node].config.name;
        let knows = |snapshot: &Snapshot| {
            let region = snapshot.catalog.region_named(name);
            let origin = region.and_then(|region| snapshot.catalog.origin_of(region));
            origin.is_none_or(|origin| snapshot.frontier.get(origin) > Epoch(0))
        };
        let members = self.nodes.iter().filter(|node| node.place == Place::Member);
        members
            .map(Node::snapshot)
            .all(|snapshot| snapshot.is_some_and(|snapshot| knows(&snapshot)))
    }

    fn can_be_added(&self, node: usize) -> bool {
        let place = &self.nodes[node];
        place.place != Place::Member && !place.is_adding && place.process.is_none()
    }

    /// A region's log is gone, or must not be continued. `bare`: its operator first starts it as if nothing were.
    pub(super) fn lose(&mut self, node: usize, bare: bool) -> Checked {
        self.crash(node)?;
        self.end_log(node);
        let at_ms = self.now_ms + self.members.rng.between(100, 1_500);
        let copy = None;
        self.hold(node, Lost { at_ms, bare, copy });
        Ok(())
    }

    fn hold(&mut self, node: usize, lost: Lost) {
        self.nodes[node].is_held = true;
        self.nodes[node].lost = Some(lost);
    }

    /// What others have of the log stays; what they have not is gone, and that is as told.
    pub(super) fn end_log(&mut self, node: usize) {
        let log = self.nodes[node].log();
        self.ledger.supersede(log, 0);
        self.model.end(log);
    }

    /// A region's disks are put back to what they were a while ago.
    fn restore(&mut self, node: usize) -> Checked {
        let Some(copy) = self.nodes[node].copy.take() else {
            return Ok(());
        };
        self.crash(node)?;
        let at_ms = self.now_ms + self.members.rng.between(150, 800);
        let (bare, copy) = (false, Some(copy));
        self.hold(node, Lost { at_ms, bare, copy });
        Ok(())
    }

    /// The primary says that a region's log counts no more, mostly one that cannot hear of it.
    fn fence(&mut self, node: usize) -> Checked {
        if self.members.rng.percent(80) {
            let cut = self.cut_off(node, None);
            let until = self.now_ms + self.members.rng.between(200, 2_000);
            self.queue.plan(until, Event::Mend(cut));
        }
        let name = self.nodes[node].config.name.clone();
        if self.alter(&format!("FENCE REGION {name}"))? {
            self.report.members.fenced += 1;
        }
        Ok(())
    }

    /// Cuts a region off from all others, or all but one.
    pub(super) fn cut_off(&mut self, node: usize, but: Option<usize>) -> Vec<Direction> {
        let others = (0..self.nodes.len()).filter(|other| *other != node && Some(*other) != but);
        let cut: Vec<Direction> = others.flat_map(|other| [(node, other), (other, node)]).collect();
        cut.iter().for_each(|direction| self.network.cut(*direction));
        for &(a, b) in &cut {
            self.hang_up(a, b);
        }
        cut
    }

    fn drop_region(&mut self, node: usize, newest: &Snapshot) -> Checked {
        let name = self.nodes[node].config.name.clone();
        let Some(region) = newest.catalog.region_named(&name) else {
            return Ok(());
        };
        let members = newest.catalog.members();
        let staying = members
            .filter(|(_, def)| def.standing == Standing::Member)
            .count();
        if self.members.leaving.is_some() || staying < 2 {
            return Ok(());
        }
        if self.members.rng.percent(30) {
            if self.alter(&format!("DROP REGION {name} FORCE"))? {
                self.report.members.forced += 1;
            }
            return Ok(());
        }
        self.members.leaving = Some(Leaving::new(node, region));
        Ok(())
    }

    fn hand_over(&mut self, node: usize, newest: &Snapshot) -> Checked {
        let name = self.nodes[node].config.name.clone();
        let links = newest.links.iter();
        let mut up = links.filter(|(_, link)| link.state == tributary_replication::LinkState::Up);
        let is_up = up.any(|(peer, _)| *peer == name);
        if is_up && self.takes_part(node) && self.alter(&format!("SET PRIMARY REGION {name}"))? {
            self.report.members.handed_over += 1;
            self.members.former.extend(self.primary_named(newest));
        }
        Ok(())
    }

    /// Runs an ALTER DATABASE at the primary. False when there is none, or it does not want to.
    pub(super) fn alter(&mut self, action: &str) -> Checked<bool> {
        let Some((node, snapshot)) = self.primary() else {
            return Ok(false);
        };
        let text = format!("ALTER DATABASE tributary {action}");
        let now_ms = self.nodes[node].clock.read(self.now_ms);
        let parsed = tributary_planner::parse::parse(&text);
        let parsed =
            parsed.map_err(|error| Violation::new("the planner takes what is SQL", error.to_string()))?;
        let settings = PlanSettings::default();
        let plan = match plan_ddl(&parsed[0].statement, &snapshot.catalog, &settings, now_ms) {
            Ok(plan) if plan.changes.is_empty() => return Ok(false),
            Ok(plan) => plan,
            Err(error) => {
                self.trace
                    .add(self.now_ms, node, format_args!("{text}: {}", error.message), &[]);
                return Ok(false);
            }
        };
        let token = self.ledger.submit(self.nodes[node].log(), None);
        self.trace
            .add(self.now_ms, node, format_args!("ddl {token}: {text}"), &[]);
        self.step(
            node,
            Input::Ddl {
                token,
                changes: plan.changes,
                base_version: snapshot.catalog.version,
            },
        )?;
        Ok(true)
    }

    /// Whether a region runs, takes part, and its log is its own.
    pub(super) fn takes_part(&self, node: usize) -> bool {
        let place = &self.nodes[node];
        let takes_part = place
            .process
            .as_ref()
            .is_some_and(|process| process.region.snapshot().origin.is_some());
        takes_part && place.suspect.is_none()
    }

    /// The newest catalog that a region shows that takes part, and whose snapshot it is.
    pub(super) fn newest(&self) -> Option<(usize, Arc<Snapshot>)> {
        let nodes = (0..self.nodes.len()).filter(|node| self.takes_part(*node));
        let snapshots = nodes.filter_map(|node| Some((node, self.nodes[node].snapshot()?)));
        snapshots.max_by_key(|(node, snapshot)| (snapshot.catalog.version, std::cmp::Reverse(*node)))
    }

    fn primary_named(&self, newest: &Snapshot) -> Option<usize> {
        let primary = newest.catalog.primary?;
        self.number(newest.catalog.region_name(primary)?)
    }

    /// The primary, when it runs and knows that it is it.
    pub(super) fn primary(&self) -> Option<(usize, Arc<Snapshot>)> {
        let (_, newest) = self.newest()?;
        let node = self.primary_named(&newest)?;
        let snapshot = self.nodes[node].snapshot().filter(|_| self.takes_part(node))?;
        let is_it = snapshot.origin.map(|origin| origin.region) == snapshot.catalog.primary;
        (is_it && self.nodes[node].paused_until_ms <= self.now_ms).then_some((node, snapshot))
    }
}
