//! Versions of rows: the newest wins, whatever the order of arrival.

use std::collections::BTreeMap;

use arrow::array::StringArray;
use arrow::compute::concat_batches;
use arrow::datatypes::Int64Type;
use proptest::prelude::*;
use tributary_storage::RegionId;

use super::*;
use crate::error::ReplicationError;
use crate::frontier::Frontier;

fn origin(region: u16) -> OriginId {
    OriginId::first(RegionId(region))
}

fn columns() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("name", DataType::Utf8, false),
        Field::new("id", DataType::Int64, false),
    ]))
}

fn table(global: bool) -> RowVersions {
    RowVersions::new(columns(), vec![1], global)
}

/// Writes of (id, name); `None` deletes.
fn writes(rows: &[(i64, Option<&str>)]) -> TableWrites {
    let names: StringArray = rows
        .iter()
        .map(|(_, name)| Some(name.unwrap_or("(any)")))
        .collect();
    let ids: Int64Array = rows.iter().map(|(id, _)| Some(*id)).collect();
    let rows_batch = RecordBatch::try_new(columns(), vec![Arc::new(names), Arc::new(ids)]).expect("a batch");
    TableWrites {
        rows: rows_batch,
        deleted: rows.iter().map(|(_, name)| Some(name.is_none())).collect(),
    }
}

fn shown(delta: &Delta) -> Vec<String> {
    let (names, ids) = (
        delta.rows().column(0).as_string::<i32>(),
        int64(delta.rows().column(1)),
    );
    (0..delta.len())
        .map(|i| format!("{:+} {}={}", delta.weight(i), ids.value(i), names.value(i)))
        .collect()
}

fn since(table: &RowVersions, region: u16, epoch: u64) -> RecordBatch {
    table.section(origin(region), &Changes::Since(Epoch(epoch)))
}

/// Everything that is held, without the weights, which are all 1.
fn state(table: &RowVersions) -> Vec<RecordBatch> {
    let held: Vec<RecordBatch> = table
        .snapshot()
        .scan(1000)
        .map(|delta| delta.rows().clone())
        .collect();
    vec![concat_batches(&table.trace_schema(), &held).expect("one schema")]
}

fn visible(table: &RowVersions) -> BTreeMap<i64, String> {
    let state = state(table);
    let (names, ids, deleted) = (
        state[0].column(0).as_string::<i32>(),
        int64(state[0].column(1)),
        boolean(state[0].column(5)),
    );
    (0..state[0].num_rows())
        .filter(|row| !deleted.value(*row))
        .map(|row| (ids.value(row), names.value(row).to_string()))
        .collect()
}

#[test]
fn own_writes_return_the_visible_change() {
    for global in [true, false] {
        let mut us = table(global);
        let delta = us.write_own(
            origin(1),
            Epoch(1),
            Hlc::from_ms(5),
            &writes(&[(1, Some("a")), (2, Some("b"))]),
        );
        assert_eq!(shown(&delta), ["+1 1=a", "+1 2=b"]);
        let delta = us.write_own(
            origin(1),
            Epoch(2),
            Hlc::from_ms(5),
            &writes(&[(1, Some("A")), (2, None), (3, None)]),
        );
        assert_eq!(shown(&delta), ["-1 1=a", "+1 1=A", "-1 2=b"]);
        us.seal(2);
        let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
        let version = |stamp, deleted| {
            Some(RowVersion {
                origin: origin(1),
                stamp: Epoch(stamp),
                deleted,
            })
        };
        let tombstone = global.then(|| version(2, true)).flatten();
        assert_eq!(us.versions(&[ids], 3), [version(2, false), tombstone, None]);
        let delta = us.write_own(
            origin(1),
            Epoch(3),
            Hlc::from_ms(5),
            &writes(&[(2, Some("again"))]),
        );
        assert_eq!(shown(&delta), ["+1 2=again"]);
    }
}

#[test]
fn a_version_is_later_than_what_it_overwrites_whatever_the_clock_says() {
    let mut us = table(true);
    us.write_own(
        origin(1),
        Epoch(1),
        Hlc::from_ms(1_000),
        &writes(&[(1, Some("fast clock"))]),
    );
    us.seal(1);
    let mut eu = table(true);
    eu.merge_foreign(origin(1), &since(&us, 1, 0)).expect("merges");
    eu.write_own(
        origin(2),
        Epoch(1),
        Hlc::from_ms(10),
        &writes(&[(1, Some("slow clock"))]),
    );
    eu.seal(1);
    let merged = us.merge_foreign(origin(2), &since(&eu, 2, 0)).expect("merges");
    assert_eq!(shown(&merged.delta), ["-1 1=fast clock", "+1 1=slow clock"]);
    assert_eq!(
        (merged.lost.len(), merged.accepted.len()),
        (0, 1),
        "the later one had seen the earlier one"
    );
    assert_eq!(merged.max_hlc, Hlc::from_ms(1_000).successor());
}

