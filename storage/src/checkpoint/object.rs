//! Objects: bytes of any length under a name that is their content, stored in chunks.
//!
//! ```text
//!   key  [0][id]                 value  empty: chunks of this object may exist
//!   key  [1][id][chunk u32 BE]   value  [format u16][crc32 u32][bytes]
//! ```
//!
//! The index entry is written with the first chunk, in the same family, so no crash leaves chunks that are
//! not listed. The checksum covers the id and the chunk's number, so chunks cannot be taken for one another.
//! Both ways of going through an object hold one chunk in memory.

use std::io;

use bytes::{BufMut, Bytes, BytesMut};

use super::ADVICE;
use super::manifest::{FORMAT_VERSION, StoredObject};
use crate::error::{Result, StorageError};
use crate::kv::{Family, Kv, WriteBatch};
use crate::trace::RunId;

/// The largest value that is stored, in bytes.
pub(super) const CHUNK_BYTES_MAX: usize = 16 << 20;

/// The bytes before a chunk's own.
pub(crate) const HEADER_BYTES: usize = 6;

pub(super) fn chunk_key(id: RunId, chunk: u32) -> [u8; 21] {
    let mut key = [1; 21];
    key[1..17].copy_from_slice(&id.0);
    key[17..].copy_from_slice(&chunk.to_be_bytes());
    key
}

fn index_key(id: RunId) -> [u8; 17] {
    let mut key = [0; 17];
    key[1..].copy_from_slice(&id.0);
    key
}

/// The name of a blob.
pub(super) fn blob_id(blob: &[u8]) -> RunId {
    let mut hasher = blake3::Hasher::new();
    // So that no blob has the name of a run, whatever its bytes.
    hasher.update(b"blob");
    hasher.update(blob);
    let mut id = [0; 16];
    id.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    RunId(id)
}

/// All objects of which anything may be stored.
pub(super) fn list(kv: &dyn Kv) -> Result<Vec<RunId>> {
    let entries = kv.scan(Family::Runs, &[0], Some(&[1]), usize::MAX)?;
    entries
        .iter()
        .map(|(key, _)| {
            key[1..].try_into().map(RunId).map_err(|_| StorageError::Corrupt {
                what: "the index of runs".into(),
                detail: format!("a key has {} bytes. {ADVICE}", key.len()),
            })
        })
        .collect()
}

/// Removes an object, the index entry last.
pub(super) fn remove(batch: &mut WriteBatch, id: RunId) {
    let mut end = chunk_key(id, u32::MAX).to_vec();
    end.push(0);
    batch.delete_range(Family::Runs, chunk_key(id, 0), end);
    batch.delete(Family::Runs, index_key(id));
}

/// Writes an object that is in memory.
pub(super) fn write_all(kv: &dyn Kv, id: RunId, bytes: &[u8]) -> Result<StoredObject> {
    let mut writer = ObjectWriter::new(kv, id);
    let written = io::Write::write_all(&mut writer, bytes);
    writer.finish(written.map_err(|error| error.to_string()))
}

/// Reads a whole object into memory.
pub(super) fn read_all(kv: &dyn Kv, name: &str, id: RunId, stored: StoredObject) -> Result<Bytes> {
    let mut reader = ObjectReader::new(kv, name, id, stored);
    let mut whole = BytesMut::new();
    while let Some(chunk) = reader.next_chunk()? {
        whole.put_slice(&chunk);
    }
    Ok(whole.freeze())
}

/// Cuts what is written to it into chunks.
pub(super) struct ObjectWriter<'a> {
    kv: &'a dyn Kv,
    id: RunId,
    buffer: Vec<u8>,
    chunks: u32,
    bytes: u64,
    /// What `io::Write` could only pass on as text.
    failure: Option<StorageError>,
}

impl<'a> ObjectWriter<'a> {
    pub(super) fn new(kv: &'a dyn Kv, id: RunId) -> Self {
        Self {
            kv,
            id,
            buffer: Vec::new(),
            chunks: 0,
            bytes: 0,
            failure: None,
        }
    }

