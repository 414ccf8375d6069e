//! Sessions under random changes against sessions formed anew, and at the ends of time.

use std::collections::BTreeMap;

use arrow::array::AsArray;
use arrow::datatypes::{Int64Type, TimeUnit, TimestampMicrosecondType};

use super::*;
use crate::columns::schema_of;

const GAP: i64 = 5;

/// Key, time, number; with the bounds of its session.
type Shown = (i64, i64, i64, i64, i64);

struct Fixture {
    sessions: Sessions,
    output: SchemaRef,
    rows: BTreeMap<(i64, i64, i64), i64>,
    shown: BTreeMap<Shown, i64>,
}

fn time_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, None)
}

impl Fixture {
    fn new(append_only: bool) -> Self {
        let types = [DataType::Int64, time_type(), DataType::Int64];
        let by = Sessionizing {
            partition: vec![0],
            column: 1,
            gap_us: GAP,
        };
        Self {
            sessions: Sessions::new(schema_of(&types), by, append_only),
            output: schema_of(&[&types[..], &[time_type(), time_type()]].concat()),
            rows: BTreeMap::new(),
            shown: BTreeMap::new(),
        }
    }

    /// Applies rows with weights, and compares what is shown since the beginning with sessions formed anew.
    fn apply(&mut self, rows: &[((i64, i64, i64), i64)]) {
        let column = |pick: &dyn Fn(&(i64, i64, i64)) -> i64| -> Vec<i64> {
            rows.iter().map(|(row, _)| pick(row)).collect()
        };
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(column(&|row| row.0))),
            Arc::new(TimestampMicrosecondArray::from(column(&|row| row.1))),
            Arc::new(Int64Array::from(column(&|row| row.2))),
        ];
        let batch = batch_of(self.sessions.schema().clone(), columns, rows.len());
        let weights: Vec<i64> = rows.iter().map(|(_, weight)| *weight).collect();
        let weights = weights
            .iter()
            .any(|weight| *weight != 1)
            .then(|| Int64Array::from(weights));
        for (row, weight) in rows {
            *self.rows.entry(*row).or_insert(0) += weight;
        }
        self.rows.retain(|_, weight| *weight != 0);
        let output = self.output.clone();
        let change = self.sessions.apply(&Delta::new(batch, weights), &output);
        let value = |column: usize, row: usize| -> i64 {
            let column = change.rows().column(column);
            match column.data_type() {
                DataType::Int64 => column.as_primitive::<Int64Type>().value(row),
                _ => column.as_primitive::<TimestampMicrosecondType>().value(row),
            }
        };
        for row in 0..change.len() {
            let of = |column| value(column, row);
            *self.shown.entry((of(0), of(1), of(2), of(3), of(4))).or_insert(0) += change.weight(row);
        }
        self.shown.retain(|_, weight| *weight != 0);
        assert_eq!(self.shown, self.expected());
    }

    fn expected(&self) -> BTreeMap<Shown, i64> {
        let mut all = BTreeMap::new();
        for ((key, time, number), weight) in &self.rows {
            let near = |from: i64, step: i64| {
                let others = self
                    .rows
                    .keys()
                    .filter(|other| other.0 == *key)
                    .map(|other| other.1);
                others
                    .map(|other| (other - from) * step)
                    .filter(|far| *far > 0 && *far < GAP)
                    .min()
            };
            let (mut start, mut last) = (*time, *time);
            while let Some(far) = near(start, -1) {
                start -= far;
            }
            while let Some(far) = near(last, 1) {
                last += far;
            }
            all.insert((*key, *time, *number, start, last + GAP), *weight);
        }
        all
    }
}

/// A generator of choices (SplitMix64).
fn below(state: &mut u64, bound: u64) -> i64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) % bound) as i64
}

#[test]
fn rows_that_come_form_the_sessions_they_would_form_at_once() {
    for seed in 0..40_u64 {
        let mut choices = seed;
        let mut fixture = Fixture::new(true);
        for step in 0..12 {
            let rows: Vec<_> = (0..1 + below(&mut choices, 6))
                .map(|row| {
                    let (key, time) = (below(&mut choices, 2), below(&mut choices, 60) - 20);
                    ((key, time, step * 10 + row), 1)
                })
                .collect();
            fixture.apply(&rows);
        }
    }
}

