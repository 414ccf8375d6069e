//! An open-addressing table from keys to dense ids, probed in batches.
//!
//! A batch is probed in two passes over a few dozen keys: the first copies each key's home slot, without a branch, so
//! that the misses of many keys overlap; the second compares. Most keys are found in their home slot, and the second
//! pass then touches nothing but what the first has brought.
//!
//! Invariants: at most 5/8 of the slots are taken; a key has one slot; nothing is ever removed.

/// The id that stands for "not there".
pub const ABSENT: u32 = u32::MAX;

/// Keys whose home slots are fetched together.
const WINDOW: usize = 64;
const SLOTS_MIN: usize = 64;

/// What a table can be probed by. Two keys that are equal here may still differ: see [`ProbeTable::insert`].
pub(crate) trait ProbeKey: Copy + Eq + Default {
    /// A hash whose low bits are as good as its high ones.
    fn hash(self) -> u64;
}

#[derive(Clone, Copy, Debug)]
struct Slot<K> {
    key: K,
    id: u32,
}

/// See the module's documentation.
#[derive(Clone, Debug)]
pub(crate) struct ProbeTable<K> {
    slots: Vec<Slot<K>>,
    taken: usize,
}

impl<K: ProbeKey> ProbeTable<K> {
    pub(crate) fn new() -> Self {
        Self {
            slots: vec![Self::free(); SLOTS_MIN],
            taken: 0,
        }
    }

    fn free() -> Slot<K> {
        Slot {
            key: K::default(),
            id: ABSENT,
        }
    }

    /// The memory of the slots, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.slots.len() * size_of::<Slot<K>>()
    }

    /// The id of each key, [`ABSENT`] for those not there. `same(id, i)` decides whether the entry `id`, whose key
    /// equals `keys[i]`, is the one looked for.
    pub(crate) fn find(&self, keys: &[K], same: impl Fn(u32, usize) -> bool) -> Vec<u32> {
        let mut ids = Vec::with_capacity(keys.len());
        for (number, window) in keys.chunks(WINDOW).enumerate() {
            let homes = self.homes(window);
            for (place, key) in window.iter().enumerate() {
                let row = number * WINDOW + place;
                let home = homes[place];
                let hit = home.id == ABSENT || (home.key == *key && same(home.id, row));
                ids.push(if hit {
                    home.id
                } else {
                    self.walk(*key, |id| same(id, row)).1
                });
            }
        }
        ids
    }

    /// The id of each key; a key that is not there gets the id that `next(i)` gives. `same` is as for
    /// [`ProbeTable::find`], and must know an id as soon as `next` has given it.
    pub(crate) fn insert<S>(
        &mut self,
        keys: &[K],
        state: &mut S,
        same: impl Fn(&S, u32, usize) -> bool,
        mut next: impl FnMut(&mut S, usize) -> u32,
    ) -> Vec<u32> {
        let mut ids = Vec::with_capacity(keys.len());
        for (number, window) in keys.chunks(WINDOW).enumerate() {
            self.reserve(window.len());
            let homes = self.homes(window);
            for (place, key) in window.iter().enumerate() {
                let row = number * WINDOW + place;
                let home = homes[place];
                if home.id != ABSENT && home.key == *key && same(state, home.id, row) {
                    ids.push(home.id);
                    continue;
                }
                let (slot, id) = self.walk(*key, |id| same(state, id, row));
                if id != ABSENT {
                    ids.push(id);
                    continue;
                }
                let id = next(state, row);
                self.slots[slot] = Slot { key: *key, id };
                self.taken += 1;
                ids.push(id);
            }
        }
        ids
    }

    #[inline(always)]
    fn homes(&self, window: &[K]) -> [Slot<K>; WINDOW] {
        let mask = self.slots.len() - 1;
        let mut homes = [Self::free(); WINDOW];
        for (home, key) in homes.iter_mut().zip(window) {
            *home = self.slots[key.hash() as usize & mask];
        }
        homes
    }

    /// The slot and id of a key, or the free slot where it belongs and [`ABSENT`].
    fn walk(&self, key: K, same: impl Fn(u32) -> bool) -> (usize, u32) {
        let mask = self.slots.len() - 1;
        let mut slot = key.hash() as usize & mask;
        loop {
            let found = self.slots[slot];
            if found.id == ABSENT || (found.key == key && same(found.id)) {
                return (slot, found.id);
            }
            slot = (slot + 1) & mask;
        }
    }

    /// Makes room for `more` keys.
    pub(crate) fn reserve(&mut self, more: usize) {
        let needed = (self.taken + more) * 8 / 5;
        if needed <= self.slots.len() {
            return;
        }
        let mask = needed.next_power_of_two() - 1;
        let mut slots = vec![Self::free(); mask + 1];
        for taken in self.slots.iter().filter(|slot| slot.id != ABSENT) {
            let mut slot = taken.key.hash() as usize & mask;
            while slots[slot].id != ABSENT {
                slot = (slot + 1) & mask;
            }
            slots[slot] = *taken;
        }
        self.slots = slots;
    }
}
