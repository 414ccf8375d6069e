//! A transaction's own writes to one table: what its later statements see, and what its commit submits.
//!
//! Rows are kept in the batches they came in, with one entry per key; a key written twice keeps the version it was
//! first seen with (that is what the commit is checked against) and its last row. The entries are made when they are
//! first needed: a transaction that is one INSERT or one COPY never needs them.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use datafusion::arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use datafusion::arrow::buffer::BooleanBuffer;
use datafusion::arrow::compute::interleave;
use datafusion::arrow::datatypes::SchemaRef;
use tributary_planner::catalog::TableDef;
use tributary_region::TableChange;
use tributary_replication::{Epoch, TableWrites};
use tributary_storage::{KeyEncoder, Keys, OriginId};

/// The version a key must still have when the transaction commits; `None` for no live row.
pub type Expected = Option<(OriginId, Epoch)>;

/// The pending writes of one table.
#[derive(Clone)]
pub struct PendingTable {
    def: Arc<TableDef>,
    schema: SchemaRef,
    encoder: Arc<KeyEncoder>,
    batches: Vec<RecordBatch>,
    /// The versions expected by the first batch, when all of it is new.
    inserted: Vec<Expected>,
    /// The last write of each key.
    rows: OnceLock<PendingRows>,
    bytes: usize,
}

type PendingRows = BTreeMap<Box<[u8]>, PendingRow>;

#[derive(Clone, Copy)]
struct PendingRow {
    batch: usize,
    row: usize,
    deleted: bool,
    expected: Expected,
}

/// What the transaction made of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PendingState {
    /// Not written.
    Untouched,
    /// A row is there.
    Live,
    /// The row was deleted.
    Deleted,
}

impl PendingTable {
    /// Nothing written yet.
    pub fn new(def: Arc<TableDef>) -> Self {
        let types: Vec<_> = def
            .primary_key
            .iter()
            .map(|&column| def.columns[column].sql_type.arrow())
            .collect();
        let encoder = Arc::new(KeyEncoder::new(&types));
        Self {
            schema: def.schema(),
            def,
            encoder,
            batches: Vec::new(),
            inserted: Vec::new(),
            rows: OnceLock::new(),
            bytes: 0,
        }
    }

    /// All columns of the table.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The encoded keys of rows in the table's columns.
    pub fn keys(&self, rows: &RecordBatch) -> Keys {
        let columns: Vec<ArrayRef> = self
            .def
            .primary_key
            .iter()
            .map(|&column| Arc::clone(rows.column(column)))
            .collect();
        self.encoder.encode_rows(&columns, rows.num_rows())
    }

    fn rows(&self) -> &PendingRows {
        self.rows.get_or_init(|| match self.batches.first() {
            None => PendingRows::new(),
            Some(batch) => {
                let row = |(row, expected): (usize, &Expected)| PendingRow {
                    batch: 0,
                    row,
                    deleted: false,
                    expected: *expected,
                };
                let rows = self.inserted.iter().enumerate().map(row);
                self.keys(batch).iter().map(Box::from).zip(rows).collect()
            }
        })
    }

    /// The state of an encoded key.
    pub fn state(&self, key: &[u8]) -> PendingState {
        match self.rows().get(key) {
            None => PendingState::Untouched,
            Some(row) if row.deleted => PendingState::Deleted,
            Some(_) => PendingState::Live,
        }
    }

    /// Writes rows whose keys are distinct, and that the transaction has not as live rows.
    pub fn insert(&mut self, rows: RecordBatch, expected: Vec<Expected>) {
        assert_eq!(rows.num_rows(), expected.len(), "one expectation per row");
        if !self.batches.is_empty() {
            return self.write(rows, false, &expected);
        }
        self.bytes += rows.get_array_memory_size() + expected.len() * std::mem::size_of::<PendingRow>();
        self.batches.push(rows);
        self.inserted = expected;
        self.rows = OnceLock::new();
    }

    /// Writes rows (all columns of the table). `expected` is what the snapshot has under each key; it counts only
    /// for keys that this transaction writes for the first time.
    pub fn write(&mut self, rows: RecordBatch, deleted: bool, expected: &[Expected]) {
        assert_eq!(rows.num_rows(), expected.len(), "one expectation per row");
        let batch = self.batches.len();
        let keys = self.keys(&rows);
        self.rows();
        let pending = self.rows.get_mut().expect("made just now");
        for (row, key) in keys.iter().enumerate() {
            self.bytes += key.len() + std::mem::size_of::<PendingRow>();
            let first = pending.get(key).map(|earlier| earlier.expected);
            let expected = first.unwrap_or(expected[row]);
            pending.insert(
                Box::from(key),
                PendingRow {
                    batch,
                    row,
                    deleted,
                    expected,
                },
            );
        }
        self.bytes += rows.get_array_memory_size();
        self.batches.push(rows);
    }

    /// Number of keys written.
    pub fn len(&self) -> usize {
        self.rows().len()
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Memory held, in bytes; an upper bound.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The rows that are there under these encoded keys, in the order of the keys.
    pub fn live_rows_of<'a>(&self, keys: impl Iterator<Item = &'a [u8]>) -> RecordBatch {
        self.gather(
            keys.filter_map(|key| self.rows().get(key))
                .filter(|row| !row.deleted),
        )
    }

