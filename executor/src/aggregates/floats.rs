//! sum and avg of floats: one exact accumulator per group, see [`super::float_sum`].

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BinaryArray, Float32Array, Float64Array};
use arrow::datatypes::DataType;

use super::float_sum::{FloatSum, Precision};
use super::{Damaged, Message, Results};
use crate::columns::downcast;

/// The float sums of several groups.
#[derive(Clone, Debug)]
pub(crate) struct FloatSums(Vec<FloatSum>);

impl FloatSums {
    pub(crate) fn new(groups: usize) -> Self {
        Self(vec![FloatSum::default(); groups])
    }

    pub(crate) fn grow(&mut self, groups: usize) {
        self.0.resize(groups, FloatSum::default());
    }

    pub(crate) fn gather(&self, groups: &[u32]) -> Self {
        Self(
            groups
                .iter()
                .map(|group| self.0[*group as usize].clone())
                .collect(),
        )
    }

    pub(crate) fn add_rows(&mut self, groups: &[u32], values: &ArrayRef, weights: Option<&[i64]>) {
        let weight = |row: usize| weights.map_or(1, |weights| weights[row]);
        let mut add = |row: usize, value: f64| self.0[groups[row] as usize].add(value, weight(row));
        match values.data_type() {
            DataType::Float32 => {
                let values = downcast::<Float32Array>(values);
                (0..values.len())
                    .filter(|i| values.is_valid(*i))
                    .for_each(|i| add(i, values.value(i).into()));
            }
            _ => {
                let values = downcast::<Float64Array>(values);
                (0..values.len())
                    .filter(|i| values.is_valid(*i))
                    .for_each(|i| add(i, values.value(i)));
            }
        }
    }

    pub(crate) fn add_partials(&mut self, groups: &[u32], column: &ArrayRef, damaged: &mut Damaged) {
        let encoded = downcast::<BinaryArray>(column);
        for (row, group) in groups.iter().enumerate() {
            let decoded = encoded
                .is_valid(row)
                .then(|| FloatSum::decode(encoded.value(row)))
                .flatten();
            match decoded {
                Some(sum) => self.0[*group as usize].merge(&sum),
                None => damaged.note(*group),
            }
        }
    }

    pub(crate) fn column(&self) -> ArrayRef {
        Arc::new(BinaryArray::from_iter_values(self.0.iter().map(FloatSum::encode)))
    }

    pub(crate) fn sums(&self, output: &DataType) -> Results {
        match output {
            DataType::Float32 => self.results(output, |sum| sum.sum(Precision::Single)),
            _ => self.results(output, |sum| sum.sum(Precision::Double)),
        }
    }

    pub(crate) fn averages(&self) -> Results {
        self.results(&DataType::Float64, FloatSum::average)
    }

    fn results(
        &self,
        output: &DataType,
        result: impl Fn(&FloatSum) -> Result<Option<f64>, Message>,
    ) -> Results {
        let mut failed = Vec::new();
        let results: Vec<Option<f64>> = self
            .0
            .iter()
            .enumerate()
            .map(|(group, sum)| {
                result(sum)
                    .map_err(|message| failed.push((group, message)))
                    .ok()
                    .flatten()
            })
            .collect();
        let column: ArrayRef = match output {
            // The value was rounded to single precision, so narrowing is exact.
            DataType::Float32 => Arc::new(
                results
                    .into_iter()
                    .map(|r| r.map(|v| v as f32))
                    .collect::<Float32Array>(),
            ),
            _ => Arc::new(Float64Array::from(results)),
        };
        Results { column, failed }
    }
}
