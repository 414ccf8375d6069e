//! The region as a member: founding a cluster, its links, taking part, and dropping what all members have acknowledged.

use tributary_planner::catalog::{CatalogChange, MemberChange};
use tributary_replication::Epoch;
use tributary_storage::{OriginId, RegionId};

use super::{Region, append};
use crate::collection::standings;
use crate::effect::Effect;
use crate::entry::Entry;
use crate::error::{RegionError, Result};
use crate::links::Agreement;

impl Region {
    /// The primary's first record: the cluster, its members, itself as primary.
    pub(super) fn found(&mut self, now_ms: u64, out: &mut Vec<Effect>) {
        let founding = self.config.found.clone().expect("checked by the caller");
        let mut names: Vec<String> = self.config.peers.clone();
        names.sort();
        names.insert(0, self.config.name.clone());
        let number = |index: usize| RegionId(u16::try_from(index + 1).expect("fewer than 65,535 regions"));
        let regions = names
            .into_iter()
            .enumerate()
            .map(|(index, name)| (number(index), name))
            .collect();
        let change = CatalogChange::Found {
            cluster: founding.cluster,
            regions,
            primary: number(0),
        };
        let (record, _) = self.sequencer.seal_catalog(now_ms, vec![change]);
        out.push(append(record));
    }

    /// Has links to the members that the catalog names.
    ///
    /// # Errors
    /// When the catalog, or what peers have seen of this region, says that this log must not be continued.
    pub(super) fn heed_catalog(&mut self, out: &mut Vec<Effect>) -> Result<()> {
        if let Some(reason) = self.dataflow.verdict(self.config.reincarnate) {
            return Err(RegionError::Superseded(reason));
        }
        let catalog = self.dataflow.catalog();
        if catalog.version != self.members_version {
            self.members_version = catalog.version;
            let own = self.dataflow.origin();
            let epoch = own.map_or(Epoch(0), |own| self.dataflow.frontier().get(own));
            self.links.keep_to_members(&self.config.name, epoch, catalog, out);
        }
        Ok(())
    }

    /// Has tombstones dropped that everybody has acknowledged, from time to time.
    pub(super) fn collect(&mut self, now_ms: u64, out: &mut Vec<Effect>) {
        let Some(own) = self.dataflow.writes_as() else {
            return;
        };
        let is_due = self.collection.is_due(now_ms, self.config.collect_every_ms);
        if self.config.keeps_tombstones || !is_due || !self.is_level() || self.sequencer.is_disk_full() {
            return;
        }
        let links = self.links.status();
        let durable = &self.published.frontier;
        let stable = match self.config.defects.collect_early {
            true => Some(durable.clone()),
            false => {
                let standings = standings(own, self.dataflow.catalog(), &links);
                self.collection.look(now_ms, durable, &standings)
            }
        };
        let at = self.sequencer.time(now_ms);
        if let Some(stable) = stable.filter(|stable| self.dataflow.has_stable(stable, at)) {
            // What still waits from a log that is continued no more was not asked for above.
            let catalog = self.dataflow.catalog().clone();
            self.links.inbox().keep_senders(|sender| {
                let region = catalog.regions.get(&sender.region);
                region.is_some_and(|def| def.is_member() && def.incarnation == sender.incarnation)
            });
            if !self.config.defects.collect_early {
                self.collection.drops(&stable);
            }
            let (record, _) = self.sequencer.seal(now_ms, Entry::Collect { stable });
            out.push(append(record));
        }
    }

    /// Takes part once everything that a peer had when it spoke is here, and every view is computed from it that does not
    /// read a view which others have not computed.
    pub(super) fn join(&mut self, now_ms: u64, out: &mut Vec<Effect>) {
        if self.dataflow.has_joined() || !self.sequencer.is_level() {
            return;
        }
        let record = match self.dataflow.origin() {
            Some(_) if self.dataflow.is_caught_up() => self.sequencer.seal(now_ms, Entry::Joined).0,
            Some(_) => return,
            None => {
                let Some((region, incarnation)) = self.dataflow.next_of_primary() else {
                    return;
                };
                let before = OriginId {
                    region,
                    incarnation: incarnation - 1,
                };
                if !self.all_agree_on(before, now_ms) {
                    return;
                }
                let change = MemberChange::Reincarnate { incarnation };
                let change = CatalogChange::Member { region, change };
                self.sequencer.seal_catalog(now_ms, vec![change]).0
            }
        };
        out.push(append(record));
    }

    /// Whether every member knows no more of an origin; members that are away are waited for, but not for ever.
    fn all_agree_on(&mut self, origin: OriginId, now_ms: u64) -> bool {
        let (name, catalog) = (&self.config.name, self.dataflow.catalog());
        match self
            .links
            .agree_on(origin, &self.published.frontier, name, catalog)
        {
            Agreement::All => true,
            Agreement::Connected => {
                let since_ms = *self.agreed_since_ms.get_or_insert(now_ms);
                now_ms.saturating_sub(since_ms) >= self.config.members_wait_ms
            }
            Agreement::None => {
                self.agreed_since_ms = None;
                false
            }
        }
    }
}
