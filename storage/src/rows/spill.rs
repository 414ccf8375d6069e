//! Rows out of memory: segments in a file that the system maps in again as they are read.
//!
//! A segment never changes, so a store may replace it by a copy whose buffers lie in a file. The system keeps the pages
//! that are read often and drops the others when memory is short; nothing is read or written by us after the first
//! write. What stays in memory is what changes: weights, hash tables, accumulators, tails.
//!
//! The file has no name: it is gone when the process is, whatever the reason. It is not state, only room.

use std::fmt;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::convert::fb_to_schema;
use arrow::ipc::reader::{FileDecoder, read_footer_length};
use arrow::ipc::root_as_footer;
use arrow::ipc::writer::FileWriter;
use bytes::Bytes;

use crate::error::{Result, StorageError};

/// Where rows go when memory is short.
pub trait SpillArea: fmt::Debug + Send + Sync {
    /// The bytes of rows that may stay in memory. With none of them even the few rows of a tail go, as
    /// [`Spill::spill_all`] says.
    fn budget(&self) -> usize;

    /// The same rows, elsewhere.
    ///
    /// # Errors
    /// When there is no room; the rows are then kept where they are.
    fn store(&self, rows: &RecordBatch) -> Result<RecordBatch>;
}

/// What holds rows that can be spilled.
pub trait Spill {
    /// The bytes of rows in memory that can be moved.
    fn resident_bytes(&self) -> usize;

    /// Moves rows to an area, oldest first, until so many bytes are free; returns how many are.
    ///
    /// # Errors
    /// When the area has no room. What was moved until then stays there.
    fn spill(&mut self, area: &dyn SpillArea, bytes: usize) -> Result<usize>;

    /// Moves everything, also the few rows of a tail that would soon be copied again: how tests with few rows see that
    /// nothing depends on where rows are.
    ///
    /// # Errors
    /// As [`Spill::spill`].
    fn spill_all(&mut self, area: &dyn SpillArea) -> Result<()>;
}

/// A page of the system, or a multiple of it: mappings begin at these.
const PAGE: u64 = 65_536;

/// Files are not longer than about this, so that a gap in one is not for ever.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// Files in a directory of the data.
#[derive(Debug)]
pub struct SpillFiles {
    directory: std::path::PathBuf,
    budget: usize,
    current: Mutex<Option<(File, u64)>>,
}

impl SpillFiles {
    /// An area in this directory, which exists.
    pub fn new(directory: &Path, budget: usize) -> Self {
        Self {
            directory: directory.to_path_buf(),
            budget,
            current: Mutex::new(None),
        }
    }

    fn failed(&self, error: &std::io::Error) -> StorageError {
        let operation = "spilling rows".to_string();
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                StorageError::Full { operation }
            }
            _ => StorageError::Io {
                operation,
                message: error.to_string(),
            },
        }
    }

    /// Writes bytes and maps them.
    fn map(&self, bytes: &[u8]) -> std::io::Result<Bytes> {
        let mut current = self
            .current
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        let (file, start) = match current.take().filter(|(_, end)| *end < FILE_BYTES_MAX) {
            Some(open) => open,
            None => (tempfile::tempfile_in(&self.directory)?, 0),
        };
        file.write_all_at(bytes, start)?;
        let mapped = mapping(&file, start, bytes.len())?;
        let end = (start + bytes.len() as u64).next_multiple_of(PAGE);
        *current = Some((file, end));
        Ok(mapped)
    }
}

/// A part of a file, as memory.
#[allow(unsafe_code)]
fn mapping(file: &File, start: u64, len: usize) -> std::io::Result<Bytes> {
    let mut options = memmap2::MmapOptions::new();
    options.offset(start).len(len);
    // SAFETY: a mapping is sound as long as nobody changes or shortens the file. The file has no name, so no other
    // process can open it, and this module only ever writes behind what it has mapped.
    let mapped = unsafe { options.map(file)? };
    Ok(Bytes::from_owner(mapped))
}

impl SpillArea for SpillFiles {
    fn budget(&self) -> usize {
        self.budget
    }

    fn store(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let encoded = encode(rows).expect("rows of a store can be written to memory");
        let mapped = self.map(&encoded).map_err(|error| self.failed(&error))?;
        let damaged = |error: ArrowError| StorageError::Corrupt {
            what: "spilled rows".to_string(),
            detail: error.to_string(),
        };
        decode(rows.schema(), mapped).map_err(damaged)
    }
}

fn encode(rows: &RecordBatch) -> std::result::Result<Vec<u8>, ArrowError> {
    let mut bytes = Vec::with_capacity(rows.get_array_memory_size() + 4096);
    let mut writer = FileWriter::try_new(&mut bytes, &rows.schema())?;
    writer.write(rows)?;
    writer.finish()?;
    drop(writer);
    bytes.flush()?;
    Ok(bytes)
}

