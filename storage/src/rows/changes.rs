//! What changed between two snapshots, found from what they do not share.
//!
//! ```text
//!   earlier  [ A ][ B ][ C ][tail ]          A, C shared with equal weights: skipped
//!   later    [ A ][ B'][ C ][ D ][tail']     B' the same rows weighed otherwise: only those rows
//! ```
//! A store seals segments and never changes their rows, so two snapshots of it share most of them. When the later one
//! begins with all sealed segments of the earlier one and goes on with the rows of its tail, rows have kept their
//! numbers: D and the tails are compared by number. A snapshot may be of several stores, one after the other; each is
//! compared with itself. Otherwise (a compaction) the rows of whatever is not shared go and come.
//!
//! Rows that go and rows that come may be equal, and then cancel out. They are summed by the hash of each (128 bits of
//! BLAKE3 over its encoding). Where rows only come, nothing is hashed, and nothing is copied of segments that are new.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use arrow::compute::interleave;
use arrow::datatypes::{DataType, SchemaRef};

use super::snapshot::Part;
use super::weights::Weights;
use super::{RowsSnapshot, SEGMENT_ROWS};
use crate::delta::batch;
use crate::{Delta, KeyEncoder};

/// Rows of a batch of changes.
const BATCH_ROWS: usize = 16_384;

/// A row that one of the snapshots has more often than the other.
#[derive(Clone, Copy)]
struct Entry {
    part: u32,
    row: u32,
    weight: i64,
}

impl RowsSnapshot {
    /// What has to be added to an earlier snapshot to get this one: those rows that go before those that come, and
    /// none that does both. The earlier one need not be of the same store, only of the same types.
    pub fn changes_since(&self, earlier: &RowsSnapshot) -> Vec<Delta> {
        let (before, after): (Vec<&Part>, Vec<&Part>) =
            (earlier.all_parts().collect(), self.all_parts().collect());
        let types: Vec<DataType> = self
            .schema()
            .fields()
            .iter()
            .map(|field| field.data_type().clone())
            .collect();
        let encoder = KeyEncoder::new(&types);
        let changed = match pairs_of_stores(&before, &after, &encoder) {
            Some(pairs) => Changed::by_number(&pairs),
            None => Changed::by_value(&before, &after, self.schema(), &encoder),
        };
        changed.into_deltas(self.schema())
    }
}

/// The parts of a store in two snapshots, and with how many shared segments both begin.
struct Pair<'a, 'b> {
    before: &'b [&'a Part],
    after: &'b [&'a Part],
    shared: usize,
}

/// The same store in both snapshots, for each of theirs; none if any row may have got another number.
fn pairs_of_stores<'a, 'b>(
    before: &'b [&'a Part],
    after: &'b [&'a Part],
    encoder: &KeyEncoder,
) -> Option<Vec<Pair<'a, 'b>>> {
    let (before, after) = (stores(before), stores(after));
    if before.len() != after.len() {
        return None;
    }
    before
        .into_iter()
        .zip(after)
        .map(|(before, after)| {
            let shared = before.iter().take_while(|part| is_sealed(part)).count();
            let is_same = |(one, two): (&&Part, &&Part)| Arc::ptr_eq(&one.rows, &two.rows);
            let kept = after.len() >= shared
                && before[..shared].iter().zip(after).all(is_same)
                && begins_with(&after[shared..], &before[shared..], encoder);
            kept.then_some(Pair {
                before,
                after,
                shared,
            })
        })
        .collect()
}

/// Parts cut where a store ends: after a tail. Stores without a tail go with the one that follows, which is no harm:
/// what is shared is compared part by part.
fn stores<'a, 'b>(parts: &'b [&'a Part]) -> Vec<&'b [&'a Part]> {
    parts
        .chunk_by(|part, next| is_sealed(part) || next.start > 0)
        .collect()
}

fn is_sealed(part: &Part) -> bool {
    part.rows.rows().num_rows() == SEGMENT_ROWS
}

/// Whether the first rows of one are those of the other, whatever they weigh.
fn begins_with(parts: &[&Part], start: &[&Part], encoder: &KeyEncoder) -> bool {
    let encoded = |part: &&Part| {
        let rows = part.rows.rows();
        let keys = encoder.encode_rows(rows.columns(), rows.num_rows());
        (0..rows.num_rows()).map(move |row| Box::<[u8]>::from(keys.get(row)))
    };
    let mut rows = parts.iter().flat_map(encoded);
    start.iter().flat_map(encoded).all(|row| rows.next() == Some(row))
}

/// What tells segments apart. Both snapshots hold theirs, so an address is not used twice.
fn address(part: &Part) -> usize {
    Arc::as_ptr(&part.rows).addr()
}

