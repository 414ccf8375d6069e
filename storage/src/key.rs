//! Keys as bytes whose order is the order of the rows they encode.
//!
//! The encoding is arrow-row's: columns are encoded one after the other, each in a self-delimiting form. Two
//! properties follow, and the traces stand on both:
//!
//! 1. comparing bytes compares rows, column by column;
//! 2. the encoding of the first columns of a row is a byte *prefix* of the encoding of the whole row, and no
//!    encoded key is a proper prefix of another; so "all rows with this key" is one contiguous range.
//!
//! The bytes never leave the process: arrow-row may change them from release to release, so disks and peers
//! get Arrow columns and encode again. Floats order totally (-0 before 0, NaN last): whoever wants SQL's
//! equality normalises before.

use arrow::array::{Array, ArrayRef, LargeBinaryArray};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::SortOptions;
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, Rows, SortField};

/// The order of key columns: ascending, nulls first.
pub(crate) const KEY_ORDER: SortOptions = SortOptions {
    descending: false,
    nulls_first: true,
};

/// Encodes rows of fixed column types into [`Keys`] and back.
#[derive(Debug)]
pub struct KeyEncoder {
    types: Vec<DataType>,
    converter: RowConverter,
}

impl KeyEncoder {
    /// Whether columns of this type can be encoded *and come back unchanged*. Dictionaries and run-end
    /// encoded columns would come back as plain ones, so they are refused; unions and maps are never keys.
    pub fn supports(data_type: &DataType) -> bool {
        match data_type {
            DataType::Dictionary(..) | DataType::RunEndEncoded(..) => false,
            DataType::Union(..) | DataType::Map(..) => false,
            DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _) => {
                Self::supports(field.data_type())
            }
            DataType::Struct(fields) => fields.iter().all(|field| Self::supports(field.data_type())),
            other => !other.is_nested(),
        }
    }

    /// An encoder of ascending columns, nulls first.
    ///
    /// # Panics
    /// When a type is not supported, see [`KeyEncoder::supports`].
    pub fn new(types: &[DataType]) -> Self {
        let fields: Vec<_> = types
            .iter()
            .map(|data_type| (data_type.clone(), KEY_ORDER))
            .collect();
        Self::with_order(&fields)
    }

    /// An encoder with an order of its own for each column.
    ///
    /// # Panics
    /// When a type is not supported, see [`KeyEncoder::supports`].
    pub fn with_order(fields: &[(DataType, SortOptions)]) -> Self {
        for (data_type, _) in fields {
            assert!(
                Self::supports(data_type),
                "columns of type {data_type} cannot be keys"
            );
        }
        let sort_fields = fields
            .iter()
            .map(|(t, order)| SortField::new_with_options(t.clone(), *order))
            .collect();
        let converter = RowConverter::new(sort_fields).expect("the types were checked above");
        Self {
            types: fields.iter().map(|(data_type, _)| data_type.clone()).collect(),
            converter,
        }
    }

    /// Encodes the rows of at least one column. See [`KeyEncoder::encode_rows`] for keys without columns.
    ///
    /// # Panics
    /// When there is no column, or the columns are not those of this encoder.
    pub fn encode(&self, columns: &[ArrayRef]) -> Keys {
        let rows = columns
            .first()
            .expect("keys without columns are encoded by encode_rows")
            .len();
        self.encode_rows(columns, rows)
    }

    /// Encodes `rows` rows; without columns these are `rows` empty keys.
    ///
    /// # Panics
    /// When the columns are not those of this encoder, or have another length.
    pub fn encode_rows(&self, columns: &[ArrayRef], rows: usize) -> Keys {
        if self.types.is_empty() {
            assert!(columns.is_empty(), "this encoder has no columns");
            return (0..rows).map(|_| [0u8; 0]).collect();
        }
        let encoded = self.encode_borrowed(columns);
        assert_eq!(encoded.num_rows(), rows, "key columns have one value per row");
        encoded.iter().collect()
    }

    /// As [`KeyEncoder::encode`], in arrow-row's own buffer.
    pub(crate) fn encode_borrowed(&self, columns: &[ArrayRef]) -> Rows {
        match self.converter.convert_columns(columns) {
            Ok(rows) => rows,
            Err(error) => panic!("the columns are not those of the key {:?}: {error}", self.types),
        }
    }

    /// The columns that were encoded. Only bytes of this process: never a peer's, never a disk's.
    ///
    /// # Panics
    /// When the bytes are not those of an encoder with the same columns.
    pub fn decode(&self, keys: &Keys) -> Vec<ArrayRef> {
        self.decode_all(keys.iter())
    }

    /// As [`KeyEncoder::decode`], for keys that lie here and there.
    pub fn decode_all<'a>(&self, keys: impl Iterator<Item = &'a [u8]>) -> Vec<ArrayRef> {
        if self.types.is_empty() {
            return Vec::new();
        }
        let parser = self.converter.parser();
        let rows: Vec<&[u8]> = keys.collect();
        self.converter
            .convert_rows(rows.iter().map(|bytes| parser.parse(bytes)))
            .expect("the bytes were made by an encoder of the same columns")
    }
}

