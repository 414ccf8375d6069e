//! A [`Delta`] is a Z-set: rows with weights. +1 inserts a row, -1 retracts it.
//!
//! It is the unit that moves between operators, traces and regions. Without weights every row is an insert,
//! which is the common case of append-only input and costs nothing.
//!
//! Invariants: as many weights as rows; no weight is null. A delta may name the same row several times, and
//! may carry weight 0; only the sum per row means something. [`Delta::consolidated`] is the canonical form.
//!
//! Left out on purpose: schemas are not checked against each other beyond what Arrow itself refuses; a delta
//! is built by code that knows its schema.

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{FilterBuilder, concat_batches, take};
use arrow::datatypes::{DataType, SchemaRef};

use crate::key::{KeyEncoder, sum_equal_rows};

/// Arrow rows with optional `i64` weights; without weights every row is an insert (+1).
///
/// A delta may name the same row several times; only the sum of its weights counts. [`Delta::consolidated`]
/// gives the canonical form. Equality (`==`) compares the representation, not the Z-set: consolidate first.
#[derive(Clone, Debug, PartialEq)]
pub struct Delta {
    rows: RecordBatch,
    weights: Option<Int64Array>,
}

impl Delta {
    /// A delta that inserts each row once.
    pub fn inserts(rows: RecordBatch) -> Self {
        Self { rows, weights: None }
    }

    /// A delta of `rows` with one weight each; absent weights are all +1.
    ///
    /// # Panics
    /// When the number of weights is not the number of rows, or a weight is null.
    pub fn new(rows: RecordBatch, weights: Option<Int64Array>) -> Self {
        if let Some(weights) = &weights {
            assert_eq!(
                weights.len(),
                rows.num_rows(),
                "a delta has as many weights as rows"
            );
            assert_eq!(weights.null_count(), 0, "a delta has no null weights");
        }
        Self { rows, weights }
    }

    /// The delta that changes nothing.
    pub fn empty(schema: SchemaRef) -> Self {
        Self::inserts(RecordBatch::new_empty(schema))
    }

    /// The rows, without their weights.
    pub fn rows(&self) -> &RecordBatch {
        &self.rows
    }

    /// Rows and weights, without a copy.
    pub fn into_parts(self) -> (RecordBatch, Option<Int64Array>) {
        (self.rows, self.weights)
    }

    /// The weights, or `None` when every row is an insert.
    pub fn weights(&self) -> Option<&Int64Array> {
        self.weights.as_ref()
    }

    /// The weight of the row at index `row`.
    pub fn weight(&self, row: usize) -> i64 {
        self.weights.as_ref().map_or(1, |weights| weights.value(row))
    }

    /// The weights, spelled out.
    pub fn weights_or_ones(&self) -> Int64Array {
        match &self.weights {
            Some(weights) => weights.clone(),
            None => Int64Array::from(vec![1; self.len()]),
        }
    }

    /// The schema of the rows.
    pub fn schema(&self) -> SchemaRef {
        self.rows.schema()
    }

    /// The number of entries; not the sum of weights.
    pub fn len(&self) -> usize {
        self.rows.num_rows()
    }

    /// Whether there is no entry at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The delta that undoes this one.
    pub fn negated(&self) -> Self {
        let weights = match &self.weights {
            Some(weights) => weights.unary(|weight: i64| {
                weight
                    .checked_neg()
                    .expect("a weight is a sum of far fewer than 2^63 entries")
            }),
            None => Int64Array::from(vec![-1; self.len()]),
        };
        Self {
            rows: self.rows.clone(),
            weights: Some(weights),
        }
    }

    /// The entries for which `keep` is true; null drops.
    ///
    /// # Panics
    /// When `keep` has another length.
    pub fn filter(&self, keep: &BooleanArray) -> Self {
        assert_eq!(keep.len(), self.len(), "a filter has one verdict per row");
        let filter = FilterBuilder::new(keep).optimize().build();
        let rows = filter
            .filter_record_batch(&self.rows)
            .expect("a filter of the right length applies");
        let weights = self.weights.as_ref().map(|weights| {
            let kept = filter
                .filter(weights)
                .expect("a filter of the right length applies");
            int64(&kept)
        });
        Self { rows, weights }
    }

