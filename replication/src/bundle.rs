//! Bundles: what one region sends another.
//!
//! A bundle holds, per included origin, everything stamped in `(from, to]`, cut from one snapshot at a tick,
//! with the sender's whole frontier there and the chain hash of each included log at `to`. Applied together
//! with what its frontier names, it leaves the receiver with a causally closed snapshot.
//!
//! ```text
//! "TRIB" | format u16 | crc32 u32 | header length u32 | header (postcard) | sections (Arrow IPC streams, zstd)
//!                                  └──────────────────── checksummed ─────────────────────────────────────┘
//! ```
//!
//! Bytes from a peer are never trusted: the checksum comes first, then the header with its limits, then each
//! section behind one boundary that turns a panic of the Arrow reader into `Corrupt`.
//!
//! A bundle that is too large for one message comes as a *stage*: chunks that are held outside the frontier, and a
//! sealing chunk with the frontier, which alone applies all. Chunks name their stage behind the header (format 3).

mod ipc;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;

use arrow::array::RecordBatch;
use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use tributary_storage::{ChainHash, Fingerprint, FragmentId, ObjectId, OriginId};

use crate::error::{ReplicationError, Result};
use crate::frontier::{ClusterId, Epoch, Frontier};
use crate::hlc::Tick;

pub use ipc::{decode as decode_rows, decode_within as decode_rows_within, encode as encode_rows};

/// The version of the bundle format spoken here.
pub const BUNDLE_FORMAT: u16 = 2;

/// The version before tombstones were dropped: such bundles stand in older logs.
const FORMAT_BEFORE_COLLECTION: u16 = 1;

/// The format of a chunk of a stage: the stage's name, a u64, stands behind what format 2 has.
pub const CHUNK_FORMAT: u16 = 3;

/// The most bytes of one message. A link with more to send at once stops with an error.
pub const MESSAGE_BYTES_MAX: usize = 256 * 1024 * 1024;

/// The most origins in a frontier, and among the included ones.
pub const ORIGINS_MAX: usize = 4096;

/// The most sections of a bundle.
pub const SECTIONS_MAX: usize = 65_536;

/// The longest name of a blob, in bytes.
pub const BLOB_NAME_BYTES_MAX: usize = 256;

const MAGIC: [u8; 4] = *b"TRIB";
const PREFIX_BYTES: usize = 4 + 2 + 4 + 4;

/// What one region sends another.
#[derive(Clone, Debug, PartialEq)]
pub struct Bundle {
    /// Who sends it.
    pub sender: OriginId,
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// The tick at which it was cut.
    pub tick: Tick,
    /// The sender's whole frontier at the cut.
    pub frontier: Frontier,
    /// Up to where the sender, and those it heard of, have dropped tombstones. Whoever has not heard of everything up to
    /// there may hold rows that were deleted, and must not take this in (RFC 0010).
    pub collected: Frontier,
    /// The origins whose changes it carries, each once.
    pub included: Vec<Included>,
    /// Its place among the chunks of one cut.
    pub chunk: Chunk,
    /// The changed values.
    pub sections: Vec<Section>,
}

/// The part of an origin's history that a bundle carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Included {
    /// Whose history.
    pub origin: OriginId,
    /// Everything after this epoch is there ...
    pub from: Epoch,
    /// ... up to and including this one.
    pub to: Epoch,
    /// The chain hash of the origin's log at `to`.
    pub chain: ChainHash,
}

/// A place among the chunks of one cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// The stage that it belongs to, chosen by its sender; 0 for a bundle that is whole in itself.
    #[serde(skip)]
    pub stage: u64,
    /// From 0.
    pub number: u32,
    /// The last one seals all of them.
    pub last: bool,
}

impl Chunk {
    /// The chunk of a cut that fits into one message.
    pub const ONLY: Chunk = Chunk {
        stage: 0,
        number: 0,
        last: true,
    };

    /// Whether it is held until the sealing chunk comes.
    pub fn is_staged(&self) -> bool {
        self.stage != 0 && !self.last
    }

    /// Whether it applies a stage.
    pub fn is_sealing(&self) -> bool {
        self.stage != 0 && self.last
    }
}

/// Changed values of one object, of one origin.
#[derive(Clone, Debug, PartialEq)]
pub struct Section {
    /// The object.
    pub object: SectionObject,
    /// Whose values; one of the included origins.
    pub origin: OriginId,
    /// What the columns mean.
    pub fingerprint: Fingerprint,
    /// The values.
    pub rows: RecordBatch,
}

/// What a section holds values of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SectionObject {
    /// Slots of a fragment, see [`crate::SlotSet::section`].
    Slots(FragmentId),
    /// Rows of a GLOBAL table, see [`crate::RowVersions::section`].
    Rows(ObjectId),
    /// One row with one Binary column: a value of that origin that is replaced whole. A bundle whose `to` is
    /// not newer than what is held of the origin must not replace it.
    Blob(String),
}

