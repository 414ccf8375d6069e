//! Immutable rows with a name that is their content, so that a checkpoint writes each segment once.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use arrow::array::{Array, ArrayData, RecordBatch};
use arrow::ipc::writer::StreamWriter;

use super::lookup::Lookups;
use crate::trace::RunId;

/// A batch of rows that never changes.
#[derive(Debug)]
pub struct Segment {
    rows: RecordBatch,
    id: OnceLock<RunId>,
    lookups: Lookups,
}

impl Segment {
    /// A segment of these rows.
    pub fn new(rows: RecordBatch) -> Self {
        Self {
            rows,
            id: OnceLock::new(),
            lookups: Lookups::default(),
        }
    }

    /// A segment that was read back under its name.
    pub(crate) fn stored(rows: RecordBatch, id: RunId) -> Self {
        Self {
            rows,
            id: OnceLock::from(id),
            lookups: Lookups::default(),
        }
    }

    /// The same rows, held elsewhere.
    pub(super) fn moved(&self, rows: RecordBatch) -> Self {
        Self {
            rows,
            id: self.id.clone(),
            lookups: Lookups::default(),
        }
    }

    /// The rows.
    pub fn rows(&self) -> &RecordBatch {
        &self.rows
    }

    /// The rows whose values in `columns` may hash to one of `hashes`, which ascend; at least all that do,
    /// ascending.
    pub(super) fn find(&self, columns: &[usize], hashes: &[u64]) -> Vec<u32> {
        self.lookups.find(&self.rows, columns, hashes)
    }

    /// The hash of the schema and the rows. Computed when first asked for, by whoever writes a checkpoint.
    pub(crate) fn id(&self) -> RunId {
        *self.id.get_or_init(|| {
            let mut hasher = blake3::Hasher::new();
            let mut writer = StreamWriter::try_new(&mut hasher, &self.rows.schema())
                .expect("writing to a hash cannot fail");
            writer
                .write(&self.rows)
                .and_then(|()| writer.finish())
                .expect("writing to a hash cannot fail");
            drop(writer);
            let mut id = [0; 16];
            id.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
            RunId(id)
        })
    }
}

/// The memory that a batch keeps, in bytes: of each buffer, shared by columns or not, the whole.
pub(super) fn held_bytes(rows: &RecordBatch) -> usize {
    fn visit(data: &ArrayData, held: &mut BTreeMap<usize, usize>) {
        let nulls = data.nulls().map(|nulls| nulls.buffer());
        for buffer in data.buffers().iter().chain(nulls) {
            held.insert(buffer.data_ptr().as_ptr() as usize, buffer.capacity());
        }
        data.child_data().iter().for_each(|child| visit(child, held));
    }
    let mut held = BTreeMap::new();
    rows.columns()
        .iter()
        .for_each(|column| visit(&column.to_data(), &mut held));
    held.values().sum()
}
