//! Stored relations: a table's row versions and a fragment's slots, each with its key encoding and the
//! fingerprint under which it is exchanged.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::DataType;
use tributary_executor::View;
use tributary_planner::catalog::TableDef;
use tributary_planner::plan::ViewPlan;
use tributary_replication::{RowVersions, SlotLayout, SlotSet};
use tributary_storage::{
    Fingerprint, FragmentId, KeyEncoder, Keys, Layout, ObjectId, OriginId, RunTrace, StorageError,
};

use crate::config::Defects;
use crate::error::Result;

/// Where restored state comes from: the trace of this name and layout, if there is one.
pub(crate) type Restore<'a> =
    &'a mut dyn FnMut(&str, Layout) -> std::result::Result<Option<RunTrace>, StorageError>;

/// A table's rows.
pub struct Table {
    pub(crate) def: Arc<TableDef>,
    pub(crate) rows: RowVersions,
    pub(crate) encoder: Arc<KeyEncoder>,
    pub(crate) fingerprint: Fingerprint,
}

impl Table {
    pub(crate) fn new(
        id: ObjectId,
        def: Arc<TableDef>,
        defects: Defects,
        restore: Restore<'_>,
    ) -> Result<Self> {
        let schema = def.schema();
        let key = def.primary_key.clone();
        let layout = RowVersions::trace_layout(schema.clone(), key.clone());
        let mut rows = match restore(&Self::trace_name(id), layout)? {
            Some(trace) => RowVersions::from_trace(schema.clone(), key.clone(), def.is_global(), trace),
            None => RowVersions::new(schema.clone(), key.clone(), def.is_global()),
        };
        rows.set_defects(defects.replication);
        let types: Vec<DataType> = key
            .iter()
            .map(|&column| schema.field(column).data_type().clone())
            .collect();
        let text = format!("{id} {:?} {:?}", schema.fields(), def.primary_key);
        Ok(Self {
            def,
            rows,
            encoder: Arc::new(KeyEncoder::new(&types)),
            fingerprint: fingerprint(&text),
        })
    }

    pub(crate) fn trace_name(id: ObjectId) -> String {
        format!("table/{id}")
    }

    pub(crate) fn encode_keys(&self, rows: &RecordBatch) -> Keys {
        let columns: Vec<ArrayRef> = self
            .def
            .primary_key
            .iter()
            .map(|&key| rows.column(key).clone())
            .collect();
        self.encoder.encode_rows(&columns, rows.num_rows())
    }
}

/// A fragment's slots.
pub struct Slots {
    pub(crate) set: SlotSet,
    pub(crate) layout: SlotLayout,
    pub(crate) fingerprint: Fingerprint,
}

impl Slots {
    pub(crate) fn new(id: FragmentId, plan: &Arc<ViewPlan>, defects: Defects) -> Self {
        let layout = View::slot_layout(plan, usize::from(id.number));
        Self {
            set: SlotSet::new(layout.clone()).with_defects(defects.replication),
            layout,
            fingerprint: plan.fingerprint(),
        }
    }

    /// The name of an origin's slots in a checkpoint.
    pub(crate) fn rows_name(id: FragmentId, origin: OriginId) -> String {
        format!("slots/{id}/{origin}")
    }
}

fn fingerprint(text: &str) -> Fingerprint {
    let mut digest = [0; 16];
    digest.copy_from_slice(&blake3::hash(text.as_bytes()).as_bytes()[..16]);
    Fingerprint(digest)
}
