//! Keys with text: each text column has a dictionary of its own, and what is left is a key of fixed width.
//!
//! ```text
//!   (channel text, day text, bidder int8) ──▶ (code u32, code u32, int8) ──▶ sixteen bytes
//! ```
//!
//! Texts of keys repeat: a dictionary is small and stays in the cache, while the rows of an index with millions of
//! keys do not.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray, UInt32Array};
use arrow::datatypes::DataType;

use super::hash::hash_bytes;
use super::packed::Wide;
use super::probe::{ABSENT, ProbeTable};
use super::{Hashed, key_bytes, next_id};

/// The code of null. Texts have the codes from 0 on.
const NULL_CODE: u32 = ABSENT - 1;

/// Texts and their codes.
#[derive(Debug)]
struct Texts {
    table: ProbeTable<Hashed>,
    arena: Vec<u8>,
    ends: Vec<u64>,
}

impl Texts {
    fn new() -> Self {
        Self {
            table: ProbeTable::new(),
            arena: Vec::new(),
            ends: Vec::new(),
        }
    }

    fn hashes(texts: &StringArray) -> Vec<Hashed> {
        (0..texts.len())
            .map(|row| Hashed(hash_bytes(texts.value(row).as_bytes())))
            .collect()
    }

    fn insert(&mut self, texts: &StringArray) -> Vec<u32> {
        let mut kept = (std::mem::take(&mut self.arena), std::mem::take(&mut self.ends));
        // A null is entered as the empty text that stands in its place, and replaced afterwards.
        let codes = self.table.insert(
            &Self::hashes(texts),
            &mut kept,
            |(arena, ends), id, row| key_bytes(arena, ends, id) == texts.value(row).as_bytes(),
            |(arena, ends), row| {
                arena.extend_from_slice(texts.value(row).as_bytes());
                ends.push(arena.len() as u64);
                next_id(ends.len())
            },
        );
        (self.arena, self.ends) = kept;
        with_nulls(codes, texts)
    }

    fn find(&self, texts: &StringArray) -> Vec<u32> {
        let codes = self.table.find(&Self::hashes(texts), |id, row| {
            key_bytes(&self.arena, &self.ends, id) == texts.value(row).as_bytes()
        });
        with_nulls(codes, texts)
    }

    fn column(&self, codes: &UInt32Array) -> ArrayRef {
        let text = |code: &u32| {
            let bytes = (*code != NULL_CODE).then(|| key_bytes(&self.arena, &self.ends, *code));
            bytes.map(|bytes| std::str::from_utf8(bytes).expect("only text was entered"))
        };
        Arc::new(codes.values().iter().map(text).collect::<StringArray>())
    }
}

fn with_nulls(mut codes: Vec<u32>, texts: &StringArray) -> Vec<u32> {
    if let Some(nulls) = texts.nulls().filter(|nulls| nulls.null_count() > 0) {
        let missing = codes
            .iter_mut()
            .enumerate()
            .filter(|(row, _)| nulls.is_null(*row));
        missing.for_each(|(_, code)| *code = NULL_CODE);
    }
    codes
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Coded {
    /// For each column its dictionary, if it is text.
    texts: Vec<Option<Texts>>,
    coded_types: Vec<DataType>,
    wide: Wide,
}

impl Coded {
    fn coded_types(types: &[DataType]) -> Vec<DataType> {
        let coded = |data_type: &DataType| match data_type {
            DataType::Utf8 => DataType::UInt32,
            other => other.clone(),
        };
        types.iter().map(coded).collect()
    }

    pub(super) fn holds(types: &[DataType]) -> bool {
        types.contains(&DataType::Utf8) && Wide::holds(&Self::coded_types(types))
    }

    pub(super) fn new(types: &[DataType]) -> Self {
        let coded_types = Self::coded_types(types);
        Self {
            texts: types
                .iter()
                .map(|t| (*t == DataType::Utf8).then(Texts::new))
                .collect(),
            wide: Wide::new(&coded_types),
            coded_types,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.wide.len()
    }

    pub(super) fn bytes(&self) -> usize {
        let texts = self.texts.iter().flatten();
        let texts =
            texts.map(|texts| texts.arena.capacity() + texts.ends.capacity() * 8 + texts.table.bytes());
        self.wide.bytes() + texts.sum::<usize>()
    }

    pub(super) fn reserve(&mut self, more: usize) {
        self.wide.reserve(more);
    }

    pub(super) fn insert(&mut self, columns: &[ArrayRef], rows: usize) -> Vec<u32> {
        let coded = |(column, texts): (&ArrayRef, &mut Option<Texts>)| -> ArrayRef {
            match texts {
                Some(texts) => Arc::new(UInt32Array::from(texts.insert(column.as_string()))),
                None => column.clone(),
            }
        };
        let coded: Vec<ArrayRef> = columns.iter().zip(&mut self.texts).map(coded).collect();
        self.wide.insert(&coded, rows)
    }

    pub(super) fn find(&self, columns: &[ArrayRef], rows: usize) -> Vec<u32> {
        // A text without a code is in no key; its code, ABSENT, was never entered.
        let coded = |(column, texts): (&ArrayRef, &Option<Texts>)| -> ArrayRef {
            match texts {
                Some(texts) => Arc::new(UInt32Array::from(texts.find(column.as_string()))),
                None => column.clone(),
            }
        };
        let coded: Vec<ArrayRef> = columns.iter().zip(&self.texts).map(coded).collect();
        self.wide.find(&coded, rows)
    }

    pub(super) fn columns(&self, ids: &[u32]) -> Vec<ArrayRef> {
        let coded = self.wide.columns(&self.coded_types, ids);
        let column = |(coded, texts): (ArrayRef, &Option<Texts>)| match texts {
            Some(texts) => texts.column(coded.as_primitive()),
            None => coded,
        };
        coded.into_iter().zip(&self.texts).map(column).collect()
    }
}
