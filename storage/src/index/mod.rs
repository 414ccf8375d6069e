//! From keys to dense ids: the hash index behind every keyed state.
//!
//! ```text
//!   key columns ──pack──▶ words or bytes ──probe──▶ ids 0, 1, 2, … in order of first appearance
//!                                                    └─▶ state in plain vectors, indexed by id
//! ```
//!
//! Four forms, chosen by the key's types: one column of up to eight bytes; several of fixed width that fit 32 bytes;
//! the same with texts, by dictionaries; anything else as bytes of the row encoding. The index keeps the keys themselves, so that `columns` gives
//! them back; nothing is ever removed, since an id names its key for as long as the state lives.
//!
//! Null equals null here, and floats are compared by their bits: what SQL wants beyond that is the caller's.

mod coded;
mod hash;
mod packed;
mod probe;
#[cfg(test)]
mod tests;

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use arrow::row::Rows;

use crate::key::KeyEncoder;
use coded::Coded;
pub use hash::hash_rows;
pub use hash::words;
use packed::{Narrow, Wide};
pub use probe::ABSENT;
pub(crate) use probe::{ProbeKey, ProbeTable};

/// Keys of fixed column types, and their ids.
#[derive(Debug)]
pub struct KeyIndex {
    types: Vec<DataType>,
    form: Form,
}

#[derive(Debug)]
enum Form {
    /// No key column: one key, once it was seen.
    Empty {
        seen: bool,
    },
    Narrow(Narrow),
    Wide(Wide),
    Coded(Box<Coded>),
    Bytes(Box<Bytes>),
}

impl KeyIndex {
    /// An index without keys.
    ///
    /// # Panics
    /// When a type cannot be a key, see [`KeyEncoder::supports`].
    pub fn new(types: &[DataType]) -> Self {
        let form = match types {
            [] => Form::Empty { seen: false },
            [only] if Narrow::holds(only) => Form::Narrow(Narrow::new()),
            _ if Wide::holds(types) => Form::Wide(Wide::new(types)),
            _ if Coded::holds(types) => Form::Coded(Box::new(Coded::new(types))),
            _ => Form::Bytes(Box::new(Bytes::new(types))),
        };
        Self {
            types: types.to_vec(),
            form,
        }
    }

    /// The types of its columns.
    pub fn types(&self) -> &[DataType] {
        &self.types
    }