impl fmt::Display for SectionObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slots(fragment) => write!(f, "slots {fragment}"),
            Self::Rows(table) => write!(f, "rows {table}"),
            Self::Blob(name) => write!(f, "blob {name}"),
        }
    }
}

/// A bundle without its rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleHeader {
    /// See [`Bundle::sender`].
    pub sender: OriginId,
    /// See [`Bundle::cluster`].
    pub cluster: ClusterId,
    /// See [`Bundle::tick`].
    pub tick: Tick,
    /// See [`Bundle::frontier`].
    pub frontier: Frontier,
    /// See [`Bundle::collected`]. It stands behind the rest of the header, and is missing in format 1.
    #[serde(skip)]
    pub collected: Frontier,
    /// See [`Bundle::included`].
    pub included: Vec<Included>,
    /// See [`Bundle::chunk`].
    pub chunk: Chunk,
    /// The sections, without their rows.
    pub sections: Vec<SectionHeader>,
}

/// A section without its rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SectionHeader {
    /// See [`Section::object`].
    pub object: SectionObject,
    /// See [`Section::origin`].
    pub origin: OriginId,
    /// See [`Section::fingerprint`].
    pub fingerprint: Fingerprint,
    /// The number of rows.
    pub rows: u64,
    /// The encoded size in bytes.
    pub bytes: u64,
}

impl Bundle {
    /// The bytes to send. They may exceed [`MESSAGE_BYTES_MAX`]: the link refuses them then.
    ///
    /// # Panics
    /// When the bundle is not one that [`Bundle::decode`] would take: that is a defect of the sender.
    pub fn encode(&self) -> Bytes {
        let encoded: Vec<Vec<u8>> = self
            .sections
            .iter()
            .map(|section| ipc::encode(&section.rows))
            .collect();
        let header = self.header(&encoded);
        header
            .check()
            .expect("a region sends only bundles that another takes");
        let stage = self.chunk.stage;
        let mut header = postcard::to_stdvec(&(&header, &self.collected)).expect("plain data serializes");
        if stage != 0 {
            header = postcard::to_extend(&stage, header).expect("plain data serializes");
        }
        let sections_bytes: usize = encoded.iter().map(Vec::len).sum();
        let mut out = BytesMut::with_capacity(PREFIX_BYTES + header.len() + sections_bytes);
        out.put_slice(&MAGIC);
        out.put_u16_le(match stage {
            0 => BUNDLE_FORMAT,
            _ => CHUNK_FORMAT,
        });
        out.put_u32_le(0);
        out.put_u32_le(u32::try_from(header.len()).expect("a header is far smaller than 4 GiB"));
        out.put_slice(&header);
        for section in &encoded {
            out.put_slice(section);
        }
        let checksum = crc32fast::hash(&out[PREFIX_BYTES - 4..]);
        out[6..10].copy_from_slice(&checksum.to_le_bytes());
        out.freeze()
    }

    /// Reads what a peer sent.
    ///
    /// # Errors
    /// `Corrupt`, `Format` or `TooLarge`; whatever the bytes are, this does not panic.
    pub fn decode(bytes: &[u8]) -> Result<Bundle> {
        let (header, mut rest) = split(bytes)?;
        let mut sections = Vec::with_capacity(header.sections.len());
        for section in &header.sections {
            let length = usize::try_from(section.bytes).unwrap_or(usize::MAX);
            let (mine, after) = rest
                .split_at_checked(length)
                .ok_or_else(|| corrupt(format!("it ends within the section of {}", section.object)))?;
            rest = after;
            let rows = ipc::decode(mine)?;
            if rows.num_rows() as u64 != section.rows {
                return Err(corrupt(format!(
                    "{} has {} rows",
                    section.object,
                    rows.num_rows()
                )));
            }
            sections.push(Section {
                object: section.object.clone(),
                origin: section.origin,
                fingerprint: section.fingerprint,
                rows,
            });
        }
        if !rest.is_empty() {
            return Err(corrupt(format!("{} bytes follow its last section", rest.len())));
        }
        let BundleHeader {
            sender,
            cluster,
            tick,
            frontier,
            collected,
            included,
            chunk,
            ..
        } = header;
        Ok(Bundle {
            sender,
            cluster,
            tick,
            frontier,
            collected,
            included,
            chunk,
            sections,
        })
    }

    /// Reads everything but the rows. The checksum covers all of the bytes nevertheless.
    ///
    /// # Errors
    /// As [`Bundle::decode`].
    pub fn decode_header(bytes: &[u8]) -> Result<BundleHeader> {
        split(bytes).map(|(header, _)| header)
    }

