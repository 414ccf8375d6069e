//! Versions of the rows of a table.
//!
//! A row of a REGIONAL table has one owner and one version; it never travels as a row, so a delete simply
//! removes it. A row of a GLOBAL table may be written anywhere: each version carries
//!
//! - its *dot* (origin, stamp), which names the write;
//! - an HLC at least one more than that of the version it overwrote, so that newest-wins never contradicts
//!   causality, whatever the wall clocks say;
//! - a *context*: for each origin the newest dot of this row that its writer had seen.
//!
//! The greatest (HLC, origin) wins, in whatever order versions arrive; deletes are versions too. Two versions
//! are *concurrent* when neither dot is in the other's context: a live one that loses to a concurrent one is
//! a conflict, and is counted.
//!
//! ```text
//! the table's columns | origin, stamp, hlc Int64 | deleted Boolean | context Binary | sibling Int16 (always 0)
//! ```
//!
//! A tombstone is kept until nothing older can arrive any more: [`RowVersions::collect`] drops those that the caller
//! knows to be stable (RFC 0010).
//!
//! Invariants: at most one row per key, with weight 1; two versions with the same (HLC, origin) are the same
//! version; what is written after a tombstone was dropped is later than it. Left out: siblings (the format has room for
//! them), shortening contexts.

mod merge;
#[cfg(test)]
mod tests;
mod tombstones;
mod version;

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Int16Array, Int64Array, RecordBatch, new_null_array,
};
use arrow::buffer::BooleanBuffer;
use arrow::compute::nullif;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use tributary_storage::{Delta, Found, KeyEncoder, Layout, OriginId, RunTrace, Trace, TraceSnapshot};

use crate::changes::{Changes, to_keys};
use crate::defects::Defects;
use crate::frontier::Epoch;
use crate::hlc::Hlc;
use crate::section::{boolean, changed_since, check_distinct, int64, of_origin_since, pick};
use crate::walk::{RowsWalk, Walk};
pub use merge::{LostVersion, MergedRows, has_seen};
use tombstones::Tombstones;
use version::{Context, Held, context_bytes, see};

/// The most bytes of a row context that are read from a peer: several thousand origins.
pub const CONTEXT_BYTES_MAX: usize = 64 * 1024;

/// The number of hidden columns behind the table's own.
pub const HIDDEN_COLUMNS: usize = 6;

/// Writes to a table. Each key occurs at most once.
#[derive(Clone, Debug)]
pub struct TableWrites {
    /// The table's columns.
    pub rows: RecordBatch,
    /// True deletes the row: only its key columns matter. Never null.
    pub deleted: BooleanArray,
}

/// What is known of the newest version of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowVersion {
    /// Who wrote it.
    pub origin: OriginId,
    /// The epoch in which it was written.
    pub stamp: Epoch,
    /// Whether it is a tombstone.
    pub deleted: bool,
}

/// The rows of one table with their versions.
pub struct RowVersions {
    columns: SchemaRef,
    key: Vec<usize>,
    global: bool,
    keys: KeyEncoder,
    whole: KeyEncoder,
    trace: RunTrace,
    tombstones: Tombstones,
    own: Option<OriginId>,
    own_stamp_max: Epoch,
    sealed: bool,
    defects: Defects,
}

impl RowVersions {
    /// An empty table with these columns and this primary key. `global`: rows may be written in every region.
    pub fn new(columns: SchemaRef, key: Vec<usize>, global: bool) -> Self {
        let trace = RunTrace::new(Self::trace_layout(columns.clone(), key.clone()));
        Self::from_trace(columns, key, global, trace)
    }

    /// The table whose rows a checkpoint brought back.
    ///
    /// # Panics
    /// When there is no key column.
    pub fn from_trace(columns: SchemaRef, key: Vec<usize>, global: bool, trace: RunTrace) -> Self {
        assert!(!key.is_empty(), "every table has a key");
        let types = |fields: &[usize]| -> Vec<DataType> {
            fields
                .iter()
                .map(|column| columns.field(*column).data_type().clone())
                .collect()
        };
        let all: Vec<usize> = (0..columns.fields().len()).collect();
        let mut rows = Self {
            keys: KeyEncoder::new(&types(&key)),
            whole: KeyEncoder::new(&types(&all)),
            columns,
            key,
            global,
            trace,
            tombstones: Tombstones::default(),
            own: None,
            own_stamp_max: Epoch(0),
            sealed: true,
            defects: Defects::default(),
        };
        rows.find_tombstones();
        rows
    }

