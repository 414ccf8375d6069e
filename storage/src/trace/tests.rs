//! The trace against an ordered map of rows and weights, under random operations.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use proptest::prelude::*;

use super::*;

/// A row of the test schema: (value, key, note). The key is deliberately not the first column.
type Row = (i64, Option<i64>, String);
/// The trace's order: key first (nulls first), then value descending, then note.
type Model = BTreeMap<(Option<i64>, std::cmp::Reverse<i64>, String), i64>;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("value", DataType::Int64, false),
        Field::new("key", DataType::Int64, true),
        Field::new("note", DataType::Utf8, false),
    ]))
}

fn layout() -> Layout {
    let descending = SortOptions {
        descending: true,
        nulls_first: true,
    };
    Layout {
        schema: schema(),
        key: vec![1],
        order: vec![(0, descending)],
    }
}

fn delta(entries: &[(Row, i64)]) -> Delta {
    let values = Int64Array::from_iter_values(entries.iter().map(|(row, _)| row.0));
    let keys: Int64Array = entries.iter().map(|(row, _)| row.1).collect();
    let notes = StringArray::from_iter_values(entries.iter().map(|(row, _)| &row.2));
    let rows = RecordBatch::try_new(schema(), vec![Arc::new(values), Arc::new(keys), Arc::new(notes)]);
    let weights = Int64Array::from_iter_values(entries.iter().map(|(_, weight)| *weight));
    Delta::new(rows.expect("valid"), Some(weights))
}

fn rows_of(batch: &RecordBatch) -> Vec<Row> {
    let values = batch.column(0).as_primitive::<Int64Type>();
    let keys = batch.column(1).as_primitive::<Int64Type>();
    let notes = batch.column(2).as_string::<i32>();
    let row = |i| {
        (
            values.value(i),
            keys.is_valid(i).then(|| keys.value(i)),
            notes.value(i).to_string(),
        )
    };
    (0..batch.num_rows()).map(row).collect()
}

fn found_of(found: &Found) -> Vec<(u32, Row, i64)> {
    let rows = rows_of(&found.rows).into_iter().enumerate();
    rows.map(|(i, row)| (found.probe.value(i), row, found.weights.value(i)))
        .collect()
}

fn add(model: &mut Model, entries: &[(Row, i64)]) {
    for ((value, key, note), weight) in entries {
        *model
            .entry((*key, std::cmp::Reverse(*value), note.clone()))
            .or_default() += weight;
    }
    model.retain(|_, weight| *weight != 0);
}

fn all_rows(model: &Model) -> Vec<(Row, i64)> {
    model
        .iter()
        .map(|((key, value, note), weight)| ((value.0, *key, note.clone()), *weight))
        .collect()
}

fn expected(model: &Model, keys: &[Option<i64>], wanted: Option<(usize, bool)>) -> Vec<(u32, Row, i64)> {
    let mut out = Vec::new();
    for (probe, key) in keys.iter().enumerate() {
        let mut rows: Vec<_> = all_rows(model)
            .into_iter()
            .filter(|(row, _)| row.1 == *key)
            .collect();
        if let Some((n, from_end)) = wanted {
            rows.retain(|(_, weight)| *weight > 0);
            let skipped = if from_end { rows.len().saturating_sub(n) } else { 0 };
            rows = rows.into_iter().skip(skipped).take(n).collect();
        }
        out.extend(rows.into_iter().map(|(row, weight)| (probe as u32, row, weight)));
    }
    out
}

fn key_column(keys: &[Option<i64>]) -> ArrayRef {
    Arc::new(keys.iter().copied().collect::<Int64Array>())
}

fn scanned(scan: Scan, batch_rows_max: usize) -> Vec<(Row, i64)> {
    let mut out = Vec::new();
    for delta in scan {
        assert!((1..=batch_rows_max).contains(&delta.len()));
        out.extend(
            rows_of(delta.rows())
                .into_iter()
                .enumerate()
                .map(|(i, row)| (row, delta.weight(i))),
        );
    }
    out
}

