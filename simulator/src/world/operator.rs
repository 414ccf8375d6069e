//! Whoever runs the regions: brings back what was lost, starts what was added, drops what was drained.
//!
//! He does what the server does around the state machine: asks the others what they know of a region, has the primary
//! number a new incarnation before a region starts without its log, waits until a region that leaves is drained.
//!
//! A region whose log others know more of must not meet those who know less first: its log would go on in two ways.
//! Such a one is started with a way to only one other, which knows more. A fork goes on alone before that, until its log
//! is the longer one: what a process that runs beside its original and reaches nobody does, only one after the other.

use std::collections::BTreeSet;

use tributary_planner::catalog::Standing;
use tributary_region::Snapshot;
use tributary_replication::{Epoch, Frontier, LinkStatus};
use tributary_storage::{Log, OriginId, RegionId};

use super::World;
use super::event::Event;
use super::members::Copy;
use super::node::{Node, Place};
use crate::failure::{Checked, Violation};
use crate::model::LogId;
use crate::network::Direction;
use crate::rng::Rng;

/// How long a region that must stop may take to find out before its operator takes it down, in milliseconds.
const SUSPECT_MS_MAX: u64 = 8_000;

/// How long a fork that nobody talks to may take to write more than its original had, in milliseconds.
const FORK_MS_MAX: u64 = 4_000;

/// The operator's state.
pub struct Members {
    /// His chance.
    pub rng: Rng,
    /// The region that leaves.
    pub leaving: Option<Leaving>,
    /// Regions that handed over the primary.
    pub former: BTreeSet<usize>,
    /// Logs of regions that were drained and dropped: nothing of them may be missing.
    pub drained: Vec<LogId>,
}

/// A region without a log to go on with.
pub struct Lost {
    /// Not before this time.
    pub at_ms: u64,
    /// Whether it is first started as if nothing had happened.
    pub bare: bool,
    /// The disks it is started from; without, from empty ones.
    pub copy: Option<Copy>,
}

/// A region that runs and must stop.
pub struct Suspect {
    cut: Vec<Direction>,
    knows_more: usize,
    until_ms: u64,
    /// A fork: it goes on alone, and nobody talks to it until its log is longer than what others know of its original.
    beyond: Option<Epoch>,
}

/// A region that is to be dropped once all have everything of it.
pub struct Leaving {
    node: usize,
    region: RegionId,
    asked_ms: u64,
    /// The primary and its start, and what it had announced when the region was told.
    told: Option<((usize, u64), Frontier)>,
    last: Option<(OriginId, Epoch)>,
}

impl Leaving {
    /// A region that is to leave.
    pub fn new(node: usize, region: RegionId) -> Self {
        Self {
            node,
            region,
            asked_ms: 0,
            told: None,
            last: None,
        }
    }
}

impl World {
    /// The operator looks after everything.
    pub(super) fn operate(&mut self) -> Checked {
        let at = self.now_ms + self.members.rng.between(20, 120);
        self.queue.plan(at, Event::Operate);
        for node in 0..self.nodes.len() {
            self.keep_copy(node);
            if self.nodes[node].suspect.is_some() {
                self.watch(node)?;
            } else if self.nodes[node].lost.is_some() {
                self.bring_back(node)?;
            } else if self.nodes[node].is_adding {
                self.add(node)?;
            } else if self.nodes[node].config.reincarnate && !self.takes_part(node) {
                self.number_again(node)?;
            } else if self.nodes[node].place == Place::Dropped {
                self.drop_again(node)?;
            }
        }
        self.see_off()
    }

    /// Whether nothing is left to do.
    pub(super) fn operated(&self) -> Result<(), String> {
        if let Some(leaving) = &self.members.leaving {
            return Err(format!("r{} is leaving", leaving.node + 1));
        }
        for (index, node) in self.nodes.iter().enumerate() {
            if node.suspect.is_some() || node.lost.is_some() || node.is_adding {
                return Err(format!("r{} is being brought back or added", index + 1));
            }
            if node.place == Place::Dropped && node.process.is_some() {
                return Err(format!("r{} does not know that it was dropped", index + 1));
            }
        }
        Ok(())
    }

