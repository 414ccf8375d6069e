//! Keys of fixed width as machine words, compared in the slot itself.

use std::sync::Arc;

use arrow::array::{ArrayData, ArrayRef, BooleanArray, BooleanBuilder, make_array};
use arrow::buffer::{Buffer, NullBuffer};
use arrow::datatypes::DataType;

use super::hash::{mix, words};
use super::next_id;
use super::probe::{ABSENT, ProbeKey, ProbeTable};

impl ProbeKey for u64 {
    fn hash(self) -> u64 {
        mix(0, self)
    }
}

/// The width in bytes of a value of this type, where it is fixed and at most sixteen.
fn width(data_type: &DataType) -> Option<usize> {
    match data_type {
        DataType::Boolean => Some(1),
        DataType::FixedSizeBinary(_) => None,
        other => other.primitive_width().filter(|width| *width <= 16),
    }
}

/// The values as words of 64 bits; a value of 16 bytes gives its low word first, then the high ones.
fn low_words(column: &ArrayRef) -> Vec<u64> {
    if let Some(values) = column.as_any().downcast_ref::<BooleanArray>() {
        return values.values().iter().map(u64::from).collect();
    }
    match column.data_type().primitive_width() {
        Some(1) => words::<u8>(column).iter().map(|v| u64::from(*v)).collect(),
        Some(2) => words::<u16>(column).iter().map(|v| u64::from(*v)).collect(),
        Some(4) => words::<u32>(column).iter().map(|v| u64::from(*v)).collect(),
        Some(8) => words::<u64>(column).to_vec(),
        other => unreachable!("a packed key column has up to eight bytes, not {other:?}"),
    }
}

/// A column from words, null where `valid` says so.
fn column_of(
    data_type: &DataType,
    words: impl ExactSizeIterator<Item = u64>,
    nulls: Option<NullBuffer>,
) -> ArrayRef {
    let rows = words.len();
    let values = match width(data_type) {
        _ if *data_type == DataType::Boolean => {
            let mut values = BooleanBuilder::with_capacity(rows);
            words.for_each(|word| values.append_value(word != 0));
            let values = values.finish().values().clone();
            return Arc::new(BooleanArray::new(values, nulls));
        }
        Some(1) => Buffer::from_vec(words.map(|word| word as u8).collect::<Vec<_>>()),
        Some(2) => Buffer::from_vec(words.map(|word| word as u16).collect::<Vec<_>>()),
        Some(4) => Buffer::from_vec(words.map(|word| word as u32).collect::<Vec<_>>()),
        _ => Buffer::from_vec(words.collect::<Vec<_>>()),
    };
    wrap(data_type, rows, values, nulls)
}

fn wrap(data_type: &DataType, rows: usize, values: Buffer, nulls: Option<NullBuffer>) -> ArrayRef {
    let data = ArrayData::builder(data_type.clone())
        .len(rows)
        .add_buffer(values)
        .nulls(nulls)
        .build()
        .expect("the buffer has one value of the type's width per row");
    make_array(data)
}

/// Keys of one column of up to eight bytes.
#[derive(Debug)]
pub(super) struct Narrow {
    table: ProbeTable<u64>,
    keys: Vec<u64>,
    /// The id of the null key.
    null: u32,
}

impl Narrow {
    pub(super) fn holds(data_type: &DataType) -> bool {
        width(data_type).is_some_and(|width| width <= 8)
    }