#[derive(Clone, Debug)]
enum Step {
    Apply(Vec<(Row, i64)>),
    Seal,
    Lookup(Vec<Option<i64>>),
    LookupN(Vec<Option<i64>>, usize, bool),
    Scan(usize),
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = || prop::option::of(-2i64..3);
    let row = (
        -2i64..3,
        key(),
        prop::sample::select(vec!["", "a", "b"]).prop_map(String::from),
    );
    let entries = prop::collection::vec((row, -2i64..3), 0..12);
    let keys = move || prop::collection::vec(key(), 0..6);
    let step = prop_oneof![
        5 => entries.prop_map(Step::Apply),
        2 => Just(Step::Seal),
        2 => keys().prop_map(Step::Lookup),
        2 => (keys(), 0usize..4, any::<bool>()).prop_map(|(keys, n, end)| Step::LookupN(keys, n, end)),
        1 => (1usize..5).prop_map(Step::Scan),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn a_trace_is_a_map_of_weights(steps in steps()) {
        let mut trace = RunTrace::new(layout());
        let (mut all, mut sealed) = (Model::new(), Model::new());
        let mut stamp = 0;
        for step in steps {
            match step {
                Step::Apply(entries) => {
                    trace.apply(&delta(&entries));
                    add(&mut all, &entries);
                }
                Step::Seal => {
                    stamp += 1;
                    trace.seal(stamp);
                    sealed = all.clone();
                }
                Step::Lookup(keys) => {
                    let columns = [key_column(&keys)];
                    prop_assert_eq!(found_of(&trace.lookup(&columns, keys.len())), expected(&all, &keys, None));
                    let found = trace.snapshot().lookup(&columns, keys.len());
                    prop_assert_eq!(found_of(&found), expected(&sealed, &keys, None));
                }
                Step::LookupN(keys, n, end) => {
                    let columns = [key_column(&keys)];
                    let found = trace.lookup_n(&columns, keys.len(), n, end);
                    prop_assert_eq!(found_of(&found), expected(&all, &keys, Some((n, end))));
                    let found = trace.snapshot().lookup_n(&columns, keys.len(), n, end);
                    prop_assert_eq!(found_of(&found), expected(&sealed, &keys, Some((n, end))));
                }
                Step::Scan(batch) => {
                    prop_assert_eq!(scanned(trace.snapshot().scan(batch), batch), all_rows(&sealed));
                }
                Step::Restart => {
                    stamp += 1;
                    trace.seal(stamp);
                    sealed = all.clone();
                    let snapshot = trace.snapshot();
                    let runs = snapshot.runs().iter().map(|run| {
                        let copy = Run::from_batch(&layout(), &run.to_batch(&layout()), run.stamp_min(), run.stamp_max());
                        assert_eq!((copy.id(), copy.rows()), (run.id(), run.rows()));
                        Arc::new(copy)
                    });
                    trace = RunTrace::from_runs(layout(), runs.collect());
                }
            }
            prop_assert!(trace.row_count() >= all.len());
        }
    }
}

#[test]
fn a_retraction_may_arrive_before_its_insert() {
    let row: Row = (1, Some(1), "a".into());
    let mut trace = RunTrace::new(layout());
    trace.apply(&delta(&[(row.clone(), -1)]));
    trace.seal(1);
    assert_eq!(
        found_of(&trace.lookup(&[key_column(&[Some(1)])], 1)),
        vec![(0, row.clone(), -1)]
    );
    assert!(found_of(&trace.lookup_n(&[key_column(&[Some(1)])], 1, 5, false)).is_empty());
    trace.apply(&delta(&[(row, 1)]));
    assert_eq!(trace.lookup(&[key_column(&[Some(1)])], 1).rows.num_rows(), 0);
    trace.seal(2);
    assert_eq!(
        (trace.row_count(), trace.snapshot().runs().len()),
        (0, 0),
        "cancelled rows leave no run"
    );
}

#[test]
fn a_snapshot_does_not_move_when_its_trace_does() {
    let mut trace = RunTrace::new(layout());
    trace.apply(&delta(&[((1, Some(1), "a".into()), 1)]));
    trace.seal(1);
    let before = trace.snapshot();
    trace.apply(&delta(&[
        ((1, Some(1), "a".into()), -1),
        ((2, Some(2), "b".into()), 1),
    ]));
    trace.seal(2);
    assert_eq!(scanned(before.scan(10), 10), vec![((1, Some(1), "a".into()), 1)]);
    assert_eq!(
        scanned(trace.snapshot().scan(10), 10),
        vec![((2, Some(2), "b".into()), 1)]
    );
}

#[test]
fn the_number_of_runs_grows_with_the_logarithm_of_the_rows() {
    let mut trace = RunTrace::new(layout());
    for i in 0..2_000 {
        trace.apply(&delta(&[((i, Some(i * 7919 % 2_000), String::new()), 1)]));
        if i % 3 == 0 {
            trace.seal(i as u64);
        }
        assert!(
            trace.segment_count() <= 12 + 3,
            "{} segments after {i} rows",
            trace.segment_count()
        );
    }
    assert_eq!(trace.row_count(), 2_000);
}

#[test]
fn scan_since_reads_only_runs_sealed_later() {
    let mut trace = RunTrace::new(layout());
    let many: Vec<_> = (0..100).map(|i| ((i, Some(i), "old".to_string()), 1)).collect();
    trace.apply(&delta(&many));
    trace.seal(10);
    trace.apply(&delta(&[
        ((1, Some(1), "old".into()), -1),
        ((1, Some(1), "new".into()), 1),
    ]));
    trace.seal(20);
    let changed = scanned(trace.snapshot().scan_since(10, 10), 10);
    assert_eq!(
        changed,
        vec![((1, Some(1), "new".into()), 1), ((1, Some(1), "old".into()), -1)]
    );
    assert!(scanned(trace.snapshot().scan_since(20, 10), 10).is_empty());
    assert_eq!(scanned(trace.snapshot().scan_since(9, 1_000), 1_000).len(), 100);
}

#[test]
fn a_trace_without_key_columns_has_one_key() {
    let mut trace = RunTrace::new(Layout {
        key: vec![],
        ..layout()
    });
    trace.apply(&delta(&[
        ((1, None, "a".into()), 1),
        ((3, None, "b".into()), 1),
        ((2, None, "c".into()), 1),
    ]));
    let top = trace.lookup_n(&[], 1, 2, false);
    assert_eq!(
        rows_of(&top.rows).iter().map(|row| row.0).collect::<Vec<_>>(),
        [3, 2]
    );
    assert_eq!(trace.lookup(&[], 2).probe.values().to_vec(), [0, 0, 0, 1, 1, 1]);
}

#[test]
fn a_trace_without_any_column_counts() {
    let schema = Arc::new(Schema::empty());
    let rows = crate::delta::batch(schema.clone(), vec![], 3);
    let mut trace = RunTrace::new(Layout::keyed(schema, vec![]));
    trace.apply(&Delta::inserts(rows));
    trace.seal(1);
    let found = trace.lookup(&[], 1);
    assert_eq!(
        (found.rows.num_rows(), found.weights.values().to_vec()),
        (1, vec![3])
    );
}

#[test]
fn ids_tell_layouts_stamps_and_content_apart() {
    let rows = delta(&[((1, Some(1), "a".into()), 1)]);
    let id = |layout: &Layout, delta: &Delta, stamp| Run::from_batch(layout, delta, stamp, stamp).id();
    let own = id(&layout(), &rows, 1);
    assert_eq!(own, id(&layout(), &rows, 1));
    assert_ne!(own, id(&layout(), &rows, 2));
    assert_ne!(own, id(&layout(), &rows.negated(), 1));
    assert_ne!(own, id(&Layout::keyed(schema(), vec![1]), &rows, 1));
}

#[test]
fn a_merged_run_carries_the_stamps_of_all_its_seals() {
    let mut trace = RunTrace::new(layout());
    for stamp in [5, 6, 7, 8] {
        trace.apply(&delta(&[((stamp, Some(1), "a".into()), 1)]));
        trace.seal(stamp as u64);
    }
    let snapshot = trace.snapshot();
    let stamps: Vec<_> = snapshot
        .runs()
        .iter()
        .map(|run| (run.stamp_min(), run.stamp_max()))
        .collect();
    assert_eq!(stamps, [(5, 8)]);
    assert_eq!(scanned(snapshot.scan_since(7, 10), 10).len(), 4);
    assert!(scanned(snapshot.scan_since(8, 10), 10).is_empty());
}

#[test]
fn scans_may_go_to_another_thread() {
    fn sendable<T: Send + 'static>(value: T) -> T {
        value
    }
    let mut trace = RunTrace::new(layout());
    trace.apply(&delta(&[((1, Some(1), "a".into()), 1)]));
    trace.seal(1);
    let scan = sendable(trace.snapshot().scan(10));
    drop(trace);
    assert_eq!(scanned(scan, 10).len(), 1, "a scan owns what it reads");
}

