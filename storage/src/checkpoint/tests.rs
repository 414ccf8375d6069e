//! Checkpoints under crashes at every step, lost families, damage, and on both key-value stores.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, ListArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::object::{CHUNK_BYTES_MAX, chunk_key};
use super::*;
use crate::StorageError;
use crate::kv::{CrashFaults, Defect, Loss, MemKv, RocksKv};
use crate::trace::{Layout, RunTrace, Trace};
use crate::{Delta, Log};

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("text", DataType::Utf8, true),
        Field::new_list("list", Field::new_list_field(DataType::Int64, true), true),
    ]))
}

fn layout() -> Layout {
    Layout::keyed(schema(), vec![0])
}

fn delta(ids: std::ops::Range<i64>, text: &str, weight: i64) -> Delta {
    let keys = Int64Array::from_iter_values(ids.clone());
    let texts: StringArray = ids
        .clone()
        .map(|id| (id % 3 != 0).then(|| format!("{text}{id}")))
        .collect();
    let lists = ListArray::from_iter_primitive::<Int64Type, _, _>(
        ids.clone().map(|id| (id % 2 == 0).then(|| vec![Some(id), None])),
    );
    let columns: Vec<ArrayRef> = vec![Arc::new(keys), Arc::new(texts), Arc::new(lists)];
    let rows = RecordBatch::try_new(schema(), columns).expect("valid");
    let weights = Int64Array::from(vec![weight; rows.num_rows()]);
    Delta::new(rows, Some(weights))
}

/// A small region: one trace, one blob, and checkpoints of them.
struct Region {
    trace: RunTrace,
    position: u64,
}

impl Region {
    fn new() -> Self {
        Self {
            trace: RunTrace::new(layout()),
            position: 0,
        }
    }

    fn step(&mut self, delta: &Delta) {
        self.position += 1;
        self.trace.apply(delta);
        self.trace.seal(self.position);
    }

    fn checkpoint(&self) -> Checkpoint {
        let position = Position(self.position);
        Checkpoint {
            position,
            chain: ChainHash::GENESIS.next(position, b""),
            traces: BTreeMap::from([("rows".to_string(), self.trace.snapshot())]),
            rows: BTreeMap::new(),
            blobs: BTreeMap::from([(
                "catalog".to_string(),
                Bytes::from(format!("at {}", self.position)),
            )]),
        }
    }
}

/// Everything a checkpoint says, in a form that can be compared.
#[derive(Debug, PartialEq)]
struct State {
    position: u64,
    blobs: BTreeMap<String, Bytes>,
    runs: Vec<(RunId, u64, u64)>,
    rows: Vec<Delta>,
}

fn state(checkpoint: &Checkpoint) -> State {
    let snapshot = &checkpoint.traces["rows"];
    State {
        position: checkpoint.position.0,
        blobs: checkpoint.blobs.clone(),
        runs: snapshot
            .runs()
            .iter()
            .map(|run| (run.id(), run.stamp_min(), run.stamp_max()))
            .collect(),
        rows: snapshot.scan(1_000_000).collect(),
    }
}

fn loaded(kv: &dyn Kv) -> Result<Option<State>> {
    let Some(mut loaded) = load(kv)? else {
        return Ok(None);
    };
    assert_eq!(loaded.trace_names().collect::<Vec<_>>(), ["rows"]);
    let trace = loaded.trace("rows", layout())?.expect("the trace was stored");
    assert!(loaded.trace("rows", layout())?.is_none(), "a trace is taken once");
    let traces = BTreeMap::from([("rows".to_string(), trace.snapshot())]);
    let checkpoint = Checkpoint {
        position: loaded.position,
        chain: loaded.chain,
        traces,
        rows: BTreeMap::new(),
        blobs: loaded.blobs,
    };
    Ok(Some(state(&checkpoint)))
}

fn refusal<T: std::fmt::Debug>(result: Result<T>) -> String {
    match result {
        Err(error @ StorageError::Corrupt { .. }) => error.to_string(),
        other => panic!("expected a refusal, got {other:?}"),
    }
}