    /// Tells which origin writes here, before its first write. Its changes can then be found from the
    /// stamps of runs alone, without reading everything.
    pub fn with_own(mut self, own: OriginId) -> Self {
        self.own = Some(own);
        self
    }

    /// Switches defects on. For tests only.
    pub fn with_defects(mut self, defects: Defects) -> Self {
        self.set_defects(defects);
        self
    }

    /// Switches defects on or off. For tests only.
    pub fn set_defects(&mut self, defects: Defects) {
        self.defects = defects;
    }

    /// The layout of the trace of a table: its columns, nullable because tombstones have only keys, and the
    /// hidden ones.
    pub fn trace_layout(columns: SchemaRef, key: Vec<usize>) -> Layout {
        let own = columns
            .fields()
            .iter()
            .map(|field| field.as_ref().clone().with_nullable(true));
        let fields: Vec<Field> = own.chain(hidden_fields()).collect();
        Layout::keyed(Arc::new(Schema::new(fields)), key)
    }

    /// The table's columns.
    pub fn columns(&self) -> &SchemaRef {
        &self.columns
    }

    /// The indices of the key columns.
    pub fn key(&self) -> &[usize] {
        &self.key
    }

    /// Writes rows of this region. Returns the visible change: old rows -1, new rows +1.
    ///
    /// # Panics
    /// When a key occurs twice, or the columns are not the table's.
    pub fn write_own(&mut self, origin: OriginId, stamp: Epoch, hlc: Hlc, writes: &TableWrites) -> Delta {
        assert!(stamp > Epoch(0), "epoch 0 is before every write");
        let rows = writes.rows.num_rows();
        assert_eq!(writes.deleted.len(), rows, "every write says whether it deletes");
        assert_eq!(
            writes.deleted.null_count(),
            0,
            "every write says whether it deletes"
        );
        let key_columns = self.key_columns(writes.rows.columns());
        check_distinct("own rows", &self.keys.encode_rows(&key_columns, rows))
            .expect("a commit writes each row at most once");
        self.own = Some(origin);
        self.own_stamp_max = self.own_stamp_max.max(stamp);
        let found = self.trace.lookup(&key_columns, rows);
        if found.probe.is_empty() && writes.deleted.true_count() == 0 {
            return self.insert_own(origin, stamp, hlc, &writes.rows);
        }
        let held = self.held(&found, rows);
        let (mut hlcs, mut contexts, mut accepted) = (Vec::new(), Vec::new(), Vec::new());
        for (row, held) in held.iter().enumerate() {
            hlcs.push(
                held.as_ref()
                    .map_or(hlc, |held| hlc.max(held.hlc.successor()))
                    .as_i64(),
            );
            let mut context = Context::new();
            if let (true, Some(held)) = (self.global, held) {
                context = held.context();
                see(&mut context, held.version.origin, held.version.stamp);
            }
            contexts.push(context_bytes(&context));
            let nothing_to_delete = held.as_ref().is_none_or(|held| held.version.deleted);
            accepted.push(!(writes.deleted.value(row) && nothing_to_delete));
        }
        let mut columns = self.without_values(writes.rows.columns(), &writes.deleted);
        columns.push(Arc::new(Int64Array::from(vec![origin.as_i64(); rows])));
        columns.push(Arc::new(Int64Array::from(vec![stamp.as_i64(); rows])));
        columns.push(Arc::new(Int64Array::from(hlcs)));
        columns.push(Arc::new(writes.deleted.clone()));
        columns.push(Arc::new(BinaryArray::from_iter_values(contexts)));
        columns.push(Arc::new(Int16Array::from(vec![0; rows])));
        self.write(&columns, &held, &accepted)
    }

