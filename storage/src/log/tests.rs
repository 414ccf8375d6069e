//! The log under crashes, damage and truncation, on a disk that fails on demand.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::StorageError;
use crate::kv::{CrashFaults, Family, Kv, Loss, MemKv, RocksKv, WriteBatch};

fn append<K: Kv>(log: &mut KvLog<K>, payloads: &[&str]) {
    let (mut position, mut chain) = log.last().expect("readable").unwrap_or_default();
    let mut records = Vec::new();
    for payload in payloads {
        let record = Record::after(position, chain, Bytes::from(payload.to_string()));
        (position, chain) = (record.position, record.chain);
        records.push(record);
    }
    log.append(&records).expect("the disk works");
}

fn payloads<K: Kv>(log: &KvLog<K>, from: u64) -> Vec<String> {
    let records = log.read(Position(from), usize::MAX).expect("readable");
    records
        .iter()
        .map(|record| String::from_utf8(record.payload.to_vec()).expect("text"))
        .collect()
}

fn crash(kv: &MemKv, loss: Loss) -> Result<KvLog<MemKv>> {
    kv.crash(&CrashFaults {
        lose_unsynced: BTreeMap::from([(Family::Log, loss)]),
    });
    KvLog::open(kv.clone())
}

fn three_records() -> (MemKv, KvLog<MemKv>) {
    let kv = MemKv::new();
    let mut log = KvLog::open(kv.clone()).expect("an empty disk is a log");
    append(&mut log, &["a", "b", "c"]);
    log.sync().expect("the disk works");
    (kv, log)
}

fn refused(kv: &MemKv) -> String {
    match KvLog::open(kv.clone()) {
        Err(error @ StorageError::Corrupt { .. }) => error.to_string(),
        other => panic!("expected a refusal, got {other:?}"),
    }
}

#[test]
fn records_are_read_back_in_order() {
    let (_, log) = three_records();
    assert_eq!(payloads(&log, 0), ["a", "b", "c"]);
    assert_eq!(payloads(&log, 3), ["c"]);
    assert!(payloads(&log, 4).is_empty());
    assert_eq!(log.read(Position(1), 2).expect("readable").len(), 2);
    assert_eq!(
        log.first().expect("readable").map(|first| first.0),
        Some(Position(1))
    );
    assert_eq!(log.engine_oldest_at_open(), None);
}

#[test]
fn the_log_works_on_rocksdb() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    {
        let mut log = KvLog::open(RocksKv::open(directory.path()).expect("opens")).expect("empty");
        append(&mut log, &["a", "b"]);
        append(&mut log, &["c"]);
        log.sync().expect("the disk works");
        log.truncate_before(Position(2)).expect("the disk works");
        log.sync().expect("the disk works");
    }
    let log = KvLog::open(RocksKv::open(directory.path()).expect("opens")).expect("whole");
    assert_eq!(payloads(&log, 2), ["b", "c"]);
    assert_eq!(log.engine_oldest_at_open(), Some(ENGINE_VERSION));
}

#[test]
fn a_torn_tail_is_dropped_and_written_anew() {
    let (kv, mut log) = three_records();
    append(&mut log, &["d", "e"]);
    let mut log = crash(&kv, Loss::TornLast).expect("a torn tail is ordinary");
    assert_eq!(payloads(&log, 1), ["a", "b", "c", "d"]);
    append(&mut log, &["f"]);
    log.sync().expect("the disk works");
    let log = crash(&kv, Loss::All).expect("whole");
    assert_eq!(payloads(&log, 1), ["a", "b", "c", "d", "f"]);
}

#[test]
fn damage_before_a_whole_record_refuses_to_open() {
    let (kv, _) = three_records();
    assert!(kv.flip_bit(Family::Log, &record_key(Position(2)), 24 * 8));
    assert!(refused(&kv).contains("log record 2"));
}

#[test]
fn damage_to_what_is_known_to_be_durable_refuses_to_open() {
    let (kv, mut log) = three_records();
    append(&mut log, &["d"]);
    let damaged = kv.flip_bit(Family::Log, &record_key(Position(3)), 70);
    crash(&kv, Loss::TornLast).expect_err("record 3 was synced before record 4 was torn");
    assert!(damaged);
    assert!(refused(&kv).contains("durable up to 3"));
    let left = kv.get(Family::Log, &record_key(Position(3))).expect("readable");
    assert!(left.is_some(), "a refusal removes no evidence");
}

#[test]
fn a_hole_refuses_to_open() {
    let (kv, _) = three_records();
    let mut batch = WriteBatch::new();
    batch.delete(Family::Log, record_key(Position(2)));
    kv.write(batch).expect("the disk works");
    assert!(refused(&kv).contains("log record 2"));
}

#[test]
fn a_record_of_another_history_refuses_to_open() {
    let (kv, _) = three_records();
    let foreign = Record::after(Position(2), ChainHash::GENESIS, Bytes::from("x"));
    let mut batch = WriteBatch::new();
    batch.put(Family::Log, record_key(Position(3)), record::encode(&foreign));
    kv.write(batch).expect("the disk works");
    assert!(refused(&kv).contains("chain"));
}

