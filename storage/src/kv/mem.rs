//! A disk in memory that fails on demand.
//!
//! Every family keeps two maps: what is durable, and what readers see. Writes in between wait in a queue per
//! family. A crash drops, keeps or tears the ends of those queues as told, family by family, because that is
//! what a database that flushes its families one by one can do. Clones are the same disk, so a simulator
//! holds one, crashes it, and opens the region again on another.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;

use super::{Family, Kv, Operation, WriteBatch};
use crate::error::{Result, StorageError};

/// What happens to a family's unsynced writes in a crash. A write is a batch's part in that family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// All of them are lost.
    All,
    /// The first so many survive.
    Keep(usize),
    /// All survive, but the last operation of the last write is torn: half of a value is on disk, or a
    /// deletion did not happen.
    TornLast,
}

/// What a crash takes.
#[derive(Clone, Debug, Default)]
pub struct CrashFaults {
    /// The loss of each family; families that are not named keep everything.
    pub lose_unsynced: BTreeMap<Family, Loss>,
}

impl CrashFaults {
    /// The same loss in every family.
    pub fn everywhere(loss: Loss) -> Self {
        Self {
            lose_unsynced: Family::ALL.into_iter().map(|family| (family, loss)).collect(),
        }
    }
}

/// A deliberate bug, so that a checker can prove that it would notice one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// `sync` silently leaves this family out.
    SkipSync(Family),
}

/// An in-memory [`Kv`]; clones share one disk.
#[derive(Clone, Debug, Default)]
pub struct MemKv {
    disk: Arc<Mutex<Disk>>,
}

#[derive(Debug, Default)]
struct Disk {
    families: BTreeMap<Family, FamilyState>,
    defect: Option<Defect>,
    full: bool,
    sync_fails: bool,
    /// Power fails when so many further writes and syncs have been done.
    operations_left: Option<u64>,
    lost_writes: u64,
}

#[derive(Debug, Default)]
struct FamilyState {
    durable: BTreeMap<Bytes, Bytes>,
    visible: BTreeMap<Bytes, Bytes>,
    unsynced: VecDeque<Vec<Operation>>,
}

impl MemKv {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// Loses power: unsynced writes are lost as told, and the disk is usable again afterwards, by whoever
    /// opens it next. It stays full, and keeps its defect.
    pub fn crash(&self, faults: &CrashFaults) {
        let mut disk = self.disk();
        let mut lost = 0;
        for (family, state) in &mut disk.families {
            lost += state.crash(faults.lose_unsynced.get(family).copied());
        }
        disk.lost_writes += lost;
        disk.operations_left = None;
        disk.sync_fails = false;
    }

    /// Another disk that holds what is durable on this one, and has its defect.
    pub fn copy_durable(&self) -> Self {
        let disk = self.disk();
        let copy = |(family, state): (&Family, &FamilyState)| {
            let copied = FamilyState {
                durable: state.durable.clone(),
                visible: state.durable.clone(),
                unsynced: VecDeque::new(),
            };
            (*family, copied)
        };
        let copied = Disk {
            families: disk.families.iter().map(copy).collect(),
            defect: disk.defect,
            ..Disk::default()
        };
        Self {
            disk: Arc::new(Mutex::new(copied)),
        }
    }

    /// Whether the device has no space left: then writes fail with [`StorageError::Full`].
    pub fn set_full(&self, full: bool) {
        self.disk().full = full;
    }

    /// Whether the next syncs fail with an I/O error and make nothing durable; ends with a crash.
    pub fn set_sync_fails(&self, fails: bool) {
        self.disk().sync_fails = fails;
    }

    /// Lets power fail after so many further writes and syncs: from then on every call fails with an I/O
    /// error until [`MemKv::crash`].
    pub fn set_power_fails_after(&self, operations: u64) {
        self.disk().operations_left = Some(operations);
    }

    /// Flips one bit of a stored value. Returns whether there is such a value and bit.
    pub fn flip_bit(&self, family: Family, key: &[u8], bit: usize) -> bool {
        let mut disk = self.disk();
        let state = disk.families.entry(family).or_default();
        let mut flipped = false;
        let waiting = state
            .unsynced
            .iter_mut()
            .flatten()
            .filter_map(|operation| match operation {
                Operation::Put { key: written, value } if written == key => Some(value),
                _ => None,
            });
        let stored = [&mut state.durable, &mut state.visible];
        for value in stored
            .into_iter()
            .filter_map(|map| map.get_mut(key))
            .chain(waiting)
        {
            if bit / 8 < value.len() {
                let mut bytes = value.to_vec();
                bytes[bit / 8] ^= 1 << (bit % 8);
                *value = Bytes::from(bytes);
                flipped = true;
            }
        }
        flipped
    }