    fn keep_copy(&mut self, node: usize) {
        if self.options.members.restore_every_ms == 0 || !self.members.rng.percent(6) {
            return;
        }
        let place = &mut self.nodes[node];
        if place.process.is_some() && place.suspect.is_none() {
            place.copy = Some(Copy {
                state: place.state_disk.copy_durable(),
                log: place.log_disk.copy_durable(),
            });
        }
    }

    /// A region stops because it found out, or was told, that its log must not be continued.
    pub(super) fn stopped(&mut self, node: usize, reason: &str) -> Checked {
        let log = self.nodes[node].log();
        self.trace
            .add(self.now_ms, node, format_args!("stop: {reason}"), &[]);
        let has_joined = self.model.writes_as(log, self.model.last(log)).is_some();
        let may_lack = self.nodes[node].put_back || !has_joined;
        let is_behind = may_lack && reason.contains("too far behind");
        self.report.members.too_far_behind += u64::from(is_behind);
        // One that was added, or started too early, by an old catalog hears of an earlier self: that it was dropped is not
        // known everywhere yet, or is forgotten with the primary that alone had heard of it.
        let is_old = self.nodes[node].place != Place::Member
            || self.report.members.primaries_wiped > 0
            || self.nodes.iter().any(|node| node.put_back);
        let is_early = !has_joined && reason.contains("has lost its log") && is_old;
        let is_told =
            is_behind || is_early || self.nodes[node].suspect.is_some() || self.model.is_superseded(log);
        if !is_told {
            return Err(Violation::new(
                "a sound region never stops",
                format!("r{}: {reason}", node + 1),
            ));
        }
        self.report.members.stopped += 1;
        self.report.members.forked += u64::from(reason.contains("another history"));
        self.release(node);
        self.lose(node, false)
    }

    /// A suspect is one no more.
    fn release(&mut self, node: usize) {
        if let Some(suspect) = self.nodes[node].suspect.take() {
            suspect
                .cut
                .iter()
                .for_each(|direction| self.network.mend(*direction));
        }
    }

    /// Starts a region that must stop, with a way to one other that knows why; a fork is without that way until it
    /// is `beyond` its original.
    fn suspect(&mut self, node: usize, knows_more: usize, beyond: Option<Epoch>) {
        let reachable = Some(knows_more).filter(|_| beyond.is_none());
        let cut = self.cut_off(node, reachable);
        let until_ms = self.now_ms + beyond.map_or(SUSPECT_MS_MAX, |_| FORK_MS_MAX);
        self.nodes[node].suspect = Some(Suspect {
            cut,
            knows_more,
            until_ms,
            beyond,
        });
    }

    /// A fork has gone on alone for long enough: from here on it is as any other region that must stop.
    fn end_seclusion(&mut self, node: usize) {
        let last = self.model.last(self.nodes[node].log());
        let until_ms = self.now_ms + SUSPECT_MS_MAX;
        let Some(suspect) = &mut self.nodes[node].suspect else {
            return;
        };
        let Some(beyond) = suspect.beyond.filter(|beyond| last > beyond.0) else {
            return;
        };
        (suspect.beyond, suspect.until_ms) = (None, until_ms);
        let knows_more = suspect.knows_more;
        let is_way = |(from, to): &Direction| *from == knows_more || *to == knows_more;
        let (way, cut) = std::mem::take(&mut suspect.cut).into_iter().partition(is_way);
        suspect.cut = cut;
        let way: Vec<Direction> = way;
        way.iter().for_each(|direction| self.network.mend(*direction));
        self.trace.add(
            self.now_ms,
            node,
            format_args!("has forked, at {last} after {beyond}"),
            &[],
        );
    }