fn stored_runs(kv: &dyn Kv) -> usize {
    object::list(kv).expect("readable").len()
}

#[test]
fn a_checkpoint_comes_back_as_it_was() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (mem, mut region) = (MemKv::new(), Region::new());
    assert_eq!(loaded(&mem).expect("readable"), None);
    region.step(&delta(0..1000, "a", 1));
    region.step(&delta(0..10, "a", -1));
    region.step(&delta(2000..2005, "b", 3));
    let expected = state(&region.checkpoint());
    write(&mem, &region.checkpoint()).expect("the disk works");
    assert_eq!(loaded(&mem).expect("readable").as_ref(), Some(&expected));
    {
        let rocks = RocksKv::open(directory.path()).expect("opens");
        write(&rocks, &region.checkpoint()).expect("the disk works");
    }
    let rocks = RocksKv::open(directory.path()).expect("opens");
    assert_eq!(loaded(&rocks).expect("readable"), Some(expected));
}

#[test]
fn only_new_runs_are_written_and_only_unnamed_ones_removed() {
    let (kv, mut region) = (MemKv::new(), Region::new());
    region.step(&delta(0..1000, "a", 1));
    region.step(&delta(1000..1010, "a", 1));
    let first = write(&kv, &region.checkpoint()).expect("the disk works");
    assert_eq!(
        (first.runs_live, first.runs_written, first.objects_removed),
        (2, 2, 0)
    );
    region.step(&delta(1010..1012, "a", 1));
    let second = write(&kv, &region.checkpoint()).expect("the disk works");
    assert_eq!((second.runs_live, second.runs_written), (3, 1));
    assert_eq!(second.objects_removed, 1, "the old blob");
    // Merges everything: three runs become one, with a retraction in between that no checkpoint saw.
    region.step(&delta(5000..5001, "gone", 1));
    region.step(&delta(5000..5001, "gone", -1));
    region.step(&delta(2000..3000, "a", 1));
    let third = write(&kv, &region.checkpoint()).expect("the disk works");
    assert_eq!(
        (third.runs_live, third.runs_written, third.objects_removed),
        (1, 1, 4)
    );
    assert_eq!(stored_runs(&kv), 2, "one run and one blob");
    let same = write(&kv, &region.checkpoint()).expect("the disk works");
    assert_eq!((same.runs_written, same.objects_removed), (0, 0));
    assert_eq!(loaded(&kv).expect("readable"), Some(state(&region.checkpoint())));
}

#[test]
fn a_loaded_trace_goes_on_without_writing_its_runs_again() {
    let (kv, mut region) = (MemKv::new(), Region::new());
    region.step(&delta(0..100, "a", 1));
    write(&kv, &region.checkpoint()).expect("the disk works");
    let mut back = load(&kv).expect("readable").expect("stored");
    region.trace = back.trace("rows", layout()).expect("readable").expect("stored");
    region.step(&delta(100..110, "a", 1));
    let stats = write(&kv, &region.checkpoint()).expect("the disk works");
    assert_eq!((stats.runs_live, stats.runs_written), (2, 1));
}

#[test]
fn traces_may_share_runs() {
    let (kv, mut region) = (MemKv::new(), Region::new());
    region.step(&delta(0..100, "a", 1));
    let mut checkpoint = region.checkpoint();
    checkpoint.traces.insert("copy".into(), region.trace.snapshot());
    assert_eq!(write(&kv, &checkpoint).expect("the disk works").runs_written, 1);
    let mut back = load(&kv).expect("readable").expect("stored");
    for name in ["copy", "rows"] {
        let trace = back.trace(name, layout()).expect("readable").expect("stored");
        assert_eq!(trace.row_count(), 100);
    }
}