    fn write_chunk(&mut self) -> Result<()> {
        let mut batch = WriteBatch::new();
        if self.chunks == 0 {
            batch.put(Family::Runs, index_key(self.id), Bytes::new());
        }
        let mut value = BytesMut::with_capacity(HEADER_BYTES + self.buffer.len());
        value.put_u16_le(FORMAT_VERSION);
        value.put_u32_le(checksum(self.id, self.chunks, &self.buffer));
        value.put_slice(&self.buffer);
        batch.put(Family::Runs, chunk_key(self.id, self.chunks), value.freeze());
        self.kv.write(batch)?;
        self.bytes += self.buffer.len() as u64;
        self.chunks = self
            .chunks
            .checked_add(1)
            .expect("an object has fewer than 2^32 chunks");
        self.buffer.clear();
        Ok(())
    }

    /// Writes what is left, when everything so far was `written`.
    pub(super) fn finish(mut self, written: std::result::Result<(), String>) -> Result<StoredObject> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        if let Err(message) = written {
            return Err(StorageError::Io {
                operation: format!("encoding of {}", self.id),
                message,
            });
        }
        if !self.buffer.is_empty() || self.chunks == 0 {
            self.write_chunk()?;
        }
        Ok(StoredObject {
            chunks: self.chunks,
            bytes: self.bytes,
        })
    }
}

impl io::Write for ObjectWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = CHUNK_BYTES_MAX - HEADER_BYTES - self.buffer.len();
        let taken = room.min(bytes.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        if self.buffer.len() == CHUNK_BYTES_MAX - HEADER_BYTES
            && let Err(failure) = self.write_chunk()
        {
            let message = failure.to_string();
            self.failure = Some(failure);
            return Err(io::Error::other(message));
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads an object chunk by chunk; every byte handed out was verified.
pub(super) struct ObjectReader<'a> {
    kv: &'a dyn Kv,
    name: String,
    id: RunId,
    stored: StoredObject,
    chunk: u32,
    bytes: u64,
}

impl<'a> ObjectReader<'a> {
    /// `name` is what messages call the object.
    pub(super) fn new(kv: &'a dyn Kv, name: &str, id: RunId, stored: StoredObject) -> Self {
        let name = name.to_string();
        Self {
            kv,
            name,
            id,
            stored,
            chunk: 0,
            bytes: 0,
        }
    }

    /// The bytes of the next chunk; `None` after the last one, when the length was right.
    pub(super) fn next_chunk(&mut self) -> Result<Option<Bytes>> {
        if self.chunk == self.stored.chunks {
            if self.bytes != self.stored.bytes {
                let detail = format!(
                    "it has {} bytes, and its manifest says {}",
                    self.bytes, self.stored.bytes
                );
                return Err(damaged(&self.name, &detail));
            }
            return Ok(None);
        }
        let value = self.kv.get(Family::Runs, &chunk_key(self.id, self.chunk))?;
        let value = value.ok_or_else(|| self.corrupt("it is missing"))?;
        if value.len() < HEADER_BYTES {
            return Err(self.corrupt("it is shorter than its header"));
        }
        let body = value.slice(HEADER_BYTES..);
        let stored = u32::from_le_bytes([value[2], value[3], value[4], value[5]]);
        if u16::from_le_bytes([value[0], value[1]]) != FORMAT_VERSION {
            return Err(self.corrupt("its format is not the one its manifest promises"));
        }
        if stored != checksum(self.id, self.chunk, &body) {
            return Err(self.corrupt("its checksum is wrong"));
        }
        self.bytes += body.len() as u64;
        self.chunk += 1;
        Ok(Some(body))
    }

    fn corrupt(&self, detail: &str) -> StorageError {
        damaged(&format!("chunk {} of {}", self.chunk, self.name), detail)
    }
}

/// The error for stored bytes that are not what was written.
pub(super) fn damaged(what: &str, detail: &str) -> StorageError {
    StorageError::Corrupt {
        what: what.into(),
        detail: format!("{detail}. {ADVICE}"),
    }
}

fn checksum(id: RunId, chunk: u32, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&FORMAT_VERSION.to_le_bytes());
    hasher.update(&id.0);
    hasher.update(&chunk.to_le_bytes());
    hasher.update(body);
    hasher.finalize()
}
