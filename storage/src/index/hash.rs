//! Hashes of rows, a column at a time.
//!
//! Equal rows have equal hashes, whatever the batch they stand in. The function is fixed, so that a table that is
//! filled again after a restart has the same shape; nothing else may depend on it: hashes reach neither the disk, nor
//! a peer, nor the order of any output. Floats hash by their bits: whoever wants SQL's equality normalises before.

use std::hash::{BuildHasher, Hasher};

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, FixedSizeBinaryArray, LargeBinaryArray,
    LargeStringArray, StringArray,
};
use arrow::datatypes::{ArrowNativeType, DataType};
use foldhash::fast::FixedState;

use crate::key::KeyEncoder;

const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
const WORD_SECRET: u64 = 0xa076_1d64_78bd_642f;
const HASH_SECRET: u64 = 0xe703_7ed1_a0b4_28db;
const NULL: u64 = 0x5851_f42d_4c95_7f2d;

/// Mixes a word into a hash: the product of both to 128 bits, folded, as wyhash does it.
#[inline(always)]
pub(crate) fn mix(hash: u64, word: u64) -> u64 {
    let product = u128::from(hash ^ HASH_SECRET) * u128::from(word ^ WORD_SECRET);
    (product as u64) ^ ((product >> 64) as u64)
}

/// The hash of some bytes.
#[inline]
pub(crate) fn hash_bytes(bytes: &[u8]) -> u64 {
    let mut hasher = FixedState::with_seed(SEED).build_hasher();
    hasher.write(bytes);
    hasher.finish()
}

/// One hash per row over all columns.
///
/// # Panics
/// When a column has another length, or a type that [`KeyEncoder::supports`] refuses.
pub fn hash_rows(columns: &[ArrayRef], rows: usize) -> Vec<u64> {
    let mut hashes = vec![SEED; rows];
    for column in columns {
        assert_eq!(column.len(), rows, "columns of one batch have one length");
        hash_column(column, &mut hashes);
    }
    hashes
}

fn hash_column(column: &ArrayRef, hashes: &mut [u64]) {
    use DataType::*;
    match column.data_type() {
        Null => hashes.iter_mut().for_each(|hash| *hash = mix(*hash, NULL)),
        Boolean => {
            let values: &BooleanArray = column.as_boolean();
            fold(column, hashes, |row| u64::from(values.value(row)));
        }
        Utf8 => {
            let values: &StringArray = column.as_string();
            fold(column, hashes, |row| hash_bytes(values.value(row).as_bytes()));
        }
        LargeUtf8 => {
            let values: &LargeStringArray = column.as_string();
            fold(column, hashes, |row| hash_bytes(values.value(row).as_bytes()));
        }
        Binary => {
            let values: &BinaryArray = column.as_binary();
            fold(column, hashes, |row| hash_bytes(values.value(row)));
        }
        LargeBinary => {
            let values: &LargeBinaryArray = column.as_binary();
            fold(column, hashes, |row| hash_bytes(values.value(row)));
        }
        FixedSizeBinary(_) => {
            let values: &FixedSizeBinaryArray = column.as_fixed_size_binary();
            fold(column, hashes, |row| hash_bytes(values.value(row)));
        }
        other => match other.primitive_width() {
            Some(width) => hash_fixed(column, width, hashes),
            None => {
                let keys = KeyEncoder::new(std::slice::from_ref(other)).encode(std::slice::from_ref(column));
                for (row, hash) in hashes.iter_mut().enumerate() {
                    *hash = mix(*hash, hash_bytes(keys.get(row)));
                }
            }
        },
    }
}

#[inline(always)]
fn fold(column: &ArrayRef, hashes: &mut [u64], word: impl Fn(usize) -> u64) {
    match column.nulls() {
        None => (hashes.iter_mut().enumerate()).for_each(|(row, hash)| *hash = mix(*hash, word(row))),
        Some(nulls) => {
            for (row, hash) in hashes.iter_mut().enumerate() {
                *hash = mix(*hash, if nulls.is_valid(row) { word(row) } else { NULL });
            }
        }
    }
}