#[test]
fn large_objects_are_cut_into_chunks() {
    let kv = MemKv::new();
    let mut region = Region::new();
    // Text that does not compress, from a small generator, so that there are several chunks.
    let mut seed = 1u64;
    let mut noise = || {
        seed = seed
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        format!("{seed:016x}")
    };
    let text = (0..2_000).map(|_| noise()).collect::<String>();
    let texts: StringArray = (0..400)
        .map(|i| Some(format!("{}{}", &text[i * 16..], noise())))
        .collect();
    let lists = ListArray::from_iter_primitive::<Int64Type, _, _>((0..400).map(|_| None::<Vec<Option<i64>>>));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(0..400)),
        Arc::new(texts),
        Arc::new(lists),
    ];
    region.step(&Delta::inserts(
        RecordBatch::try_new(schema(), columns).expect("valid"),
    ));
    let mut checkpoint = region.checkpoint();
    checkpoint
        .blobs
        .insert("big".into(), Bytes::from(vec![7; 2 * CHUNK_BYTES_MAX]));
    write(&kv, &checkpoint).expect("the disk works");
    let entries = kv.scan(Family::Runs, &[1], None, usize::MAX).expect("readable");
    assert!(entries.len() >= 5, "{} chunks", entries.len());
    assert!(entries.iter().all(|(_, value)| value.len() <= CHUNK_BYTES_MAX));
    assert_eq!(loaded(&kv).expect("readable"), Some(state(&checkpoint)));
}

/// Cuts the power after every number of disk operations, with every kind of loss in every family, between
/// two checkpoints: what is loaded is the old one or the new one, and after a return of the call the new one.
#[test]
fn a_crash_at_any_step_leaves_the_old_or_the_new_checkpoint() {
    let losses = [None, Some(Loss::All), Some(Loss::Keep(1)), Some(Loss::TornLast)];
    let (mut seen_old, mut seen_new, mut steps_max) = (0, 0, 0);
    for has_old in [false, true] {
        for (runs, manifest) in losses.iter().flat_map(|a| losses.iter().map(move |b| (*a, *b))) {
            for steps in 0.. {
                let (kv, mut region) = (MemKv::new(), Region::new());
                region.step(&delta(0..20, "a", 1));
                let old = has_old.then(|| state(&region.checkpoint()));
                if has_old {
                    write(&kv, &region.checkpoint()).expect("the disk works");
                }
                region.step(&delta(20..50, "b", 1));
                region.step(&delta(50..51, "c", 1));
                let new = state(&region.checkpoint());
                kv.set_power_fails_after(steps);
                let outcome = write(&kv, &region.checkpoint());
                let named = [(Family::Runs, runs), (Family::Manifest, manifest)];
                let lose_unsynced = named
                    .into_iter()
                    .filter_map(|(f, loss)| loss.map(|loss| (f, loss)))
                    .collect();
                kv.crash(&CrashFaults { lose_unsynced });
                let context = format!("old {has_old}, runs {runs:?}, manifest {manifest:?}, {steps} steps");
                let found = loaded(&kv).unwrap_or_else(|error| panic!("{context}: {error}"));
                if found.as_ref() == Some(&new) {
                    seen_new += 1;
                } else {
                    assert!(outcome.is_err(), "{context}: a finished checkpoint was lost");
                    assert_eq!(found, old, "{context}");
                    seen_old += 1;
                }
                // Whatever was left behind, the next checkpoint works and cleans up.
                write(&kv, &region.checkpoint()).unwrap_or_else(|error| panic!("{context}: {error}"));
                assert_eq!(loaded(&kv).expect("readable").as_ref(), Some(&new), "{context}");
                assert_eq!(stored_runs(&kv), new.runs.len() + new.blobs.len(), "{context}");
                if outcome.is_ok() {
                    steps_max = steps_max.max(steps);
                    break;
                }
            }
        }
    }
    assert!(
        steps_max >= 8 && seen_old > 50 && seen_new > 50,
        "{steps_max} {seen_old} {seen_new}"
    );
}