#[test]
fn concurrent_versions_are_a_conflict_on_both_sides_and_the_newest_wins() {
    let (mut us, mut eu) = (table(true), table(true));
    us.write_own(
        origin(1),
        Epoch(1),
        Hlc::from_ms(7),
        &writes(&[(1, Some("us")), (2, Some("us")), (3, None)]),
    );
    eu.write_own(
        origin(2),
        Epoch(4),
        Hlc::from_ms(7),
        &writes(&[(1, Some("eu")), (2, Some("eu"))]),
    );
    eu.write_own(origin(2), Epoch(5), Hlc::from_ms(8), &writes(&[(2, None)]));
    us.seal(1);
    eu.seal(5);
    let (from_us, from_eu) = (since(&us, 1, 0), since(&eu, 2, 0));
    let at_us = us.merge_foreign(origin(2), &from_eu).expect("merges");
    let at_eu = eu.merge_foreign(origin(1), &from_us).expect("merges");
    assert_eq!(
        shown(&at_us.delta),
        ["-1 1=us", "+1 1=eu", "-1 2=us"],
        "equal times: the greater origin wins"
    );
    assert_eq!(shown(&at_eu.delta), Vec::<String>::new());
    assert_eq!((at_us.lost.len(), at_eu.lost.len()), (2, 2));
    let mut there = table(true);
    there.merge_foreign(origin(2), &from_eu).expect("merges");
    let told = there.merge_telling(origin(1), &from_us, |loser| loser == origin(2));
    let told = told.expect("merges");
    assert_eq!(
        (told.conflicts, told.lost.len(), told.lost_rows.num_rows()),
        (2, 0, 0),
        "both losers are of 1"
    );
    us.seal(2);
    eu.seal(6);
    assert_eq!(state(&us), state(&eu));
    let again = us.merge_foreign(origin(2), &from_eu).expect("merges");
    assert_eq!(
        (again.lost.len(), again.delta.len(), again.accepted.len()),
        (0, 0, 0)
    );
}

#[test]
fn overwritten_rows_are_not_sent_by_their_old_origin() {
    let (mut us, mut eu) = (table(true), table(true));
    us.write_own(
        origin(1),
        Epoch(1),
        Hlc::from_ms(1),
        &writes(&[(1, Some("us")), (2, Some("us"))]),
    );
    us.seal(1);
    eu.merge_foreign(origin(1), &since(&us, 1, 0)).expect("merges");
    eu.write_own(origin(2), Epoch(3), Hlc::from_ms(2), &writes(&[(1, Some("eu"))]));
    eu.seal(3);
    assert_eq!(
        (
            since(&eu, 1, 0).num_rows(),
            since(&eu, 2, 0).num_rows(),
            since(&eu, 2, 3).num_rows()
        ),
        (1, 1, 0)
    );
    let keys = eu
        .key_encoder()
        .encode(&[Arc::new(Int64Array::from(vec![1, 2, 9])) as ArrayRef]);
    let keys = Changes::Keys(keys.iter().map(Into::into).collect());
    assert_eq!(eu.section(origin(1), &keys), since(&eu, 1, 0));
    assert_eq!(eu.section(origin(2), &keys), since(&eu, 2, 0));
}

#[test]
fn sections_that_are_not_what_they_should_be_are_refused() {
    let mut us = table(true);
    us.write_own(origin(1), Epoch(1), Hlc::from_ms(7), &writes(&[(1, Some("us"))]));
    us.seal(1);
    let good = since(&us, 1, 0);
    let mut eu = table(true);
    eu.merge_foreign(origin(1), &good).expect("merges");
    eu.seal(1);
    let before = state(&eu);
    let with = |column: usize, array: ArrayRef| {
        let mut columns = good.columns().to_vec();
        columns[column] = array;
        let fields: Vec<Field> = columns
            .iter()
            .map(|column| Field::new("c", column.data_type().clone(), true))
            .collect();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("a batch")
    };
    let not_normal: &[u8] = &[0x80, 0x00];
    let bad = [
        ("too few columns", good.project(&[0, 1]).expect("a batch")),
        (
            "a null where the table allows none",
            with(0, new_null_array(&DataType::Utf8, 1)),
        ),
        ("a null key", with(1, new_null_array(&DataType::Int64, 1))),
        ("stamp zero", with(2, Arc::new(Int64Array::from(vec![0])))),
        (
            "a time far away",
            with(3, Arc::new(Int64Array::from(vec![i64::MAX]))),
        ),
        ("a negative time", with(3, Arc::new(Int64Array::from(vec![-1])))),
        (
            "a tombstone with values",
            with(4, Arc::new(BooleanArray::from(vec![true]))),
        ),
        (
            "a context that is none",
            with(5, Arc::new(BinaryArray::from_iter_values([b"\xff\xff"]))),
        ),
        (
            "a context not in normal form",
            with(5, Arc::new(BinaryArray::from_iter_values([not_normal]))),
        ),
        ("a sibling", with(6, Arc::new(Int16Array::from(vec![1])))),
        (
            "another value of the same version",
            with(0, Arc::new(StringArray::from(vec!["forged"]))),
        ),
        (
            "a key twice",
            concat_batches(&good.schema(), [&good, &good]).expect("a batch"),
        ),
    ];
    for (problem, section) in bad {
        let refused = eu.merge_foreign(origin(1), &section);
        assert!(
            matches!(refused, Err(ReplicationError::Corrupt { .. })),
            "{problem}"
        );
        assert_eq!(state(&eu), before, "{problem} changes nothing");
    }
    let refused = table(false).merge_foreign(origin(1), &good);
    assert!(refused.is_err_and(|error| error.to_string().contains("REGIONAL")));
}