fn weight(part: &Part, row: usize) -> i64 {
    part.weights.get(part.start + row)
}

/// What differs.
#[derive(Default)]
struct Changed<'a> {
    /// Where the rows of the entries are.
    parts: Vec<&'a Part>,
    entries: Vec<Entry>,
    /// Parts all of whose rows come, once each.
    whole: Vec<&'a Part>,
}

impl<'a> Changed<'a> {
    fn add(&mut self, part: &'a Part, weight: impl Fn(usize) -> i64) {
        let number = u32::try_from(self.parts.len()).expect("a store holds fewer than 2^32 rows");
        let rows = u32::try_from(part.rows.rows().num_rows()).expect("a segment holds fewer than 2^32 rows");
        let entries = (0..rows).map(|row| Entry {
            part: number,
            row,
            weight: weight(row as usize),
        });
        self.entries.extend(entries.filter(|entry| entry.weight != 0));
        self.parts.push(part);
    }

    /// Adds the rows of a shared segment that are weighed otherwise now.
    fn add_shared(&mut self, before: &Part, after: &'a Part) {
        if !before.weights.is_same(&after.weights) || before.start != after.start {
            self.add(after, |row| weight(after, row) - weight(before, row));
        }
    }

    /// Adds rows that were not there before: all of a part from this one on.
    fn add_new(&mut self, part: &'a Part) {
        match part.weights {
            Weights::Ones => self.whole.push(part),
            _ => self.add(part, |row| weight(part, row)),
        }
    }

    /// The changes when rows have kept their numbers.
    fn by_number(pairs: &[Pair<'a, '_>]) -> Self {
        let mut changed = Self::default();
        for pair in pairs {
            for (before, after) in pair.before.iter().zip(pair.after).take(pair.shared) {
                changed.add_shared(before, after);
            }
            // By the number after the shared segments.
            let tail = pair.before[pair.shared..].iter();
            let weights: Vec<i64> = tail
                .flat_map(|part| (0..part.rows.rows().num_rows()).map(|row| weight(part, row)))
                .collect();
            let mut first = 0;
            for part in &pair.after[pair.shared..] {
                if first < weights.len() {
                    let before = |row| weights.get(first + row).copied().unwrap_or(0);
                    changed.add(part, |row| weight(part, row) - before(row));
                } else {
                    changed.add_new(part);
                }
                first += part.rows.rows().num_rows();
            }
        }
        changed
    }

    /// The changes when rows may stand anywhere: parts that are not shared go and come.
    fn by_value(before: &[&'a Part], after: &[&'a Part], schema: &SchemaRef, encoder: &KeyEncoder) -> Self {
        let mut changed = Self::default();
        let mut gone: BTreeMap<usize, &Part> = before.iter().map(|part| (address(part), *part)).collect();
        if gone.is_empty() {
            after.iter().for_each(|part| changed.add_new(part));
            return changed;
        }
        for part in after {
            match gone.remove(&address(part)) {
                Some(before) => changed.add_shared(before, part),
                None => changed.add(part, |row| weight(part, row)),
            }
        }
        for part in gone.into_values() {
            changed.add(part, |row| -weight(part, row));
        }
        changed.cancel(schema, encoder);
        changed
    }

    /// Makes one of the entries of equal rows, and none of those that cancel out.
    fn cancel(&mut self, schema: &SchemaRef, encoder: &KeyEncoder) {
        let mut hashed: Vec<([u8; 16], Entry)> = Vec::with_capacity(self.entries.len());
        for chunk in self.entries.chunks(BATCH_ROWS) {
            let encoded = encoder.encode_rows(&self.columns(schema, chunk), chunk.len());
            hashed.extend(chunk.iter().enumerate().map(|(row, entry)| {
                let mut hash = [0; 16];
                hash.copy_from_slice(&blake3::hash(encoded.get(row)).as_bytes()[..16]);
                (hash, *entry)
            }));
        }
        hashed.sort_unstable_by_key(|(hash, entry)| (*hash, entry.part, entry.row));
        self.entries = hashed
            .chunk_by(|(one, _), (two, _)| one == two)
            .map(|equal| Entry {
                weight: equal.iter().map(|(_, entry)| entry.weight).sum(),
                ..equal[0].1
            })
            .filter(|entry| entry.weight != 0)
            .collect();
    }

