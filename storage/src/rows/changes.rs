//! What changed between two snapshots, found from what they do not share.
//!
//! ```text
//!   earlier  [ A ][ B ][ C ][tail ]          A, C shared with equal weights: skipped
//!   later    [ A ][ B'][ C ][ D ][tail']     B' the same rows weighed otherwise: only those rows
//!                                            tails, D: all rows, equal ones cancel out
//! ```
//! A store seals segments and never changes their rows, so two snapshots of it share most of them. What is left is
//! summed by the hash of each row (128 bits of BLAKE3 over its encoding): memory is 32 bytes for a row that is not
//! shared, and no rows are copied but those that changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use arrow::compute::interleave;
use arrow::datatypes::{DataType, SchemaRef};

use super::RowsSnapshot;
use super::snapshot::Part;
use super::weights::Weights;
use crate::delta::batch;
use crate::{Delta, KeyEncoder};

/// Rows of a batch of changes.
const BATCH_ROWS: usize = 16_384;

/// A row that one of the snapshots has more often than the other.
struct Entry {
    hash: [u8; 16],
    part: u32,
    row: u32,
    weight: i64,
}

impl RowsSnapshot {
    /// What has to be added to an earlier snapshot to get this one: deltas without equal rows, those that go before
    /// those that come. The earlier one need not be of the same store, only of the same types.
    pub fn changes_since(&self, earlier: &RowsSnapshot) -> Vec<Delta> {
        let types: Vec<DataType> = self
            .schema()
            .fields()
            .iter()
            .map(|field| field.data_type().clone())
            .collect();
        let mut unshared = Unshared {
            encoder: KeyEncoder::new(&types),
            parts: Vec::new(),
            entries: Vec::new(),
        };
        let mut left: BTreeMap<usize, &Part> =
            earlier.all_parts().map(|part| (address(part), part)).collect();
        for part in self.all_parts() {
            match left.remove(&address(part)) {
                Some(before) if before.weights.is_same(&part.weights) && before.start == part.start => {}
                Some(before) => unshared.add(part, |row| weight(part, row) - weight(before, row)),
                None => unshared.add(part, |row| weight(part, row)),
            }
        }
        for part in left.into_values() {
            unshared.add(part, |row| -weight(part, row));
        }
        unshared.summed(self.schema())
    }
}

/// What tells segments apart. Both snapshots hold theirs, so an address is not used twice.
fn address(part: &Part) -> usize {
    Arc::as_ptr(&part.rows).addr()
}

fn weight(part: &Part, row: usize) -> i64 {
    part.weights.get(part.start + row)
}

struct Unshared<'a> {
    encoder: KeyEncoder,
    parts: Vec<&'a Part>,
    entries: Vec<Entry>,
}

impl<'a> Unshared<'a> {
    fn add(&mut self, part: &'a Part, weight: impl Fn(usize) -> i64) {
        let rows = part.rows.rows();
        let number = u32::try_from(self.parts.len()).expect("a store holds fewer than 2^32 rows");
        let encoded = self.encoder.encode_rows(rows.columns(), rows.num_rows());
        for row in 0..rows.num_rows() {
            let weight = weight(row);
            if weight == 0 {
                continue;
            }
            let mut hash = [0; 16];
            hash.copy_from_slice(&blake3::hash(encoded.get(row)).as_bytes()[..16]);
            self.entries.push(Entry {
                hash,
                part: number,
                row: u32::try_from(row).expect("a segment holds fewer than 2^32 rows"),
                weight,
            });
        }
        self.parts.push(part);
    }

    /// Entries of equal rows made one, in the order in which their rows stand.
    fn summed(mut self, schema: &SchemaRef) -> Vec<Delta> {
        self.entries
            .sort_unstable_by_key(|entry| (entry.hash, entry.part, entry.row));
        let mut summed: Vec<Entry> = Vec::new();
        for entry in std::mem::take(&mut self.entries) {
            match summed.last_mut() {
                Some(last) if last.hash == entry.hash => last.weight += entry.weight,
                _ => {
                    if summed.last().is_some_and(|last| last.weight == 0) {
                        summed.pop();
                    }
                    summed.push(entry);
                }
            }
        }
        summed.retain(|entry| entry.weight != 0);
        summed.sort_unstable_by_key(|entry| (entry.weight > 0, entry.part, entry.row));
        summed
            .chunks(BATCH_ROWS)
            .map(|chunk| self.gathered(schema, chunk))
            .collect()
    }

    fn gathered(&self, schema: &SchemaRef, entries: &[Entry]) -> Delta {
        let places: Vec<(usize, usize)> = entries
            .iter()
            .map(|entry| (entry.part as usize, entry.row as usize))
            .collect();
        let column = |number: usize| -> ArrayRef {
            let arrays: Vec<_> = self
                .parts
                .iter()
                .map(|part| part.rows.rows().column(number).as_ref())
                .collect();
            interleave(&arrays, &places).expect("the parts have one schema, and the rows are theirs")
        };
        let columns = (0..schema.fields().len()).map(column).collect();
        let rows = batch(schema.clone(), columns, entries.len());
        let weights = entries
            .iter()
            .any(|entry| entry.weight != 1)
            .then(|| Int64Array::from_iter_values(entries.iter().map(|entry| entry.weight)));
        Delta::new(rows, weights)
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