    /// Writes live rows of this region under keys that hold nothing: what [`RowVersions::write_own`] comes to then.
    fn insert_own(&mut self, origin: OriginId, stamp: Epoch, hlc: Hlc, rows: &RecordBatch) -> Delta {
        let count = rows.num_rows();
        let context = context_bytes(&Context::new());
        let mut columns = rows.columns().to_vec();
        columns.push(Arc::new(Int64Array::from(vec![origin.as_i64(); count])));
        columns.push(Arc::new(Int64Array::from(vec![stamp.as_i64(); count])));
        columns.push(Arc::new(Int64Array::from(vec![hlc.as_i64(); count])));
        columns.push(Arc::new(BooleanArray::new(BooleanBuffer::new_unset(count), None)));
        columns.push(Arc::new(BinaryArray::from_iter_values(std::iter::repeat_n(
            &context, count,
        ))));
        columns.push(Arc::new(Int16Array::from(vec![0; count])));
        let visible = RecordBatch::try_new(self.columns.clone(), rows.columns().to_vec())
            .expect("visible rows have the table's columns");
        if count > 0 {
            let stored = RecordBatch::try_new(self.trace_schema(), columns)
                .expect("stored rows have the trace's columns");
            self.trace.apply(&Delta::new(stored, None));
            self.sealed = false;
        }
        Delta::new(visible, None)
    }

    /// The rows to send: those whose newest version is `origin`'s. Columns: the table's, then stamp, hlc,
    /// deleted, context, sibling.
    ///
    /// # Panics
    /// When something was written since the last seal: a section is cut from sealed state.
    pub fn section(&self, origin: OriginId, changes: &Changes) -> RecordBatch {
        assert!(
            self.sealed,
            "a section is cut from sealed rows: seal after the step"
        );
        let origin_column = self.columns.fields().len();
        let rows = match changes {
            Changes::Keys(set) => {
                let keys = to_keys(set);
                let found = self.trace.lookup(&self.keys.decode(&keys), keys.len());
                of_origin_since(
                    &Delta::new(found.rows, Some(found.weights)),
                    origin_column,
                    origin,
                    Epoch(0),
                )
            }
            Changes::Since(since) => changed_since(&self.trace, origin_column, self.own, origin, *since),
        };
        let shipped: Vec<usize> = (0..rows.num_columns())
            .filter(|column| *column != origin_column)
            .collect();
        rows.project(&shipped).expect("the columns exist")
    }

    /// As [`RowVersions::section`] of everything since an epoch, in portions of at most so many rows.
    pub fn walk(&self, origin: OriginId, since: Epoch, rows_max: usize) -> Walk {
        let snapshot = self.trace.snapshot();
        let scan = match self.own == Some(origin) {
            true => snapshot.scan_since(since.0, rows_max),
            false => snapshot.scan(rows_max),
        };
        Walk::Rows(RowsWalk {
            scan,
            since,
            origin,
            origin_column: self.columns.fields().len(),
        })
    }

    /// The columns of a section.
    pub fn section_schema(&self) -> SchemaRef {
        let mut shipped: Vec<usize> = (0..self.trace_schema().fields().len()).collect();
        shipped.remove(self.columns.fields().len());
        Arc::new(self.trace_schema().project(&shipped).expect("the columns exist"))
    }

    /// The newest version of each key, tombstones included; `None` where there never was a row.
    pub fn versions(&self, keys: &[ArrayRef], rows: usize) -> Vec<Option<RowVersion>> {
        let found = self.trace.lookup(keys, rows);
        if found.probe.is_empty() {
            return vec![None; rows];
        }
        self.held(&found, rows)
            .iter()
            .map(|held| held.as_ref().map(|held| held.version))
            .collect()
    }

    /// Makes everything written so far an immutable run that carries `stamp`: this region's log position.
    ///
    /// # Panics
    /// When own rows written since the last seal are stamped later.
    pub fn seal(&mut self, stamp: u64) {
        assert!(
            self.own_stamp_max.0 <= stamp,
            "runs are sealed at or after the stamps they hold"
        );
        self.trace.seal(stamp);
        self.sealed = true;
    }

    /// What is sealed, with the hidden columns.
    pub fn snapshot(&self) -> Arc<TraceSnapshot> {
        self.trace.snapshot()
    }

    /// The memory held, in bytes.
    pub fn bytes(&self) -> usize {
        self.trace.bytes()
    }

    /// The number of rows, tombstones included; an upper bound.
    pub fn row_count(&self) -> usize {
        self.trace.row_count()
    }

    /// The encoder of this table's keys.
    pub fn key_encoder(&self) -> &KeyEncoder {
        &self.keys
    }

    fn key_columns(&self, columns: &[ArrayRef]) -> Vec<ArrayRef> {
        self.key.iter().map(|column| columns[*column].clone()).collect()
    }

    fn trace_schema(&self) -> SchemaRef {
        self.trace.layout().schema.clone()
    }

