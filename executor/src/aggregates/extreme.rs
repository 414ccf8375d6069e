//! min and max: the partial is the extreme value of one region, null without values. Extremes of extremes are
//! extremes; what a retraction uncovers is found in the ordered multiset of [`crate::operators::groups`].
//!
//! Values are kept as words whose order is the order of the values, inverted for min: so the larger word always wins,
//! whatever the type. Types wider than sixteen bytes are kept as encoded keys.

use std::sync::Arc;

use arrow::array::{Array, ArrayData, ArrayRef, AsArray, BooleanArray, make_array};
use arrow::buffer::{Buffer, NullBuffer};
use arrow::datatypes::DataType;
use tributary_storage::KeyEncoder;
use tributary_storage::index::words;

/// The extremes of several groups.
#[derive(Clone, Debug)]
pub(crate) struct Extremes {
    data_type: DataType,
    largest: bool,
    values: Values,
}

#[derive(Clone, Debug)]
enum Values {
    /// Types of up to eight bytes.
    Words { values: Vec<u64>, valid: Vec<bool> },
    /// Decimals.
    Wide { values: Vec<i128>, valid: Vec<bool> },
    /// Everything else, as keys.
    Keys {
        encoder: Arc<KeyEncoder>,
        values: Vec<Option<Box<[u8]>>>,
    },
}

impl Extremes {
    pub(crate) fn new(groups: usize, data_type: &DataType, largest: bool) -> Self {
        let values = match (data_type, data_type.primitive_width()) {
            (DataType::Boolean, _) | (_, Some(1..=8)) => Values::Words {
                values: vec![0; groups],
                valid: vec![false; groups],
            },
            (DataType::Decimal128(..), _) => Values::Wide {
                values: vec![0; groups],
                valid: vec![false; groups],
            },
            _ => Values::Keys {
                encoder: Arc::new(KeyEncoder::new(std::slice::from_ref(data_type))),
                values: vec![None; groups],
            },
        };
        Self {
            data_type: data_type.clone(),
            largest,
            values,
        }
    }

    /// Makes room for `groups` groups; new ones have no value.
    pub(crate) fn grow(&mut self, groups: usize) {
        match &mut self.values {
            Values::Words { values, valid } => {
                values.resize(groups, 0);
                valid.resize(groups, false);
            }
            Values::Wide { values, valid } => {
                values.resize(groups, 0);
                valid.resize(groups, false);
            }
            Values::Keys { values, .. } => values.resize(groups, None),
        }
    }

    /// The extremes of some groups.
    pub(crate) fn gather(&self, groups: &[u32]) -> Self {
        fn at<T: Clone>(values: &[T], groups: &[u32]) -> Vec<T> {
            groups
                .iter()
                .map(|group| values[*group as usize].clone())
                .collect()
        }
        let values = match &self.values {
            Values::Words { values, valid } => Values::Words {
                values: at(values, groups),
                valid: at(valid, groups),
            },
            Values::Wide { values, valid } => Values::Wide {
                values: at(values, groups),
                valid: at(valid, groups),
            },
            Values::Keys { encoder, values } => Values::Keys {
                encoder: encoder.clone(),
                values: at(values, groups),
            },
        };
        Self {
            values,
            ..self.clone_empty()
        }
    }

    fn clone_empty(&self) -> Self {
        Self::new(0, &self.data_type, self.largest)
    }

