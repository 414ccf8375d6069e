//! The promises of [`Kv`], checked on every implementation through the same eyes.
//!
//! A [`Device`] can lose power. The memory disk does it by itself. For RocksDB the directory is copied as a
//! power cut would leave it: files that RocksDB syncs are whole, and its write-ahead log ends where it was
//! last synced.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::*;

/// A disk on which a [`Kv`] can be opened, crashed and opened again.
pub(crate) trait Device {
    fn kv(&self) -> Arc<dyn Kv>;
    /// Syncs through the device, which notes what is durable.
    fn sync(&mut self);
    /// Flushes one family by itself.
    fn flush_family(&mut self, family: Family);
    /// Cuts the power: whatever may be lost is lost. Opens again.
    fn crash(&mut self);
    /// Closes and opens again in good order.
    fn restart(&mut self);
}

#[derive(Default)]
struct MemDevice(MemKv);

impl Device for MemDevice {
    fn kv(&self) -> Arc<dyn Kv> {
        Arc::new(self.0.clone())
    }

    fn sync(&mut self) {
        self.0.sync().expect("the disk works");
    }

    fn flush_family(&mut self, family: Family) {
        self.0.flush_family(family).expect("the disk works");
    }

    fn crash(&mut self) {
        self.0.crash(&CrashFaults::everywhere(Loss::All));
    }

    fn restart(&mut self) {}
}

pub(crate) struct RocksDevice {
    root: tempfile::TempDir,
    generation: u32,
    kv: Option<Arc<RocksKv>>,
    /// How much of each write-ahead log is durable.
    synced: BTreeMap<PathBuf, u64>,
}

impl RocksDevice {
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir().expect("a temporary directory");
        let mut device = Self {
            root,
            generation: 0,
            kv: None,
            synced: BTreeMap::new(),
        };
        device.open();
        device
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.root.path().join(self.generation.to_string())
    }

    fn open(&mut self) {
        self.kv = Some(Arc::new(RocksKv::open(&self.path()).expect("the database opens")));
        self.note_synced(true);
    }

    pub(crate) fn close(&mut self) {
        let kv = self.kv.take().expect("the database is open");
        assert_eq!(
            Arc::strong_count(&kv),
            1,
            "a test lets go of the database before it is closed"
        );
    }

    /// Notes the lengths of the logs as durable; the newest one only when it was synced.
    fn note_synced(&mut self, newest_too: bool) {
        let logs = logs_in(&self.path());
        let count = logs.len();
        for (i, (name, length)) in logs.into_iter().enumerate() {
            if newest_too || i + 1 < count {
                self.synced.insert(name, length);
            }
        }
    }
}

/// The write-ahead logs of a directory with their lengths, oldest first.
fn logs_in(path: &Path) -> Vec<(PathBuf, u64)> {
    let entries = fs::read_dir(path)
        .expect("the directory exists")
        .map(|entry| entry.expect("readable"));
    let mut logs: Vec<_> = entries
        .filter(|entry| {
            entry
                .path()
                .extension()
                .is_some_and(|extension| extension == "log")
        })
        .map(|entry| {
            (
                PathBuf::from(entry.file_name()),
                entry.metadata().expect("readable").len(),
            )
        })
        .collect();
    logs.sort();
    logs
}

impl Device for RocksDevice {
    fn kv(&self) -> Arc<dyn Kv> {
        self.kv.clone().expect("the database is open")
    }

    fn sync(&mut self) {
        self.kv().sync().expect("the disk works");
        self.note_synced(true);
    }

    fn flush_family(&mut self, family: Family) {
        let kv = self.kv.clone().expect("the database is open");
        kv.flush_family(family).expect("the disk works");
        // RocksDB starts a new log for what comes after, and syncs the ones it closes.
        self.note_synced(false);
    }

    fn crash(&mut self) {
        let (from, synced) = (self.path(), std::mem::take(&mut self.synced));
        self.generation += 1;
        let to = self.path();
        fs::create_dir(&to).expect("writable");
        for entry in fs::read_dir(&from).expect("readable") {
            let entry = entry.expect("readable");
            let copy = to.join(entry.file_name());
            fs::copy(entry.path(), &copy).expect("copied");
            if copy.extension().is_some_and(|extension| extension == "log") {
                let durable = synced.get(Path::new(&entry.file_name())).copied().unwrap_or(0);
                let file = fs::OpenOptions::new().write(true).open(&copy).expect("writable");
                file.set_len(durable).expect("truncated");
            }
        }
        self.close();
        self.open();
    }

