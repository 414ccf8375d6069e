//! sum and avg of integers and decimals: an exact integer sum and the number of non-null values.
//!
//! A sum of `int8` fits 128 bits whatever happens. A sum of decimals of 38 digits may pass beyond them and come
//! back by retraction, so decimals carry a high word: a partial is never out of range, only a result is.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, Decimal128Array, Int64Array, PrimitiveArray};
use arrow::datatypes::{DataType, Decimal128Type, DecimalType, Int16Type, Int32Type, Int64Type};

use super::count::Counts;
use super::{Damaged, Message, Results, values_of};
use crate::columns::downcast;

/// Digits after the point of an average, at least.
pub(crate) const AVERAGE_SCALE_MIN: i8 = 16;

/// A signed integer of 192 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Wide {
    low: u128,
    high: i64,
}

impl Wide {
    fn from_i128(value: i128) -> Self {
        Self {
            low: value as u128,
            high: if value < 0 { -1 } else { 0 },
        }
    }

    fn plus(self, other: Self) -> Self {
        let (low, carry) = self.low.overflowing_add(other.low);
        Self {
            low,
            high: self.high.wrapping_add(other.high).wrapping_add(i64::from(carry)),
        }
    }

    /// `value * weight`, exactly.
    fn product(value: i128, weight: i64) -> Self {
        let (magnitude, factor) = (value.unsigned_abs(), u128::from(weight.unsigned_abs()));
        let low = (magnitude & u128::from(u64::MAX)) * factor;
        let high = (magnitude >> 64) * factor;
        let sum = Self { low, high: 0 }.plus(Self {
            low: high << 64,
            high: (high >> 64) as i64,
        });
        if (value < 0) != (weight < 0) {
            sum.negated()
        } else {
            sum
        }
    }

    fn negated(self) -> Self {
        Self {
            low: !self.low,
            high: !self.high,
        }
        .plus(Self { low: 1, high: 0 })
    }

    fn to_i128(self) -> Option<i128> {
        let value = self.low as i128;
        (Self::from_i128(value) == self).then_some(value)
    }

    /// The absolute value's quotient and remainder, and whether this is negative.
    fn divide(self, divisor: u64) -> (Wide, u64, bool) {
        let negative = self.high < 0;
        let magnitude = if negative { self.negated() } else { self };
        let words = [
            magnitude.high as u64,
            (magnitude.low >> 64) as u64,
            magnitude.low as u64,
        ];
        let mut rest = 0u64;
        let quotient = words.map(|word| {
            let part = u128::from(rest) << 64 | u128::from(word);
            rest = (part % u128::from(divisor)) as u64;
            (part / u128::from(divisor)) as u64
        });
        let low = u128::from(quotient[1]) << 64 | u128::from(quotient[2]);
        (
            Wide {
                low,
                high: quotient[0] as i64,
            },
            rest,
            negative,
        )
    }
}

/// The sums of several groups.
#[derive(Clone, Debug)]
pub(crate) struct Sums {
    totals: Totals,
    counts: Counts,
    /// Scale of the values; `None` for integers, whose partial has no high word.
    scale: Option<i8>,
}

#[derive(Clone, Debug)]
enum Totals {
    /// Of integers: 2^63 of them fit.
    Integer(Vec<i128>),
    /// Of decimals.
    Wide(Vec<Wide>),
}

impl Totals {
    fn iter(&self) -> Box<dyn Iterator<Item = Wide> + '_> {
        match self {
            Self::Integer(sums) => Box::new(sums.iter().map(|sum| Wide::from_i128(*sum))),
            Self::Wide(sums) => Box::new(sums.iter().copied()),
        }
    }
}

/// The partial's columns for an argument of this type.
pub(crate) fn partial_types(argument: &DataType) -> Vec<DataType> {
    match argument {
        DataType::Decimal128(_, scale) => {
            vec![DataType::Decimal128(38, *scale), DataType::Int64, DataType::Int64]
        }
        _ => vec![DataType::Decimal128(38, 0), DataType::Int64],
    }
}

impl Sums {
    pub(crate) fn new(groups: usize, argument: &DataType) -> Self {
        let scale = match argument {
            DataType::Decimal128(_, scale) => Some(*scale),
            _ => None,
        };
        let totals = match scale {
            None => Totals::Integer(vec![0; groups]),
            Some(_) => Totals::Wide(vec![Wide::default(); groups]),
        };
        Self {
            totals,
            counts: Counts::new(groups),
            scale,
        }
    }

    pub(crate) fn grow(&mut self, groups: usize) {
        match &mut self.totals {
            Totals::Integer(sums) => sums.resize(groups, 0),
            Totals::Wide(sums) => sums.resize(groups, Wide::default()),
        }
        self.counts.grow(groups);
    }