    /// Sees whether a suspect still has to find out.
    fn watch(&mut self, node: usize) -> Checked {
        let log = self.nodes[node].log();
        if self.model.counts(log) && self.model.writes_as(log, self.model.last(log)).is_some() {
            // It was numbered anew meanwhile.
            self.release(node);
            return Ok(());
        }
        self.end_seclusion(node);
        let suspect = self.nodes[node].suspect.as_ref().expect("seen by the caller");
        if self.healed || self.now_ms >= suspect.until_ms || !self.takes_part(suspect.knows_more) {
            self.release(node);
            return self.lose(node, false);
        }
        Ok(())
    }

    /// Starts a region with empty disks.
    pub(super) fn start_anew(&mut self, node: usize, reincarnate: bool) {
        if !self.members.drained.contains(&self.nodes[node].log()) {
            // What was on them and nobody has heard of is gone, also of a region whose forced drop is forgotten.
            self.end_log(node);
        }
        let newest = self.newest().map(|(_, snapshot)| snapshot.catalog.clone());
        let place = &mut self.nodes[node];
        place.life += 1;
        self.report.lost_writes += place.log_disk.lost_writes() + place.state_disk.lost_writes();
        (place.state_disk, place.log_disk) = Node::disks(&self.options);
        place.begin_life();
        place.config.reincarnate = reincarnate;
        if let Some(catalog) = newest {
            let region = catalog.region_named(&place.config.name);
            let named = region.and_then(|region| catalog.origin_of(region));
            if let Some(named) = named.filter(|_| reincarnate) {
                let is_heard_of = self.model.heard_elsewhere(named, node) > Epoch(0);
                place.config.incarnation_min = named.incarnation + u32::from(is_heard_of);
            }
            let names = catalog.members().map(|(_, def)| def.name.clone());
            place.config.peers = names.filter(|name| *name != place.config.name).collect();
        }
        self.model.begin(place.log(), place.config.name.clone());
        self.queue.plan(self.now_ms, Event::Restart(node));
    }

    /// Brings back a region whose log is lost.
    fn bring_back(&mut self, node: usize) -> Checked {
        let Some(lost) = &mut self.nodes[node].lost else {
            return Ok(());
        };
        let knows_of_it = self.hanging.iter().any(|(_, peer)| *peer == node);
        if self.now_ms < lost.at_ms || knows_of_it {
            return Ok(());
        }
        lost.at_ms = self.now_ms + self.members.rng.between(200, 600);
        let Some((_, newest)) = self.newest() else {
            return Ok(());
        };
        let name = self.nodes[node].config.name.clone();
        let Some(region) = newest.catalog.region_named(&name) else {
            self.nodes[node].place = Place::Dropped;
            self.nodes[node].lost = None;
            return Ok(());
        };
        if let Some(copy) = self.nodes[node].lost.as_mut().and_then(|lost| lost.copy.take()) {
            return self.start_from(node, copy);
        }
        let knows = |other: &usize| {
            let snapshot = self.nodes[*other].snapshot().filter(|_| self.takes_part(*other));
            snapshot.is_some_and(|snapshot| {
                let region = snapshot.catalog.region_named(&name);
                let named = region.and_then(|region| snapshot.catalog.origin_of(region));
                named.is_some_and(|named| snapshot.frontier.get(named) > Epoch(0))
            })
        };
        let bare = self.nodes[node].lost.as_ref().is_some_and(|lost| lost.bare) && !self.healed;
        if let Some(other) = (0..self.nodes.len()).find(|other| bare && *other != node && knows(other)) {
            self.report.members.started_bare += 1;
            self.start_anew(node, false);
            self.suspect(node, other, None);
            return Ok(());
        }
        let named = newest.catalog.origin_of(region);
        let heard = named.map_or(Epoch(0), |named| self.model.heard_elsewhere(named, node));
        if newest.catalog.primary == Some(region) || heard == Epoch(0) {
            self.start_anew(node, true);
            return Ok(());
        }
        self.alter(&format!("FENCE REGION {name}")).map(drop)
    }

