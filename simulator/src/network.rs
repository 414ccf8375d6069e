//! The network between regions: what it does to messages, and which connections there are.
//!
//! Real links are TCP streams. This network is worse on purpose (it loses, doubles, reorders and damages
//! single messages), because the protocol promises to survive that; only a damaged message costs the connection,
//! as it would in the server.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::options::LinkProfile;
use crate::rng::Rng;

/// A directed pair of regions, by number.
pub type Direction = (usize, usize);

/// One copy of a message under way.
pub struct Copy {
    /// When it arrives.
    pub at_ms: u64,
    /// What arrives.
    pub bytes: Bytes,
    /// Whether it was damaged.
    pub damaged: bool,
}

/// All links and connections.
pub struct Network {
    rng: Rng,
    links: BTreeMap<Direction, DirectedLink>,
    connections: BTreeMap<Direction, Connection>,
    healed: bool,
    /// What happened to messages.
    pub counts: NetworkCounts,
}

/// What happened to messages.
#[derive(Clone, Copy, Debug, Default)]
pub struct NetworkCounts {
    /// Sent.
    pub sent: u64,
    /// Lost to chance, partitions and resets.
    pub lost: u64,
    /// Delivered twice.
    pub duplicated: u64,
    /// Overtaken.
    pub reordered: u64,
    /// Damaged.
    pub corrupted: u64,
}

struct DirectedLink {
    profile: LinkProfile,
    cut: u32,
    last_arrival_ms: u64,
}

#[derive(Default)]
struct Connection {
    up: bool,
    generation: u64,
}

impl Network {
    /// A network between so many regions, with links drawn around a profile.
    pub fn new(mut rng: Rng, regions: usize, profile: LinkProfile) -> Self {
        let mut links = BTreeMap::new();
        let mut connections = BTreeMap::new();
        for from in 0..regions {
            for to in (0..regions).filter(|to| *to != from) {
                let mut profile = profile;
                profile.delay_ms = rng.between(profile.delay_ms / 2, profile.delay_ms * 2);
                links.insert(
                    (from, to),
                    DirectedLink {
                        profile,
                        cut: 0,
                        last_arrival_ms: 0,
                    },
                );
                connections.insert((from.min(to), from.max(to)), Connection::default());
            }
        }
        Self {
            rng,
            links,
            connections,
            healed: false,
            counts: NetworkCounts::default(),
        }
    }

    /// All pairs of regions.
    pub fn pairs(&self) -> Vec<Direction> {
        self.connections.keys().copied().collect()
    }

    /// Cuts one direction; cuts add up.
    pub fn cut(&mut self, direction: Direction) {
        if let Some(link) = self.links.get_mut(&direction) {
            link.cut += 1;
        }
    }

    /// Takes back one cut.
    pub fn mend(&mut self, direction: Direction) {
        if let Some(link) = self.links.get_mut(&direction) {
            link.cut = link.cut.saturating_sub(1);
        }
    }

    /// From now on, or no longer, messages arrive unharmed and in order.
    pub fn set_healed(&mut self, healed: bool) {
        self.healed = healed;
    }

    /// Whether a connection could be made: both directions are open.
    pub fn is_open(&self, a: usize, b: usize) -> bool {
        [(a, b), (b, a)]
            .iter()
            .all(|direction| self.links.get(direction).is_some_and(|link| link.cut == 0))
    }

    /// The number of the connection between two regions, if it is up.
    pub fn connection(&self, a: usize, b: usize) -> Option<u64> {
        let connection = self.connections.get(&(a.min(b), a.max(b)))?;
        connection.up.then_some(connection.generation)
    }

    /// Makes a connection; it gets a new number.
    pub fn connect(&mut self, a: usize, b: usize) {
        if let Some(connection) = self.connections.get_mut(&(a.min(b), a.max(b))) {
            connection.up = true;
            connection.generation += 1;
        }
        for direction in [(a, b), (b, a)] {
            if let Some(link) = self.links.get_mut(&direction) {
                link.last_arrival_ms = 0;
            }
        }
    }

    /// Ends a connection. False when there was none.
    pub fn disconnect(&mut self, a: usize, b: usize) -> bool {
        let connection = self.connections.get_mut(&(a.min(b), a.max(b)));
        connection.is_some_and(|connection| std::mem::take(&mut connection.up))
    }

    /// Sends a message; returns what arrives of it, and when.
    pub fn send(&mut self, now_ms: u64, direction: Direction, bytes: Bytes) -> Vec<Copy> {
        self.counts.sent += 1;
        let Some(link) = self.links.get_mut(&direction) else {
            return Vec::new();
        };
        let LinkProfile {
            delay_ms,
            jitter_ms,
            loss,
            duplication,
            reordering,
            corruption,
        } = link.profile;
        let chance = |rng: &mut Rng, mille: u64| !self.healed && rng.per_mille(mille);
        if link.cut > 0 || chance(&mut self.rng, loss) {
            self.counts.lost += 1;
            return Vec::new();
        }
        let copies = 1 + u64::from(chance(&mut self.rng, duplication));
        self.counts.duplicated += copies - 1;
        let mut arriving = Vec::new();
        for _ in 0..copies {
            let mut at_ms = now_ms + delay_ms + self.rng.between(0, jitter_ms);
            if chance(&mut self.rng, reordering) {
                at_ms += self.rng.between(0, 3 * (delay_ms + 10));
                self.counts.reordered += 1;
            } else {
                at_ms = at_ms.max(link.last_arrival_ms);
                link.last_arrival_ms = at_ms;
            }
            let mut bytes = bytes.clone();
            let damaged = chance(&mut self.rng, corruption) && !bytes.is_empty();
            if damaged {
                let bit = self.rng.index(bytes.len() * 8);
                let mut changed = bytes.to_vec();
                changed[bit / 8] ^= 1 << (bit % 8);
                bytes = Bytes::from(changed);
                self.counts.corrupted += 1;
            }
            arriving.push(Copy {
                at_ms,
                bytes,
                damaged,
            });
        }
        arriving
    }
}
