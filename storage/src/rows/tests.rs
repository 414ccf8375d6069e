//! The store and the Z-set against an ordered map.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use proptest::prelude::*;

use super::*;
use crate::Delta;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("name", DataType::Utf8, true),
    ]))
}

fn batch(rows: &[(i64, i64)]) -> RecordBatch {
    let ids = Int64Array::from_iter_values(rows.iter().map(|row| row.0));
    let names: StringArray = rows
        .iter()
        .map(|row| (row.0 % 3 != 0).then(|| format!("n{}", row.0)))
        .collect();
    RecordBatch::try_new(schema(), vec![Arc::new(ids), Arc::new(names)]).expect("columns match")
}

fn delta(rows: &[(i64, i64)]) -> Delta {
    let weights = Int64Array::from_iter_values(rows.iter().map(|row| row.1));
    Delta::new(batch(rows), Some(weights))
}

fn contents(snapshot: &Arc<RowsSnapshot>) -> BTreeMap<i64, i64> {
    let mut contents = BTreeMap::new();
    for delta in snapshot.scan(1000) {
        let ids = delta.rows().column(0).as_primitive::<Int64Type>();
        for row in 0..delta.len() {
            assert_eq!(contents.insert(ids.value(row), delta.weight(row)), None);
        }
    }
    contents
}

proptest! {
    #[test]
    fn a_zset_is_the_sum_of_its_deltas_and_snapshots_do_not_change(
        deltas in prop::collection::vec(prop::collection::vec((0i64..40, -2i64..3), 0..60), 0..8)
    ) {
        let mut set = ZSet::new(schema());
        let mut expected: BTreeMap<i64, i64> = BTreeMap::new();
        let mut snapshots = Vec::new();
        for rows in &deltas {
            let applied = set.apply(&delta(rows));
            let taken = set.store().take(&applied.ids);
            prop_assert_eq!(taken, batch(rows));
            for (id, weight) in rows {
                *expected.entry(*id).or_default() += weight;
            }
            expected.retain(|_, weight| *weight != 0);
            snapshots.push((set.snapshot(), expected.clone()));
        }
        for (snapshot, expected) in &snapshots {
            prop_assert_eq!(&contents(snapshot), expected);
            prop_assert_eq!(snapshot.row_count(), expected.len());
        }
    }
}

#[test]
fn rows_keep_their_ids_through_segments_and_small_appends() {
    let mut store = RowStore::new(schema());
    let sizes = [1, 1, 3, SEGMENT_ROWS, 5, 2 * SEGMENT_ROWS + 7, 1, 1, 1];
    let mut next = 0;
    for size in sizes {
        let rows: Vec<(i64, i64)> = (next..next + size as i64).map(|n| (n, 1)).collect();
        assert_eq!(store.append(&batch(&rows)), next as u32);
        next += size as i64;
    }
    let ids: Vec<u32> = (0..next as u32)
        .rev()
        .step_by(97)
        .chain([0, next as u32 - 1])
        .collect();
    let rows: Vec<(i64, i64)> = ids.iter().map(|id| (i64::from(*id), 1)).collect();
    assert_eq!(store.take(&ids), batch(&rows));
    store.set_weight(7, 0);
    store.set_weight(8, 3);
    assert_eq!(
        (store.weight(7), store.weight(8), store.weight(9), store.dead()),
        (0, 3, 1, 1)
    );
    let found = contents(&store.snapshot());
    assert_eq!(
        (found.len(), found.get(&7), found[&8]),
        (next as usize - 1, None, 3)
    );
}

#[test]
fn compaction_keeps_what_lives() {
    let mut set = ZSet::new(schema());
    let rows: Vec<(i64, i64)> = (0..40_000).map(|n| (n, 1)).collect();
    set.apply(&delta(&rows));
    assert!(set.compact_if_due().is_none());
    let dying: Vec<(i64, i64)> = (0..40_000).filter(|n| n % 4 != 0).map(|n| (n, -1)).collect();
    set.apply(&delta(&dying));
    let before = contents(&set.snapshot());
    let renumbered = set.compact_if_due().expect("most rows are dead");
    assert_eq!(
        (renumbered.now(0), renumbered.now(4), renumbered.now(39_996)),
        (0, 1, 9_999)
    );
    assert_eq!(contents(&set.snapshot()), before);
    assert_eq!((set.store().len(), set.store().dead()), (10_000, 0));
}
