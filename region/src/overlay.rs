//! Versions of keys that are sealed and not yet stepped.
//!
//! Writes of few keys go into one map, key by key; writes of many stay together, sorted, and are searched one after
//! the other: between two steps there are hundreds of commits at most, and few of them are large. Of two writes of a
//! key the later counts.

use std::collections::{BTreeMap, VecDeque};

use tributary_storage::{Keys, ObjectId, Position};

/// From so many keys on a write is kept together.
const TOGETHER_MIN: usize = 256;

/// The version a key has once everything sealed is stepped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OverlayVersion {
    /// Written by this region at this position.
    Own(Position),
    /// Deleted by this region at this position.
    Deleted(Position),
    /// A peer's version arrives with the record at this position; whether it wins is known after the step.
    Foreign(Position),
}

impl OverlayVersion {
    fn position(self) -> Position {
        match self {
            Self::Own(position) | Self::Deleted(position) | Self::Foreign(position) => position,
        }
    }
}

type Key = (ObjectId, Box<[u8]>);

/// The keys of one large write.
struct Together {
    table: ObjectId,
    keys: Keys,
    /// The keys' numbers in the order of the keys; `None` when they ascend.
    sorted: Option<Vec<u32>>,
    versions: Vec<OverlayVersion>,
}

impl Together {
    fn get(&self, table: ObjectId, key: &[u8]) -> Option<OverlayVersion> {
        if table != self.table {
            return None;
        }
        let number = |at: usize| self.sorted.as_ref().map_or(at, |sorted| sorted[at] as usize);
        let (mut low, mut high) = (0, self.keys.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.keys.get(number(middle)).cmp(key) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Some(self.versions[number(middle)]),
            }
        }
        None
    }
}

/// See the module's documentation.
#[derive(Default)]
pub(crate) struct Overlay {
    single: BTreeMap<Key, OverlayVersion>,
    single_by_position: VecDeque<(Position, Vec<Key>)>,
    together: VecDeque<(Position, Together)>,
}

impl Overlay {
    /// The version a key will have; `None` when nothing sealed and not stepped writes it.
    pub(crate) fn get(&self, table: ObjectId, key: &[u8]) -> Option<OverlayVersion> {
        let together = self
            .together
            .iter()
            .rev()
            .find_map(|(_, together)| together.get(table, key));
        let single = match self.single.is_empty() {
            true => None,
            false => self.single.get(&(table, Box::from(key))).copied(),
        };
        together
            .into_iter()
            .chain(single)
            .max_by_key(|version| version.position())
    }

    /// Notes the keys that the record at this position writes; positions go up, and no key occurs twice.
    pub(crate) fn write(
        &mut self,
        position: Position,
        table: ObjectId,
        keys: Keys,
        version: impl Fn(usize) -> OverlayVersion,
    ) {
        if keys.len() >= TOGETHER_MIN {
            let sorted = (!keys.is_ascending()).then(|| {
                let count = u32::try_from(keys.len()).expect("a write has fewer than 2^32 keys");
                let mut sorted: Vec<u32> = (0..count).collect();
                sorted.sort_unstable_by(|a, b| keys.get(*a as usize).cmp(keys.get(*b as usize)));
                sorted
            });
            let versions = (0..keys.len()).map(version).collect();
            let together = Together {
                table,
                keys,
                sorted,
                versions,
            };
            self.together.push_back((position, together));
            return;
        }
        let keys: Vec<Key> = keys.iter().map(|key| (table, Box::from(key))).collect();
        for (row, key) in keys.iter().enumerate() {
            self.single.insert(key.clone(), version(row));
        }
        self.single_by_position.push_back((position, keys));
    }

    /// Forgets everything up to a stepped position: the tables know it now.
    pub(crate) fn stepped(&mut self, position: Position) {
        while self.together.front().is_some_and(|(at, _)| *at <= position) {
            self.together.pop_front();
        }
        while self
            .single_by_position
            .front()
            .is_some_and(|(at, _)| *at <= position)
        {
            let Some((at, keys)) = self.single_by_position.pop_front() else {
                break;
            };
            for key in keys {
                if self
                    .single
                    .get(&key)
                    .is_some_and(|version| version.position() <= at)
                {
                    self.single.remove(&key);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: ObjectId = ObjectId(7);

    fn keys(numbers: impl IntoIterator<Item = u32>) -> Keys {
        numbers.into_iter().map(u32::to_be_bytes).collect()
    }

    #[test]
    fn the_later_of_two_writes_counts_however_they_are_kept() {
        let own = |position: u64| move |_: usize| OverlayVersion::Own(Position(position));
        let mut overlay = Overlay::default();
        let get = |overlay: &Overlay, number: u32| overlay.get(TABLE, &number.to_be_bytes());
        overlay.write(Position(1), TABLE, keys([5]), own(1));
        // Descending, so that it has to be sorted.
        overlay.write(Position(2), TABLE, keys((0..1000).rev()), own(2));
        overlay.write(Position(3), TABLE, keys([6]), |_| {
            OverlayVersion::Deleted(Position(3))
        });
        overlay.write(Position(4), TABLE, keys(900..1900), own(4));
        for (number, expected) in [
            (5, Some(OverlayVersion::Own(Position(2)))),
            (6, Some(OverlayVersion::Deleted(Position(3)))),
            (899, Some(OverlayVersion::Own(Position(2)))),
            (900, Some(OverlayVersion::Own(Position(4)))),
            (1899, Some(OverlayVersion::Own(Position(4)))),
            (1900, None),
        ] {
            assert_eq!(get(&overlay, number), expected, "key {number}");
        }
        assert_eq!(overlay.get(ObjectId(8), &5u32.to_be_bytes()), None);
        overlay.stepped(Position(2));
        assert_eq!(get(&overlay, 5), None);
        assert_eq!(get(&overlay, 6), Some(OverlayVersion::Deleted(Position(3))));
        assert_eq!(get(&overlay, 900), Some(OverlayVersion::Own(Position(4))));
        overlay.stepped(Position(4));
        assert!(overlay.single.is_empty() && overlay.together.is_empty());
    }
}