    pub(crate) fn gather(&self, groups: &[u32]) -> Self {
        let totals = match &self.totals {
            Totals::Integer(sums) => Totals::Integer(groups.iter().map(|g| sums[*g as usize]).collect()),
            Totals::Wide(sums) => Totals::Wide(groups.iter().map(|g| sums[*g as usize]).collect()),
        };
        Self {
            totals,
            counts: self.counts.gather(groups),
            scale: self.scale,
        }
    }

    pub(crate) fn add_rows(&mut self, groups: &[u32], values: &ArrayRef, weights: Option<&[i64]>) {
        match &mut self.totals {
            Totals::Integer(sums) => match values.data_type() {
                DataType::Int16 => add_integers::<Int16Type>(sums, groups, values, weights),
                DataType::Int32 => add_integers::<Int32Type>(sums, groups, values, weights),
                _ => add_integers::<Int64Type>(sums, groups, values, weights),
            },
            Totals::Wide(sums) => {
                let values = downcast::<Decimal128Array>(values);
                for row in (0..values.len()).filter(|row| values.is_valid(*row)) {
                    let weight = weights.map_or(1, |weights| weights[row]);
                    let sum = &mut sums[groups[row] as usize];
                    *sum = sum.plus(Wide::product(values.value(row), weight));
                }
            }
        }
        self.counts.add_rows(groups, Some(values), weights);
    }

    pub(crate) fn add_partials(&mut self, groups: &[u32], columns: &[ArrayRef], damaged: &mut Damaged) {
        let (lows, counts) = (&columns[0], &columns[columns.len() - 1]);
        damaged.note_nulls(lows, groups);
        let lows = downcast::<Decimal128Array>(lows);
        match &mut self.totals {
            Totals::Integer(sums) => {
                for (row, group) in groups.iter().enumerate() {
                    let sum = &mut sums[*group as usize];
                    match sum.checked_add(lows.value(row)) {
                        Some(added) => *sum = added,
                        // No honest sums of 64-bit integers come near this.
                        None => damaged.note(*group),
                    }
                }
            }
            Totals::Wide(sums) => {
                let Some(highs) = values_of(&columns[1], groups, damaged) else {
                    return;
                };
                for (row, group) in groups.iter().enumerate() {
                    let sum = &mut sums[*group as usize];
                    *sum = sum.plus(Wide {
                        low: lows.value(row) as u128,
                        high: highs[row],
                    });
                }
            }
        }
        self.counts.add_partials(groups, counts, damaged);
    }

    pub(crate) fn columns(&self) -> Vec<ArrayRef> {
        let lows = Decimal128Array::from_iter_values(self.totals.iter().map(|sum| sum.low as i128));
        let lows = lows
            .with_precision_and_scale(38, self.scale.unwrap_or(0))
            .expect("a scale of at most 38");
        let mut columns: Vec<ArrayRef> = vec![Arc::new(lows)];
        if self.scale.is_some() {
            columns.push(Arc::new(Int64Array::from_iter_values(
                self.totals.iter().map(|sum| sum.high),
            )));
        }
        columns.push(self.counts.column());
        columns
    }

    /// The sums as `output`; null where there is no value.
    pub(crate) fn sums(&self, output: &DataType) -> Results {
        let mut failed = Vec::new();
        let sums: Vec<Option<i128>> = self
            .each(&mut failed, |sum, _| {
                let fits = |value: &i128| match output {
                    DataType::Int64 => i64::try_from(*value).is_ok(),
                    _ => Decimal128Type::is_valid_decimal_precision(*value, 38),
                };
                sum.to_i128().filter(fits).ok_or_else(|| match output {
                    DataType::Int64 => "bigint out of range".to_string(),
                    _ => "value overflows numeric format".to_string(),
                })
            })
            .collect();
        let column: ArrayRef = match output {
            DataType::Int64 => {
                let narrow =
                    |sum: Option<i128>| sum.map(|v| i64::try_from(v).expect("the range was checked"));
                Arc::new(sums.into_iter().map(narrow).collect::<Int64Array>())
            }
            _ => decimals(sums, self.scale.unwrap_or(0)),
        };
        Results { column, failed }
    }

    /// The averages, rounded half away from zero; null where there is no value.
    pub(crate) fn averages(&self) -> Results {
        let scale = self.scale.unwrap_or(0);
        let output_scale = scale.max(AVERAGE_SCALE_MIN);
        let factor = 10i128.pow((output_scale - scale).unsigned_abs().into());
        let mut failed = Vec::new();
        let averages: Vec<Option<i128>> = self
            .each(&mut failed, |sum, count| average(sum, count, factor))
            .collect();
        Results {
            column: decimals(averages, output_scale),
            failed,
        }
    }