    /// The columns with nulls where a deleted row has values beside its key.
    fn without_values(&self, columns: &[ArrayRef], deleted: &BooleanArray) -> Vec<ArrayRef> {
        if deleted.true_count() == 0 {
            return columns.to_vec();
        }
        let cleared = |(i, column): (usize, &ArrayRef)| {
            if self.key.contains(&i) || *column.data_type() == DataType::Null {
                return column.clone();
            }
            nullif(column, deleted).expect("there is one verdict per row")
        };
        columns.iter().enumerate().map(cleared).collect()
    }

    /// The version held for each of `rows` looked-up keys.
    fn held<'a>(&self, found: &'a Found, rows: usize) -> Vec<Option<Held<'a>>> {
        let width = self.columns.fields().len();
        let column = |i: usize| found.rows.column(width + i);
        let (origins, stamps, hlcs) = (int64(column(0)), int64(column(1)), int64(column(2)));
        let deleted = boolean(column(3));
        let contexts: &BinaryArray = column(4).as_binary();
        let mut held: Vec<Option<Held<'a>>> = (0..rows).map(|_| None).collect();
        for row in 0..found.probe.len() {
            let place = &mut held[found.probe.value(row) as usize];
            assert!(
                place.is_none() && found.weights.value(row) == 1,
                "a row has one newest version"
            );
            *place = Some(Held {
                columns: found.rows.columns(),
                row,
                hlc: stored_hlc(hlcs.value(row)),
                context: contexts.value(row),
                version: stored_version(origins.value(row), stamps.value(row), deleted.value(row)),
            });
        }
        held
    }

    /// Replaces the held versions by the accepted ones and returns the visible change.
    fn write(&mut self, columns: &[ArrayRef], held: &[Option<Held<'_>>], accepted: &[bool]) -> Delta {
        const ARRIVING: usize = 0;
        const HELD: usize = 1;
        self.note_tombstones(columns, held, accepted);
        let deleted = boolean(&columns[self.columns.fields().len() + 3]);
        let (mut stored, mut stored_weights) = (Vec::new(), Vec::new());
        let (mut visible, mut visible_weights) = (Vec::new(), Vec::new());
        for (row, held) in held.iter().enumerate().filter(|(row, _)| accepted[*row]) {
            if let Some(held) = held {
                stored.push((HELD, held.row));
                stored_weights.push(-1);
                if !held.version.deleted {
                    visible.push((HELD, held.row));
                    visible_weights.push(-1);
                }
            }
            if self.global || !deleted.value(row) {
                stored.push((ARRIVING, row));
                stored_weights.push(1);
            }
            if !deleted.value(row) {
                visible.push((ARRIVING, row));
                visible_weights.push(1);
            }
        }
        let nothing: Vec<ArrayRef>;
        let held_columns = match held.iter().flatten().next() {
            Some(held) => held.columns,
            None => {
                nothing = columns
                    .iter()
                    .map(|column| new_null_array(column.data_type(), 0))
                    .collect();
                nothing.as_slice()
            }
        };
        let width = self.columns.fields().len();
        let seen = [&columns[..width], &held_columns[..width]];
        let visible = RecordBatch::try_new(self.columns.clone(), pick(&seen, &visible))
            .expect("visible rows have the table's columns");
        if !stored.is_empty() {
            let stored = RecordBatch::try_new(self.trace_schema(), pick(&[columns, held_columns], &stored))
                .expect("stored rows have the trace's columns");
            self.trace
                .apply(&Delta::new(stored, Some(Int64Array::from(stored_weights))));
            self.sealed = false;
        }
        Delta::new(visible, Some(Int64Array::from(visible_weights)))
    }
}

fn stored_version(origin: i64, stamp: i64, deleted: bool) -> RowVersion {
    RowVersion {
        origin: OriginId::from_i64(origin).expect("stored origins were checked"),
        stamp: Epoch::from_i64(stamp).expect("stored stamps were checked"),
        deleted,
    }
}

fn stored_hlc(hlc: i64) -> Hlc {
    Hlc::from_i64(hlc).expect("stored times were checked")
}

fn hidden_fields() -> [Field; HIDDEN_COLUMNS] {
    [
        Field::new("tributary_origin", DataType::Int64, false),
        Field::new("tributary_stamp", DataType::Int64, false),
        Field::new("tributary_hlc", DataType::Int64, false),
        Field::new("tributary_deleted", DataType::Boolean, false),
        Field::new("tributary_context", DataType::Binary, false),
        Field::new("tributary_sibling", DataType::Int16, false),
    ]
}