    pub(super) fn new() -> Self {
        Self {
            table: ProbeTable::new(),
            keys: Vec::new(),
            null: ABSENT,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.table.bytes() + self.keys.capacity() * 8
    }

    pub(super) fn reserve(&mut self, more: usize) {
        self.table.reserve(more);
        self.keys.reserve(more);
    }

    pub(super) fn insert(&mut self, column: &ArrayRef) -> Vec<u32> {
        let words = low_words(column);
        let push = |keys: &mut Vec<u64>, word: u64| {
            keys.push(word);
            next_id(keys.len())
        };
        let Some(nulls) = column.nulls().filter(|nulls| nulls.null_count() > 0) else {
            let next = |keys: &mut Vec<u64>, row: usize| push(keys, words[row]);
            return self.table.insert(&words, &mut self.keys, |_, _, _| true, next);
        };
        // Runs of rows between nulls, so that ids go by first appearance here too.
        let mut ids = Vec::with_capacity(words.len());
        let mut start = 0;
        for row in (0..words.len())
            .filter(|row| nulls.is_null(*row))
            .chain([words.len()])
        {
            let run = &words[start..row];
            let next = |keys: &mut Vec<u64>, row: usize| push(keys, run[row]);
            ids.extend(self.table.insert(run, &mut self.keys, |_, _, _| true, next));
            if row < words.len() {
                if self.null == ABSENT {
                    self.null = push(&mut self.keys, 0);
                }
                ids.push(self.null);
            }
            start = row + 1;
        }
        ids
    }

    pub(super) fn find(&self, column: &ArrayRef) -> Vec<u32> {
        let mut ids = self.table.find(&low_words(column), |_, _| true);
        if let Some(nulls) = column.nulls() {
            let missing = ids.iter_mut().enumerate().filter(|(row, _)| nulls.is_null(*row));
            missing.for_each(|(_, id)| *id = self.null);
        }
        ids
    }

    pub(super) fn column(&self, data_type: &DataType, ids: &[u32]) -> ArrayRef {
        let nulls = (self.null != ABSENT && ids.contains(&self.null)).then(|| {
            ids.iter()
                .map(|id| *id != self.null)
                .collect::<Vec<bool>>()
                .into()
        });
        column_of(data_type, ids.iter().map(|id| self.keys[*id as usize]), nulls)
    }
}

/// Some words of key, and which columns are null (their bytes are zero).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Packed<const N: usize> {
    words: [u64; N],
    nulls: u32,
}

impl<const N: usize> Default for Packed<N> {
    fn default() -> Self {
        Self {
            words: [0; N],
            nulls: 0,
        }
    }
}

impl<const N: usize> ProbeKey for Packed<N> {
    fn hash(self) -> u64 {
        self.words.into_iter().fold(u64::from(self.nulls), mix)
    }
}

/// Where a column stands in a packed key.
#[derive(Clone, Copy, Debug)]
struct Place {
    word: usize,
    shift: u32,
    width: usize,
}

/// The most words of a packed key.
const WORDS_MAX: usize = 4;

/// Where each column stands, and how many words there are; `None` when they do not fit. No value straddles two
/// words, but for one of sixteen bytes, which takes two.
fn places(types: &[DataType]) -> Option<(Vec<Place>, usize)> {
    let widths: Vec<usize> = types.iter().map(width).collect::<Option<_>>()?;
    let mut order: Vec<usize> = (0..widths.len()).collect();
    // Wide columns first, so that narrow ones fill what is left.
    order.sort_by_key(|column| std::cmp::Reverse(widths[*column]));
    let mut used: Vec<usize> = Vec::new();
    let mut places = vec![None; widths.len()];
    for column in order {
        let width = widths[column];
        let word = match used.iter().position(|used| used + width <= 8) {
            Some(word) => word,
            None => {
                used.extend(std::iter::repeat_n(0, width.div_ceil(8)));
                used.len() - width.div_ceil(8)
            }
        };
        places[column] = Some(Place {
            word,
            shift: used[word] as u32 * 8,
            width,
        });
        (word..word + width.div_ceil(8)).for_each(|word| used[word] += width.min(8));
    }
    let fits = used.len() <= WORDS_MAX && types.len() <= 32;
    fits.then(|| (places.into_iter().flatten().collect(), used.len().max(2)))
}

/// Keys of several columns of fixed width.
#[derive(Debug)]
pub(super) enum Wide {
    Two(PackedIndex<2>),
    Three(PackedIndex<3>),
    Four(PackedIndex<4>),
}

/// Calls the same method of whichever form there is.
macro_rules! each_width {
    ($wide:expr, $index:ident => $call:expr) => {
        match $wide {
            Wide::Two($index) => $call,
            Wide::Three($index) => $call,
            Wide::Four($index) => $call,
        }
    };
}

impl Wide {
    /// Whether keys of these types fit.
    pub(super) fn holds(types: &[DataType]) -> bool {
        places(types).is_some()
    }

    pub(super) fn new(types: &[DataType]) -> Self {
        let (places, words) = places(types).expect("checked by `holds`");
        match words {
            2 => Self::Two(PackedIndex::new(places)),
            3 => Self::Three(PackedIndex::new(places)),
            _ => Self::Four(PackedIndex::new(places)),
        }
    }