    fn into_deltas(mut self, schema: &SchemaRef) -> Vec<Delta> {
        self.entries
            .sort_unstable_by_key(|entry| (entry.weight > 0, entry.part, entry.row));
        let mut deltas: Vec<Delta> = self
            .entries
            .chunks(BATCH_ROWS)
            .map(|chunk| {
                let rows = batch(schema.clone(), self.columns(schema, chunk), chunk.len());
                let weights = chunk
                    .iter()
                    .any(|entry| entry.weight != 1)
                    .then(|| Int64Array::from_iter_values(chunk.iter().map(|entry| entry.weight)));
                Delta::new(rows, weights)
            })
            .collect();
        deltas.extend(self.whole.iter().map(|part| {
            let rows = part.rows.rows();
            Delta::inserts(batch(schema.clone(), rows.columns().to_vec(), rows.num_rows()))
        }));
        deltas
    }

    fn columns(&self, schema: &SchemaRef, entries: &[Entry]) -> Vec<ArrayRef> {
        // Only the parts at hand: each has an array for each column.
        let mut numbers: Vec<u32> = entries.iter().map(|entry| entry.part).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let places: Vec<(usize, usize)> = entries
            .iter()
            .map(|entry| {
                let part = numbers
                    .binary_search(&entry.part)
                    .expect("all parts at hand are listed");
                (part, entry.row as usize)
            })
            .collect();
        let column = |number: usize| {
            let arrays: Vec<_> = numbers
                .iter()
                .map(|part| self.parts[*part as usize].rows.rows().column(number).as_ref())
                .collect();
            interleave(&arrays, &places).expect("the parts have one schema, and the rows are theirs")
        };
        (0..schema.fields().len()).map(column).collect()
    }
}

