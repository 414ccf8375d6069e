//! Where rows are computed: a view's rows are divided among partitions, each with state of its own.
//!
//! Invariant: all rows that one operator must see together are in one partition; a row that goes finds the partition
//! of the row that came. Hashes decide, so the division is the same after a restart, for as long as the number of
//! partitions is the same; and no result depends on it.

use arrow::array::{ArrayRef, BooleanArray, Int64Array};
use arrow::buffer::BooleanBuffer;
use tributary_planner::plan::Expr;
use tributary_storage::{Delta, hash_rows};

use crate::canonical::canonical;
use crate::error::{ExecutorError, Result};
use crate::operators::projected;

/// Which partition a row belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Placement {
    /// Any: whoever has rows keeps them, and rows from outside are divided by their position.
    Any,
    /// That of the hash of these columns.
    Keys(Vec<usize>),
    /// The first.
    One,
}

impl Placement {
    /// The same division, seen from rows that consist of the columns at `keys`.
    ///
    /// # Errors
    /// When rows that are equal there may be in different partitions.
    pub(crate) fn among(&self, keys: &[usize]) -> Result<Self> {
        let place = |column: &usize| keys.iter().position(|key| key == column);
        let places = match self {
            Self::One => return Ok(Self::One),
            Self::Keys(columns) => columns.iter().map(place).collect::<Option<Vec<_>>>(),
            Self::Any => None,
        };
        let divided = || ExecutorError::Plan(format!("rows with equal {keys:?} are divided as {self:?}"));
        Ok(Self::Keys(places.ok_or_else(divided)?))
    }

    /// How a projection's rows are divided when its input is divided like this.
    pub(crate) fn after_projection(&self, expressions: &[Expr]) -> Self {
        let Self::Keys(columns) = self else {
            return self.clone();
        };
        projected(columns, expressions).map_or(Self::Any, Self::Keys)
    }

    /// How a projection's input must be divided for its rows to be divided like this; `None` when a column that
    /// decides is computed.
    pub(crate) fn before_projection(&self, expressions: &[Expr]) -> Option<Self> {
        let Self::Keys(columns) = self else {
            return Some(self.clone());
        };
        let below = |column: &usize| match expressions[*column] {
            Expr::Column(below) => Some(below),
            _ => None,
        };
        columns.iter().map(below).collect::<Option<_>>().map(Self::Keys)
    }
}

/// One of several partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    /// Its number.
    pub(crate) number: usize,
    /// How many there are.
    pub(crate) of: usize,
}

impl Share {
    /// Everything is in one partition.
    pub(crate) const ALL: Self = Self { number: 0, of: 1 };

    /// The rows of this partition.
    pub(crate) fn of_delta(self, delta: &Delta, placement: &Placement) -> Delta {
        if self.of == 1 {
            return delta.clone();
        }
        match placement {
            Placement::One if self.number == 0 => delta.clone(),
            Placement::One => Delta::empty(delta.schema()),
            Placement::Any => {
                let bound = |number: usize| delta.len() * number / self.of;
                let (start, end) = (bound(self.number), bound(self.number + 1));
                let weights = |weights: &Int64Array| weights.slice(start, end - start);
                Delta::new(
                    delta.rows().slice(start, end - start),
                    delta.weights().map(weights),
                )
            }
            Placement::Keys(columns) => {
                let keys: Vec<ArrayRef> = columns
                    .iter()
                    .map(|column| canonical(delta.rows().column(*column)))
                    .collect();
                let hashes = hash_rows(&keys, delta.len());
                let own = BooleanBuffer::collect_bool(delta.len(), |row| self.owns(hashes[row]));
                delta.filter(&BooleanArray::new(own, None))
            }
        }
    }

    /// The high bits decide: hash tables use the low ones.
    fn owns(self, hash: u64) -> bool {
        (u128::from(hash) * self.of as u128) >> 64 == self.number as u128
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use arrow::array::Float64Array;
    use arrow::datatypes::DataType;

    use super::*;
    use crate::columns::{batch_of, schema_of};

    #[test]
    fn every_row_is_in_one_partition_and_equal_keys_are_together() {
        let keys = (0..1000).map(|i| f64::from(i % 50) * if i % 3 == 0 { -0.0 } else { 1.0 });
        let keys: ArrayRef = std::sync::Arc::new(Float64Array::from_iter_values(keys));
        let rows = batch_of(schema_of(&[DataType::Float64]), vec![keys], 1000);
        let delta = Delta::new(rows, Some(Int64Array::from_iter_values(1..=1000)));
        for placement in [Placement::Any, Placement::Keys(vec![0]), Placement::One] {
            let mut seen = BTreeSet::new();
            let mut together = BTreeSet::new();
            for number in 0..3 {
                let part = Share { number, of: 3 }.of_delta(&delta, &placement);
                let values = part.rows().column(0).clone();
                let values = crate::columns::downcast::<Float64Array>(&values);
                for row in 0..part.len() {
                    assert!(seen.insert(part.weight(row)), "a row is in two partitions");
                    together.insert((format!("{:?}", values.value(row) + 0.0), number));
                }
                if placement == Placement::Keys(vec![0]) {
                    assert!(part.len() > 100, "hashes spread: {}", part.len());
                }
            }
            assert_eq!(seen.len(), 1000);
            if placement == Placement::Keys(vec![0]) {
                let keys: BTreeSet<_> = together.iter().map(|(key, _)| key).collect();
                assert_eq!(keys.len(), together.len(), "a key is in two partitions");
            }
        }
    }
}
