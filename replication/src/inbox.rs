//! Bundles that wait for their causes, and which of them may be applied together.
//!
//! A set of bundles is *applicable* when, for each included origin, `from` is at most our frontier (moved
//! along by earlier bundles of the set), and our frontier after applying all of them covers every sender
//! frontier in the set. Both conditions only get easier with more bundles, so there is one greatest applicable
//! set: start from everything that waits and throw out what does not fit until nothing more falls out.
//!
//! ```text
//!   us 7->9, cut at {us:9 eu:4} ─┐ neither can be applied alone,
//!   eu 3->4, cut at {us:9 eu:4} ─┘ both together can
//! ```
//!
//! Waiting bundles are neither logged nor acknowledged, so dropping one is always safe: its sender is told
//! where our frontier stands and sends again from there. That is the overflow behaviour.

use std::collections::BTreeMap;

use bytes::Bytes;
use tributary_storage::OriginId;

use crate::bundle::{Bundle, MESSAGE_BYTES_MAX};
use crate::defects::Defects;
use crate::error::Result;
use crate::frontier::{Epoch, Frontier};
use crate::hlc::Tick;
use crate::lattice::Lattice;

/// The most bundles of one peer that wait.
pub const WAITING_BUNDLES_MAX: usize = 64;

/// The most bytes of one peer's bundles that wait, encoded.
pub const WAITING_BYTES_MAX: usize = 2 * MESSAGE_BYTES_MAX;

/// What became of an offered bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    /// Everything in it is known, or it waits already.
    Stale,
    /// It waits for its causes, if only until the next [`Inbox::take_applicable`].
    Waiting,
    /// There was no room and no use for it; [`Inbox::lacks`] asks for it again.
    Dropped,
}

/// A bundle from a peer, ready to be applied.
#[derive(Clone, Debug)]
pub struct ReceivedBundle {
    /// Who sent it.
    pub peer: String,
    /// The bytes as they came, for the log.
    pub bytes: Bytes,
    /// What they mean.
    pub bundle: Bundle,
}

/// The bundles that wait.
#[derive(Debug, Default)]
pub struct Inbox {
    waiting: BTreeMap<String, Vec<Waiting>>,
    /// Per peer and origin, the epoch that was dropped and must be sent again.
    dropped: BTreeMap<(String, OriginId), Epoch>,
    arrivals: u64,
    defects: Defects,
}

#[derive(Debug)]
struct Waiting {
    arrival: u64,
    bytes: Bytes,
    bundle: Bundle,
}

/// Where a waiting bundle stands: by tick, so that an origin's epochs come in order also through relays.
type Place<'a> = (Tick, &'a str, u64);

impl Inbox {
    /// An inbox in which nothing waits.
    pub fn new() -> Self {
        Self::default()
    }

    /// Switches defects on. For tests only.
    pub fn with_defects(mut self, defects: Defects) -> Self {
        self.set_defects(defects);
        self
    }

    /// Switches defects on or off. For tests only.
    pub fn set_defects(&mut self, defects: Defects) {
        self.defects = defects;
    }

    /// Takes in a bundle that came from `peer`; `frontier` is ours.
    ///
    /// # Errors
    /// When the bytes are not a bundle. Nothing is changed then.
    pub fn offer(&mut self, peer: &str, bytes: Bytes, frontier: &Frontier) -> Result<Offered> {
        let bundle = Bundle::decode(&bytes)?;
        if is_known(&bundle, frontier) {
            return Ok(Offered::Stale);
        }
        let mine = self.waiting.entry(peer.to_string()).or_default();
        if mine.iter().any(|waiting| waiting.bytes == bytes) {
            return Ok(Offered::Stale);
        }
        let held_bytes: usize = mine.iter().map(|waiting| waiting.bytes.len()).sum();
        let full = mine.len() >= WAITING_BUNDLES_MAX || held_bytes + bytes.len() > WAITING_BYTES_MAX;
        if full {
            let starts_here = bundle.included.iter().all(|i| i.from <= frontier.get(i.origin));
            if !starts_here {
                self.ask_again(peer, &bundle);
                return Ok(Offered::Dropped);
            }
            // It needs nothing of what waits before it, and it may carry what the others lack.
            mine.clear();
        }
        self.arrivals += 1;
        let mine = self.waiting.entry(peer.to_string()).or_default();
        mine.push(Waiting {
            arrival: self.arrivals,
            bytes,
            bundle,
        });
        Ok(Offered::Waiting)
    }