/// Columns of fixed width, read as words from their buffer.
fn hash_fixed(column: &ArrayRef, width: usize, hashes: &mut [u64]) {
    match width {
        1 => fold_words::<u8>(column, hashes, |v| u64::from(*v)),
        2 => fold_words::<u16>(column, hashes, |v| u64::from(*v)),
        4 => fold_words::<u32>(column, hashes, |v| u64::from(*v)),
        8 => fold_words::<u64>(column, hashes, |v| *v),
        16 => fold_words::<i128>(column, hashes, |v| mix((*v >> 64) as u64, *v as u64)),
        _ => unreachable!("no supported type has values of {width} bytes"),
    }
}

fn fold_words<T: ArrowNativeType>(column: &ArrayRef, hashes: &mut [u64], word: impl Fn(&T) -> u64) {
    let values = words::<T>(column);
    fold(column, hashes, |row| word(&values[row]));
}

/// The values of a column of fixed width as machine words of that width.
///
/// # Panics
/// When the width of the column's type is not that of `T`.
pub fn words<T: ArrowNativeType>(column: &ArrayRef) -> arrow::buffer::ScalarBuffer<T> {
    assert_eq!(
        column.data_type().primitive_width(),
        Some(size_of::<T>()),
        "a column is read in words of its own width"
    );
    let data = column.to_data();
    arrow::buffer::ScalarBuffer::new(data.buffers()[0].clone(), data.offset(), data.len())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Decimal128Array, Int32Array, Int64Array};

    use super::*;

    #[test]
    fn equal_rows_hash_alike_in_any_batch() {
        let ids: ArrayRef = Arc::new(Int64Array::from(vec![Some(7), None, Some(7), Some(0)]));
        let names: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), Some("a"), Some("a"), None]));
        let sums: ArrayRef = Arc::new(Decimal128Array::from(vec![1, 2, 1, 3]));
        let columns = [ids, names, sums];
        let hashes = hash_rows(&columns, 4);
        assert_eq!(hashes[0], hashes[2]);
        assert_ne!(hashes[0], hashes[1]);
        let tail: Vec<ArrayRef> = columns.iter().map(|column| column.slice(2, 2)).collect();
        assert_eq!(hash_rows(&tail, 2), hashes[2..]);
    }

    /// Small numbers of either sign, in pairs, are what a weak function confuses.
    #[test]
    fn small_rows_do_not_collide() {
        let numbers: Vec<i64> = (-20..=20).collect();
        let pairs: Vec<(i64, i64)> = numbers
            .iter()
            .flat_map(|a| numbers.iter().map(|b| (*a, *b)))
            .collect();
        let first: ArrayRef = Arc::new(Int64Array::from_iter_values(pairs.iter().map(|pair| pair.0)));
        let second: ArrayRef = Arc::new(Int64Array::from_iter_values(pairs.iter().map(|pair| pair.1)));
        let hashes = hash_rows(&[first, second], pairs.len());
        let distinct: std::collections::BTreeSet<u64> = hashes.iter().copied().collect();
        assert_eq!(distinct.len(), pairs.len());
        let low: std::collections::BTreeSet<u64> = hashes.iter().map(|hash| hash % (1 << 20)).collect();
        assert!(low.len() + 10 > pairs.len(), "the low bits spread as well");
    }

    #[test]
    fn null_is_not_zero_and_columns_are_not_interchangeable() {
        let column = |values: Vec<Option<i32>>| -> ArrayRef { Arc::new(Int32Array::from(values)) };
        let nulls = hash_rows(&[column(vec![None])], 1);
        assert_ne!(nulls, hash_rows(&[column(vec![Some(0)])], 1));
        let (a, b) = (column(vec![Some(1)]), column(vec![Some(2)]));
        assert_ne!(hash_rows(&[a.clone(), b.clone()], 1), hash_rows(&[b, a], 1));
        assert_eq!(hash_rows(&[], 2).len(), 2);
    }
}