impl Weights {
    /// Whether these are the other's, as far as can be said without looking at each.
    fn is_same(&self, other: &Weights) -> bool {
        match (self, other) {
            (Weights::Ones, Weights::Ones) => true,
            (Weights::Dead(one), Weights::Dead(two)) => Arc::ptr_eq(one, two),
            (Weights::Counts(one), Weights::Counts(two)) => Arc::ptr_eq(one, two),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, RecordBatch, StringArray};
    use arrow::datatypes::{Field, Schema};
    use proptest::prelude::*;

    use super::*;
    use crate::{RowStore, ZSet};

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("id", DataType::Int64, false),
            Field::new("name", DataType::Utf8, true),
        ]))
    }

    fn rows(ids: &[i64]) -> RecordBatch {
        let names: StringArray = ids
            .iter()
            .map(|id| (id % 7 != 0).then(|| format!("n{id}")))
            .collect();
        RecordBatch::try_new(
            schema(),
            vec![Arc::new(Int64Array::from(ids.to_vec())), Arc::new(names)],
        )
        .expect("the columns are those of the schema")
    }

    fn delta(changes: &[(i64, i64)]) -> Delta {
        let ids: Vec<i64> = changes.iter().map(|(id, _)| *id).collect();
        let weights = changes.iter().map(|(_, weight)| Some(*weight)).collect();
        Delta::new(rows(&ids), Some(weights))
    }

    fn all(snapshot: &Arc<RowsSnapshot>) -> Delta {
        Delta::concat(schema(), &snapshot.scan(1000).collect::<Vec<_>>())
    }

    /// The same by the definition.
    fn reference(earlier: &Arc<RowsSnapshot>, later: &Arc<RowsSnapshot>) -> Delta {
        Delta::concat(schema(), &[all(later), all(earlier).negated()]).consolidated()
    }

    fn same(one: &Delta, two: &Delta) -> bool {
        let difference = Delta::concat(schema(), &[one.clone(), two.negated()]);
        difference.consolidated().is_empty()
    }

    #[test]
    fn shared_segments_cost_nothing_and_appended_rows_are_found() {
        let mut store = RowStore::new(schema());
        let ids: Vec<i64> = (0..40_000).collect();
        store.append(&rows(&ids));
        let earlier = store.snapshot();
        assert!(earlier.changes_since(&earlier).is_empty());
        store.append(&rows(&[40_000, 40_001]));
        let later = store.snapshot();
        let changes = later.changes_since(&earlier);
        assert_eq!(changes.len(), 1);
        assert!(same(&changes[0], &Delta::inserts(rows(&[40_000, 40_001]))));
    }

    #[test]
    fn rows_that_go_stand_before_rows_that_come() {
        let mut set = ZSet::new(schema());
        set.apply(&delta(&[(1, 1), (2, 1), (3, 2)]));
        let earlier = set.store().snapshot();
        set.apply(&delta(&[(9, 1), (2, -1), (3, -1)]));
        let changes = set.store().snapshot().changes_since(&earlier);
        let weights: Vec<i64> = (0..3).map(|row| changes[0].weight(row)).collect();
        assert_eq!((changes.len(), changes[0].len()), (1, 3));
        assert_eq!(weights, [-1, -1, 1]);
    }

    #[test]
    fn rows_keep_their_numbers_from_one_segment_on() {
        let mut set = ZSet::new(schema());
        let mut wanted: BTreeMap<i64, i64> = BTreeMap::new();
        let mut earlier = set.store().snapshot();
        // Grows over several segments, and loses enough rows in between to be compacted.
        for round in 0_i64..40 {
            let ids = round * 3_000..(round + 1) * 3_000;
            let mut changes: Vec<(i64, i64)> = ids.map(|id| (id, 1 + id % 2)).collect();
            let dying = wanted
                .iter()
                .filter(|(id, _)| *id % 40 >= round.rem_euclid(20) * 2);
            changes.extend(dying.map(|(id, weight)| (*id, -weight)));
            for (id, weight) in &changes {
                *wanted.entry(*id).or_default() += weight;
            }
            wanted.retain(|_, weight| *weight != 0);
            set.apply(&delta(&changes));
            set.compact_if_due();
            let later = set.store().snapshot();
            let changes = Delta::concat(schema(), &later.changes_since(&earlier));
            assert!(same(&changes, &reference(&earlier, &later)), "round {round}");
            assert_eq!(changes.consolidated().len(), changes.len(), "round {round}");
            let signs: Vec<bool> = (0..changes.len()).map(|row| changes.weight(row) > 0).collect();
            assert!(signs.is_sorted(), "what goes stands first");
            earlier = later;
        }
    }

    #[test]
    fn several_stores_one_after_the_other_are_each_compared_with_themselves() {
        let mut sets = [ZSet::new(schema()), ZSet::new(schema()), ZSet::new(schema())];
        let concat = |sets: &[ZSet]| {
            let snapshots: Vec<_> = sets.iter().map(|set| set.store().snapshot()).collect();
            RowsSnapshot::concat(&snapshots)
        };
        let mut earlier = concat(&sets);
        // One ends with a whole segment at times, one stays small, one is compacted.
        for round in 0_i64..24 {
            let grown = round * 8_192..(round + 1) * 8_192;
            sets[0].apply(&delta(&grown.map(|id| (id * 3, 1)).collect::<Vec<_>>()));
            let small = [(round * 3 + 1, 1), ((round - 5) * 3 + 1, -1)];
            sets[1].apply(&delta(&small[..1 + usize::from(round >= 5)]));
            let came = (round * 5_000..(round + 1) * 5_000).map(|id| (id * 3 + 2, 1));
            let went = ((round - 1).max(0) * 5_000..round * 5_000).map(|id| (id * 3 + 2, -1));
            sets[2].apply(&delta(&came.chain(went).collect::<Vec<_>>()));
            sets[2].compact_if_due();
            let later = concat(&sets);
            let changes = Delta::concat(schema(), &later.changes_since(&earlier));
            assert!(same(&changes, &reference(&earlier, &later)), "round {round}");
            earlier = later;
        }
    }

    #[test]
    fn rows_that_are_only_appended_are_not_copied() {
        let mut store = RowStore::new(schema());
        let ids: Vec<i64> = (0..20_000).collect();
        store.append(&rows(&ids));
        let earlier = store.snapshot();
        store.append(&rows(&(20_000..100_000).collect::<Vec<_>>()));
        let changes = store.snapshot().changes_since(&earlier);
        assert_eq!(changes.iter().map(Delta::len).sum::<usize>(), 80_000);
        let all_changes = Delta::concat(schema(), &changes);
        assert!(same(&all_changes, &reference(&earlier, &store.snapshot())));
    }

    proptest! {
        #[test]
        fn changes_are_the_difference(
            before in prop::collection::vec((0_i64..60, 1_i64..3), 0..80),
            after in prop::collection::vec((0_i64..60, 0_i64..3), 0..80),
        ) {
            let mut set = ZSet::new(schema());
            set.apply(&delta(&before));
            set.compact_if_due();
            let earlier = set.store().snapshot();
            // Each row gets another weight, so that some go.
            let mut wanted: BTreeMap<i64, i64> = BTreeMap::new();
            before.iter().for_each(|(id, weight)| *wanted.entry(*id).or_default() -= weight);
            after.iter().for_each(|(id, weight)| *wanted.entry(*id).or_default() += weight);
            set.apply(&delta(&wanted.into_iter().collect::<Vec<_>>()));
            set.compact_if_due();
            let later = set.store().snapshot();
            let changes = Delta::concat(schema(), &later.changes_since(&earlier));
            prop_assert!(same(&changes, &reference(&earlier, &later)));
            prop_assert_eq!(changes.consolidated().len(), changes.len());
        }
    }
}
