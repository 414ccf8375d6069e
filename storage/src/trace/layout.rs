//! Which columns of a trace are its key, which ones order the rows of a key, and the encoding that follows.
//!
//! Invariants: key and order columns exist and are distinct. The encoded columns are the key (ascending,
//! nulls first), then the order columns as asked, then the rest (ascending) in schema order, so that every
//! column takes part and equal bytes mean equal rows.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::row::Rows;

use crate::delta::batch;
use crate::key::{KEY_ORDER, KeyEncoder};

/// Column layout of a trace. Rows are kept sorted by: key columns, then `order` columns, then the remaining
/// ones.
#[derive(Clone, Debug, PartialEq)]
pub struct Layout {
    /// The columns of a row.
    pub schema: SchemaRef,
    /// Indices of the columns that rows are looked up by; may be empty (then all rows share one key).
    pub key: Vec<usize>,
    /// Indices and direction of the columns that order the rows of a key.
    pub order: Vec<(usize, SortOptions)>,
}

impl Layout {
    /// A layout with a key and no particular order within it.
    pub fn keyed(schema: SchemaRef, key: Vec<usize>) -> Self {
        Self {
            schema,
            key,
            order: Vec::new(),
        }
    }

    /// The types of the key columns, in key order.
    pub fn key_types(&self) -> Vec<DataType> {
        self.key
            .iter()
            .map(|column| self.schema.field(*column).data_type().clone())
            .collect()
    }

    /// A digest of everything that gives stored rows their meaning: types, key and order. Names and
    /// nullability do not take part: they do not change a byte of a row.
    pub fn fingerprint(&self) -> [u8; 16] {
        let types: Vec<String> = self
            .schema
            .fields()
            .iter()
            .map(|f| f.data_type().to_string())
            .collect();
        let order: Vec<_> = self
            .order
            .iter()
            .map(|(c, o)| (*c, o.descending, o.nulls_first))
            .collect();
        let text = format!("{types:?} {:?} {order:?}", self.key);
        let mut fingerprint = [0; 16];
        fingerprint.copy_from_slice(&blake3::hash(text.as_bytes()).as_bytes()[..16]);
        fingerprint
    }

    /// All columns in encoded order, each with its direction.
    fn encoded_columns(&self) -> Vec<(usize, SortOptions)> {
        let mut columns: Vec<(usize, SortOptions)> = self.key.iter().map(|c| (*c, KEY_ORDER)).collect();
        columns.extend(self.order.iter().copied());
        let mut named = vec![false; self.schema.fields().len()];
        for (column, _) in &columns {
            assert!(
                !std::mem::replace(&mut named[*column], true),
                "column {column} has one role in a layout"
            );
        }
        columns.extend(
            (0..named.len())
                .filter(|column| !named[*column])
                .map(|column| (column, KEY_ORDER)),
        );
        columns
    }
}

/// A layout together with its encoders; shared by everything that belongs to one trace.
#[derive(Debug)]
pub(crate) struct RowCodec {
    pub(crate) layout: Layout,
    pub(crate) fingerprint: [u8; 16],
    /// Schema indices in encoded order.
    columns: Vec<usize>,
    keys: KeyEncoder,
    rows: KeyEncoder,
}

impl RowCodec {
    /// # Panics
    /// When a column has two roles, does not exist, or is of a type that cannot be encoded.
    pub(crate) fn new(layout: Layout) -> Arc<Self> {
        let columns = layout.encoded_columns();
        let typed: Vec<(DataType, SortOptions)> = columns
            .iter()
            .map(|(c, order)| (layout.schema.field(*c).data_type().clone(), *order))
            .collect();
        Arc::new(Self {
            fingerprint: layout.fingerprint(),
            columns: columns.iter().map(|(column, _)| *column).collect(),
            keys: KeyEncoder::new(&layout.key_types()),
            rows: KeyEncoder::with_order(&typed),
            layout,
        })
    }

    /// The encoded rows of a batch; `None` when there are no columns, so that every row is the empty one.
    pub(crate) fn encode(&self, batch: &RecordBatch) -> Option<Rows> {
        assert_eq!(
            batch.num_columns(),
            self.columns.len(),
            "a delta has the columns of its trace"
        );
        let columns: Vec<ArrayRef> = self.columns.iter().map(|c| batch.column(*c).clone()).collect();
        (!columns.is_empty()).then(|| self.rows.encode_borrowed(&columns))
    }

    /// The encoded keys of a lookup; `None` when the key has no columns.
    pub(crate) fn encode_keys(&self, keys: &[ArrayRef]) -> Option<Rows> {
        assert_eq!(
            keys.len(),
            self.layout.key.len(),
            "a lookup gives one column per key column"
        );
        (!keys.is_empty()).then(|| self.keys.encode_borrowed(keys))
    }

    /// The batch of the given encoded rows, in the trace's schema.
    pub(crate) fn decode<'a>(&self, rows: impl ExactSizeIterator<Item = &'a [u8]>) -> RecordBatch {
        let count = rows.len();
        let decoded = self.rows.decode_all(rows);
        let mut columns: Vec<Option<ArrayRef>> = vec![None; self.columns.len()];
        for (column, values) in self.columns.iter().zip(decoded) {
            columns[*column] = Some(values);
        }
        let columns = columns
            .into_iter()
            .map(|c| c.expect("every column is encoded once"))
            .collect();
        batch(self.layout.schema.clone(), columns, count)
    }
}