    /// Switches a deliberate bug on, for negative controls.
    pub fn set_defect(&self, defect: Defect) {
        self.disk().defect = Some(defect);
    }

    /// How many writes crashes have taken so far, counted per family; a torn write counts.
    pub fn lost_writes(&self) -> u64 {
        self.disk().lost_writes
    }

    /// Makes one family durable and leaves the others as they are, as a database does when one memory table
    /// is full.
    pub fn flush_family(&self, family: Family) -> Result<()> {
        let mut disk = self.disk();
        disk.count_operation()?;
        disk.families.entry(family).or_default().flush();
        Ok(())
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().expect("no holder of the disk's lock panics")
    }
}

impl Kv for MemKv {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>> {
        let disk = self.disk();
        disk.check_power()?;
        Ok(disk
            .families
            .get(&family)
            .and_then(|state| state.visible.get(key).cloned()))
    }

    fn scan(
        &self,
        family: Family,
        from: &[u8],
        to: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>> {
        let disk = self.disk();
        disk.check_power()?;
        let Some(state) = disk.families.get(&family) else {
            return Ok(Vec::new());
        };
        if to.is_some_and(|to| to <= from) {
            return Ok(Vec::new());
        }
        let end = to.map_or(Bound::Unbounded, Bound::Excluded);
        let range = state.visible.range::<[u8], _>((Bound::Included(from), end));
        Ok(range
            .take(limit)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect())
    }

    fn write(&self, batch: WriteBatch) -> Result<()> {
        let mut disk = self.disk();
        disk.count_operation()?;
        if disk.full {
            return Err(StorageError::Full {
                operation: "write".into(),
            });
        }
        let mut parts: BTreeMap<Family, Vec<Operation>> = BTreeMap::new();
        for (family, operation) in batch.operations {
            parts.entry(family).or_default().push(operation);
        }
        for (family, operations) in parts {
            let state = disk.families.entry(family).or_default();
            operations
                .iter()
                .for_each(|operation| apply(&mut state.visible, operation));
            state.unsynced.push_back(operations);
        }
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        let mut disk = self.disk();
        disk.count_operation()?;
        if disk.sync_fails {
            let message = "Input/output error (injected)".to_string();
            return Err(StorageError::Io {
                operation: "sync".into(),
                message,
            });
        }
        let defect = disk.defect;
        for (family, state) in &mut disk.families {
            if defect != Some(Defect::SkipSync(*family)) {
                state.flush();
            }
        }
        Ok(())
    }
}

impl Disk {
    fn check_power(&self) -> Result<()> {
        if self.operations_left == Some(0) {
            let message = "the power is off (injected)".to_string();
            return Err(StorageError::Io {
                operation: "disk access".into(),
                message,
            });
        }
        Ok(())
    }

    fn count_operation(&mut self) -> Result<()> {
        self.check_power()?;
        self.operations_left = self.operations_left.map(|left| left - 1);
        Ok(())
    }
}

impl FamilyState {
    fn flush(&mut self) {
        for operation in std::mem::take(&mut self.unsynced).into_iter().flatten() {
            apply(&mut self.durable, &operation);
        }
    }

