//! A cut that is gathered between changes holds what was there when it began.

use std::collections::BTreeMap;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Int64Type};
use proptest::prelude::*;
use tributary_planner::plan::{AggregateCall, AggregateFunction};

use super::*;
use crate::aggregates::Arguments;

/// Per key its number of rows, and its values with how often each occurs.
type Contents = BTreeMap<i64, (i64, BTreeMap<i64, i64>)>;

fn state() -> GroupState {
    let sum = AggregateCall {
        function: AggregateFunction::Sum,
        argument: Some(1),
        input_type: DataType::Int64,
        filter: None,
        output_type: DataType::Decimal128(38, 0),
    };
    GroupState::new(vec![DataType::Int64], &[sum], vec![DataType::Int64])
}

/// Changes as an operator makes them: keys, values, weights.
fn change(state: &mut GroupState, rows: &[(i64, i64, i64)]) {
    let column = |pick: fn(&(i64, i64, i64)) -> i64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(rows.iter().map(pick)))
    };
    let columns = [column(|row| row.0), column(|row| row.1)];
    let weights: Vec<i64> = rows.iter().map(|row| row.2).collect();
    let groups = state.groups_of(&columns[..1], rows.len());
    let distinct = state.distinct(&groups);
    let before = state.gather(&distinct);
    state.count_rows(&groups, Some(&weights));
    let call = state.calls[0].clone();
    let arguments = Arguments::of(&call, &columns, &groups, Some(&weights));
    state.accumulators()[0].add_rows(&arguments);
    state.multisets()[0].add(&groups, &columns[1], Some(&weights));
    let after = state.gather(&distinct);
    state.settle(&before.rows, &after.rows);
}

/// What a state holds, by way of a checkpoint that is taken at once; and that it comes back as it was.
fn contents((groups, values): (Arc<RowsSnapshot>, Vec<Arc<RowsSnapshot>>)) -> Contents {
    let mut restored = state();
    restored.restore(&groups);
    restored.restore_values(0, &values[0]);
    restored.begin_cut();
    assert!(restored.gather_cut(usize::MAX).is_some());
    let (groups, values) = restored.take_cut();
    let mut contents = Contents::new();
    for portion in groups.scan(1 << 16) {
        let column = |at: usize| portion.rows().column(at).as_primitive::<Int64Type>().clone();
        for (key, rows) in column(0).values().iter().zip(column(1).values()) {
            let earlier = contents.insert(*key, (*rows, BTreeMap::new()));
            assert!(earlier.is_none(), "the group {key} is there once");
        }
    }
    for portion in values[0].scan(1 << 16) {
        let column = |at: usize| portion.rows().column(at).as_primitive::<Int64Type>().clone();
        let pairs = column(0)
            .values()
            .to_vec()
            .into_iter()
            .zip(column(1).values().to_vec());
        for (row, (key, value)) in pairs.enumerate() {
            let (_, values) = contents
                .get_mut(&key)
                .expect("values belong to groups that have rows");
            *values.entry(value).or_default() += portion.weight(row);
        }
    }
    contents
}

fn reference(batches: &[Vec<(i64, i64, i64)>]) -> Contents {
    let mut contents = Contents::new();
    for (key, value, weight) in batches.iter().flatten() {
        let (rows, values) = contents.entry(*key).or_default();
        *rows += weight;
        *values.entry(*value).or_default() += weight;
        values.retain(|_, weight| *weight != 0);
    }
    contents.retain(|_, (rows, _)| *rows != 0);
    contents
}

/// Rows come and, some of them, go again: no value is there a negative number of times.
fn batches(choices: &[Vec<(i64, i64, bool)>]) -> Vec<Vec<(i64, i64, i64)>> {
    let mut there: Vec<(i64, i64)> = Vec::new();
    let mut batches = Vec::new();
    for choice in choices {
        let mut batch = Vec::new();
        for (key, value, goes) in choice {
            if *goes && !there.is_empty() {
                let (key, value) = there.swap_remove((key + 7 * value) as usize % there.len());
                batch.push((key, value, -1));
            } else {
                there.push((*key, *value));
                batch.push((*key, *value, 1));
            }
        }
        batches.push(batch);
    }
    batches
}

proptest! {
    #[test]
    fn a_cut_is_of_the_moment_when_it_began(
        before in prop::collection::vec(prop::collection::vec((0_i64..12, 0_i64..9, any::<bool>()), 1..40), 1..5),
        after in prop::collection::vec((prop::collection::vec((0_i64..16, 0_i64..9, any::<bool>()), 1..20), 0_usize..9), 1..12),
    ) {
        let (changes, portions): (Vec<_>, Vec<usize>) = after.into_iter().unzip();
        let all = batches(&before.iter().cloned().chain(changes).collect::<Vec<_>>());
        let (first, then) = all.split_at(before.len());
        let mut state = state();
        first.iter().for_each(|batch| change(&mut state, batch));
        state.begin_cut();
        for (batch, rows_max) in then.iter().zip(portions) {
            let _ = state.gather_cut(rows_max);
            change(&mut state, batch);
        }
        while state.gather_cut(3).is_none() {}
        prop_assert_eq!(contents(state.take_cut()), reference(first));
        state.begin_cut();
        while state.gather_cut(5).is_none() {}
        prop_assert_eq!(contents(state.take_cut()), reference(&all));
    }
}

/// One group with more values than a portion takes, over and over changed on both sides of where gathering stands.
#[test]
fn a_large_group_is_gathered_in_portions() {
    let mut state = state();
    let first: Vec<(i64, i64, i64)> = (0..500).map(|value| (1, value, 1)).collect();
    change(&mut state, &first);
    state.begin_cut();
    let mut portions = 0;
    while state.gather_cut(50).is_none() {
        portions += 1;
        change(
            &mut state,
            &[
                (1, portions, 1),
                (1, 499 - portions, -1),
                (1, 1_000 + portions, 1),
            ],
        );
    }
    assert!(portions > 5, "{portions} portions");
    assert_eq!(contents(state.take_cut()), reference(&[first]));
}

/// Rows of groups that did not change are the same segments again, wherever others changed before their turn.
#[test]
fn groups_come_in_their_order() {
    let mut state = state();
    let rows: Vec<(i64, i64, i64)> = (0..1_000).map(|key| (key, 1, 1)).collect();
    change(&mut state, &rows);
    state.begin_cut();
    let _ = state.gather_cut(100);
    change(&mut state, &[(700, 5, 1), (50, 5, 1), (300, 1, -1)]);
    while state.gather_cut(64).is_none() {}
    let (groups, _) = state.take_cut();
    let keys: Vec<i64> = groups
        .scan(1 << 16)
        .flat_map(|rows| {
            rows.rows()
                .column(0)
                .as_primitive::<Int64Type>()
                .values()
                .to_vec()
        })
        .collect();
    assert_eq!(keys, (0..1_000).collect::<Vec<i64>>());
}