    pub(super) fn len(&self) -> usize {
        each_width!(self, index => index.keys.len())
    }

    pub(super) fn bytes(&self) -> usize {
        each_width!(self, index => index.table.bytes() + size_of_val(index.keys.as_slice()))
    }

    pub(super) fn reserve(&mut self, more: usize) {
        each_width!(self, index => {
            index.table.reserve(more);
            index.keys.reserve(more);
        });
    }

    pub(super) fn insert(&mut self, columns: &[ArrayRef], rows: usize) -> Vec<u32> {
        each_width!(self, index => index.insert(columns, rows))
    }

    pub(super) fn find(&self, columns: &[ArrayRef], rows: usize) -> Vec<u32> {
        each_width!(self, index => index.table.find(&index.pack(columns, rows), |_, _| true))
    }

    pub(super) fn columns(&self, types: &[DataType], ids: &[u32]) -> Vec<ArrayRef> {
        each_width!(self, index => index.columns(types, ids))
    }
}

/// Keys of so many words.
#[derive(Debug)]
pub(super) struct PackedIndex<const N: usize> {
    places: Vec<Place>,
    table: ProbeTable<Packed<N>>,
    keys: Vec<Packed<N>>,
}

impl<const N: usize> PackedIndex<N> {
    fn new(places: Vec<Place>) -> Self {
        Self {
            places,
            table: ProbeTable::new(),
            keys: Vec::new(),
        }
    }

    fn pack(&self, columns: &[ArrayRef], rows: usize) -> Vec<Packed<N>> {
        let mut keys = vec![Packed::default(); rows];
        for (number, (column, place)) in columns.iter().zip(&self.places).enumerate() {
            assert_eq!(column.len(), rows, "key columns have one value per row");
            if place.width == 16 {
                let values = words::<i128>(column);
                for (key, value) in keys.iter_mut().zip(values.iter()) {
                    key.words[place.word] = *value as u64;
                    key.words[place.word + 1] = (*value >> 64) as u64;
                }
            } else {
                for (key, word) in keys.iter_mut().zip(low_words(column)) {
                    key.words[place.word] |= word << place.shift;
                }
            }
            if let Some(nulls) = column.nulls().filter(|nulls| nulls.null_count() > 0) {
                let cleared = !(width_mask(place.width) << place.shift);
                for row in (0..rows).filter(|row| nulls.is_null(*row)) {
                    keys[row].nulls |= 1 << number;
                    keys[row].words[place.word] &= cleared;
                    if place.width == 16 {
                        keys[row].words[place.word + 1] = 0;
                    }
                }
            }
        }
        keys
    }

    fn insert(&mut self, columns: &[ArrayRef], rows: usize) -> Vec<u32> {
        let packed = self.pack(columns, rows);
        let next = |keys: &mut Vec<Packed<N>>, row: usize| {
            keys.push(packed[row]);
            next_id(keys.len())
        };
        self.table.insert(&packed, &mut self.keys, |_, _, _| true, next)
    }

    fn columns(&self, types: &[DataType], ids: &[u32]) -> Vec<ArrayRef> {
        let column = |(number, (data_type, place)): (usize, (&DataType, &Place))| {
            let is_null = |id: &u32| self.keys[*id as usize].nulls >> number & 1 == 1;
            let nulls = ids.iter().any(is_null).then(|| {
                let valid: Vec<bool> = ids.iter().map(|id| !is_null(id)).collect();
                NullBuffer::from(valid)
            });
            let key = |id: &u32| &self.keys[*id as usize].words;
            if place.width == 16 {
                let joined = |words: &[u64; N]| {
                    i128::from(words[place.word + 1] as i64) << 64 | i128::from(words[place.word])
                };
                let values: Vec<i128> = ids.iter().map(|id| joined(key(id))).collect();
                return wrap(data_type, ids.len(), Buffer::from_vec(values), nulls);
            }
            let word = |id: &u32| key(id)[place.word] >> place.shift & width_mask(place.width);
            column_of(data_type, ids.iter().map(word), nulls)
        };
        types.iter().zip(&self.places).enumerate().map(column).collect()
    }
}

/// The low `width` bytes of a word.
fn width_mask(width: usize) -> u64 {
    if width >= 8 {
        u64::MAX
    } else {
        (1 << (width * 8)) - 1
    }
}