#[test]
fn a_family_that_is_never_flushed_is_noticed() {
    for (family, expected) in [(Family::Runs, "missing"), (Family::Manifest, "")] {
        let (kv, mut region) = (MemKv::new(), Region::new());
        kv.set_defect(Defect::SkipSync(family));
        region.step(&delta(0..20, "a", 1));
        write(&kv, &region.checkpoint()).expect("the defect is silent");
        kv.crash(&CrashFaults::everywhere(Loss::All));
        match loaded(&kv) {
            // Without its manifest the checkpoint is not there; whoever was promised it notices.
            Ok(found) => assert_eq!((found, family), (None, Family::Manifest)),
            Err(error) => assert!(
                error.to_string().contains(expected) && family == Family::Runs,
                "{error}"
            ),
        }
    }
}

#[test]
fn families_flushed_one_by_one_between_checkpoints_change_nothing() {
    for flushed in Family::ALL {
        let (kv, mut region) = (MemKv::new(), Region::new());
        region.step(&delta(0..20, "a", 1));
        write(&kv, &region.checkpoint()).expect("the disk works");
        let first = state(&region.checkpoint());
        region.step(&delta(20..40, "a", 1));
        kv.set_power_fails_after(4);
        write(&kv, &region.checkpoint()).expect_err("the power fails before the manifest is written");
        kv.crash(&CrashFaults {
            lose_unsynced: BTreeMap::new(),
        });
        kv.flush_family(flushed).expect("the disk works");
        kv.crash(&CrashFaults::everywhere(Loss::All));
        assert_eq!(loaded(&kv).expect("readable"), Some(first), "{flushed:?}");
    }
}

#[test]
fn a_missing_chunk_is_named_with_its_run() {
    let (kv, mut region) = (MemKv::new(), Region::new());
    region.step(&delta(0..20, "a", 1));
    write(&kv, &region.checkpoint()).expect("the disk works");
    let id = region.trace.snapshot().runs()[0].id();
    let mut batch = WriteBatch::new();
    batch.delete(Family::Runs, chunk_key(id, 0));
    kv.write(batch).expect("the disk works");
    let message = refusal(load(&kv));
    assert!(
        message.contains(&id.to_string()) && message.contains("restore it from a copy"),
        "{message}"
    );
}

#[test]
fn a_damaged_manifest_that_was_durable_is_refused() {
    let (kv, mut region) = (MemKv::new(), Region::new());
    region.step(&delta(0..20, "a", 1));
    write(&kv, &region.checkpoint()).expect("the disk works");
    assert!(kv.flip_bit(Family::Manifest, &manifest_key(1), 100));
    assert!(refusal(load(&kv)).contains("manifest 1"));
    assert!(refusal(write(&kv, &region.checkpoint())).contains("manifest 1"));
}

#[test]
fn another_layout_is_refused() {
    let (kv, mut region) = (MemKv::new(), Region::new());
    region.step(&delta(0..20, "a", 1));
    write(&kv, &region.checkpoint()).expect("the disk works");
    let mut back = load(&kv).expect("readable").expect("stored");
    assert!(refusal(back.trace("rows", Layout::keyed(schema(), vec![1]))).contains("layout"));
    assert!(back.trace("nobody", layout()).expect("readable").is_none());
}

#[test]
fn a_full_disk_keeps_the_old_checkpoint_and_heals() {
    let (kv, mut region) = (MemKv::new(), Region::new());
    region.step(&delta(0..20, "a", 1));
    write(&kv, &region.checkpoint()).expect("the disk works");
    let old = state(&region.checkpoint());
    region.step(&delta(20..40, "a", 1));
    kv.set_full(true);
    assert!(matches!(
        write(&kv, &region.checkpoint()),
        Err(StorageError::Full { .. })
    ));
    assert_eq!(loaded(&kv).expect("readable"), Some(old));
    kv.set_full(false);
    write(&kv, &region.checkpoint()).expect("there is space again");
    assert_eq!(loaded(&kv).expect("readable"), Some(state(&region.checkpoint())));
}