    /// What had numbered a region that joins may be gone, with the primary that had: it is asked for again.
    fn number_again(&mut self, node: usize) -> Checked {
        let Some((_, newest)) = self.newest() else {
            return Ok(());
        };
        let name = self.nodes[node].config.name.clone();
        let region = newest.catalog.region_named(&name);
        let named = region.and_then(|region| newest.catalog.origin_of(region));
        let heard = named.map_or(Epoch(0), |named| self.model.heard_elsewhere(named, node));
        let is_primary = newest.catalog.primary == region;
        if heard > Epoch(0) && !is_primary && self.members.rng.percent(15) {
            return self.alter(&format!("FENCE REGION {name}")).map(drop);
        }
        Ok(())
    }

    /// That a region was dropped may be forgotten, with the primary that alone had heard of it: it is dropped again. It is
    /// gone, so nothing can be waited for.
    fn drop_again(&mut self, node: usize) -> Checked {
        let Some((_, newest)) = self.newest() else {
            return Ok(());
        };
        let name = self.nodes[node].config.name.clone();
        let is_member = newest.catalog.members().any(|(_, def)| def.name == name);
        if is_member && self.nodes[node].process.is_none() && self.members.rng.percent(15) {
            return self.alter(&format!("DROP REGION {name} FORCE")).map(drop);
        }
        Ok(())
    }

    /// Starts a region from an earlier copy of its disks.
    fn start_from(&mut self, node: usize, copy: Copy) -> Checked {
        let log = self.nodes[node].log();
        let unreadable = |error: tributary_storage::StorageError| {
            Violation::new("a copy can be read", format!("r{}: {error}", node + 1))
        };
        let place = &mut self.nodes[node];
        self.report.lost_writes += place.log_disk.lost_writes() + place.state_disk.lost_writes();
        (place.state_disk, place.log_disk) = (copy.state, copy.log);
        let stored = place.read_disks().map_err(unreadable)?;
        let last = stored.log.last().map_err(unreadable)?;
        let checkpointed = stored.loaded.as_ref().map_or(0, |loaded| loaded.position.0);
        let last = last.map_or(0, |(position, _)| position.0).max(checkpointed);
        let origin = self.model.origin_of(log);
        let identified = origin.filter(|_| self.model.writes_as(log, last).is_some());
        let heard = origin.map_or(Epoch(0), |origin| self.model.heard_elsewhere(origin, node));
        let knows_more = (0..self.nodes.len()).find(|other| {
            let snapshot = self.nodes[*other].snapshot().filter(|_| self.takes_part(*other));
            *other != node
                && snapshot.is_some_and(|snapshot| {
                    identified.is_some_and(|origin| snapshot.frontier.get(origin).0 > last)
                })
        });
        if heard.0 > last && (knows_more.is_none() || self.healed) {
            // Nobody is there to tell it: its operator sees that it is old, and takes it for lost.
            self.end_log(node);
            self.nodes[node].lost.as_mut().expect("being brought back").bare = false;
            return Ok(());
        }
        self.trace
            .add(self.now_ms, node, format_args!("is put back to {last}"), &[]);
        if heard.0 <= last {
            self.report.members.restored_unseen += 1;
            self.ledger.supersede(log, last);
            self.model.lose(log, last);
            if let Some(origin) = origin {
                self.slots.forget(origin, last);
            }
        } else {
            self.report.members.restored += 1;
            self.end_log(node);
            self.nodes[node].life += 1;
            self.model.branch(log, self.nodes[node].log(), last);
        }
        if let Some(leaving) = self
            .members
            .leaving
            .as_mut()
            .filter(|leaving| leaving.node == node)
        {
            // How far it was is not where it ends.
            (leaving.told, leaving.last) = (None, None);
        }
        self.nodes[node].begin_life();
        self.nodes[node].checkpointed = checkpointed;
        self.nodes[node].put_back = true;
        if let Some(other) = knows_more.filter(|_| heard.0 > last) {
            let is_fork = self.members.rng.percent(70);
            self.suspect(node, other, Some(heard).filter(|_| is_fork));
        }
        self.queue.plan(self.now_ms, Event::Restart(node));
        Ok(())
    }