#[test]
#[should_panic(expected = "column types of its trace")]
fn a_delta_of_another_shape_is_refused() {
    let other = Arc::new(Schema::new(vec![Field::new("value", DataType::Int64, false)]));
    RunTrace::new(layout()).apply(&Delta::empty(other));
}

#[test]
fn a_scan_between_two_keys_reads_just_those() {
    let mut trace = RunTrace::new(layout());
    for portion in 0..5 {
        let entries: Vec<(Row, i64)> = (0..200)
            .map(|n| {
                let key = (n % 7 != 0).then_some((n * 37 + portion) % 50 - 25);
                ((n, key, format!("note {portion}")), 1)
            })
            .collect();
        trace.apply(&delta(&entries));
        trace.seal(portion as u64 + 1);
    }
    let snapshot = trace.snapshot();
    let all: Vec<Row> = snapshot
        .scan(64)
        .flat_map(|delta| rows_of(delta.rows()))
        .collect();
    let bound = |key: i64| -> ArrayRef { Arc::new(Int64Array::from(vec![key])) };
    for (lower, upper) in [
        (Some(-3), Some(4)),
        (Some(10), None),
        (None, Some(-20)),
        (Some(7), Some(7)),
        (Some(5), Some(4)),
        (Some(100), Some(200)),
        (None, None),
    ] {
        let (from, to) = (lower.map(bound), upper.map(bound));
        let found = snapshot.scan_between(from.as_ref(), to.as_ref(), 64);
        let found: Vec<Row> = found.flat_map(|delta| rows_of(delta.rows())).collect();
        let is_within = |row: &&Row| {
            let above = lower.is_none_or(|lower| row.1.is_some_and(|key| key >= lower));
            // Nulls come first.
            above && upper.is_none_or(|upper| row.1.is_none_or(|key| key <= upper))
        };
        let expected: Vec<Row> = all.iter().filter(is_within).cloned().collect();
        assert_eq!(found, expected, "from {lower:?} to {upper:?}");
    }
}