#[test]
fn the_log_lives_beside_the_checkpoint() {
    let (kv, mut region) = (MemKv::new(), Region::new());
    let mut log = crate::KvLog::open(kv.clone()).expect("empty");
    log.append(&[crate::Record::after(
        Position(0),
        ChainHash::GENESIS,
        Bytes::from("x"),
    )])
    .expect("works");
    region.step(&delta(0..20, "a", 1));
    write(&kv, &region.checkpoint()).expect("the disk works");
    kv.crash(&CrashFaults::everywhere(Loss::All));
    // The checkpoint's syncs cover the whole store, so the record is there too.
    assert_eq!(
        crate::KvLog::open(kv)
            .expect("whole")
            .last()
            .expect("readable")
            .map(|last| last.0),
        Some(Position(1))
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    /// One flipped bit anywhere in what is stored: an error that says where, never a panic, never other rows.
    #[test]
    fn a_flipped_bit_is_noticed(entry in any::<prop::sample::Index>(), bit in any::<prop::sample::Index>()) {
        let (kv, mut region) = (MemKv::new(), Region::new());
        region.step(&delta(0..50, "a", 1));
        region.step(&delta(50..60, "b", -1));
        write(&kv, &region.checkpoint()).expect("the disk works");
        let mut values = Vec::new();
        for family in FAMILIES {
            let entries = kv.scan(family, b"", None, usize::MAX).expect("readable");
            values.extend(entries.into_iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| (family, k, v.len())));
        }
        let (family, key, length) = entry.get(&values);
        prop_assert!(kv.flip_bit(*family, key, bit.index(length * 8)));
        let outcome = loaded(&kv);
        prop_assert!(matches!(outcome, Err(StorageError::Corrupt { .. })), "{:?}", outcome);
    }

}

proptest! {
    // Always the same cases: nonsense that happens to spell a compressed buffer of absurd length would end
    // the process, and a test that depends on chance is none.
    #![proptest_config(ProptestConfig { cases: 300, rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() })]

    /// Bytes whose checksum is right and that no encoder made: an error, never a panic.
    #[test]
    fn nonsense_under_a_right_checksum_is_an_error(
        noise in prop::collection::vec(any::<u8>(), 0..300),
        at in any::<prop::sample::Index>(),
        keep_head in any::<bool>(),
    ) {
        let (kv, mut region) = (MemKv::new(), Region::new());
        region.step(&delta(0..50, "a", 1));
        write(&kv, &region.checkpoint()).expect("the disk works");
        let id = region.trace.snapshot().runs()[0].id();
        let stored = manifest::current(&kv).expect("readable").expect("stored").manifest.runs[&id].object;
        let good = object::read_all(&kv, "run", id, stored).expect("readable");
        let mut bytes = if keep_head { good.to_vec() } else { Vec::new() };
        let start = if bytes.is_empty() { 0 } else { at.index(bytes.len()) };
        bytes.splice(start..bytes.len().min(start + noise.len()), noise);
        prop_assume!(bytes != good);
        let stored = object::write_all(&kv, id, &bytes).expect("the disk works");
        // Either it is refused, or it is a stream all the same: then rows were decoded without a panic.
        match run_file::read(&kv, id, stored) {
            Err(error) => prop_assert!(matches!(error, StorageError::Corrupt { .. }), "{}", error),
            Ok(portions) => prop_assert!(portions.iter().all(|portion| portion.weights().is_some())),
        }
    }
}

/// On the disk, below the checksums of the key-value store, which are not verified for chunks.
#[test]
fn a_flipped_byte_in_a_file_of_chunks_is_noticed() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut region = Region::new();
    region.step(&delta(0..20_000, "a", 1));
    {
        let kv = RocksKv::open(directory.path()).expect("opens");
        write(&kv, &region.checkpoint()).expect("the disk works");
        kv.flush_family(Family::Runs).expect("the disk works");
    }
    {
        let kv = RocksKv::open_quietly(directory.path()).expect("opens");
        assert_eq!(loaded(&kv).expect("readable"), Some(state(&region.checkpoint())));
        kv.tidy().expect("an option of RocksDB");
    }
    let mut files = 0;
    for entry in std::fs::read_dir(directory.path()).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "blob") {
            let mut bytes = std::fs::read(&path).expect("readable");
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::write(&path, bytes).expect("writable");
            files += 1;
        }
    }
    assert!(files > 0, "chunks lie in files of their own");
    let kv = RocksKv::open_quietly(directory.path()).expect("opens");
    refusal(loaded(&kv));
}