    fn restart(&mut self) {
        self.close();
        self.open();
    }
}

fn put(kv: &dyn Kv, entries: &[(Family, &str, &str)]) {
    let mut batch = WriteBatch::new();
    for (family, key, value) in entries {
        batch.put(*family, key, value.as_bytes().to_vec());
    }
    kv.write(batch).expect("the disk works");
}

fn all(kv: &dyn Kv, family: Family) -> Vec<(String, String)> {
    let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).expect("text");
    let entries = kv.scan(family, b"", None, usize::MAX).expect("the disk works");
    entries
        .iter()
        .map(|(key, value)| (text(key), text(value)))
        .collect()
}

fn pairs(entries: &[(&str, &str)]) -> Vec<(String, String)> {
    entries
        .iter()
        .map(|(key, value)| (key.to_string(), value.to_string()))
        .collect()
}

fn reads_see_writes_in_key_order(device: &mut dyn Device) {
    let kv = device.kv();
    put(
        &*kv,
        &[
            (Family::Runs, "b", "2"),
            (Family::Runs, "a", "1"),
            (Family::Runs, "c", ""),
            (Family::Log, "a", "x"),
        ],
    );
    assert_eq!(
        kv.get(Family::Runs, b"a").expect("readable"),
        Some(Bytes::from("1"))
    );
    assert_eq!(kv.get(Family::Runs, b"c").expect("readable"), Some(Bytes::new()));
    assert_eq!(kv.get(Family::Manifest, b"a").expect("readable"), None);
    assert_eq!(
        all(&*kv, Family::Runs),
        pairs(&[("a", "1"), ("b", "2"), ("c", "")])
    );
    let keys = |from: &str, to: Option<&str>, limit| -> Vec<Bytes> {
        let found = kv
            .scan(Family::Runs, from.as_bytes(), to.map(str::as_bytes), limit)
            .expect("readable");
        found.into_iter().map(|(key, _)| key).collect()
    };
    assert_eq!(keys("a", Some("c"), 9), ["a", "b"]);
    assert_eq!(keys("aa", None, 1), ["b"]);
    assert!(keys("b", Some("b"), 9).is_empty() && keys("c", Some("a"), 9).is_empty());
    assert!(keys("a", None, 0).is_empty());
}

fn a_batch_applies_in_order(device: &mut dyn Device) {
    let kv = device.kv();
    put(
        &*kv,
        &[
            (Family::Log, "a", "1"),
            (Family::Log, "b", "1"),
            (Family::Log, "c", "1"),
            (Family::Runs, "b", "1"),
        ],
    );
    let mut batch = WriteBatch::new();
    batch.delete_range(Family::Log, "a", "c");
    batch.put(Family::Log, "b", "2");
    batch.delete(Family::Log, "c");
    batch.delete(Family::Log, "missing");
    batch.delete_range(Family::Log, "z", "a");
    assert_eq!(batch.len(), 4);
    kv.write(batch).expect("the disk works");
    assert_eq!(all(&*kv, Family::Log), pairs(&[("b", "2")]));
    assert_eq!(all(&*kv, Family::Runs), pairs(&[("b", "1")]));
    kv.write(WriteBatch::new()).expect("an empty batch is fine");
}

fn what_was_synced_survives_a_crash(device: &mut dyn Device) {
    put(
        &*device.kv(),
        &[
            (Family::Log, "a", "1"),
            (Family::Runs, "a", "1"),
            (Family::Manifest, "a", "1"),
        ],
    );
    device.sync();
    put(&*device.kv(), &[(Family::Log, "b", "2")]);
    let mut batch = WriteBatch::new();
    batch.delete(Family::Runs, "a");
    device.kv().write(batch).expect("the disk works");
    device.crash();
    let kv = device.kv();
    // The device loses all it may lose, so this also shows that the test can lose something.
    assert_eq!(all(&*kv, Family::Log), pairs(&[("a", "1")]));
    assert_eq!(all(&*kv, Family::Runs), pairs(&[("a", "1")]));
    assert_eq!(all(&*kv, Family::Manifest), pairs(&[("a", "1")]));
    put(&*kv, &[(Family::Log, "c", "3")]);
    drop(kv);
    device.sync();
    device.crash();
    assert_eq!(all(&*device.kv(), Family::Log), pairs(&[("a", "1"), ("c", "3")]));
}