    /// Removes and returns the greatest applicable set, in the order in which to apply it. Bundles that have
    /// become known are removed on the way.
    pub fn take_applicable(&mut self, frontier: &Frontier) -> Vec<ReceivedBundle> {
        self.waiting
            .values_mut()
            .for_each(|mine| mine.retain(|waiting| !is_known(&waiting.bundle, frontier)));
        self.dropped
            .retain(|(_, origin), epoch| *epoch > frontier.get(*origin));
        let order = self.applicable(frontier);
        let mut taken = Vec::with_capacity(order.len());
        for (peer, arrival) in order {
            let mine = self
                .waiting
                .get_mut(&peer)
                .expect("the set was drawn from what waits");
            let at = mine
                .iter()
                .position(|w| w.arrival == arrival)
                .expect("the set was drawn from what waits");
            let Waiting { bytes, bundle, .. } = mine.remove(at);
            taken.push(ReceivedBundle { peer, bytes, bundle });
        }
        self.waiting.retain(|_, mine| !mine.is_empty());
        taken
    }

    /// What keeps bundles waiting: the peer whose bundle waits, an origin, and the epoch of it that must be
    /// known first. Also what was dropped for want of room. Call it after [`Inbox::take_applicable`].
    pub fn lacks(&self, frontier: &Frontier) -> Vec<(String, OriginId, Epoch)> {
        let mut lacks: BTreeMap<(String, OriginId), Epoch> = BTreeMap::new();
        let mut lack = |peer: &str, origin, epoch: Epoch| {
            lacks.entry((peer.to_string(), origin)).or_default().merge(epoch);
        };
        for ((peer, origin), epoch) in &self.dropped {
            if *epoch > frontier.get(*origin) {
                lack(peer, *origin, *epoch);
            }
        }
        // What waits from others need not be asked for.
        let (_, reached) = self.reachable(frontier, |_| true);
        for (peer, mine) in &self.waiting {
            for waiting in mine {
                for included in &waiting.bundle.included {
                    if included.from > reached.get(included.origin) {
                        lack(peer, included.origin, included.from);
                    }
                }
                for (origin, epoch) in waiting.bundle.frontier.iter() {
                    let mut included = waiting.bundle.included.iter();
                    let carried = included.any(|included| included.origin == origin && included.to >= epoch);
                    if !carried && epoch > reached.get(origin) {
                        lack(peer, origin, epoch);
                    }
                }
            }
        }
        lacks
            .into_iter()
            .map(|((peer, origin), epoch)| (peer, origin, epoch))
            .collect()
    }

    /// A bundle that was taken out cannot be used: what it carries is asked for again.
    pub fn ask_again(&mut self, peer: &str, bundle: &Bundle) {
        for included in &bundle.included {
            let place = self
                .dropped
                .entry((peer.to_string(), included.origin))
                .or_default();
            *place = (*place).max(included.to);
        }
    }

    /// Forgets what waits from senders that do not count any more.
    pub fn keep_senders(&mut self, counts: impl Fn(OriginId) -> bool) {
        for mine in self.waiting.values_mut() {
            mine.retain(|waiting| counts(waiting.bundle.sender));
        }
        self.waiting.retain(|_, mine| !mine.is_empty());
    }