    /// Has a region become a member, and starts it.
    fn add(&mut self, node: usize) -> Checked {
        // The primary says who is a member: another one may not have heard that it was dropped.
        let Some((_, newest)) = self.primary() else {
            return Ok(());
        };
        let name = self.nodes[node].config.name.clone();
        if newest.catalog.region_named(&name).is_none() {
            let address = format!("ADD REGION {name}");
            return match self.members.rng.percent(40) {
                true => self.alter(&address).map(drop),
                false => Ok(()),
            };
        }
        self.report.members.added += 1;
        self.nodes[node].is_adding = false;
        self.nodes[node].place = Place::Member;
        if self.nodes[node].is_held {
            self.start_anew(node, false);
        }
        Ok(())
    }

    /// Goes on with dropping the region that leaves, as the server does.
    fn see_off(&mut self) -> Checked {
        let (Some(leaving), Some((_, newest))) = (&self.members.leaving, self.newest()) else {
            return Ok(());
        };
        let (node, region) = (leaving.node, leaving.region);
        let Some(def) = newest.catalog.regions.get(&region).filter(|def| def.is_member()) else {
            self.report.members.dropped += 1;
            self.members.drained.push(self.nodes[node].log());
            self.members.leaving = None;
            return Ok(());
        };
        if self.nodes[node].place != Place::Member {
            self.members.leaving = None;
            return Ok(());
        }
        let Some((primary, snapshot)) = self.primary() else {
            return Ok(());
        };
        let at = (primary, self.nodes[primary].boot);
        let leaving = self.members.leaving.as_mut().expect("looked at above");
        let mut is_due = self.now_ms >= leaving.asked_ms + 400;
        if def.standing == Standing::Leaving {
            let told = leaving.told.take().filter(|(by, _)| *by == at);
            if told.is_none() {
                leaving.last = None;
            }
            let (_, told) = leaving
                .told
                .insert(told.unwrap_or_else(|| (at, snapshot.frontier.clone())));
            let status = link_of(&snapshot, region).filter(|status| status.peer_processed.covers(told));
            let origin = status.and_then(|status| status.peer).and_then(|peer| peer.origin);
            // The statement is run again when the region has lost its log meanwhile.
            leaving.last = leaving
                .last
                .filter(|(of, _)| origin.is_none_or(|origin| origin == *of));
            if leaving.last.is_none()
                && let Some(status) = status
            {
                leaving.last = origin.map(|origin| (origin, status.peer_frontier.get(origin)));
            }
            is_due &= leaving
                .last
                .is_some_and(|(origin, epoch)| all_have(&snapshot, region, origin, epoch));
        }
        if !is_due {
            return Ok(());
        }
        leaving.asked_ms = self.now_ms;
        let name = self.nodes[node].config.name.clone();
        if !self.alter(&format!("DROP REGION {name}"))? {
            // Tables live there, or it is the primary by now.
            self.members.leaving = None;
            return self.alter(&format!("ADD REGION {name}")).map(drop);
        }
        Ok(())
    }
}

/// The link to a member.
fn link_of(snapshot: &Snapshot, region: RegionId) -> Option<&LinkStatus> {
    let name = snapshot.catalog.region_name(region)?;
    let mut links = snapshot.links.iter();
    links.find(|(peer, _)| peer == name).map(|(_, status)| status)
}

/// Whether all members but one have everything of it.
fn all_have(snapshot: &Snapshot, leaving: RegionId, origin: OriginId, epoch: Epoch) -> bool {
    let own = snapshot.origin.map(|origin| origin.region);
    let mut others = snapshot.catalog.members().filter(|(id, _)| *id != leaving);
    others.all(|(id, _)| match own == Some(id) {
        true => snapshot.frontier.get(origin) >= epoch,
        false => link_of(snapshot, id).is_some_and(|status| status.peer_frontier.get(origin) >= epoch),
    })
}