#[test]
fn stored_columns_have_their_values() {
    let (kv, mut region) = (MemKv::new(), Region::new());
    region.step(&delta(0..4, "a", 1));
    write(&kv, &region.checkpoint()).expect("the disk works");
    let found = loaded(&kv).expect("readable").expect("stored");
    let texts = found.rows[0].rows().column(1).as_string::<i32>();
    let texts: Vec<Option<&str>> = texts.iter().collect();
    assert_eq!(texts, [None, Some("a1"), Some("a2"), None]);
    assert!(found.rows[0].rows().column(2).is_null(1));
}

/// A Z-set of `ids`, each twice, less `gone`.
fn some_rows(ids: std::ops::Range<i64>, gone: std::ops::Range<i64>) -> crate::rows::ZSet {
    let mut set = crate::rows::ZSet::new(layout().schema);
    set.apply(&delta(ids.clone(), "a", 1));
    set.apply(&delta(gone, "a", -1));
    set
}

fn rows_checkpoint(position: u64, rows: &crate::rows::ZSet) -> Checkpoint {
    Checkpoint {
        rows: BTreeMap::from([("set".to_string(), rows.snapshot())]),
        traces: BTreeMap::new(),
        ..Region {
            trace: RunTrace::new(layout()),
            position,
        }
        .checkpoint()
    }
}

fn loaded_rows(kv: &dyn Kv) -> Result<Vec<Delta>> {
    let mut loaded = load(kv)?.expect("a checkpoint was written");
    let rows = loaded
        .rows("set", layout().schema)?
        .expect("the rows were stored");
    assert!(
        loaded.rows("set", layout().schema)?.is_none(),
        "rows are taken once"
    );
    Ok(rows.snapshot().scan(1 << 20).collect())
}

#[test]
fn rows_come_back_and_their_segments_are_written_once() {
    let kv = MemKv::new();
    let mut set = some_rows(0..40_000, 5..9);
    let first = write(&kv, &rows_checkpoint(1, &set)).expect("the disk works");
    assert_eq!(
        first.runs_written, 4,
        "two segments, the tail, the weights of one"
    );
    let expected: Vec<Delta> = set.snapshot().scan(1 << 20).collect();
    assert_eq!(loaded_rows(&kv).expect("readable"), expected);
    set.apply(&delta(50_000..50_010, "b", 2));
    let second = write(&kv, &rows_checkpoint(2, &set)).expect("the disk works");
    assert!(
        second.runs_written <= 3,
        "only the tail, its new part and its weights"
    );
    assert_eq!(
        loaded_rows(&kv)
            .expect("readable")
            .iter()
            .map(Delta::len)
            .sum::<usize>(),
        set.snapshot().row_count()
    );
}

#[test]
fn damaged_rows_are_refused() {
    let kv = MemKv::new();
    write(&kv, &rows_checkpoint(1, &some_rows(0..20_000, 0..3))).expect("the disk works");
    for id in object::list(&kv).expect("readable") {
        let key = object::chunk_key(id, 0);
        let mut value = kv
            .get(Family::Runs, &key)
            .expect("readable")
            .expect("listed")
            .to_vec();
        let middle = value.len() / 2;
        value[middle] ^= 1;
        let damage = MemKv::new();
        write(&damage, &rows_checkpoint(1, &some_rows(0..20_000, 0..3))).expect("the disk works");
        let mut batch = crate::kv::WriteBatch::new();
        batch.put(Family::Runs, key, Bytes::from(value));
        damage.write(batch).expect("the disk works");
        assert!(refusal(load(&damage)).contains("corrupt"));
    }
}