    /// The entries at the given indices, in that order.
    ///
    /// # Panics
    /// When an index is null or out of bounds.
    pub fn take(&self, rows: &UInt32Array) -> Self {
        assert_eq!(rows.null_count(), 0, "row indices are never null");
        let columns: Vec<ArrayRef> = self
            .rows
            .columns()
            .iter()
            .map(|column| take(column, rows, None).expect("indices lie within the delta"))
            .collect();
        let weights = self
            .weights
            .as_ref()
            .map(|w| int64(&take(w, rows, None).expect("indices lie within the delta")));
        Self {
            rows: batch(self.schema(), columns, rows.len()),
            weights,
        }
    }

    /// The given columns, in that order, with the same weights.
    ///
    /// # Panics
    /// When a column does not exist.
    pub fn project(&self, columns: &[usize]) -> Self {
        let rows = self.rows.project(columns).expect("projected columns exist");
        Self {
            rows,
            weights: self.weights.clone(),
        }
    }

    /// Other columns under the same weights.
    ///
    /// # Panics
    /// When the number of rows differs.
    pub fn with_rows(&self, rows: RecordBatch) -> Self {
        assert_eq!(
            rows.num_rows(),
            self.len(),
            "replaced rows keep their weights one by one"
        );
        Self {
            rows,
            weights: self.weights.clone(),
        }
    }

    /// All entries of `parts`, in order. With one non-empty part nothing is copied.
    ///
    /// # Panics
    /// When a part's column types are not those of `schema`.
    pub fn concat(schema: SchemaRef, parts: &[Delta]) -> Self {
        let parts: Vec<&Delta> = parts.iter().filter(|part| !part.is_empty()).collect();
        match parts.as_slice() {
            [] => Self::empty(schema),
            [only] => (*only).clone(),
            _ => {
                let rows = concat_batches(&schema, parts.iter().map(|part| &part.rows))
                    .expect("the parts of a delta have its schema");
                let weights = parts.iter().any(|part| part.weights.is_some()).then(|| {
                    let ones_and_weights = parts
                        .iter()
                        .flat_map(|part| (0..part.len()).map(|i| part.weight(i)));
                    Int64Array::from_iter_values(ones_and_weights)
                });
                Self { rows, weights }
            }
        }
    }

    /// The canonical form of this Z-set: equal rows summed, zero weights dropped, sorted by the encoded row
    /// (columns in schema order, ascending, nulls first). Weights are absent when all are 1.
    pub fn consolidated(&self) -> Self {
        let types: Vec<DataType> = self
            .schema()
            .fields()
            .iter()
            .map(|field| field.data_type().clone())
            .collect();
        let encoded = KeyEncoder::new(&types).encode_rows(self.rows.columns(), self.len());
        let summed = sum_equal_rows(self.len(), |i| encoded.get(i), |i| self.weight(i));
        let kept = UInt32Array::from_iter_values(summed.iter().map(|(row, _)| *row));
        let weights = summed
            .iter()
            .any(|(_, weight)| *weight != 1)
            .then(|| Int64Array::from_iter_values(summed.iter().map(|(_, weight)| *weight)));
        Self {
            rows: Self::inserts(self.rows.clone()).take(&kept).rows,
            weights,
        }
    }
}

/// A batch of `rows` rows, also when it has no columns.
pub(crate) fn batch(schema: SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> RecordBatch {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema, columns, &options)
        .expect("the columns are those of the schema, without nulls where it forbids them")
}

