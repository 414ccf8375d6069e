//! count: the number of rows, or of non-null values. Its partial is the number itself.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array};

use super::{Damaged, values_of};

/// The counts of several groups.
#[derive(Clone, Debug)]
pub(crate) struct Counts(pub(crate) Vec<i64>);

impl Counts {
    pub(crate) fn new(groups: usize) -> Self {
        Self(vec![0; groups])
    }

    /// Counts non-null values; without a column, rows.
    pub(crate) fn add_rows(&mut self, groups: &[u32], values: Option<&ArrayRef>, weights: &[i64]) {
        for (row, (group, weight)) in groups.iter().zip(weights).enumerate() {
            if values.is_none_or(|values| values.is_valid(row)) {
                self.0[*group as usize] += weight;
            }
        }
    }

    pub(crate) fn add_partials(&mut self, groups: &[u32], column: &ArrayRef, damaged: &mut Damaged) {
        let Some(counts) = values_of(column, groups, damaged) else {
            return;
        };
        for (group, count) in groups.iter().zip(counts) {
            self.0[*group as usize] = self.0[*group as usize].wrapping_add(*count);
        }
    }

    pub(crate) fn column(&self) -> ArrayRef {
        Arc::new(Int64Array::from(self.0.clone()))
    }
}