    /// Returns how many writes were lost or torn.
    fn crash(&mut self, loss: Option<Loss>) -> u64 {
        let unsynced = self.unsynced.len();
        let torn = loss == Some(Loss::TornLast) && unsynced > 0;
        let kept = match loss {
            Some(Loss::All) => 0,
            Some(Loss::Keep(kept)) => kept.min(unsynced),
            Some(Loss::TornLast) | None => unsynced,
        };
        self.unsynced.truncate(kept);
        if torn && let Some(last) = self.unsynced.back_mut() {
            match last.pop() {
                Some(Operation::Put { key, value }) => {
                    let value = value.slice(..value.len() / 2);
                    last.push(Operation::Put { key, value });
                }
                Some(Operation::Delete { .. } | Operation::DeleteRange { .. }) | None => {}
            }
        }
        self.flush();
        self.visible = self.durable.clone();
        (unsynced - kept) as u64 + u64::from(torn)
    }
}

fn apply(map: &mut BTreeMap<Bytes, Bytes>, operation: &Operation) {
    match operation {
        Operation::Put { key, value } => {
            map.insert(key.clone(), value.clone());
        }
        Operation::Delete { key } => {
            map.remove(key);
        }
        Operation::DeleteRange { from, to } => {
            let doomed: Vec<Bytes> = map
                .range(from.clone()..to.clone())
                .map(|(key, _)| key.clone())
                .collect();
            doomed.iter().for_each(|key| {
                map.remove(key);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(kv: &MemKv, family: Family, key: &str, value: &'static str) {
        let mut batch = WriteBatch::new();
        batch.put(family, key, value.as_bytes());
        kv.write(batch).expect("the disk works");
    }

    fn value(kv: &MemKv, family: Family, key: &str) -> Option<String> {
        let value = kv.get(family, key.as_bytes()).expect("the disk works");
        value.map(|bytes| String::from_utf8(bytes.to_vec()).expect("text"))
    }

    #[test]
    fn each_family_loses_what_it_is_told_to() {
        let kv = MemKv::new();
        for family in Family::ALL {
            put(&kv, family, "a", "first");
            put(&kv, family, "b", "second");
        }
        let faults = BTreeMap::from([(Family::Runs, Loss::Keep(1)), (Family::Log, Loss::TornLast)]);
        kv.crash(&CrashFaults {
            lose_unsynced: faults,
        });
        assert_eq!(
            (value(&kv, Family::Runs, "a"), value(&kv, Family::Runs, "b")),
            (Some("first".into()), None)
        );
        assert_eq!(value(&kv, Family::Log, "b"), Some("sec".into()));
        assert_eq!(value(&kv, Family::Manifest, "b"), Some("second".into()));
        assert_eq!(kv.lost_writes(), 2);
    }

    #[test]
    fn a_skipped_sync_loses_what_was_called_durable() {
        let kv = MemKv::new();
        kv.set_defect(Defect::SkipSync(Family::Log));
        put(&kv, Family::Log, "a", "x");
        put(&kv, Family::Runs, "a", "x");
        kv.sync().expect("the defect is silent");
        kv.crash(&CrashFaults::everywhere(Loss::All));
        assert_eq!(
            (value(&kv, Family::Log, "a"), value(&kv, Family::Runs, "a")),
            (None, Some("x".into()))
        );
    }

    #[test]
    fn a_full_disk_refuses_writes_serves_reads_and_heals() {
        let kv = MemKv::new();
        put(&kv, Family::Runs, "a", "x");
        kv.set_full(true);
        let mut batch = WriteBatch::new();
        batch.put(Family::Runs, "b", "y");
        assert!(matches!(kv.write(batch.clone()), Err(StorageError::Full { .. })));
        assert_eq!(
            (value(&kv, Family::Runs, "a"), value(&kv, Family::Runs, "b")),
            (Some("x".into()), None)
        );
        kv.set_full(false);
        kv.write(batch).expect("there is space again");
    }

    #[test]
    fn a_failed_sync_makes_nothing_durable() {
        let kv = MemKv::new();
        put(&kv, Family::Log, "a", "x");
        kv.set_sync_fails(true);
        assert!(matches!(kv.sync(), Err(StorageError::Io { .. })));
        kv.crash(&CrashFaults::everywhere(Loss::All));
        assert_eq!(value(&kv, Family::Log, "a"), None);
    }

    #[test]
    fn power_fails_after_the_given_operations_until_the_crash() {
        let kv = MemKv::new();
        kv.set_power_fails_after(1);
        put(&kv, Family::Log, "a", "x");
        assert!(kv.sync().is_err() && kv.get(Family::Log, b"a").is_err());
        kv.crash(&CrashFaults::default());
        assert_eq!(value(&kv, Family::Log, "a"), Some("x".into()));
    }

    #[test]
    fn a_flipped_bit_is_in_every_clone_and_survives() {
        let kv = MemKv::new();
        put(&kv, Family::Runs, "a", "a");
        kv.sync().expect("the disk works");
        assert!(kv.flip_bit(Family::Runs, b"a", 1));
        assert!(!kv.flip_bit(Family::Runs, b"a", 8) && !kv.flip_bit(Family::Runs, b"b", 0));
        kv.crash(&CrashFaults::default());
        assert_eq!(value(&kv.clone(), Family::Runs, "a"), Some("c".into()));
    }
}