fn int64(array: &ArrayRef) -> Int64Array {
    let any: &dyn std::any::Any = array.as_ref().as_any();
    any.downcast_ref::<Int64Array>()
        .expect("weights are Int64")
        .clone()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use arrow::array::StringArray;
    use arrow::datatypes::{Field, Schema};
    use proptest::prelude::*;

    use super::*;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("id", DataType::Int64, true),
            Field::new("name", DataType::Utf8, false),
        ]))
    }

    fn delta(entries: &[(Option<i64>, &str, i64)]) -> Delta {
        let ids: Int64Array = entries.iter().map(|(id, _, _)| *id).collect();
        let names: StringArray = entries.iter().map(|(_, name, _)| Some(*name)).collect();
        let rows = RecordBatch::try_new(schema(), vec![Arc::new(ids), Arc::new(names)]).expect("valid");
        Delta::new(
            rows,
            Some(entries.iter().map(|(_, _, weight)| Some(*weight)).collect()),
        )
    }

    fn entries(delta: &Delta) -> Vec<(Option<i64>, String, i64)> {
        let ids = int64(delta.rows().column(0));
        let names = delta.rows().column(1).clone();
        let names = names.as_any().downcast_ref::<StringArray>().expect("utf8");
        (0..delta.len())
            .map(|i| {
                (
                    ids.is_valid(i).then(|| ids.value(i)),
                    names.value(i).to_string(),
                    delta.weight(i),
                )
            })
            .collect()
    }

    #[test]
    fn consolidation_sums_drops_and_sorts() {
        let found = delta(&[
            (Some(2), "b", 1),
            (Some(1), "a", -1),
            (None, "z", 1),
            (Some(1), "a", 1),
        ]);
        let consolidated = found.consolidated();
        assert_eq!(
            entries(&consolidated),
            vec![(None, "z".into(), 1), (Some(2), "b".into(), 1)]
        );
        assert!(consolidated.weights().is_none());
    }

    #[test]
    fn rows_without_columns_still_count() {
        let rows = batch(Arc::new(Schema::empty()), vec![], 3);
        let consolidated = Delta::inserts(rows.clone()).consolidated();
        assert_eq!((consolidated.len(), consolidated.weight(0)), (1, 3));
        let kept = Delta::inserts(rows).filter(&BooleanArray::from(vec![Some(true), None, Some(false)]));
        assert_eq!(kept.len(), 1);
        assert_eq!(Delta::concat(kept.schema(), &[kept.clone(), kept]).len(), 2);
    }

    #[test]
    fn filter_take_project_and_negate_keep_weights_with_their_rows() {
        let all = delta(&[(Some(1), "a", 5), (Some(2), "b", -2), (None, "c", 1)]);
        let filtered = all.filter(&BooleanArray::from(vec![Some(false), Some(true), None]));
        assert_eq!(entries(&filtered), vec![(Some(2), "b".into(), -2)]);
        let taken = all.take(&UInt32Array::from(vec![2, 0])).negated();
        assert_eq!(
            entries(&taken),
            vec![(None, "c".into(), -1), (Some(1), "a".into(), -5)]
        );
        assert_eq!(all.project(&[1]).weight(0), 5);
    }

    proptest! {
        #[test]
        fn consolidated_is_the_sum_per_row(
            parts in prop::collection::vec(prop::collection::vec((prop::option::of(0i64..4), "[ab]{0,1}", -2i64..3), 0..12), 0..4)
        ) {
            let mut expected: BTreeMap<(Option<i64>, String), i64> = BTreeMap::new();
            let mut deltas = Vec::new();
            for part in &parts {
                let rows: Vec<(Option<i64>, &str, i64)> = part.iter().map(|(i, n, w)| (*i, n.as_str(), *w)).collect();
                deltas.push(delta(&rows));
                for (id, name, weight) in part {
                    *expected.entry((*id, name.clone())).or_default() += weight;
                }
            }
            let expected: Vec<_> = expected.into_iter().filter(|(_, w)| *w != 0).map(|((i, n), w)| (i, n, w)).collect();
            let all = Delta::concat(schema(), &deltas);
            prop_assert_eq!(entries(&all.consolidated()), expected);
            prop_assert!(Delta::concat(schema(), &[all.clone(), all.negated()]).consolidated().is_empty());
        }
    }
}