/// The one batch of an encoded file; its buffers are those of the file.
fn decode(schema: SchemaRef, file: Bytes) -> std::result::Result<RecordBatch, ArrowError> {
    let buffer = Buffer::from(file);
    let invalid = |what: &str| ArrowError::IpcError(what.to_string());
    let trailer = buffer
        .len()
        .checked_sub(10)
        .ok_or_else(|| invalid("no trailer"))?;
    let last: [u8; 10] = buffer[trailer..].try_into().map_err(|_| invalid("no trailer"))?;
    let footer_start = trailer
        .checked_sub(read_footer_length(last)?)
        .ok_or_else(|| invalid("no footer"))?;
    let footer =
        root_as_footer(&buffer[footer_start..trailer]).map_err(|error| invalid(&error.to_string()))?;
    let written = footer
        .schema()
        .map(fb_to_schema)
        .ok_or_else(|| invalid("no schema"))?;
    let decoder = FileDecoder::new(std::sync::Arc::new(written), footer.version());
    let block = footer
        .recordBatches()
        .filter(|blocks| !blocks.is_empty())
        .map(|blocks| *blocks.get(0))
        .ok_or_else(|| invalid("no batch"))?;
    let start = usize::try_from(block.offset()).map_err(|_| invalid("a place before the file"))?;
    let length = usize::try_from(block.metaDataLength()).map_err(|_| invalid("a negative length"))?
        + usize::try_from(block.bodyLength()).map_err(|_| invalid("a negative length"))?;
    let data = buffer.slice_with_length(start, length);
    let rows = decoder
        .read_record_batch(&block, &data)?
        .ok_or_else(|| invalid("an empty batch"))?;
    Ok(crate::delta::batch(
        schema,
        rows.columns().to_vec(),
        rows.num_rows(),
    ))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use arrow::array::{ArrayRef, Decimal128Array, Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field, Schema};

    use super::super::{RowStore, SEGMENT_ROWS};
    use super::*;

    fn rows(first: i64, count: usize) -> RecordBatch {
        let numbers = first..first + count as i64;
        let text = |n: i64| (n % 7 != 0).then(|| format!("row {n}"));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(numbers.clone())),
            Arc::new(StringArray::from_iter(numbers.clone().map(text))),
            Arc::new(Decimal128Array::from_iter_values(numbers.map(i128::from))),
        ];
        let types = [DataType::Int64, DataType::Utf8, DataType::Decimal128(38, 10)];
        let fields = types
            .iter()
            .enumerate()
            .map(|(i, t)| Field::new(format!("c{i}"), t.clone(), true));
        crate::delta::batch(Arc::new(Schema::new(fields.collect::<Vec<_>>())), columns, count)
    }

    #[test]
    fn spilled_rows_are_the_same_rows() {
        let folder = tempfile::tempdir().expect("a folder");
        let area = SpillFiles::new(folder.path(), 0);
        let mut store = RowStore::new(rows(0, 0).schema());
        let mut whole = RowStore::new(rows(0, 0).schema());
        for part in 0..30 {
            let batch = rows(part * 3000, 3000);
            store.append(&batch);
            whole.append(&batch);
            let freed = store.spill(&area, usize::MAX).expect("there is room");
            assert_eq!(
                freed > 0,
                store.len() / SEGMENT_ROWS > (store.len() - 3000) / SEGMENT_ROWS
            );
        }
        store.set_weight(5, 0);
        whole.set_weight(5, 0);
        let ids: Vec<u32> = (0..whole.len() as u32).step_by(77).collect();
        assert_eq!(store.take(&ids), whole.take(&ids));
        assert!(
            store.resident_bytes() * 4 < whole.resident_bytes(),
            "what is left is the tail"
        );
        let all = |store: &RowStore| store.snapshot().scan(1000).collect::<Vec<_>>();
        assert_eq!(all(&store), all(&whole));
        assert_eq!(
            std::fs::read_dir(folder.path()).expect("a folder").count(),
            0,
            "files have no name"
        );
    }

    #[test]
    fn what_is_spilled_already_is_not_written_again() {
        #[derive(Debug)]
        struct Counted(SpillFiles, AtomicUsize);
        impl SpillArea for Counted {
            fn budget(&self) -> usize {
                0
            }
            fn store(&self, rows: &RecordBatch) -> Result<RecordBatch> {
                self.1.fetch_add(rows.num_rows(), Ordering::Relaxed);
                self.0.store(rows)
            }
        }
        let folder = tempfile::tempdir().expect("a folder");
        let area = Counted(SpillFiles::new(folder.path(), 0), AtomicUsize::new(0));
        let mut store = RowStore::new(rows(0, 0).schema());
        let written_after = |store: &mut RowStore, count: usize| {
            let first = i64::try_from(store.len()).expect("few rows");
            store.append(&rows(first, count));
            store.spill_all(&area).expect("there is room");
            area.1.swap(0, Ordering::Relaxed)
        };
        assert_eq!(
            written_after(&mut store, SEGMENT_ROWS + 1000),
            SEGMENT_ROWS + 1000
        );
        assert_eq!(
            written_after(&mut store, 10),
            10,
            "the longer batch stays as it is"
        );
        assert_eq!(
            written_after(&mut store, 900),
            1910,
            "batches that become one are written again"
        );
        store.spill_all(&area).expect("there is room");
        assert_eq!(area.1.load(Ordering::Relaxed), 0);
        let ids: Vec<u32> = (0..store.len() as u32).collect();
        assert_eq!(store.take(&ids), rows(0, store.len()));
    }

    #[test]
    fn a_store_that_cannot_spill_keeps_its_rows() {
        #[derive(Debug)]
        struct NoRoom;
        impl SpillArea for NoRoom {
            fn budget(&self) -> usize {
                0
            }
            fn store(&self, _: &RecordBatch) -> Result<RecordBatch> {
                let operation = "spilling rows".to_string();
                Err(StorageError::Full { operation })
            }
        }
        let mut store = RowStore::new(rows(0, 0).schema());
        store.append(&rows(0, 3 * SEGMENT_ROWS));
        assert!(store.spill(&NoRoom, usize::MAX).is_err());
        assert_eq!(store.take(&[40_000]), rows(40_000, 1));
        let nowhere = SpillFiles::new(Path::new("/nonexistent/folder"), 0);
        assert!(matches!(
            store.spill(&nowhere, usize::MAX),
            Err(StorageError::Io { .. })
        ));
    }
}
