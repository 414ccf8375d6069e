//! Slots: one writer each, absolute values, merges that may be repeated and reordered.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{Array, AsArray, StringArray, new_null_array};
use arrow::compute::concat_batches;
use arrow::datatypes::Int64Type;
use proptest::prelude::*;
use tributary_storage::RegionId;

use super::*;
use crate::section::int64;

fn layout() -> SlotLayout {
    SlotLayout {
        key_types: vec![DataType::Utf8],
        partial_types: vec![DataType::Int64],
    }
}

fn origin(region: u16) -> OriginId {
    OriginId::first(RegionId(region))
}

fn set() -> SlotSet {
    SlotSet::new(layout())
}

/// Changes of (key, partial); `None` deletes.
fn changes(entries: &[(&str, Option<i64>)]) -> SlotChanges {
    SlotChanges {
        rows: entries.len(),
        keys: vec![Arc::new(
            entries.iter().map(|(key, _)| Some(*key)).collect::<StringArray>(),
        )],
        deleted: entries
            .iter()
            .map(|(_, partial)| Some(partial.is_none()))
            .collect(),
        partials: vec![Arc::new(
            entries
                .iter()
                .map(|(_, partial)| *partial)
                .collect::<Int64Array>(),
        )],
    }
}

fn live(delta: &SlotDelta, slots: &LiveSlots) -> Vec<String> {
    let keys = delta.keys[0].as_string::<i32>();
    assert_eq!(keys.len(), delta.rows);
    (0..slots.probe.len())
        .map(|i| {
            let origin = OriginId::from_i64(slots.origins.value(i)).expect("an origin");
            let partial = slots.partials[0].as_primitive::<Int64Type>().value(i);
            format!("{}@{origin}={partial}", keys.value(slots.probe.value(i) as usize))
        })
        .collect()
}

fn shown(delta: &SlotDelta) -> String {
    format!(
        "{:?} -> {:?}",
        live(delta, &delta.before),
        live(delta, &delta.after)
    )
}

/// Everything that is held: (key, origin) -> (stamp, partial).
fn state(set: &SlotSet) -> BTreeMap<(String, i64), (i64, Option<i64>)> {
    let mut state = BTreeMap::new();
    for (origin, held) in set.snapshots() {
        for delta in held.scan(100) {
            let rows = delta.rows();
            let stamps = int64(rows.column(1));
            for row in 0..rows.num_rows() {
                assert_eq!(delta.weight(row), 1, "one value for each key and origin");
                let key = rows.column(0).as_string::<i32>().value(row).to_string();
                let partials = int64(rows.column(3));
                let partial = partials.is_valid(row).then(|| partials.value(row));
                assert_eq!(partial.is_none(), boolean(rows.column(2)).value(row));
                let old = state.insert((key, origin.as_i64()), (stamps.value(row), partial));
                assert_eq!(old, None);
            }
        }
    }
    state
}

/// The rows of a section as text; their order means nothing.
fn lines(section: &RecordBatch) -> BTreeSet<String> {
    let row = |row: usize| format!("{:?}", section.slice(row, 1));
    (0..section.num_rows()).map(row).collect()
}

