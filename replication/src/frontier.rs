//! How much of each origin's log is known: a version vector, and the name of a snapshot of the world.
//!
//! Invariants: epoch 0 means "nothing" and is never stored, so equal frontiers are equal values; frontiers
//! only grow (a region never forgets), which [`Lattice`] expresses.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use tributary_storage::OriginId;

use crate::lattice::Lattice;

/// An announced log position: one that changed something other regions need. 0 is before everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch as it stands in columns.
    ///
    /// # Panics
    /// When the log has more than 2^63 records.
    pub fn as_i64(self) -> i64 {
        i64::try_from(self.0).expect("a log has fewer than 2^63 records")
    }

    /// The inverse of [`Epoch::as_i64`]; `None` for a negative number.
    pub fn from_i64(value: i64) -> Option<Self> {
        u64::try_from(value).ok().map(Self)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl Lattice for Epoch {
    fn merge(&mut self, other: Self) -> bool {
        let grows = other > *self;
        if grows {
            *self = other;
        }
        grows
    }
}

/// The identity of a cluster, drawn at random when it is founded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClusterId(pub [u8; 16]);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A map origin -> epoch: everything up to these epochs is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "BTreeMap<OriginId, Epoch>")]
pub struct Frontier(BTreeMap<OriginId, Epoch>);

impl Frontier {
    /// The frontier that knows nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// The epoch up to which `origin` is known; 0 when it never was heard of.
    pub fn get(&self, origin: OriginId) -> Epoch {
        self.0.get(&origin).copied().unwrap_or_default()
    }

    /// Puts an origin at exactly `epoch`, forwards or back. Only for building a frontier; a region's own
    /// frontier moves by [`Frontier::advance`].
    pub fn set(&mut self, origin: OriginId, epoch: Epoch) {
        if epoch == Epoch(0) {
            self.0.remove(&origin);
        } else {
            self.0.insert(origin, epoch);
        }
    }

    /// Moves an origin forwards to `epoch`. False when it was there already.
    pub fn advance(&mut self, origin: OriginId, epoch: Epoch) -> bool {
        let grows = epoch > self.get(origin);
        if grows {
            self.0.insert(origin, epoch);
        }
        grows
    }

    /// Whether everything `other` knows is known here.
    pub fn covers(&self, other: &Frontier) -> bool {
        other.iter().all(|(origin, epoch)| self.get(origin) >= epoch)
    }

    /// All origins that were heard of, in order.
    pub fn iter(&self) -> impl Iterator<Item = (OriginId, Epoch)> + '_ {
        self.0.iter().map(|(origin, epoch)| (*origin, *epoch))
    }

    /// The number of origins that were heard of.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<BTreeMap<OriginId, Epoch>> for Frontier {
    fn from(mut epochs: BTreeMap<OriginId, Epoch>) -> Self {
        epochs.retain(|_, epoch| *epoch > Epoch(0));
        Self(epochs)
    }
}

impl FromIterator<(OriginId, Epoch)> for Frontier {
    fn from_iter<I: IntoIterator<Item = (OriginId, Epoch)>>(epochs: I) -> Self {
        Self::from(epochs.into_iter().collect::<BTreeMap<_, _>>())
    }
}

impl Lattice for Frontier {
    fn merge(&mut self, other: Self) -> bool {
        let mut grows = false;
        for (origin, epoch) in other.0 {
            grows |= self.advance(origin, epoch);
        }
        grows
    }
}

/// Region names are the catalog's business: this prints numbers, as in `{r1.1:17 r2.1:9}`.
impl fmt::Display for Frontier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, (origin, epoch)) in self.iter().enumerate() {
            let space = if i == 0 { "" } else { " " };
            write!(f, "{space}{origin}:{epoch}")?;
        }
        f.write_str("}")
    }
}

#[cfg(test)]
mod tests {
    use tributary_storage::RegionId;

    use super::*;
    use crate::lattice::assert_laws;

    fn origin(region: u16) -> OriginId {
        OriginId::first(RegionId(region))
    }

    fn small_frontiers() -> Vec<Frontier> {
        let mut all = Vec::new();
        for a in 0..3 {
            for b in 0..3 {
                for c in 0..2 {
                    all.push(Frontier::from_iter([
                        (origin(1), Epoch(a)),
                        (origin(2), Epoch(b)),
                        (
                            OriginId {
                                region: RegionId(2),
                                incarnation: 2,
                            },
                            Epoch(c),
                        ),
                    ]));
                }
            }
        }
        all
    }

    #[test]
    fn frontiers_epochs_and_options_are_lattices() {
        assert_laws(&small_frontiers());
        assert_laws(&[Epoch(0), Epoch(1), Epoch(2), Epoch(u64::MAX)]);
        assert_laws(&[None, Some(Epoch(0)), Some(Epoch(1))]);
    }

    #[test]
    fn covering_is_the_order_of_the_lattice() {
        for a in &small_frontiers() {
            for b in &small_frontiers() {
                let mut merged = a.clone();
                merged.merge(b.clone());
                assert_eq!(a.covers(b), merged == *a, "{a} covers {b}");
                assert!(merged.covers(a) && merged.covers(b));
            }
        }
    }

    #[test]
    fn epoch_zero_is_never_stored() {
        let mut frontier = Frontier::from_iter([(origin(1), Epoch(0)), (origin(2), Epoch(9))]);
        assert_eq!((frontier.len(), frontier.get(origin(1))), (1, Epoch(0)));
        frontier.set(origin(2), Epoch(0));
        assert!(frontier.is_empty());
        let bytes = postcard::to_stdvec(&BTreeMap::from([(origin(1), Epoch(0)), (origin(3), Epoch(5))]))
            .expect("serializes");
        let read: Frontier = postcard::from_bytes(&bytes).expect("reads");
        assert_eq!(read.to_string(), "{r3.1:5}");
    }

    #[test]
    fn advancing_never_goes_back() {
        let mut frontier = Frontier::new();
        assert!(frontier.advance(origin(1), Epoch(5)));
        assert!(!frontier.advance(origin(1), Epoch(4)));
        assert!(!frontier.advance(origin(1), Epoch(5)));
        assert_eq!(frontier.to_string(), "{r1.1:5}");
    }
}