/// Encoded keys: the order of the bytes is the order of the rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Keys(LargeBinaryArray);

impl Keys {
    /// The number of keys.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes of key `i`.
    ///
    /// # Panics
    /// When there is no such key.
    pub fn get(&self, i: usize) -> &[u8] {
        self.0.value(i)
    }

    /// The keys in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        (0..self.len()).map(|i| self.get(i))
    }

    /// Whether each key is greater than the one before.
    pub fn is_ascending(&self) -> bool {
        (1..self.len()).all(|i| self.get(i - 1) < self.get(i))
    }

    /// The first key that equals an earlier one.
    pub fn first_repeated(&self) -> Option<usize> {
        // Keys often count up: one pass over the bytes is cheaper than any sort.
        if self.is_ascending() {
            return None;
        }
        let mut sorted: Vec<usize> = (0..self.len()).collect();
        sorted.sort_unstable_by(|&a, &b| self.get(a).cmp(self.get(b)).then(a.cmp(&b)));
        let repeated = sorted
            .windows(2)
            .filter(|pair| self.get(pair[0]) == self.get(pair[1]));
        repeated.map(|pair| pair[1]).min()
    }

    /// The length of all keys, in bytes.
    pub(crate) fn data_bytes(&self) -> usize {
        (self.0.value_offsets()[self.len()] - self.0.value_offsets()[0]) as usize
    }

    /// The memory held, in bytes.
    pub fn bytes(&self) -> usize {
        self.0.get_array_memory_size()
    }
}

impl<T: AsRef<[u8]>> FromIterator<T> for Keys {
    fn from_iter<I: IntoIterator<Item = T>>(keys: I) -> Self {
        let keys = keys.into_iter();
        let mut building = KeysBuilder::with_capacity(keys.size_hint().0, 0);
        keys.for_each(|key| building.push(key.as_ref()));
        building.finish()
    }
}

/// Builds [`Keys`] one after the other, in one buffer.
#[derive(Debug)]
pub(crate) struct KeysBuilder {
    offsets: Vec<i64>,
    bytes: Vec<u8>,
}

impl KeysBuilder {
    pub(crate) fn with_capacity(keys: usize, bytes: usize) -> Self {
        let mut offsets = Vec::with_capacity(keys + 1);
        offsets.push(0);
        Self {
            offsets,
            bytes: Vec::with_capacity(bytes),
        }
    }

    pub(crate) fn push(&mut self, key: &[u8]) {
        self.bytes.extend_from_slice(key);
        self.offsets.push(self.bytes.len() as i64);
    }

    /// Adds all of these keys.
    pub(crate) fn extend(&mut self, keys: &Keys) {
        let first = keys.0.value_offsets()[0];
        let shift = self.bytes.len() as i64 - first;
        let data = &keys.0.value_data()[first as usize..][..keys.data_bytes()];
        self.bytes.extend_from_slice(data);
        let ends = keys.0.value_offsets()[1..].iter();
        self.offsets.extend(ends.map(|end| end + shift));
    }

    pub(crate) fn finish(self) -> Keys {
        let offsets = OffsetBuffer::new(ScalarBuffer::from(self.offsets));
        Keys(LargeBinaryArray::new(offsets, Buffer::from_vec(self.bytes), None))
    }
}

/// Sorts `rows` entries by their bytes and sums the weights of equal ones: per distinct row whose sum is not
/// zero, the index of one entry that has it, and the sum.
///
/// # Panics
/// When there are 2^32 entries or more, or a sum leaves `i64`.
pub(crate) fn sum_equal_rows<'a>(
    rows: usize,
    bytes: impl Fn(usize) -> &'a [u8],
    weight: impl Fn(usize) -> i64,
) -> Vec<(u32, i64)> {
    let rows = u32::try_from(rows).expect("a delta has fewer than 2^32 rows");
    let mut sorted: Vec<u32> = (0..rows).collect();
    // Appended keys often arrive in order: one pass over the bytes is cheaper than any sort.
    if !sorted.is_sorted_by(|a, b| bytes(*a as usize) <= bytes(*b as usize)) {
        sorted.sort_unstable_by(|a, b| bytes(*a as usize).cmp(bytes(*b as usize)));
    }
    let mut summed: Vec<(u32, i64)> = Vec::with_capacity(sorted.len());
    let mut next = 0;
    while next < sorted.len() {
        let first = sorted[next];
        let row = bytes(first as usize);
        let mut sum = 0;
        while next < sorted.len() && bytes(sorted[next] as usize) == row {
            sum = add_weights(sum, weight(sorted[next] as usize));
            next += 1;
        }
        if sum != 0 {
            summed.push((first, sum));
        }
    }
    summed
}

/// The sum of two weights of one row.
pub(crate) fn add_weights(a: i64, b: i64) -> i64 {
    a.checked_add(b)
        .expect("a weight is a sum of far fewer than 2^63 entries")
}

#[cfg(test)]
mod tests;