#[test]
fn a_record_of_a_newer_release_refuses_to_open() {
    let (kv, log) = three_records();
    let (position, chain) = log.last().expect("readable").expect("not empty");
    let newer = Record::after(position, chain, Bytes::from("x"));
    let mut value = record::encode(&newer).to_vec();
    value[2] = 9;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&newer.position.0.to_le_bytes());
    hasher.update(&value[..4]);
    hasher.update(&value[8..]);
    value[4..8].copy_from_slice(&hasher.finalize().to_le_bytes());
    let mut batch = WriteBatch::new();
    batch.put(Family::Log, record_key(newer.position), value);
    kv.write(batch).expect("the disk works");
    assert!(refused(&kv).contains("another release"));
}

#[test]
fn truncation_keeps_the_chain() {
    let (kv, mut log) = three_records();
    let last = log.last().expect("readable");
    log.truncate_before(Position(3)).expect("the disk works");
    assert!(
        log.read(Position(2), 1).is_err(),
        "truncated records are not silently skipped"
    );
    log.truncate_before(Position(2))
        .expect("going back changes nothing");
    log.truncate_before(Position(99)).expect("the disk works");
    assert_eq!(
        (log.first().expect("readable"), log.last().expect("readable")),
        (None, last)
    );
    append(&mut log, &["d"]);
    log.sync().expect("the disk works");
    let log = crash(&kv, Loss::All).expect("whole");
    assert_eq!(payloads(&log, 4), ["d"]);
    assert_eq!(
        log.first().expect("readable").map(|first| first.0),
        Some(Position(4))
    );
}

#[test]
fn a_torn_truncation_is_finished_at_the_next_start() {
    let (kv, mut log) = three_records();
    log.truncate_before(Position(3)).expect("the disk works");
    let log = crash(&kv, Loss::TornLast).expect("ordinary");
    assert_eq!(payloads(&log, 3), ["c"]);
    let kept = kv
        .scan(Family::Log, &record_key(Position(0)), None, 9)
        .expect("readable");
    assert_eq!(kept.len(), 1, "what was truncated takes no space");
}

#[test]
fn a_full_disk_leaves_the_log_as_it_was() {
    let (kv, mut log) = three_records();
    kv.set_full(true);
    let (position, chain) = log.last().expect("readable").expect("not empty");
    let record = Record::after(position, chain, Bytes::from("d"));
    assert!(matches!(
        log.append(std::slice::from_ref(&record)),
        Err(StorageError::Full { .. })
    ));
    assert_eq!(log.last().expect("readable"), Some((position, chain)));
    kv.set_full(false);
    log.append(&[record]).expect("there is space again");
}

#[test]
#[should_panic(expected = "follow one another")]
fn positions_must_follow() {
    let (_, mut log) = three_records();
    let record = Record::after(Position(9), ChainHash::GENESIS, Bytes::new());
    log.append(&[record]).expect("unreachable");
}

#[derive(Clone, Debug)]
enum Step {
    Append(usize),
    Sync,
    Truncate(u64),
    Crash(Loss),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let loss = prop_oneof![
        Just(Loss::All),
        (0usize..4).prop_map(Loss::Keep),
        Just(Loss::TornLast),
    ];
    let step = prop_oneof![
        4 => (1usize..4).prop_map(Step::Append),
        2 => Just(Step::Sync),
        1 => (0u64..20).prop_map(Step::Truncate),
        2 => loss.prop_map(Step::Crash),
    ];
    prop::collection::vec(step, 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    /// Whatever crashes take: the log opens, holds a prefix of what was appended that reaches at least to
    /// the last sync, and reads nothing below its first record.
    #[test]
    fn a_crash_leaves_a_prefix_that_covers_every_sync(steps in steps()) {
        let kv = MemKv::new();
        let mut log = KvLog::open(kv.clone()).expect("an empty disk is a log");
        let mut appended: Vec<String> = Vec::new();
        let (mut synced, mut serial) = (0, 0);
        for step in steps {
            match step {
                Step::Append(count) => {
                    let new: Vec<String> = (0..count).map(|i| format!("{}", serial + i)).collect();
                    serial += count;
                    append(&mut log, &new.iter().map(String::as_str).collect::<Vec<_>>());
                    appended.extend(new);
                }
                Step::Sync => {
                    log.sync().expect("the disk works");
                    synced = appended.len();
                }
                Step::Truncate(position) => {
                    // Only what is durable is ever truncated: a checkpoint covers it.
                    log.truncate_before(Position(position.min(synced as u64))).expect("the disk works");
                }
                Step::Crash(loss) => {
                    log = crash(&kv, loss).expect("a crash is no corruption");
                    let end = log.last().expect("readable").map_or(0, |last| last.0.0 as usize);
                    prop_assert!((synced..=appended.len()).contains(&end), "{} in {}..={}", end, synced, appended.len());
                    appended.truncate(end);
                    synced = end;
                }
            }
            let end = log.last().expect("readable").map_or(0, |last| last.0.0);
            prop_assert_eq!(end as usize, appended.len());
            let first = log.first().expect("readable").map_or(end + 1, |first| first.0.0);
            if first <= end {
                prop_assert_eq!(&payloads(&log, first), &appended[first as usize - 1..]);
            }
        }
    }
}