    fn header(&self, encoded: &[Vec<u8>]) -> BundleHeader {
        let section_header = |(section, bytes): (&Section, &Vec<u8>)| SectionHeader {
            object: section.object.clone(),
            origin: section.origin,
            fingerprint: section.fingerprint,
            rows: section.rows.num_rows() as u64,
            bytes: bytes.len() as u64,
        };
        BundleHeader {
            sender: self.sender,
            cluster: self.cluster,
            tick: self.tick,
            frontier: self.frontier.clone(),
            collected: self.collected.clone(),
            included: self.included.clone(),
            chunk: self.chunk,
            sections: self.sections.iter().zip(encoded).map(section_header).collect(),
        }
    }
}

impl BundleHeader {
    /// Refuses headers that no sender makes.
    fn check(&self) -> Result<()> {
        if self.chunk.stage == 0 && self.chunk != Chunk::ONLY {
            return Err(corrupt(format!("chunk {} of no stage", self.chunk.number)));
        }
        if self.included.is_empty() || self.included.len() > ORIGINS_MAX || self.frontier.len() > ORIGINS_MAX
        {
            return Err(corrupt(format!("it includes {} origins", self.included.len())));
        }
        if !self.frontier.covers(&self.collected) {
            let Self {
                frontier, collected, ..
            } = self;
            return Err(corrupt(format!(
                "tombstones up to {collected} were dropped at {frontier}"
            )));
        }
        if self.sections.len() > SECTIONS_MAX {
            return Err(corrupt(format!("it has {} sections", self.sections.len())));
        }
        let mut origins = BTreeSet::new();
        for included in &self.included {
            let known = self.frontier.get(included.origin);
            if included.from > included.to || included.to > known || !origins.insert(included.origin) {
                let Included { origin, from, to, .. } = included;
                let detail = format!(
                    "it includes {origin} from {from} to {to}, cut at {}",
                    self.frontier
                );
                return Err(corrupt(detail));
            }
        }
        let mut objects = BTreeSet::new();
        for section in &self.sections {
            if !origins.contains(&section.origin) || !objects.insert((&section.object, section.origin)) {
                return Err(corrupt(format!(
                    "{} of {} is out of place",
                    section.object, section.origin
                )));
            }
            if let SectionObject::Blob(name) = &section.object
                && (name.len() > BLOB_NAME_BYTES_MAX || section.rows != 1)
            {
                return Err(corrupt("a blob is one row with a short name"));
            }
        }
        Ok(())
    }
}

fn corrupt(detail: impl Into<String>) -> ReplicationError {
    ReplicationError::corrupt("a bundle", detail)
}

/// Checks everything around the sections; returns the header and the bytes of the sections.
fn split(bytes: &[u8]) -> Result<(BundleHeader, &[u8])> {
    if bytes.len() > MESSAGE_BYTES_MAX {
        let what = "a bundle".to_string();
        return Err(ReplicationError::TooLarge {
            what,
            bytes: bytes.len(),
            bytes_max: MESSAGE_BYTES_MAX,
        });
    }
    let (prefix, rest) = bytes
        .split_at_checked(PREFIX_BYTES)
        .ok_or_else(|| corrupt("it is cut short"))?;
    if prefix[..4] != MAGIC {
        return Err(corrupt("it does not begin as one"));
    }
    let format = u16::from_le_bytes([prefix[4], prefix[5]]);
    if ![BUNDLE_FORMAT, CHUNK_FORMAT, FORMAT_BEFORE_COLLECTION].contains(&format) {
        return Err(ReplicationError::Format {
            what: "a bundle".into(),
            found: format,
            known: BUNDLE_FORMAT,
        });
    }
    let checksum = u32::from_le_bytes([prefix[6], prefix[7], prefix[8], prefix[9]]);
    if crc32fast::hash(&bytes[PREFIX_BYTES - 4..]) != checksum {
        return Err(corrupt("the checksum does not match"));
    }
    let length = u32::from_le_bytes([prefix[10], prefix[11], prefix[12], prefix[13]]) as usize;
    let (header, sections) = rest
        .split_at_checked(length)
        .ok_or_else(|| corrupt("its header is cut short"))?;
    let damaged = |error| corrupt(format!("header: {error}"));
    let (mut header, mut left): (BundleHeader, &[u8]) = postcard::take_from_bytes(header).map_err(damaged)?;
    if format != FORMAT_BEFORE_COLLECTION {
        (header.collected, left) = postcard::take_from_bytes(left).map_err(damaged)?;
    }
    if format == CHUNK_FORMAT {
        (header.chunk.stage, left) = postcard::take_from_bytes(left).map_err(damaged)?;
        if header.chunk.stage == 0 {
            return Err(corrupt("a chunk of stage 0"));
        }
    }
    if !left.is_empty() {
        return Err(corrupt("bytes follow its header"));
    }
    header.check()?;
    Ok((header, sections))
}
