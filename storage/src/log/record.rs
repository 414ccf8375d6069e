//! How records lie in a family.
//!
//! ```text
//!   key    [1][position u64 BE]
//!   value  [format u16][engine u16][crc32 u32][chain 16][payload]      little-endian
//!   key    [0]"anchor"   value  [position u64][chain 16][crc32]        what was truncated ends here
//!   key    [0]"synced"   value  [position u64][chain 16][crc32]        known durable when this was written
//! ```
//!
//! The checksum covers the position, so a value under a wrong key is noticed. Header and checksum stay where
//! they are in all versions, so that "damaged" and "written by a newer release" can be told apart.

use bytes::{BufMut, Bytes, BytesMut};

use super::{ChainHash, Position, Record};

/// The version of the record layout that this release writes.
pub const FORMAT_VERSION: u16 = 1;

/// The version of what records mean: it rises whenever the same record would lead to another state.
pub const ENGINE_VERSION: u16 = 1;

pub(super) const ANCHOR_KEY: &[u8] = b"\0anchor";
pub(super) const SYNCED_KEY: &[u8] = b"\0synced";

const HEADER_BYTES: usize = 24;

/// The key of a record in [`crate::Family::Log`], for tools and for tests that damage one.
pub fn record_key(position: Position) -> [u8; 9] {
    let mut key = [1; 9];
    key[1..].copy_from_slice(&position.0.to_be_bytes());
    key
}

/// The position a key stands for.
pub(super) fn position_of(key: &[u8]) -> Option<Position> {
    let bytes: [u8; 8] = key.strip_prefix(&[1])?.try_into().ok()?;
    Some(Position(u64::from_be_bytes(bytes)))
}

pub(super) fn encode(record: &Record) -> Bytes {
    let mut value = BytesMut::with_capacity(HEADER_BYTES + record.payload.len());
    value.put_u16_le(FORMAT_VERSION);
    value.put_u16_le(ENGINE_VERSION);
    value.put_u32_le(0);
    value.put_slice(&record.chain.0);
    value.put_slice(&record.payload);
    let checksum = checksum(record.position, &value);
    value[4..8].copy_from_slice(&checksum.to_le_bytes());
    value.freeze()
}

/// The record in a value, and the engine version that wrote it. The chain is not verified here.
pub(super) fn decode(position: Position, value: &Bytes) -> Result<(Record, u16), Unreadable> {
    if value.len() < HEADER_BYTES {
        return Err(Unreadable::Damaged("it is shorter than its header"));
    }
    let u16_at = |at: usize| u16::from_le_bytes([value[at], value[at + 1]]);
    let stored = u32::from_le_bytes([value[4], value[5], value[6], value[7]]);
    if stored != checksum(position, value) {
        return Err(Unreadable::Damaged("its checksum is wrong"));
    }
    let (format, engine) = (u16_at(0), u16_at(2));
    if format != FORMAT_VERSION || engine > ENGINE_VERSION {
        return Err(Unreadable::Version { format, engine });
    }
    let mut chain = [0; 16];
    chain.copy_from_slice(&value[8..HEADER_BYTES]);
    let record = Record {
        position,
        chain: ChainHash(chain),
        payload: value.slice(HEADER_BYTES..),
    };
    Ok((record, engine))
}

/// Why a record cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// The bytes are not those that were written.
    Damaged(&'static str),
    /// The bytes are whole, and another release wrote them.
    Version { format: u16, engine: u16 },
}

fn checksum(position: Position, value: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&position.0.to_le_bytes());
    hasher.update(&value[..4]);
    hasher.update(&value[8..]);
    hasher.finalize()
}

/// A position and its hash, with a checksum.
pub(super) fn encode_point((position, chain): (Position, ChainHash)) -> Bytes {
    let mut value = BytesMut::with_capacity(28);
    value.put_u64_le(position.0);
    value.put_slice(&chain.0);
    value.put_u32_le(crc32fast::hash(&value));
    value.freeze()
}

pub(super) fn decode_point(value: &[u8]) -> Option<(Position, ChainHash)> {
    let (body, checksum) = value.split_at_checked(24)?;
    if checksum != crc32fast::hash(body).to_le_bytes() {
        return None;
    }
    let position = u64::from_le_bytes(body[..8].try_into().ok()?);
    Some((Position(position), ChainHash(body[8..].try_into().ok()?)))
}