    /// The number of keys; their ids are the numbers below it.
    pub fn len(&self) -> usize {
        match &self.form {
            Form::Empty { seen } => usize::from(*seen),
            Form::Narrow(narrow) => narrow.len(),
            Form::Wide(wide) => wide.len(),
            Form::Coded(coded) => coded.len(),
            Form::Bytes(bytes) => bytes.ends.len(),
        }
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes room for so many more keys, where it is known how much room they need.
    pub fn reserve(&mut self, more: usize) {
        match &mut self.form {
            Form::Empty { .. } => {}
            Form::Narrow(narrow) => narrow.reserve(more),
            Form::Wide(wide) => wide.reserve(more),
            Form::Coded(coded) => coded.reserve(more),
            Form::Bytes(bytes) => bytes.table.reserve(more),
        }
    }

    /// The id of each row's key. A key that was not there gets the next id.
    ///
    /// # Panics
    /// When the columns are not the index's, or there would be 2^32 keys.
    pub fn insert(&mut self, columns: &[ArrayRef], rows: usize) -> Vec<u32> {
        match &mut self.form {
            Form::Empty { seen } => {
                *seen |= rows > 0;
                vec![0; rows]
            }
            Form::Narrow(narrow) => narrow.insert(&columns[0]),
            Form::Wide(wide) => wide.insert(columns, rows),
            Form::Coded(coded) => coded.insert(columns, rows),
            Form::Bytes(bytes) => bytes.insert(columns),
        }
    }

    /// The id of each row's key, [`ABSENT`] for keys that are not there.
    ///
    /// # Panics
    /// When the columns are not the index's.
    pub fn find(&self, columns: &[ArrayRef], rows: usize) -> Vec<u32> {
        match &self.form {
            Form::Empty { seen } => vec![if *seen { 0 } else { ABSENT }; rows],
            Form::Narrow(narrow) => narrow.find(&columns[0]),
            Form::Wide(wide) => wide.find(columns, rows),
            Form::Coded(coded) => coded.find(columns, rows),
            Form::Bytes(bytes) => bytes.find(columns),
        }
    }

    /// The keys with the given ids, as columns.
    ///
    /// # Panics
    /// When an id was not given.
    pub fn columns(&self, ids: &[u32]) -> Vec<ArrayRef> {
        match &self.form {
            Form::Empty { .. } => Vec::new(),
            Form::Narrow(narrow) => vec![narrow.column(&self.types[0], ids)],
            Form::Wide(wide) => wide.columns(&self.types, ids),
            Form::Coded(coded) => coded.columns(ids),
            Form::Bytes(bytes) => bytes.columns(ids),
        }
    }

    /// The memory held, in bytes.
    pub fn bytes(&self) -> usize {
        match &self.form {
            Form::Empty { .. } => 0,
            Form::Narrow(narrow) => narrow.bytes(),
            Form::Wide(wide) => wide.bytes(),
            Form::Coded(coded) => coded.bytes(),
            Form::Bytes(bytes) => bytes.arena.capacity() + bytes.ends.capacity() * 8 + bytes.table.bytes(),
        }
    }
}

/// The hash of an encoded key; two keys of one hash are told apart by their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hashed(pub(crate) u64);

impl ProbeKey for Hashed {
    fn hash(self) -> u64 {
        self.0
    }
}

/// Keys of any types, in the row encoding, one after the other.
#[derive(Debug)]
struct Bytes {
    encoder: KeyEncoder,
    table: ProbeTable<Hashed>,
    arena: Vec<u8>,
    ends: Vec<u64>,
}

impl Bytes {
    fn new(types: &[DataType]) -> Self {
        Self {
            encoder: KeyEncoder::new(types),
            table: ProbeTable::new(),
            arena: Vec::new(),
            ends: Vec::new(),
        }
    }

    fn hashes(rows: &Rows) -> Vec<Hashed> {
        rows.iter()
            .map(|row| Hashed(hash::hash_bytes(row.as_ref())))
            .collect()
    }

    fn insert(&mut self, columns: &[ArrayRef]) -> Vec<u32> {
        let rows = self.encoder.encode_borrowed(columns);
        let hashes = Self::hashes(&rows);
        let mut keys = (std::mem::take(&mut self.arena), std::mem::take(&mut self.ends));
        let ids = self.table.insert(
            &hashes,
            &mut keys,
            |(arena, ends), id, row| key_bytes(arena, ends, id) == rows.row(row).as_ref(),
            |(arena, ends), row| {
                arena.extend_from_slice(rows.row(row).as_ref());
                ends.push(arena.len() as u64);
                next_id(ends.len())
            },
        );
        (self.arena, self.ends) = keys;
        ids
    }

    fn find(&self, columns: &[ArrayRef]) -> Vec<u32> {
        let rows = self.encoder.encode_borrowed(columns);
        self.table.find(&Self::hashes(&rows), |id, row| {
            key_bytes(&self.arena, &self.ends, id) == rows.row(row).as_ref()
        })
    }

    fn columns(&self, ids: &[u32]) -> Vec<ArrayRef> {
        self.encoder
            .decode_all(ids.iter().map(|id| key_bytes(&self.arena, &self.ends, *id)))
    }
}

fn key_bytes<'a>(arena: &'a [u8], ends: &[u64], id: u32) -> &'a [u8] {
    let id = id as usize;
    let start = if id == 0 { 0 } else { ends[id - 1] as usize };
    &arena[start..ends[id] as usize]
}

/// The id of the key that made the index `len` keys long.
fn next_id(len: usize) -> u32 {
    u32::try_from(len - 1)
        .ok()
        .filter(|id| *id != ABSENT)
        .expect("an index holds fewer than 2^32 - 1 keys")
}