    fn each<'a>(
        &'a self,
        failed: &'a mut Vec<(usize, Message)>,
        result: impl Fn(Wide, i64) -> Result<i128, Message> + 'a,
    ) -> impl Iterator<Item = Option<i128>> + 'a {
        self.totals
            .iter()
            .zip(&self.counts.0)
            .enumerate()
            .map(move |(group, (sum, count))| match *count {
                0 => None,
                count => result(sum, count)
                    .map_err(|message| failed.push((group, message)))
                    .ok(),
            })
    }
}

/// Adds weighted integers to the sums of their groups.
fn add_integers<T: ArrowPrimitiveType>(
    sums: &mut [i128],
    groups: &[u32],
    values: &ArrayRef,
    weights: Option<&[i64]>,
) where
    T::Native: Into<i128>,
{
    let values = downcast::<PrimitiveArray<T>>(values);
    let mut add = |row: usize, value: T::Native| {
        let weight = weights.map_or(1, |weights| weights[row]);
        sums[groups[row] as usize] += value.into() * i128::from(weight);
    };
    match values.nulls() {
        None => values
            .values()
            .iter()
            .enumerate()
            .for_each(|(row, value)| add(row, *value)),
        Some(nulls) => nulls.valid_indices().for_each(|row| add(row, values.value(row))),
    }
}

fn decimals(values: Vec<Option<i128>>, scale: i8) -> ArrayRef {
    let column: Decimal128Array = values.into_iter().collect();
    Arc::new(
        column
            .with_precision_and_scale(38, scale)
            .expect("a scale of at most 38"),
    )
}

/// `sum * factor / count`, rounded half away from zero.
fn average(sum: Wide, count: i64, factor: i128) -> Result<i128, Message> {
    let out_of_range = || "value overflows numeric format".to_string();
    let divisor =
        u64::try_from(count).map_err(|_| "an average over a negative number of rows".to_string())?;
    let (quotient, rest, negative) = sum.divide(divisor);
    let whole = quotient
        .to_i128()
        .and_then(|q| q.checked_mul(factor))
        .ok_or_else(out_of_range)?;
    // The remainder is below 2^63 and the factor below 2^54, so their product fits.
    let part = i128::from(rest) * factor;
    let (fraction, below) = (part / i128::from(divisor), part % i128::from(divisor));
    let away = i128::from(below * 2 >= i128::from(divisor));
    let magnitude = whole.checked_add(fraction + away).ok_or_else(out_of_range)?;
    if !Decimal128Type::is_valid_decimal_precision(magnitude, 38) {
        return Err(out_of_range());
    }
    Ok(if negative { -magnitude } else { magnitude })
}

#[cfg(test)]
mod tests {
    use arrow::array::Int32Array;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_decimal_sum_may_leave_the_range_and_return() {
        let huge: i128 = 99_999_999_999_999_999_999_999_999_999_999_999_999;
        let mut sums = Sums::new(1, &DataType::Decimal128(38, 0));
        let values = Decimal128Array::from(vec![huge])
            .with_precision_and_scale(38, 0)
            .expect("fits");
        let values: ArrayRef = Arc::new(values);
        sums.add_rows(&[0], &values, Some(&[7]));
        assert_eq!(sums.sums(&DataType::Decimal128(38, 0)).failed.len(), 1);
        assert!(sums.averages().failed.len() == 1, "16 more digits do not fit");
        sums.add_rows(&[0], &values, Some(&[-6]));
        let results = sums.sums(&DataType::Decimal128(38, 0));
        assert!(results.failed.is_empty());
        assert_eq!(downcast::<Decimal128Array>(&results.column).value(0), huge);
    }

    proptest! {
        #[test]
        fn averages_round_half_away_from_zero(values in prop::collection::vec(any::<i32>(), 1..9)) {
            let mut sums = Sums::new(1, &DataType::Int32);
            let column: ArrayRef = Arc::new(Int32Array::from(values.clone()));
            sums.add_rows(&vec![0; values.len()], &column, None);
            let sum: i128 = values.iter().map(|v| i128::from(*v)).sum::<i128>() * 10i128.pow(16);
            let count = values.len() as i128;
            let expected = (2 * sum.abs() + count) / (2 * count) * sum.signum();
            let results = sums.averages();
            prop_assert_eq!(downcast::<Decimal128Array>(&results.column).value(0), expected);
        }

        #[test]
        fn products_are_exact(value in any::<i128>(), weight in any::<i64>()) {
            let product = Wide::product(value, weight);
            match value.checked_mul(i128::from(weight)) {
                Some(expected) => prop_assert_eq!(product.to_i128(), Some(expected)),
                None => prop_assert_eq!(product.to_i128(), None),
            }
        }
    }
}
