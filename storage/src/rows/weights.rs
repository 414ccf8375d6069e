//! The weights of one segment's rows, as small as they can be.

use std::sync::Arc;

use arrow::array::{BooleanArray, Int64Array};
use arrow::buffer::BooleanBuffer;

/// Weights of the rows of a segment; rows beyond those written have the weight 1.
#[derive(Clone, Debug, Default)]
pub(super) enum Weights {
    /// Every row has the weight 1.
    #[default]
    Ones,
    /// A set bit: the weight 0; otherwise 1.
    Dead(Arc<Vec<u64>>),
    /// The weights themselves.
    Counts(Arc<Vec<i64>>),
}

impl Weights {
    /// These weights of the first rows of a segment; `rows` is the size of a full one.
    pub(super) fn of(weights: &[i64], rows: usize) -> Self {
        if weights.iter().all(|weight| *weight == 1) {
            return Self::Ones;
        }
        if weights.iter().all(|weight| matches!(weight, 0 | 1)) {
            let mut bits = vec![0; rows.div_ceil(64)];
            let dead = weights.iter().enumerate().filter(|(_, weight)| **weight == 0);
            dead.for_each(|(row, _)| bits[row / 64] |= 1 << (row % 64));
            return Self::Dead(Arc::new(bits));
        }
        let mut counts = weights.to_vec();
        counts.resize(rows, 1);
        Self::Counts(Arc::new(counts))
    }

    pub(super) fn get(&self, row: usize) -> i64 {
        match self {
            Self::Ones => 1,
            Self::Dead(bits) => i64::from(bits[row / 64] >> (row % 64) & 1 == 0),
            Self::Counts(counts) => counts[row],
        }
    }

    /// Sets a weight; `rows` is the size of a full segment.
    pub(super) fn set(&mut self, row: usize, weight: i64, rows: usize) {
        match (&mut *self, weight) {
            (Self::Ones, 1) => {}
            (Self::Ones, _) => {
                *self = if weight == 0 {
                    Self::Dead(Arc::new(vec![0; rows.div_ceil(64)]))
                } else {
                    Self::Counts(Arc::new(vec![1; rows]))
                };
                self.set(row, weight, rows);
            }
            (Self::Dead(bits), 0) => Arc::make_mut(bits)[row / 64] |= 1 << (row % 64),
            (Self::Dead(bits), 1) => Arc::make_mut(bits)[row / 64] &= !(1 << (row % 64)),
            (Self::Dead(_), _) => {
                let counts = (0..rows).map(|row| self.get(row)).collect();
                *self = Self::Counts(Arc::new(counts));
                self.set(row, weight, rows);
            }
            (Self::Counts(counts), _) => Arc::make_mut(counts)[row] = weight,
        }
    }

    /// Which of `len` rows from `start` have a weight that is not zero; `None` when all have the weight 1.
    pub(super) fn live(&self, start: usize, len: usize) -> Option<BooleanArray> {
        if matches!(self, Self::Ones) {
            return None;
        }
        let live = BooleanBuffer::collect_bool(len, |row| self.get(start + row) != 0);
        Some(BooleanArray::new(live, None))
    }

    /// The weights of `len` rows from `start`; `None` when each is 0 or 1.
    pub(super) fn counts(&self, start: usize, len: usize) -> Option<Int64Array> {
        match self {
            Self::Counts(counts) => Some(Int64Array::from(counts[start..start + len].to_vec())),
            _ => None,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Ones => 0,
            Self::Dead(bits) => bits.len() * 8,
            Self::Counts(counts) => counts.len() * 8,
        }
    }
}
