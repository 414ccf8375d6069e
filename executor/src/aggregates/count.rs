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

    /// Makes room for `groups` groups; new ones count nothing.
    pub(crate) fn grow(&mut self, groups: usize) {
        self.0.resize(groups, 0);
    }

    /// The counts of some groups.
    pub(crate) fn gather(&self, groups: &[u32]) -> Self {
        Self(groups.iter().map(|group| self.0[*group as usize]).collect())
    }

    /// Counts non-null values; without a column, rows. Without weights each row counts once.
    pub(crate) fn add_rows(&mut self, groups: &[u32], values: Option<&ArrayRef>, weights: Option<&[i64]>) {
        let nulls = values
            .and_then(|values| values.nulls())
            .filter(|nulls| nulls.null_count() > 0);
        match (nulls, weights) {
            (None, None) => groups.iter().for_each(|group| self.0[*group as usize] += 1),
            (None, Some(weights)) => {
                for (group, weight) in groups.iter().zip(weights) {
                    self.0[*group as usize] += weight;
                }
            }
            (Some(nulls), _) => {
                for (row, group) in groups.iter().enumerate() {
                    if nulls.is_valid(row) {
                        self.0[*group as usize] += weights.map_or(1, |weights| weights[row]);
                    }
                }
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
