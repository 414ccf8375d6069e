//! Who this region is, and whose logs count.
//!
//! A region finds its number and incarnation in the catalog, by its name. It *joins* in two steps: it has an identity
//! as soon as the catalog names one that nobody has heard of, and it takes part once its `Joined` record is in
//! the log. Until then it announces nothing, so that its first bundle brings everything at once: what it has
//! attached, and that its older incarnations count no more.
//!
//! ```text
//!   us.1 ──▶ 41 ─ ─ ─ ─ ─ ✕                    slots of us.1 count up to the first epoch of us.2 that is known,
//!   us.2      (joining)   └─▶ 7 ──▶ 8 …        and not from there on; GLOBAL rows of us.1 stay
//! ```
//!
//! The same frontier thus always names the same contributions.

use tributary_planner::catalog::Standing;
use tributary_replication::Epoch;
use tributary_storage::{OriginId, RegionId};

use super::Dataflow;
use super::apply::Gathered;

impl Dataflow {
    /// Finds out who this region is. Whoever has an identity keeps it; one under which others have heard of
    /// something that is not here belongs to a log that was lost.
    pub(crate) fn identify(&mut self) {
        if self.origin.is_none() {
            self.origin = self
                .named()
                .filter(|origin| self.frontier.get(*origin) == Epoch(0) || self.defects.reuse_incarnation);
        }
    }

    /// Whom the catalog names as this region.
    pub(crate) fn named(&self) -> Option<OriginId> {
        self.catalog.origin_of(self.catalog.region_named(&self.name)?)
    }

    /// Whether the region takes part.
    pub fn has_joined(&self) -> bool {
        self.joined
    }

    /// As whom the region writes and speaks; `None` while it is joining.
    pub fn writes_as(&self) -> Option<OriginId> {
        self.origin.filter(|_| self.joined)
    }

    /// Whether the region was told to take in no more writes.
    pub fn is_leaving(&self) -> bool {
        let own = self
            .origin
            .and_then(|origin| self.catalog.regions.get(&origin.region));
        own.is_some_and(|region| region.standing != Standing::Member)
    }

    /// Why the region must not go on with this log, if so. `reincarnates`: the operator has said that it may be
    /// another one from here on.
    pub(crate) fn verdict(&self, reincarnates: bool) -> Option<String> {
        if let Some(origin) = self.origin {
            let region = self.catalog.regions.get(&origin.region)?;
            if !region.is_member() {
                return Some(format!(
                    "region {} was dropped from the cluster. Its data directory may be kept or removed; to take \
                     part again it needs an empty one, and ALTER DATABASE tributary ADD REGION \"{}\"",
                    self.name, self.name
                ));
            }
            return (region.incarnation > origin.incarnation).then(|| {
                format!(
                    "region {} goes on as incarnation {}; this is the log of incarnation {}, which was fenced or \
                     superseded. If no other copy runs, start it with --reincarnate: its own rows are kept",
                    self.name, region.incarnation, origin.incarnation
                )
            });
        }
        let named = self.named()?;
        let seen = self.frontier.get(named);
        (seen > Epoch(0) && !reincarnates).then(|| {
            format!(
                "region {} has lost its log: the others have seen it ({named}) up to epoch {seen}, and this data \
                 directory holds nothing of it. Start it with the right --data directory; if that is gone, start it \
                 with --reincarnate: rows of REGIONAL tables that lived here only are lost then",
                self.name
            )
        })
    }

    /// Of a primary that has lost its log: the incarnation under which it goes on. Only the primary may say so of
    /// itself, since nobody else numbers incarnations.
    pub(crate) fn next_of_primary(&self) -> Option<(RegionId, u32)> {
        let named = self.named().filter(|_| self.origin.is_none())?;
        let is_primary = self.catalog.primary == Some(named.region);
        (is_primary && self.frontier.get(named) > Epoch(0)).then_some((named.region, named.incarnation + 1))
    }

    /// As whom a region is known at this frontier: its newest incarnation of which something is known.
    pub fn known_as(&self, region: RegionId) -> Option<OriginId> {
        let known = self.frontier.iter().map(|(origin, _)| origin);
        let own = self.origin.filter(|_| self.joined);
        known.chain(own).filter(|origin| origin.region == region).max()
    }

    /// Whether a newer incarnation of an origin's region is known, so that its slots count no more.
    pub(crate) fn is_superseded(&self, origin: OriginId) -> bool {
        self.known_as(origin.region)
            .is_some_and(|newest| newest.incarnation > origin.incarnation)
    }

    /// The first of a new incarnation has come: what earlier ones had contributed to views goes.
    pub(super) fn supersede(&mut self, by: OriginId, gathered: &mut Gathered) {
        let earlier = self.frontier.iter().map(|(origin, _)| origin);
        let earlier: Vec<OriginId> = earlier
            .filter(|_| !self.defects.keep_superseded)
            .filter(|origin| origin.region == by.region && origin.incarnation < by.incarnation)
            .collect();
        for origin in earlier {
            self.attached.remove(&origin);
            for (id, slots) in &mut self.slots {
                if let Some(delta) = slots.set.forget(origin) {
                    gathered.merges.entry(*id).or_default().push(delta);
                }
            }
        }
    }
}