#[test]
fn without_the_duplicate_check_old_rows_come_back() {
    for (defective, expected) in [(false, "new"), (true, "old")] {
        let mut us = table(true);
        us.write_own(origin(1), Epoch(1), Hlc::from_ms(7), &writes(&[(1, Some("old"))]));
        us.seal(1);
        let old = since(&us, 1, 0);
        us.write_own(origin(1), Epoch(2), Hlc::from_ms(7), &writes(&[(1, Some("new"))]));
        us.seal(2);
        let mut eu = table(true).with_defects(Defects {
            skip_duplicate_check: defective,
            ..Defects::default()
        });
        eu.merge_foreign(origin(1), &since(&us, 1, 0)).expect("merges");
        eu.merge_foreign(origin(1), &old).expect("merges");
        eu.seal(1);
        assert_eq!(visible(&eu)[&1], expected);
    }
}

proptest! {
    /// Regions write and merge at random; then everybody hears everything in an order of its own. All end
    /// with the same versions, whose visible rows are the sum of the deltas told.
    #[test]
    fn all_regions_end_with_the_same_rows(
        steps in prop::collection::vec(
            (0usize..3, 0usize..3, 0i64..3, prop::option::of("[a-c]"), 0u64..4, any::<bool>()), 1..40),
    ) {
        let mut tables: Vec<RowVersions> = (0..3).map(|_| table(true)).collect();
        let mut told: Vec<BTreeMap<String, i64>> = vec![BTreeMap::new(); 3];
        let tell = |told: &mut BTreeMap<String, i64>, delta: &Delta| {
            for (i, row) in shown(delta).into_iter().enumerate() {
                *told.entry(row[3..].to_string()).or_default() += delta.weight(i);
            }
        };
        let mut sections = Vec::new();
        let mut epoch = 0;
        for (at, from, id, name, ms, write) in steps {
            epoch += 1;
            if write {
                let own = origin(at as u16 + 1);
                let delta = tables[at].write_own(own, Epoch(epoch), Hlc::from_ms(ms), &writes(&[(id, name.as_deref())]));
                tell(&mut told[at], &delta);
                tables[at].seal(epoch);
                sections.push((at, since(&tables[at], at as u16 + 1, 0)));
            } else if from != at {
                let section = since(&tables[from], from as u16 + 1, 0);
                let merged = tables[at].merge_foreign(origin(from as u16 + 1), &section).expect("merges");
                tell(&mut told[at], &merged.delta);
                tables[at].seal(epoch);
            }
        }
        for at in 0..3 {
            let order: Vec<_> = if at == 1 { sections.iter().rev().collect() } else { sections.iter().collect() };
            for (from, section) in order.into_iter().filter(|(from, _)| *from != at) {
                let merged = tables[at].merge_foreign(origin(*from as u16 + 1), section).expect("merges");
                tell(&mut told[at], &merged.delta);
                let again = tables[at].merge_foreign(origin(*from as u16 + 1), section).expect("merges");
                prop_assert_eq!((again.delta.len(), again.accepted.len()), (0, 0));
            }
            tables[at].seal(epoch);
        }
        for at in 0..3 {
            prop_assert_eq!(state(&tables[at]), state(&tables[0]));
            let rows: BTreeMap<String, i64> =
                visible(&tables[at]).into_iter().map(|(id, name)| (format!("{id}={name}"), 1)).collect();
            told[at].retain(|_, weight| *weight != 0);
            prop_assert_eq!(&told[at], &rows);
        }
    }
}