    /// Keeps, per group, the most extreme of what is there and what is added; `groups[i]` is the group of row i.
    pub(crate) fn add(&mut self, groups: &[u32], column: &ArrayRef) {
        let nulls = column.nulls().filter(|nulls| nulls.null_count() > 0);
        let rows = (0..column.len()).filter(|row| nulls.is_none_or(|nulls| nulls.is_valid(*row)));
        match &mut self.values {
            Values::Words { values, valid } => {
                let added = ordered_words(column, self.largest);
                for row in rows {
                    let group = groups[row] as usize;
                    if !valid[group] || added[row] > values[group] {
                        values[group] = added[row];
                        valid[group] = true;
                    }
                }
            }
            Values::Wide { values, valid } => {
                let added = words::<i128>(column);
                let invert = if self.largest { 0 } else { -1 };
                for row in rows {
                    let (group, value) = (groups[row] as usize, added[row] ^ invert);
                    if !valid[group] || value > values[group] {
                        values[group] = value;
                        valid[group] = true;
                    }
                }
            }
            Values::Keys { encoder, values } => {
                let added = encoder.encode(std::slice::from_ref(column));
                for row in rows {
                    let (place, key) = (&mut values[groups[row] as usize], added.get(row));
                    let better = match place {
                        None => true,
                        Some(value) if self.largest => key > &value[..],
                        Some(value) => key < &value[..],
                    };
                    if better {
                        *place = Some(key.into());
                    }
                }
            }
        }
    }

    /// Sets the value of each of the groups, which are distinct; null takes it away.
    pub(crate) fn set(&mut self, groups: &[u32], column: &ArrayRef) {
        for group in groups {
            let group = *group as usize;
            match &mut self.values {
                Values::Words { valid, .. } | Values::Wide { valid, .. } => valid[group] = false,
                Values::Keys { values, .. } => values[group] = None,
            }
        }
        self.add(groups, column);
    }

    /// One value per group, null where there is none.
    pub(crate) fn column(&self) -> ArrayRef {
        match &self.values {
            Values::Words { values, valid } => column_of_words(&self.data_type, values, valid, self.largest),
            Values::Wide { values, valid } => {
                let invert = if self.largest { 0 } else { -1 };
                let values: Vec<i128> = values.iter().map(|value| value ^ invert).collect();
                array(&self.data_type, values.len(), Buffer::from_vec(values), valid)
            }
            Values::Keys { encoder, values } => {
                let null = arrow::array::new_null_array(&self.data_type, 1);
                let null = encoder.encode(&[null]);
                let keys = values.iter().map(|value| value.as_deref().unwrap_or(null.get(0)));
                encoder.decode(&keys.collect()).remove(0)
            }
        }
    }
}

const SIGN: u64 = 1 << 63;

/// Words of 64 bits in the order of the values, or in the opposite one.
fn ordered_words(column: &ArrayRef, ascending: bool) -> Vec<u64> {
    let invert = if ascending { 0 } else { u64::MAX };
    let signed = |value: i64| value as u64 ^ SIGN ^ invert;
    match column.data_type() {
        DataType::Boolean => {
            let values: &BooleanArray = column.as_boolean();
            values
                .values()
                .iter()
                .map(|value| u64::from(value) ^ invert)
                .collect()
        }
        DataType::Float64 => words::<u64>(column)
            .iter()
            .map(|bits| float_order(*bits) ^ invert)
            .collect(),
        DataType::Float32 => {
            let wide = |bits: &u32| f64::from(f32::from_bits(*bits)).to_bits();
            words::<u32>(column)
                .iter()
                .map(|bits| float_order(wide(bits)) ^ invert)
                .collect()
        }
        other => match other.primitive_width() {
            Some(1) => words::<i8>(column)
                .iter()
                .map(|v| signed(i64::from(*v)))
                .collect(),
            Some(2) => words::<i16>(column)
                .iter()
                .map(|v| signed(i64::from(*v)))
                .collect(),
            Some(4) => words::<i32>(column)
                .iter()
                .map(|v| signed(i64::from(*v)))
                .collect(),
            _ => words::<i64>(column).iter().map(|v| signed(*v)).collect(),
        },
    }
}

/// The bits of a float as a word in the total order of floats.
fn float_order(bits: u64) -> u64 {
    if bits & SIGN == 0 { bits | SIGN } else { !bits }
}

fn float_bits(order: u64) -> u64 {
    if order & SIGN == 0 { !order } else { order & !SIGN }
}