/// Families flushed separately and then a crash: each family shows a prefix of its writes that reaches at
/// least to the last sync, and the flushed one all of them.
fn families_may_part_but_never_lose_what_was_synced(device: &mut dyn Device) {
    for flushed in Family::ALL {
        let round = flushed.name();
        let key = |step: &str| format!("{round}-{step}");
        let write = |device: &dyn Device, step: &str| {
            let key = key(step);
            put(
                &*device.kv(),
                &Family::ALL.map(|family| (family, key.as_str(), "x")),
            );
        };
        write(device, "1-synced");
        device.sync();
        write(device, "2-flushed");
        device.flush_family(flushed);
        write(device, "3-after");
        device.crash();
        for family in Family::ALL {
            let found: Vec<String> = all(&*device.kv(), family)
                .into_iter()
                .map(|(found, _)| found)
                .collect();
            let steps: Vec<bool> = ["1-synced", "2-flushed", "3-after"]
                .iter()
                .map(|step| found.contains(&key(step)))
                .collect();
            assert!(
                steps[0],
                "{family:?} lost what was synced ({flushed:?} was flushed)"
            );
            assert!(
                steps[1] || !steps[2],
                "{family:?} has a hole ({flushed:?} was flushed)"
            );
            assert!(steps[1] || family != flushed, "{family:?} lost what was flushed");
        }
        assert_ne!(all(&*device.kv(), flushed), vec![], "the flushed family has data");
    }
}

fn a_restart_in_good_order_keeps_everything(device: &mut dyn Device) {
    put(
        &*device.kv(),
        &[(Family::Log, "a", "1"), (Family::Runs, "a", &"x".repeat(100_000))],
    );
    device.sync();
    device.flush_family(Family::Runs);
    device.restart();
    assert_eq!(all(&*device.kv(), Family::Log), pairs(&[("a", "1")]));
    assert_eq!(all(&*device.kv(), Family::Runs)[0].1.len(), 100_000);
}

macro_rules! suite {
    ($($promise:ident),* $(,)?) => {
        mod mem {
            $(#[test] fn $promise() { super::$promise(&mut super::MemDevice::default()); })*
        }
        mod rocks {
            $(#[test] fn $promise() { super::$promise(&mut super::RocksDevice::new()); })*
        }
    };
}

suite!(
    reads_see_writes_in_key_order,
    a_batch_applies_in_order,
    what_was_synced_survives_a_crash,
    families_may_part_but_never_lose_what_was_synced,
    a_restart_in_good_order_keeps_everything,
);

#[test]
fn rocksdb_refuses_a_damaged_log_and_names_the_file() {
    let mut device = RocksDevice::new();
    for i in 0..50 {
        put(
            &*device.kv(),
            &[(Family::Log, &format!("{i:03}"), &"payload".repeat(50))],
        );
    }
    device.sync();
    device.close();
    let (name, length) = logs_in(&device.path()).pop().expect("a log");
    let file = device.path().join(name);
    let mut bytes = fs::read(&file).expect("readable");
    bytes[length as usize / 2] ^= 1;
    fs::write(&file, bytes).expect("writable");
    let error = RocksKv::open(&device.path()).expect_err("damage in the middle is no torn tail");
    assert!(matches!(&error, crate::StorageError::Corrupt { .. }), "{error}");
}

#[test]
fn rocksdb_drops_an_incomplete_last_record() {
    let mut device = RocksDevice::new();
    put(&*device.kv(), &[(Family::Log, "a", "1")]);
    device.sync();
    put(&*device.kv(), &[(Family::Log, "b", "2")]);
    device.close();
    let (name, length) = logs_in(&device.path()).pop().expect("a log");
    let file = fs::OpenOptions::new()
        .write(true)
        .open(device.path().join(name))
        .expect("writable");
    file.set_len(length - 3).expect("truncated");
    let kv = RocksKv::open(&device.path()).expect("a torn tail is ordinary");
    assert_eq!(all(&kv, Family::Log), pairs(&[("a", "1")]));
}

#[test]
fn rocksdb_refuses_a_second_opener() {
    let device = RocksDevice::new();
    let error = RocksKv::open(&device.path()).expect_err("the directory is locked");
    assert!(error.to_string().to_lowercase().contains("lock"), "{error}");
}
