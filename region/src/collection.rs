//! When tombstones are stable: everybody has acknowledged them, and nobody can send anything older any more.
//!
//! ```text
//!   look:  every member's frontier, as it last said     stable = the least of them (and ours), by origin
//!   wait:  until our own frontier covers all of them    so that whatever they wrote, or passed on, before they had seen
//!                                                       the tombstone has come
//!   seal:  Collect { stable }                           if the members are still the same, and there is anything to drop
//! ```
//!
//! A member is one by the catalog, and what it said counts only while its link speaks for the incarnation that the catalog
//! names: one that is joining, was wiped or is not heard of holds everything up. What a member has said stays true while
//! it is away. Should it come back with less (an old copy), bundles tell it up to where tombstones are gone, and it stops;
//! see [`Region::take_bundles`](crate::Region). What such a one has written before it is told is not taken in: by the rule
//! above, whoever sends anything new has seen all whose tombstones are gone here.
//!
//! RFC 0010 says why this suffices.

use std::collections::BTreeMap;

use tributary_planner::catalog::Catalog;
use tributary_replication::link::LinkStatus;
use tributary_replication::{Epoch, Frontier, Lattice};
use tributary_storage::{OriginId, RegionId};

/// What is known of the tombstones that may go next, and of those that are gone. Nothing of it survives a restart.
#[derive(Default)]
pub struct Collection {
    /// Up to where tombstones are gone once everything sealed is stepped, here or where bundles came from.
    dropped: Frontier,
    sample: Option<Sample>,
    looked_ms: Option<u64>,
}

/// What all members had said at one moment.
struct Sample {
    members: BTreeMap<RegionId, (OriginId, Frontier)>,
    stable: Frontier,
    needs: Frontier,
}

/// Members other than this region, each with what it is known to have; `None` when that is not known.
pub(crate) type Standings<'a> = BTreeMap<RegionId, Option<(OriginId, &'a Frontier)>>;

/// How the other members stand, as their links say.
pub(crate) fn standings<'a>(
    own: OriginId,
    catalog: &Catalog,
    links: &'a [(String, LinkStatus)],
) -> Standings<'a> {
    let others = catalog.members().filter(|(region, _)| *region != own.region);
    let standing = |region: RegionId, name: &str| {
        let named = catalog.origin_of(region)?;
        let (_, link) = links.iter().find(|(peer, _)| peer == name)?;
        let speaks = link.peer.and_then(|peer| peer.origin) == Some(named);
        speaks.then_some((named, &link.peer_frontier))
    };
    others
        .map(|(region, def)| (region, standing(region, &def.name)))
        .collect()
}

impl Collection {
    /// What is known at the start: up to where tombstones are gone.
    pub(crate) fn new(dropped: Frontier) -> Self {
        Self {
            dropped,
            ..Self::default()
        }
    }

    /// Up to where tombstones are gone, or will be by what is sealed.
    pub(crate) fn dropped(&self) -> &Frontier {
        &self.dropped
    }

    /// A record was sealed by which tombstones go, here or elsewhere.
    pub(crate) fn drops(&mut self, to: &Frontier) {
        self.dropped.merge(to.clone());
    }

    /// Whether it is time to look again.
    pub(crate) fn is_due(&self, now_ms: u64, every_ms: u64) -> bool {
        let passed = |looked_ms: u64| now_ms < looked_ms || now_ms - looked_ms >= every_ms;
        self.looked_ms.is_none_or(passed)
    }