#[test]
fn rows_that_go_part_what_they_held_together() {
    for seed in 100..160_u64 {
        let mut choices = seed;
        let mut fixture = Fixture::new(false);
        for _ in 0..20 {
            let mut rows: Vec<((i64, i64, i64), i64)> = (0..below(&mut choices, 5))
                .map(|_| {
                    let (key, time) = (below(&mut choices, 2), below(&mut choices, 60) - 20);
                    ((key, time, below(&mut choices, 2)), 1 + below(&mut choices, 2))
                })
                .collect();
            for (row, weight) in fixture.rows.clone() {
                match below(&mut choices, 6) {
                    0 => rows.push((row, -weight)),
                    1 => rows.push((row, 1)),
                    // A row that comes and goes in one batch leaves nothing.
                    2 => rows.extend([((row.0, row.1 + 3, 7), 1), ((row.0, row.1 + 3, 7), -1)]),
                    _ => {}
                }
            }
            fixture.apply(&rows);
        }
    }
}

#[test]
fn the_ends_of_time_are_far_apart() {
    let far = i64::MAX - 2 * GAP;
    let mut fixture = Fixture::new(false);
    fixture.sessions.by.gap_us = i64::MAX / 2;
    let bounds = |fixture: &mut Fixture, rows: &[(i64, i64)]| -> Vec<(i64, i64, i64)> {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![0; rows.len()])),
            Arc::new(TimestampMicrosecondArray::from_iter_values(
                rows.iter().map(|row| row.0),
            )),
            Arc::new(Int64Array::from(vec![0; rows.len()])),
        ];
        let batch = batch_of(fixture.sessions.schema().clone(), columns, rows.len());
        let weights = Int64Array::from_iter_values(rows.iter().map(|row| row.1));
        let output = fixture.output.clone();
        let change = fixture.sessions.apply(&Delta::new(batch, Some(weights)), &output);
        let starts = change.rows().column(3).as_primitive::<TimestampMicrosecondType>();
        let times = change.rows().column(1).as_primitive::<TimestampMicrosecondType>();
        let rows = (0..change.len()).map(|row| (times.value(row), starts.value(row), change.weight(row)));
        rows.collect()
    };
    let (early, late) = (-far, far / 2 - 1);
    assert_eq!(
        bounds(&mut fixture, &[(early, 1), (late, 1)]),
        [(early, early, 1), (late, late, 1)]
    );
    // Two rows between them bridge what is more than 2^63 wide, and then do no more.
    let between = [(-far / 2 - 1, 1), (-1, 1)];
    assert_eq!(bounds(&mut fixture, &between).len(), 6, "all bounds change");
    let gone = bounds(&mut fixture, &between.map(|(time, _)| (time, -1)));
    assert!(gone.contains(&(late, late, 1)), "{gone:?}");
}

#[test]
fn compaction_and_a_restart_keep_the_sessions() {
    let mut fixture = Fixture::new(false);
    let rows = |weight: i64, of: &dyn Fn(&i64) -> bool| -> Vec<((i64, i64, i64), i64)> {
        let numbers = (0..40_000).filter(of);
        numbers.map(|n| ((n, 3 * (n % 2), 0), weight)).collect()
    };
    let apply = |fixture: &mut Fixture, rows: &[((i64, i64, i64), i64)]| {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0.0 / 2))),
            Arc::new(TimestampMicrosecondArray::from_iter_values(
                rows.iter().map(|row| row.0.1),
            )),
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0.2))),
        ];
        let batch = batch_of(fixture.sessions.schema().clone(), columns, rows.len());
        let weights = Int64Array::from_iter_values(rows.iter().map(|row| row.1));
        let output = fixture.output.clone();
        fixture
            .sessions
            .apply(&Delta::new(batch, Some(weights)), &output)
            .len()
    };
    assert_eq!(apply(&mut fixture, &rows(1, &|_| true)), 40_000);
    assert_eq!(fixture.sessions.len(), 40_000);
    // The keys from 1000 on go; of the others nothing changes.
    assert_eq!(apply(&mut fixture, &rows(-1, &|n| *n >= 2000)), 38_000);
    assert_eq!(fixture.sessions.len(), 2000, "most rows were dead");
    let saved = fixture.sessions.save();
    let mut store = RowStore::new(fixture.sessions.schema().clone());
    saved.scan(1 << 16).for_each(|delta| {
        store.append(delta.rows());
    });
    let mut restored = Fixture::new(false);
    restored.sessions.restore(store);
    // The second row of each session goes: the first is retracted with the old bounds, and shown with new ones.
    for fixture in [&mut fixture, &mut restored] {
        assert_eq!(apply(fixture, &rows(-1, &|n| *n < 2000 && *n % 2 == 1)), 3000);
    }
}