#[test]
fn hidden_columns_follow_the_table_s_own() {
    let layout = RowVersions::trace_layout(columns(), vec![1]);
    assert_eq!(layout.schema.fields().len(), 2 + HIDDEN_COLUMNS);
    let mut us = table(true);
    us.write_own(origin(1), Epoch(3), Hlc::from_ms(7), &writes(&[(1, Some("a"))]));
    us.seal(3);
    let held = state(&us).remove(0);
    assert_eq!(held.column(3).as_primitive::<Int64Type>().value(0), 3);
    assert_eq!(held.schema().field(6).name(), "tributary_context");
}

/// A frontier of (region, epoch).
fn frontier(epochs: &[(u16, u64)]) -> Frontier {
    let epochs = epochs
        .iter()
        .map(|(region, epoch)| (origin(*region), Epoch(*epoch)));
    epochs.collect()
}

#[test]
fn stable_tombstones_go_and_leave_nothing() {
    let mut table = table(true);
    let at = |ms: u64| Hlc::from_ms(ms);
    table.write_own(
        origin(1),
        Epoch(1),
        at(1),
        &writes(&[(1, Some("a")), (2, Some("b")), (3, Some("c"))]),
    );
    table.write_own(origin(1), Epoch(2), at(2), &writes(&[(1, None)]));
    table.write_own(origin(1), Epoch(3), at(3), &writes(&[(2, None), (3, None)]));
    table.write_own(origin(1), Epoch(4), at(4), &writes(&[(3, Some("d"))]));
    table.seal(4);
    assert_eq!(table.tombstones(), 2, "the third was overwritten");
    assert_eq!(table.oldest_tombstones(), [(origin(1), Epoch(2))]);
    assert!(
        !table.has_stable(&frontier(&[(2, 9)]), at(9)),
        "another's epochs say nothing"
    );
    assert!(
        !table.has_stable(&frontier(&[(1, 2)]), at(2)),
        "it is not older than that"
    );
    assert_eq!(table.collect(&frontier(&[(1, 2), (7, 1)]), at(9)), 1);
    assert_eq!(table.collect(&frontier(&[(1, 2)]), at(9)), 0);
    table.seal(5);
    let deleted = |table: &RowVersions| boolean(state(table)[0].column(5)).true_count();
    assert_eq!((table.tombstones(), deleted(&table)), (1, 1));

    // A checkpoint brings back what is left.
    let runs = table.snapshot().runs().to_vec();
    let trace = RunTrace::from_runs(RowVersions::trace_layout(columns(), vec![1]), runs);
    let mut restored = RowVersions::from_trace(columns(), vec![1], true, trace);
    assert_eq!(restored.tombstones(), 1);
    assert_eq!(restored.collect(&frontier(&[(1, 3)]), at(9)), 1);
    restored.seal(6);
    assert_eq!((restored.tombstones(), deleted(&restored)), (0, 0));
    assert_eq!(visible(&restored), BTreeMap::from([(3, "d".to_owned())]));

    // The key is as if it had never been used.
    let key: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    assert_eq!(restored.versions(&[key], 1), [None]);
    let delta = restored.write_own(origin(1), Epoch(7), at(10), &writes(&[(1, Some("new"))]));
    assert_eq!(shown(&delta), ["+1 1=new"]);
    assert_eq!(restored.tombstones(), 0);
}

#[test]
fn a_tombstone_that_arrives_is_listed_and_one_that_is_overwritten_is_not() {
    let (mut here, mut there) = (table(true), table(true));
    let at = |ms: u64| Hlc::from_ms(ms);
    here.write_own(origin(1), Epoch(1), at(1), &writes(&[(1, Some("a"))]));
    here.write_own(origin(1), Epoch(2), at(2), &writes(&[(1, None)]));
    here.seal(2);
    there.merge_foreign(origin(1), &since(&here, 1, 0)).expect("rows");
    there.seal(1);
    there.write_own(origin(2), Epoch(1), at(2), &writes(&[(5, Some("x"))]));
    there.write_own(origin(2), Epoch(2), at(2), &writes(&[(5, None)]));
    assert_eq!(
        there.oldest_tombstones(),
        [(origin(1), Epoch(2)), (origin(2), Epoch(2))]
    );
    there.write_own(origin(2), Epoch(3), at(3), &writes(&[(1, Some("b"))]));
    there.seal(3);
    assert_eq!(there.tombstones(), 1);
    here.merge_foreign(origin(2), &since(&there, 2, 0)).expect("rows");
    here.seal(3);
    assert_eq!(here.tombstones(), 1);
    assert_eq!(here.collect(&frontier(&[(1, 9)]), at(9)), 0);
    assert_eq!(here.collect(&frontier(&[(1, 9), (2, 9)]), at(9)), 1);
}
