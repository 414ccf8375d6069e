//! The rows of a section as an Arrow IPC stream: one schema, one batch, zstd.
//!
//! The Arrow reader trusts lengths: it allocates what a message claims before it looks at the bytes, and a
//! failed allocation cannot be caught. So the claims are checked here first, against the bytes that are
//! there and against [`UNPACKED_BYTES_MAX`], and only then is the reader run, behind a boundary that turns a
//! panic into `Corrupt`.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow::array::RecordBatch;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use arrow::ipc::{CompressionType, MessageHeader, root_as_message};

use super::corrupt;
use crate::error::Result;

/// The most bytes that one section may unpack to.
pub(crate) const UNPACKED_BYTES_MAX: u64 = 1 << 30;

/// The most rows of one section.
const SECTION_ROWS_MAX: i64 = 1 << 31;

const CONTINUATION: [u8; 4] = [0xff; 4];

/// The stream of one batch.
///
/// # Panics
/// When the columns are of a type that Arrow streams do not have.
pub fn encode(rows: &RecordBatch) -> Vec<u8> {
    let options = IpcWriteOptions::default()
        .try_with_compression(Some(CompressionType::ZSTD))
        .expect("zstd is compiled in");
    let mut writer = StreamWriter::try_new_with_options(Vec::new(), &rows.schema(), options)
        .expect("memory can be written to");
    writer.write(rows).expect("columns of a section can be written");
    writer.finish().expect("memory can be written to");
    writer.into_inner().expect("memory can be written to")
}

/// The batch of a stream from a peer.
///
/// # Errors
/// `Corrupt`; whatever the bytes are, this does not panic.
pub fn decode(bytes: &[u8]) -> Result<RecordBatch> {
    decode_within(bytes, UNPACKED_BYTES_MAX)
}

/// The same of a stream that unpacks to so many bytes at most.
///
/// # Errors
/// `Corrupt`, also for one that claims more.
pub fn decode_within(bytes: &[u8], unpacked_bytes_max: u64) -> Result<RecordBatch> {
    let read = catch_unwind(AssertUnwindSafe(|| {
        check_claims(bytes, unpacked_bytes_max)?;
        let failed = |error| corrupt(format!("section: {error}"));
        let mut reader = StreamReader::try_new(Cursor::new(bytes), None).map_err(failed)?;
        let rows = reader
            .next()
            .ok_or_else(|| corrupt("a section without rows"))?
            .map_err(failed)?;
        match reader.next() {
            None => Ok(rows),
            Some(_) => Err(corrupt("a section of several batches")),
        }
    }));
    read.unwrap_or_else(|_| Err(corrupt("a section that the Arrow reader gave up on")))
}

/// Walks the messages of a stream and refuses any that claims more than there is.
fn check_claims(bytes: &[u8], unpacked_bytes_max: u64) -> Result<()> {
    let mut rest = bytes;
    for expected in [MessageHeader::Schema, MessageHeader::RecordBatch] {
        let (metadata, body_and_more) = next_message(rest)?;
        // Copied as the reader copies it: flatbuffers must lie aligned in memory.
        let metadata = metadata.to_vec();
        let message = root_as_message(&metadata).map_err(|error| corrupt(format!("section: {error}")))?;
        if message.header_type() != expected {
            let detail = format!("section: {:?} instead of {expected:?}", message.header_type());
            return Err(corrupt(detail));
        }
        let length = usize::try_from(message.bodyLength()).unwrap_or(usize::MAX);
        let (body, after) = body_and_more
            .split_at_checked(length)
            .ok_or_else(|| corrupt(format!("section: a body of {length} bytes is not there")))?;
        rest = after;
        if let Some(batch) = message.header_as_record_batch() {
            check_batch(&batch, body, unpacked_bytes_max)?;
        }
    }
    let end_of_stream = [CONTINUATION, [0; 4]].concat();
    if rest != end_of_stream {
        return Err(corrupt("a section that does not end after its batch"));
    }
    Ok(())
}

/// The metadata of the next message and everything behind it.
fn next_message(bytes: &[u8]) -> Result<(&[u8], &[u8])> {
    let cut_short = || corrupt("a section that is cut short");
    let (marker, rest) = bytes.split_at_checked(4).ok_or_else(cut_short)?;
    if marker != CONTINUATION {
        return Err(corrupt("a section that is not an Arrow stream"));
    }
    let (length, rest) = rest.split_at_checked(4).ok_or_else(cut_short)?;
    let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]) as usize;
    rest.split_at_checked(length).ok_or_else(cut_short)
}

/// Refuses a batch whose buffers lie outside its body or unpack to more than the maximum.
fn check_batch(batch: &arrow::ipc::RecordBatch<'_>, body: &[u8], unpacked_bytes_max: u64) -> Result<()> {
    let too_many = |rows: i64| !(0..=SECTION_ROWS_MAX).contains(&rows);
    if too_many(batch.length())
        || batch
            .nodes()
            .is_some_and(|nodes| nodes.iter().any(|n| too_many(n.length())))
    {
        return Err(corrupt(format!("a section of {} rows", batch.length())));
    }
    let mut unpacked: u64 = 0;
    for buffer in batch.buffers().iter().flatten() {
        let start = usize::try_from(buffer.offset()).unwrap_or(usize::MAX);
        let length = usize::try_from(buffer.length()).unwrap_or(usize::MAX);
        let packed = start
            .checked_add(length)
            .and_then(|end| body.get(start..end))
            .ok_or_else(|| corrupt("a section with a buffer outside its body"))?;
        let claimed = match (batch.compression(), packed.first_chunk::<8>()) {
            // -1 says that the buffer is not compressed.
            (Some(_), Some(claim)) if i64::from_le_bytes(*claim) >= 0 => u64::from_le_bytes(*claim),
            _ => packed.len() as u64,
        };
        unpacked = unpacked.saturating_add(claimed);
    }
    if unpacked > unpacked_bytes_max {
        return Err(corrupt(format!(
            "a section that claims to unpack to {unpacked} bytes"
        )));
    }
    Ok(())
}