fn column_of_words(data_type: &DataType, values: &[u64], valid: &[bool], ascending: bool) -> ArrayRef {
    let invert = if ascending { 0 } else { u64::MAX };
    // The word of a group without a value means nothing; zero is as good as any.
    let plain = values
        .iter()
        .zip(valid)
        .map(|(word, valid)| if *valid { word ^ invert } else { 0 });
    let signed = |word: u64| (word ^ SIGN) as i64;
    let rows = values.len();
    let buffer = match data_type {
        DataType::Boolean => {
            let values: Vec<bool> = plain.map(|word| word != 0).collect();
            return Arc::new(BooleanArray::new(values.into(), nulls(valid)));
        }
        DataType::Float64 => Buffer::from_vec(plain.map(float_bits).collect::<Vec<_>>()),
        DataType::Float32 => {
            // Every value was one of single precision, so narrowing is exact.
            let narrow = |word: u64| f64::from_bits(float_bits(word)) as f32;
            Buffer::from_vec(plain.map(narrow).collect::<Vec<_>>())
        }
        other => match other.primitive_width() {
            Some(1) => Buffer::from_vec(plain.map(|word| signed(word) as i8).collect::<Vec<_>>()),
            Some(2) => Buffer::from_vec(plain.map(|word| signed(word) as i16).collect::<Vec<_>>()),
            Some(4) => Buffer::from_vec(plain.map(|word| signed(word) as i32).collect::<Vec<_>>()),
            _ => Buffer::from_vec(plain.map(signed).collect::<Vec<_>>()),
        },
    };
    array(data_type, rows, buffer, valid)
}

fn nulls(valid: &[bool]) -> Option<NullBuffer> {
    valid.contains(&false).then(|| NullBuffer::from(valid.to_vec()))
}

fn array(data_type: &DataType, rows: usize, values: Buffer, valid: &[bool]) -> ArrayRef {
    let data = ArrayData::builder(data_type.clone())
        .len(rows)
        .add_buffer(values)
        .nulls(nulls(valid))
        .build()
        .expect("the buffer has one value of the type's width per row");
    make_array(data)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Decimal128Array, Float32Array, Float64Array, Int16Array, Int64Array, StringArray};
    use arrow::compute::{SortOptions, sort};

    use super::*;

    /// The largest and the smallest value of each type are what sorting says.
    #[test]
    fn extremes_are_the_ends_of_the_order() {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![
                Some(3),
                None,
                Some(i64::MIN),
                Some(i64::MAX),
                Some(-1),
            ])),
            Arc::new(Int16Array::from(vec![Some(-3), Some(7), None])),
            Arc::new(Float64Array::from(vec![
                1.5,
                -2.5,
                f64::NAN,
                f64::NEG_INFINITY,
                0.0,
            ])),
            Arc::new(Float32Array::from(vec![1.5, -2.5, f32::MAX, f32::MIN_POSITIVE])),
            Arc::new(BooleanArray::from(vec![Some(false), Some(true), None])),
            Arc::new(Decimal128Array::from(vec![
                Some(-5),
                Some(i128::MAX / 8),
                None,
                Some(i128::MIN / 8),
            ])),
            Arc::new(StringArray::from(vec![Some("b"), Some("aa"), None, Some("")])),
        ];
        for column in columns {
            for largest in [false, true] {
                let mut extremes = Extremes::new(1, column.data_type(), largest);
                extremes.grow(2);
                extremes.add(&vec![1; column.len()], &column);
                let options = SortOptions {
                    descending: largest,
                    nulls_first: false,
                };
                let expected = sort(&column, Some(options)).expect("sortable").slice(0, 1);
                assert_eq!(extremes.gather(&[1]).column().to_data(), expected.to_data());
                assert!(extremes.column().is_null(0));
                extremes.set(&[1], &column.slice(0, 1));
                assert_eq!(
                    extremes.gather(&[1]).column().to_data(),
                    column.slice(0, 1).to_data()
                );
            }
        }
    }
}
