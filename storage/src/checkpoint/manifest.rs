//! The record that says what is live.
//!
//! ```text
//!   key  [1][number u64 BE]   value  [format u16][crc32 u32][postcard of Manifest]
//!   key  [2][number u64 BE]   value  empty: the manifest of that number is known to be durable
//! ```
//!
//! A manifest is written under a number of its own, so writing one can tear only itself. The newest readable
//! one counts. An unreadable one is a torn write and passed over, unless its mark is there: then it was
//! durable once, is damaged now, and going back to an older state would lose what was acknowledged.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::ADVICE;
use crate::error::{Result, StorageError};
use crate::kv::{Family, Kv, WriteBatch};
use crate::log::{ChainHash, Position};
use crate::trace::RunId;

/// The version of the manifest's and the objects' layout that this release writes and reads.
pub(super) const FORMAT_VERSION: u16 = 3;

const HEADER_BYTES: usize = 6;
const MANIFESTS: u8 = 1;
const DURABLE: u8 = 2;

/// Everything a checkpoint names.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) position: Position,
    pub(super) chain: ChainHash,
    pub(super) traces: BTreeMap<String, StoredTrace>,
    pub(super) runs: BTreeMap<RunId, StoredRun>,
    pub(super) blobs: BTreeMap<String, StoredBlob>,
    pub(super) rows: BTreeMap<String, StoredRows>,
    pub(super) segments: BTreeMap<RunId, StoredObject>,
}

/// Rows: their segments in order, and the types of their columns as text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct StoredRows {
    pub(super) types: String,
    pub(super) segments: Vec<StoredSegment>,
}

/// A segment, and the object that holds its weights if they are not all 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct StoredSegment {
    pub(super) rows: RunId,
    pub(super) weights: Option<RunId>,
}

/// A trace: its runs, oldest first, and the layout they were made with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct StoredTrace {
    pub(super) fingerprint: [u8; 16],
    pub(super) runs: Vec<RunId>,
}

/// The extent of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredObject {
    pub(super) chunks: u32,
    pub(super) bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct StoredRun {
    pub(super) object: StoredObject,
    pub(super) rows: u64,
    pub(super) stamp_min: u64,
    pub(super) stamp_max: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct StoredBlob {
    pub(super) id: RunId,
    pub(super) object: StoredObject,
}

/// The manifest that counts.
pub(super) struct Current {
    pub(super) number: u64,
    pub(super) manifest: Manifest,
}

/// The key of manifest `number` in [`Family::Manifest`], for tools and for tests that damage one.
pub fn manifest_key(number: u64) -> [u8; 9] {
    key(MANIFESTS, number)
}

fn key(kind: u8, number: u64) -> [u8; 9] {
    let mut key = [kind; 9];
    key[1..].copy_from_slice(&number.to_be_bytes());
    key
}

fn all(kv: &dyn Kv) -> Result<Vec<(u64, Bytes)>> {
    let entries = kv.scan(Family::Manifest, &[MANIFESTS], Some(&[MANIFESTS + 1]), usize::MAX)?;
    entries
        .into_iter()
        .map(|(key, value)| {
            let number = key[1..].try_into().map(u64::from_be_bytes);
            let number =
                number.map_err(|_| corrupt("a checkpoint manifest", "its key has a wrong length"))?;
            Ok((number, value))
        })
        .collect()
}

/// The newest readable manifest. See the module's description for what is passed over.
pub(super) fn current(kv: &dyn Kv) -> Result<Option<Current>> {
    for (number, value) in all(kv)?.into_iter().rev() {
        match decode(number, &value) {
            Ok(manifest) => return Ok(Some(Current { number, manifest })),
            Err(detail) => {
                if kv.get(Family::Manifest, &key(DURABLE, number))?.is_some() {
                    return Err(corrupt(&format!("checkpoint manifest {number}"), &detail));
                }
            }
        }
    }
    Ok(None)
}

/// The highest number ever used that is still known, readable or not.
pub(super) fn last_number(kv: &dyn Kv) -> Result<u64> {
    Ok(all(kv)?.last().map_or(0, |(number, _)| *number))
}

/// Writes a manifest and returns its size in bytes.
pub(super) fn put(kv: &dyn Kv, number: u64, manifest: &Manifest) -> Result<u64> {
    let body = postcard::to_stdvec(manifest).expect("a manifest is plain data");
    let mut value = BytesMut::with_capacity(HEADER_BYTES + body.len());
    value.put_u16_le(FORMAT_VERSION);
    value.put_u32_le(checksum(number, FORMAT_VERSION, &body));
    value.put_slice(&body);
    let size = value.len() as u64;
    let mut batch = WriteBatch::new();
    batch.put(Family::Manifest, manifest_key(number), value.freeze());
    kv.write(batch)?;
    Ok(size)
}

/// Notes that a manifest was durable; the note is durable with the next sync.
pub(super) fn mark_durable(kv: &dyn Kv, number: u64) -> Result<()> {
    let mut batch = WriteBatch::new();
    batch.put(Family::Manifest, key(DURABLE, number), Bytes::new());
    kv.write(batch)
}

/// Marks manifest `number` as durable and removes all older ones.
pub(super) fn retire_before(batch: &mut WriteBatch, number: u64) {
    batch.put(Family::Manifest, key(DURABLE, number), Bytes::new());
    batch.delete_range(Family::Manifest, key(DURABLE, 0), key(DURABLE, number));
    batch.delete_range(Family::Manifest, key(MANIFESTS, 0), key(MANIFESTS, number));
}

fn decode(number: u64, value: &[u8]) -> std::result::Result<Manifest, String> {
    let Some((header, body)) = value.split_at_checked(HEADER_BYTES) else {
        return Err("it is shorter than its header".into());
    };
    let format = u16::from_le_bytes([header[0], header[1]]);
    let stored = u32::from_le_bytes([header[2], header[3], header[4], header[5]]);
    if stored != checksum(number, format, body) {
        return Err("its checksum is wrong".into());
    }
    if format != FORMAT_VERSION {
        return Err(format!(
            "it has format {format}, and this release reads {FORMAT_VERSION}"
        ));
    }
    postcard::from_bytes(body).map_err(|error| format!("it cannot be decoded: {error}"))
}

fn checksum(number: u64, format: u16, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&number.to_le_bytes());
    hasher.update(&format.to_le_bytes());
    hasher.update(body);
    hasher.finalize()
}

fn corrupt(what: &str, detail: &str) -> StorageError {
    StorageError::Corrupt {
        what: what.into(),
        detail: format!("{detail}. {ADVICE}"),
    }
}