    /// Looks how all stand; `own` is our durable frontier. Returns up to where tombstones are stable, as far as that is
    /// known by now.
    pub(crate) fn look(
        &mut self,
        now_ms: u64,
        own: &Frontier,
        standings: &Standings<'_>,
    ) -> Option<Frontier> {
        let members = standings
            .iter()
            .map(|(region, known)| known.map(|(origin, frontier)| (*region, (origin, frontier.clone()))))
            .collect::<Option<BTreeMap<_, _>>>();
        let Some(members) = members else {
            self.sample = None;
            return None;
        };
        // Of other members than these, or of one that came back with less, the sample says nothing.
        let holds = |sample: &Sample| {
            let then = sample.members.iter();
            sample.members.len() == members.len()
                && then.zip(&members).all(|((region, then), (same, now))| {
                    region == same && then.0 == now.0 && now.1.covers(&then.1)
                })
        };
        let sample = self.sample.take().filter(holds).unwrap_or_else(|| {
            let mut sample = Sample {
                members: members.clone(),
                stable: own.clone(),
                needs: Frontier::new(),
            };
            for (_, frontier) in members.values() {
                sample.stable = least(&sample.stable, frontier);
                sample.needs.merge(frontier.clone());
            }
            sample
        });
        if !own.covers(&sample.needs) {
            self.sample = Some(sample);
            return None;
        }
        self.looked_ms = Some(now_ms);
        Some(sample.stable)
    }
}

/// What both frontiers cover.
fn least(a: &Frontier, b: &Frontier) -> Frontier {
    let both = |(origin, epoch): (OriginId, Epoch)| (origin, epoch.min(b.get(origin)));
    a.iter().map(both).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(region: u16) -> OriginId {
        OriginId::first(RegionId(region))
    }

    fn frontier(epochs: [u64; 3]) -> Frontier {
        let epochs = epochs.iter().enumerate();
        epochs
            .map(|(i, epoch)| (origin(i as u16 + 1), Epoch(*epoch)))
            .collect()
    }

    fn known(frontiers: &[Option<Frontier>]) -> Standings<'_> {
        let regions = (2..).map(|region| (RegionId(region), origin(region)));
        let known = regions.zip(frontiers);
        known
            .map(|((region, origin), frontier)| {
                (region, frontier.as_ref().map(|frontier| (origin, frontier)))
            })
            .collect()
    }

    #[test]
    fn what_all_have_is_stable_once_we_have_what_they_had() {
        let mut collection = Collection::default();
        let said = [Some(frontier([5, 9, 2])), Some(frontier([7, 8, 3]))];
        assert_eq!(
            collection.look(1, &frontier([9, 8, 3]), &known(&said)),
            None,
            "2:9 is missing"
        );
        // What they say later does not move the goal, so that it is reached.
        let later = [Some(frontier([9, 12, 3])), Some(frontier([9, 12, 3]))];
        let stable = collection.look(2, &frontier([9, 9, 3]), &known(&later));
        assert_eq!(stable, Some(frontier([5, 8, 2])));
        assert!(!collection.is_due(11, 10) && collection.is_due(12, 10) && collection.is_due(1, 10));
    }

    #[test]
    fn what_a_member_had_and_lost_is_not_waited_for() {
        let mut collection = Collection::default();
        let own = frontier([9, 7, 0]);
        assert_eq!(
            collection.look(1, &own, &known(&[Some(frontier([9, 8, 0]))])),
            None
        );
        let put_back = [Some(frontier([4, 7, 0]))];
        assert_eq!(
            collection.look(2, &own, &known(&put_back)),
            Some(frontier([4, 7, 0]))
        );
    }

    #[test]
    fn nobody_is_passed_over() {
        let mut collection = Collection::default();
        let all = frontier([9, 9, 9]);
        assert_eq!(collection.look(1, &all, &known(&[Some(all.clone()), None])), None);
        // Others than those who were looked at: what was known of these does not count.
        let one = [Some(frontier([9, 9, 4]))];
        assert_eq!(collection.look(2, &frontier([9, 5, 9]), &known(&one)), None);
        let two = [Some(frontier([9, 9, 9])), Some(frontier([1, 1, 1]))];
        assert_eq!(collection.look(3, &all, &known(&two)), Some(frontier([1, 1, 1])));
    }

    #[test]
    fn alone_everything_is_stable() {
        let all = frontier([9, 0, 0]);
        assert_eq!(
            Collection::default().look(1, &all, &known(&[])),
            Some(all.clone())
        );
    }
}