    /// Forgets what was cut by regions that had not seen what `dropped` covers: it may be older than tombstones that are
    /// gone. What is known already has not to be feared. Returns the peers that sent such.
    pub fn drop_behind(&mut self, frontier: &Frontier, dropped: &Frontier) -> Vec<String> {
        let mut behind = Vec::new();
        for (peer, mine) in &mut self.waiting {
            let before = mine.len();
            mine.retain(|Waiting { bundle, .. }| {
                bundle.frontier.covers(dropped) || is_known(bundle, frontier)
            });
            behind.extend((mine.len() < before).then(|| peer.clone()));
        }
        self.waiting.retain(|_, mine| !mine.is_empty());
        behind
    }

    /// Forgets everything that waits from a peer, for example because it turned out to be another's.
    pub fn drop_peer(&mut self, peer: &str) {
        self.waiting.remove(peer);
        self.dropped.retain(|(from, _), _| from != peer);
    }

    /// The number of bundles that wait.
    pub fn len(&self) -> usize {
        self.waiting.values().map(Vec::len).sum()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of the bundles that wait, encoded.
    pub fn bytes(&self) -> usize {
        self.waiting
            .values()
            .flatten()
            .map(|waiting| waiting.bytes.len())
            .sum()
    }

    /// How much of the room of any one peer is taken, 0 to 100.
    pub fn fullness(&self) -> u8 {
        let of_peer = |mine: &Vec<Waiting>| {
            let bytes: usize = mine.iter().map(|waiting| waiting.bytes.len()).sum();
            let percent = (mine.len() * 100 / WAITING_BUNDLES_MAX).max(bytes * 100 / WAITING_BYTES_MAX);
            u8::try_from(percent).unwrap_or(100).min(100)
        };
        self.waiting.values().map(of_peer).max().unwrap_or(0)
    }

    /// The greatest applicable set, in order.
    fn applicable(&self, frontier: &Frontier) -> Vec<(String, u64)> {
        let mut excluded: Vec<u64> = Vec::new();
        loop {
            let (order, reached) = self.reachable(frontier, |at| !excluded.contains(&at.2));
            let uncovered: Vec<u64> = order
                .iter()
                .filter(|(_, waiting)| {
                    !self.defects.ignore_causes && !reached.covers(&waiting.bundle.frontier)
                })
                .map(|(_, waiting)| waiting.arrival)
                .collect();
            if uncovered.is_empty() {
                return order
                    .iter()
                    .map(|(peer, waiting)| (peer.to_string(), waiting.arrival))
                    .collect();
            }
            excluded.extend(uncovered);
        }
    }

    /// The bundles, among those that `allowed` admits, whose `from` can be reached one after the other, in
    /// that order, and the frontier behind them.
    fn reachable<'a>(
        &'a self,
        frontier: &Frontier,
        allowed: impl Fn(&Place<'a>) -> bool,
    ) -> (Vec<(&'a str, &'a Waiting)>, Frontier) {
        let mut left: BTreeMap<Place<'a>, &'a Waiting> = BTreeMap::new();
        for (peer, mine) in &self.waiting {
            for waiting in mine {
                let place = (waiting.bundle.tick, peer.as_str(), waiting.arrival);
                if allowed(&place) {
                    left.insert(place, waiting);
                }
            }
        }
        let mut reached = frontier.clone();
        let mut order = Vec::new();
        loop {
            let fits = |waiting: &Waiting| {
                let joins = waiting
                    .bundle
                    .included
                    .iter()
                    .all(|i| i.from <= reached.get(i.origin));
                joins || self.defects.ignore_causes
            };
            let Some(place) = left
                .iter()
                .find(|(_, waiting)| fits(waiting))
                .map(|(place, _)| *place)
            else {
                return (order, reached);
            };
            let waiting = left.remove(&place).expect("the place was just found");
            for included in &waiting.bundle.included {
                reached.advance(included.origin, included.to);
            }
            order.push((place.1, waiting));
        }
    }
}

/// Whether a bundle has nothing new.
fn is_known(bundle: &Bundle, frontier: &Frontier) -> bool {
    bundle
        .included
        .iter()
        .all(|included| included.to <= frontier.get(included.origin))
}

#[cfg(test)]
mod tests;