    /// The encoded form of a key given as one row of key columns.
    pub fn key_of(&self, columns: &[ArrayRef]) -> Option<Box<[u8]>> {
        self.encoder.encode_rows(columns, 1).iter().next().map(Box::from)
    }

    /// The rows that are there, in key order.
    pub fn live_rows(&self) -> RecordBatch {
        self.gather(self.rows().values().filter(|row| !row.deleted))
    }

    fn gather<'a>(&self, rows: impl Iterator<Item = &'a PendingRow>) -> RecordBatch {
        let schema = Arc::clone(&self.schema);
        let indices: Vec<(usize, usize)> = rows.map(|row| (row.batch, row.row)).collect();
        if self.batches.is_empty() || indices.is_empty() {
            return RecordBatch::new_empty(schema);
        }
        let column = |column: usize| {
            let parts: Vec<&dyn datafusion::arrow::array::Array> = self
                .batches
                .iter()
                .map(|batch| batch.column(column).as_ref())
                .collect();
            interleave(&parts, &indices).expect("all batches have the table's types")
        };
        let columns = (0..schema.fields().len()).map(column).collect();
        RecordBatch::try_new(schema, columns)
            .expect("rows were checked against the table when they were bound")
    }

    /// The change that the commit submits. A key that was inserted and deleted again leaves no trace.
    pub fn to_change(&self) -> TableChange {
        if let (None, Some(rows)) = (self.rows.get(), self.batches.first()) {
            let deleted = BooleanArray::new(BooleanBuffer::new_unset(rows.num_rows()), None);
            return TableChange {
                writes: TableWrites {
                    rows: rows.clone(),
                    deleted,
                },
                expected: self.inserted.clone(),
            };
        }
        let kept: Vec<&PendingRow> = self
            .rows()
            .values()
            .filter(|row| !(row.deleted && row.expected.is_none()))
            .collect();
        let deleted: BooleanArray = kept.iter().map(|row| Some(row.deleted)).collect();
        let rows = self.gather(kept.iter().copied());
        let expected = kept.iter().map(|row| row.expected).collect();
        TableChange {
            writes: TableWrites { rows, deleted },
            expected,
        }
    }
}

impl std::fmt::Debug for PendingTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PendingTable")
            .field("batches", &self.batches.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{AsArray, Int64Array, StringArray};
    use datafusion::arrow::datatypes::Int64Type;
    use tributary_planner::catalog::{ColumnDef, TableLocality};
    use tributary_planner::types::SqlType;
    use tributary_storage::RegionId;

    use super::*;

    fn table() -> PendingTable {
        let column = |name: &str, sql_type| ColumnDef {
            name: name.into(),
            sql_type,
            nullable: true,
            default: None,
            hidden: false,
        };
        let columns = vec![column("id", SqlType::Int8), column("name", SqlType::Text)];
        PendingTable::new(Arc::new(TableDef {
            columns,
            primary_key: vec![0],
            locality: TableLocality::Global,
        }))
    }

    fn rows(table: &PendingTable, values: &[(i64, &str)]) -> RecordBatch {
        let ids = Int64Array::from_iter_values(values.iter().map(|(id, _)| *id));
        let names = StringArray::from_iter_values(values.iter().map(|(_, name)| *name));
        RecordBatch::try_new(table.def.schema(), vec![Arc::new(ids), Arc::new(names)])
            .expect("the table's columns")
    }

    #[test]
    fn the_first_version_and_the_last_row_count() {
        let mut table = table();
        let version = Some((OriginId::first(RegionId(1)), Epoch(7)));
        table.write(rows(&table, &[(2, "b"), (1, "a")]), false, &[version, None]);
        table.write(rows(&table, &[(2, "c")]), false, &[None]);
        assert_eq!(table.live_rows(), rows(&table, &[(1, "a"), (2, "c")]));
        let change = table.to_change();
        assert_eq!(change.expected, vec![None, version]);
    }

    #[test]
    fn inserted_rows_are_known_by_key_once_somebody_asks() {
        let mut table = table();
        let version = Some((OriginId::first(RegionId(1)), Epoch(7)));
        table.insert(rows(&table, &[(2, "b"), (1, "a")]), vec![version, None]);
        let change = table.to_change();
        assert_eq!(change.writes.rows, rows(&table, &[(2, "b"), (1, "a")]));
        assert_eq!(change.expected, vec![version, None]);
        assert_eq!(table.live_rows(), rows(&table, &[(1, "a"), (2, "b")]));
        table.insert(rows(&table, &[(3, "c")]), vec![None]);
        table.write(rows(&table, &[(2, "d")]), false, &[None]);
        let change = table.to_change();
        assert_eq!(change.writes.rows, rows(&table, &[(1, "a"), (2, "d"), (3, "c")]));
        assert_eq!(change.expected, vec![None, version, None]);
    }

    #[test]
    fn what_was_inserted_and_deleted_is_not_submitted() {
        let mut table = table();
        table.write(rows(&table, &[(1, "a"), (2, "b")]), false, &[None, None]);
        table.write(rows(&table, &[(1, "a")]), true, &[None]);
        let keys = table.keys(&rows(&table, &[(1, ""), (2, "")]));
        assert_eq!(
            (table.state(keys.get(0)), table.state(keys.get(1))),
            (PendingState::Deleted, PendingState::Live)
        );
        let change = table.to_change();
        assert_eq!(
            change.writes.rows.column(0).as_primitive::<Int64Type>().values(),
            &[2]
        );
        assert_eq!(change.expected, vec![None]);
    }
}