#[test]
fn stores_that_are_mostly_dead_are_compacted_and_say_the_same() {
    let keys: Vec<String> = (0..100).map(|key| format!("k{key}")).collect();
    let mut us = set();
    for epoch in 1..=500 {
        let values: Vec<(&str, Option<i64>)> = keys.iter().map(|key| (key.as_str(), Some(epoch))).collect();
        us.write_own(origin(1), Epoch(epoch as u64), &changes(&values));
        us.write_own(
            origin(1),
            Epoch(epoch as u64),
            &changes(&[("only once", Some(7))][..usize::from(epoch == 9)]),
        );
    }
    let held: usize = us.snapshots().map(|(_, held)| held.bytes()).sum();
    assert!(
        held < 40_000 * 32,
        "50,000 rows were written, 101 live: {held} bytes"
    );
    assert_eq!(us.row_count(), 101);
    assert_eq!(us.section(origin(1), Epoch(499)).num_rows(), 100);
    assert_eq!(us.section(origin(1), Epoch(8)).num_rows(), 101);
    assert_eq!(us.section(origin(1), Epoch(9)).num_rows(), 100);
    let mut restored = set();
    for (origin, held) in us.snapshots() {
        restored.restore(origin, held.to_store());
    }
    assert_eq!(state(&restored), state(&us));
    let delta = restored.write_own(origin(1), Epoch(501), &changes(&[("k5", None)]));
    assert_eq!(shown(&delta), r#"["k5@r1.1=500"] -> []"#);
}

#[test]
fn own_writes_tell_before_and_after_of_all_origins() {
    let mut us = set();
    let delta = us.write_own(origin(1), Epoch(1), &changes(&[("a", Some(1)), ("b", Some(2))]));
    assert_eq!(shown(&delta), r#"[] -> ["a@r1.1=1", "b@r1.1=2"]"#);
    let mut eu = set();
    eu.write_own(origin(2), Epoch(9), &changes(&[("a", Some(10))]));
    let delta = us
        .merge_foreign(origin(2), &eu.section(origin(2), Epoch(0)))
        .expect("merges");
    assert_eq!(shown(&delta), r#"["a@r1.1=1"] -> ["a@r1.1=1", "a@r2.1=10"]"#);
    let delta = us.write_own(origin(1), Epoch(2), &changes(&[("a", None), ("c", None)]));
    assert_eq!(shown(&delta), r#"["a@r1.1=1", "a@r2.1=10"] -> ["a@r2.1=10"]"#);
    let keys: Vec<(String, i64)> = state(&us).into_keys().collect();
    assert_eq!(
        keys.len(),
        3,
        "a of two origins, b; nobody ever heard of c: {keys:?}"
    );
}

#[test]
fn slots_without_keys_hold_one_value_per_origin() {
    let layout = SlotLayout {
        key_types: vec![],
        partial_types: vec![DataType::Int64],
    };
    let mut us = SlotSet::new(layout.clone());
    let value = |value: i64| SlotChanges {
        rows: 1,
        keys: vec![],
        deleted: BooleanArray::from(vec![false]),
        partials: vec![Arc::new(Int64Array::from(vec![value]))],
    };
    us.write_own(origin(1), Epoch(1), &value(5));
    let section = us.section(origin(1), Epoch(0));
    let mut eu = SlotSet::new(layout);
    eu.write_own(origin(2), Epoch(1), &value(6));
    let delta = eu.merge_foreign(origin(1), &section).expect("merges");
    assert_eq!(
        (delta.rows, delta.before.probe.len(), delta.after.probe.len()),
        (1, 1, 2)
    );
    assert_eq!(
        delta.after.origins.values(),
        &[origin(1).as_i64(), origin(2).as_i64()]
    );
}

#[test]
fn a_section_holds_what_is_newer_and_tombstones_travel() {
    let mut us = set();
    for epoch in 1..=9u64 {
        let key = format!("k{}", epoch % 4);
        us.write_own(
            origin(1),
            Epoch(epoch),
            &changes(&[(key.as_str(), (epoch != 8).then_some(epoch as i64))]),
        );
    }
    let section = us.section(origin(1), Epoch(6));
    assert_eq!(
        int64(section.column(1)).values(),
        &[7, 8, 9],
        "k3 at 7, k0 deleted at 8, k1 at 9"
    );
    assert_eq!(boolean(section.column(2)).true_count(), 1);
    assert_eq!(us.section(origin(1), Epoch(0)).num_rows(), 4);
    assert_eq!(us.section(origin(2), Epoch(0)).num_rows(), 0);
}

#[test]
fn sections_that_are_not_what_they_should_be_are_refused() {
    let mut us = set();
    us.write_own(origin(1), Epoch(5), &changes(&[("a", Some(1)), ("b", None)]));
    let good = us.section(origin(1), Epoch(0));
    assert_eq!(good.num_rows(), 1);
    let mut eu = set();
    eu.merge_foreign(origin(1), &good).expect("merges");
    let before = state(&eu);
    let with = |column: usize, array: ArrayRef| {
        let mut columns = good.columns().to_vec();
        columns[column] = array;
        let fields: Vec<Field> = columns
            .iter()
            .zip(good.schema().fields())
            .map(|(c, field)| Field::new(field.name(), c.data_type().clone(), true))
            .collect();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("a batch")
    };
    let twice = concat_batches(&good.schema(), [&good, &good]).expect("a batch");
    let bad = [
        ("too few columns", good.project(&[0, 1, 2]).expect("a batch")),
        ("another key type", with(0, Arc::new(Int64Array::from(vec![1])))),
        (
            "a null stamp",
            with(1, Arc::new(Int64Array::from(vec![None::<i64>]))),
        ),
        ("a negative stamp", with(1, Arc::new(Int64Array::from(vec![-4])))),
        ("stamp zero", with(1, Arc::new(Int64Array::from(vec![0])))),
        ("null deleted", with(2, new_null_array(&DataType::Boolean, 1))),
        (
            "a tombstone with a partial",
            with(2, Arc::new(BooleanArray::from(vec![true]))),
        ),
        (
            "another value at the same stamp",
            with(3, Arc::new(Int64Array::from(vec![99]))),
        ),
        ("a key twice", twice),
    ];
    for (problem, section) in bad {
        let refused = eu.merge_foreign(origin(1), &section);
        assert!(
            matches!(refused, Err(ReplicationError::Corrupt { .. })),
            "{problem}"
        );
        assert_eq!(state(&eu), before, "{problem} changes nothing");
    }
}

#[test]
fn without_the_duplicate_check_old_values_come_back() {
    for (defective, expected) in [(false, 2), (true, 1)] {
        let mut us = set();
        us.write_own(origin(1), Epoch(1), &changes(&[("a", Some(1))]));
        let old = us.section(origin(1), Epoch(0));
        us.write_own(origin(1), Epoch(2), &changes(&[("a", Some(2))]));
        let new = us.section(origin(1), Epoch(0));
        let mut eu = set().with_defects(Defects {
            skip_duplicate_check: defective,
            ..Defects::default()
        });
        eu.merge_foreign(origin(1), &new).expect("merges");
        eu.merge_foreign(origin(1), &old).expect("merges");
        assert_eq!(
            state(&eu)[&("a".to_string(), origin(1).as_i64())].1,
            Some(expected)
        );
    }
}

proptest! {
    /// Sections arrive in any order, any number of times, some from long ago: the receiver ends with the
    /// writers' newest values, and the deltas it told add up to that.
    #[test]
    fn merging_is_idempotent_and_independent_of_order(
        writes in prop::collection::vec((1u16..4, 0usize..4, prop::option::of(0i64..5)), 1..30),
        order in prop::collection::vec(any::<prop::sample::Index>(), 0..60),
    ) {
        let keys = ["a", "b", "c", "d"];
        let mut writers: BTreeMap<u16, SlotSet> = (1..4).map(|region| (region, set())).collect();
        let mut sections = Vec::new();
        for (i, (region, key, partial)) in writes.iter().enumerate() {
            let epoch = i as u64 + 1;
            let writer = writers.get_mut(region).expect("there");
            writer.write_own(origin(*region), Epoch(epoch), &changes(&[(keys[*key], *partial)]));
            sections.push((*region, writer.section(origin(*region), Epoch(0))));
            sections.push((*region, writer.section(origin(*region), Epoch(epoch - 1))));
        }
        let mut receiver = set();
        let mut told: BTreeSet<String> = BTreeSet::new();
        let everything = writers
            .iter()
            .map(|(region, writer)| (*region, writer.section(origin(*region), Epoch(0))));
        let arriving = order.iter().map(|index| index.get(&sections).clone()).chain(everything);
        for (region, section) in arriving {
            let delta = receiver.merge_foreign(origin(region), &section).expect("merges");
            for slot in live(&delta, &delta.before) {
                prop_assert!(told.remove(&slot), "{} was told before", slot);
            }
            for slot in live(&delta, &delta.after) {
                prop_assert!(told.insert(slot));
            }
            let again = receiver.merge_foreign(origin(region), &section).expect("merges");
            prop_assert_eq!(again.rows, 0);
        }
        let mut expected = BTreeMap::new();
        writers.values().for_each(|writer| expected.extend(state(writer)));
        prop_assert_eq!(&state(&receiver), &expected);
        let alive = expected.iter().filter_map(|((key, origin), (_, partial))| {
            let origin = OriginId::from_i64(*origin).expect("an origin");
            partial.map(|partial| format!("{key}@{origin}={partial}"))
        });
        prop_assert_eq!(told, alive.collect::<BTreeSet<_>>());
        // What a relay sends is what the writer would send.
        for region in 1..4 {
            for since in [0, writes.len() as u64 / 2] {
                let relayed = receiver.section(origin(region), Epoch(since));
                let written = writers[&region].section(origin(region), Epoch(since));
                prop_assert_eq!(lines(&relayed), lines(&written));
            }
        }
    }
}

#[test]
fn forgetting_an_origin_takes_its_live_slots_and_leaves_the_others() {
    let mut set = set();
    set.write_own(origin(1), Epoch(1), &changes(&[("a", Some(1)), ("b", Some(2))]));
    set.write_own(origin(1), Epoch(2), &changes(&[("b", None), ("c", Some(4))]));
    let mut other = self::set();
    other.write_own(origin(2), Epoch(3), &changes(&[("a", Some(10)), ("d", Some(40))]));
    set.merge_foreign(origin(2), &other.section(origin(2), Epoch(0)))
        .expect("a section");
    let delta = set.forget(origin(1)).expect("it had live slots");
    assert_eq!(
        shown(&delta),
        r#"["a@r1.1=1", "a@r2.1=10", "c@r1.1=4"] -> ["a@r2.1=10"]"#
    );
    assert!(set.forget(origin(1)).is_none(), "nothing is left of it");
    assert_eq!(set.section(origin(1), Epoch(0)).num_rows(), 0);
    assert_eq!(set.section(origin(2), Epoch(0)).num_rows(), 2);
    let again = set.write_own(origin(1), Epoch(9), &changes(&[("a", Some(5))]));
    assert_eq!(shown(&again), r#"["a@r2.1=10"] -> ["a@r1.1=5", "a@r2.1=10"]"#);
}

#[test]
fn stable_tombstones_go_and_their_keys_with_them() {
    let stable = |epoch: u64| Frontier::from_iter([(origin(1), Epoch(epoch))]);
    let mut set = set();
    let names: Vec<String> = (0..3_000).map(|n| format!("k{n}")).collect();
    let all: Vec<(&str, Option<i64>)> = names.iter().map(|name| (name.as_str(), Some(1))).collect();
    let gone: Vec<(&str, Option<i64>)> = names[..2_990].iter().map(|name| (name.as_str(), None)).collect();
    set.write_own(origin(1), Epoch(1), &changes(&all));
    set.write_own(origin(1), Epoch(2), &changes(&gone[..5]));
    set.write_own(origin(1), Epoch(3), &changes(&gone[5..]));
    let mut other = SlotSet::new(layout());
    other
        .merge_foreign(origin(1), &set.section(origin(1), Epoch(0)))
        .expect("slots");
    assert_eq!((set.tombstones(), other.tombstones()), (2_990, 2_990));
    assert!(!set.has_stable(&stable(1)) && set.has_stable(&stable(2)));
    assert_eq!((set.collect(&stable(1)), set.collect(&stable(2))), (0, 5));
    assert_eq!((set.tombstones(), set.row_count()), (2_985, 2_995));
    let before = set.bytes();
    assert_eq!(
        (set.collect(&stable(3)), other.collect(&stable(9))),
        (2_985, 2_990)
    );
    assert!(
        set.bytes() < before / 4,
        "{} of {before} bytes are left",
        set.bytes()
    );
    for set in [&mut set, &mut other] {
        assert_eq!((set.tombstones(), set.row_count()), (0, 10));
        assert_eq!(set.section(origin(1), Epoch(0)).num_rows(), 10);
    }
    // What is left is found under its key, and what is gone can come again.
    let delta = set.write_own(
        origin(1),
        Epoch(4),
        &changes(&[("k2995", Some(2)), ("k7", Some(3))]),
    );
    assert_eq!(
        shown(&delta),
        r#"["k2995@r1.1=1"] -> ["k2995@r1.1=2", "k7@r1.1=3"]"#
    );
    set.write_own(origin(1), Epoch(5), &changes(&[("k7", None), ("k8", None)]));
    assert_eq!(set.tombstones(), 1, "nobody has heard of the other");
    let delta = other
        .merge_foreign(origin(1), &set.section(origin(1), Epoch(3)))
        .expect("slots");
    assert_eq!(shown(&delta), r#"["k2995@r1.1=1"] -> ["k2995@r1.1=2"]"#);
}
