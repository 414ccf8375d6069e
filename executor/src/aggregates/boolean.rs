//! bool_and and bool_or: how many values are true and how many are false decide both, and can be retracted.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray};

use super::Damaged;
use super::count::Counts;
use crate::columns::downcast;

/// True and false values of several groups.
#[derive(Clone, Debug)]
pub(crate) struct Truths {
    trues: Counts,
    falses: Counts,
}

impl Truths {
    pub(crate) fn new(groups: usize) -> Self {
        Self {
            trues: Counts::new(groups),
            falses: Counts::new(groups),
        }
    }

    pub(crate) fn grow(&mut self, groups: usize) {
        self.trues.grow(groups);
        self.falses.grow(groups);
    }

    pub(crate) fn gather(&self, groups: &[u32]) -> Self {
        Self {
            trues: self.trues.gather(groups),
            falses: self.falses.gather(groups),
        }
    }

    pub(crate) fn add_rows(&mut self, groups: &[u32], values: &ArrayRef, weights: Option<&[i64]>) {
        let values = downcast::<BooleanArray>(values);
        for (row, group) in groups.iter().enumerate() {
            if values.is_valid(row) {
                let counts = if values.value(row) {
                    &mut self.trues
                } else {
                    &mut self.falses
                };
                counts.0[*group as usize] += weights.map_or(1, |weights| weights[row]);
            }
        }
    }

    pub(crate) fn add_partials(&mut self, groups: &[u32], columns: &[ArrayRef], damaged: &mut Damaged) {
        self.trues.add_partials(groups, &columns[0], damaged);
        self.falses.add_partials(groups, &columns[1], damaged);
    }

    pub(crate) fn columns(&self) -> Vec<ArrayRef> {
        vec![self.trues.column(), self.falses.column()]
    }

    /// Null where there is no value; `all` asks for bool_and.
    pub(crate) fn results(&self, all: bool) -> ArrayRef {
        let pairs = self.trues.0.iter().zip(&self.falses.0);
        let result = |(trues, falses): (&i64, &i64)| match (*trues, *falses) {
            (0, 0) => None,
            (_, falses) if all => Some(falses == 0),
            (trues, _) => Some(trues != 0),
        };
        Arc::new(pairs.map(result).collect::<BooleanArray>())
    }
}
