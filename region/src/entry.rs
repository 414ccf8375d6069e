//! The payload of a log record: everything that may change a region's state.
//!
//! ```text
//!   Found / Catalog   the primary's DDL            announces an epoch
//!   Joined            the region has an identity   announces
//!   Commit            own rows                     announces
//!   Source            offsets of rows read         announces
//!   Bundles           an applicable set, verbatim  announces if own slots or own rows (TRUNCATE) changed
//!   Attach            a view's backfill is done    announces
//!   Chunk, Unstage    a part of a stage comes, or it is dropped
//!   Lost              conflicts of the shell's     announces
//!   Collect           stable tombstones go         announces nothing: others see no difference
//! ```
//!
//! Rows travel as Arrow IPC, the envelope as postcard, the catalog as JSON (its plans outlive this version).

use std::collections::BTreeMap;
use std::io::Cursor;

use arrow::array::{Array, BooleanArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tributary_planner::catalog::CatalogChange;
use tributary_replication::{Frontier, Hlc, TableWrites};
use tributary_storage::{ObjectId, OriginId, Position};

use crate::dataflow::conflicts::{Conflict, ConflictId};
use crate::error::{RegionError, Result};
use crate::tokens::CommitToken;

/// What one log record says. Each carries the time at which it was sealed.
#[derive(Clone, Debug)]
pub enum Entry {
    /// Changes of the catalog, at the primary.
    Catalog(Vec<CatalogChange>),
    /// The region knows its identity and takes part from here on.
    Joined,
    /// A transaction of this region.
    Commit {
        /// Rows by table.
        tables: BTreeMap<ObjectId, TableWrites>,
        /// A source's progress.
        source: Option<(ObjectId, u64)>,
        /// Of those commits in it that may come again.
        tokens: Vec<CommitToken>,
    },
    /// Rows of a source, by their numbers: the rows themselves are read again when they are needed.
    Source {
        /// The source.
        source: ObjectId,
        /// The number of the first row.
        from: u64,
        /// The number after the last one.
        to: u64,
        /// The reader's digest of what was read so far.
        mark: u64,
    },
    /// Bundles of peers that are applicable together, as received.
    Bundles(Vec<Bytes>),
    /// The backfill of a view is complete in this region.
    Attach(ObjectId),
    /// A chunk of a peer's stage, as received. It changes nothing that is shown.
    Chunk(Bytes),
    /// The stage of this sender is dropped.
    Unstage(OriginId),
    /// Writes that were lost, as the shell has found out: to be recorded.
    Lost(Vec<Conflict>),
    /// Conflicts that a user has had removed from the table of conflicts.
    Forget(Vec<ConflictId>),
    /// Every member has acknowledged everything up to `stable`: tombstones of writes up to there go.
    Collect {
        /// Up to where.
        stable: Frontier,
    },
}

impl Entry {
    /// The number of rows that it brings from outside.
    pub fn rows(&self) -> u64 {
        match self {
            Self::Commit { tables, .. } => {
                let rows: usize = tables.values().map(|writes| writes.rows.num_rows()).sum();
                rows as u64
            }
            Self::Source { from, to, .. } => to - from,
            Self::Lost(conflicts) => conflicts.len() as u64,
            Self::Forget(conflicts) => conflicts.len() as u64,
            Self::Catalog(_)
            | Self::Joined
            | Self::Bundles(_)
            | Self::Attach(_)
            | Self::Collect { .. }
            | Self::Chunk(_)
            | Self::Unstage(_) => 0,
        }
    }
}

/// An entry with its time.
#[derive(Clone, Debug)]
pub struct Timed {
    /// When it was sealed.
    pub hlc: Hlc,
    /// What it says.
    pub entry: Entry,
}

/// Bytes within the envelope, written and read at once and not one by one; on the wire a `Vec<u8>` is the same.
#[derive(Debug, PartialEq)]
struct Block(Vec<u8>);

impl Serialize for Block {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Block {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Bytes;
        impl serde::de::Visitor<'_> for Bytes {
            type Value = Block;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> std::result::Result<Block, E> {
                Ok(Block(bytes.to_vec()))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

#[derive(Serialize, Deserialize)]
enum Stored {
    Catalog(Block),
    Joined,
    Commit {
        tables: Vec<(ObjectId, Block)>,
        source: Option<(ObjectId, u64)>,
    },
    Bundles(Vec<Block>),
    Attach(ObjectId),
    Source {
        source: ObjectId,
        from: u64,
        to: u64,
        mark: u64,
    },
    CommitOnce {
        tokens: Vec<CommitToken>,
        tables: Vec<(ObjectId, Block)>,
        source: Option<(ObjectId, u64)>,
    },
    Collect {
        stable: Frontier,
    },
    Lost(Vec<Conflict>),
    Forget(Vec<ConflictId>),
    Chunk(Block),
    Unstage(OriginId),
}

#[derive(Serialize, Deserialize)]
struct StoredEntry {
    hlc: Hlc,
    body: Stored,
}

impl Timed {
    /// The record's payload.
    pub fn encode(&self) -> Bytes {
        let body = match &self.entry {
            Entry::Catalog(changes) => Stored::Catalog(Block(
                serde_json::to_vec(changes).expect("a catalog change is plain data"),
            )),
            Entry::Joined => Stored::Joined,
            Entry::Commit {
                tables,
                source,
                tokens,
            } => {
                let (source, tokens) = (*source, tokens.clone());
                let tables = tables
                    .iter()
                    .map(|(table, writes)| (*table, Block(encode_writes(writes))))
                    .collect();
                match tokens.is_empty() {
                    true => Stored::Commit { tables, source },
                    false => Stored::CommitOnce {
                        tokens,
                        tables,
                        source,
                    },
                }
            }
            Entry::Bundles(bundles) => {
                Stored::Bundles(bundles.iter().map(|bytes| Block(bytes.to_vec())).collect())
            }
            Entry::Attach(view) => Stored::Attach(*view),
            Entry::Chunk(bytes) => Stored::Chunk(Block(bytes.to_vec())),
            Entry::Unstage(sender) => Stored::Unstage(*sender),
            Entry::Lost(conflicts) => Stored::Lost(conflicts.clone()),
            Entry::Forget(conflicts) => Stored::Forget(conflicts.clone()),
            Entry::Collect { stable } => Stored::Collect {
                stable: stable.clone(),
            },
            &Entry::Source {
                source,
                from,
                to,
                mark,
            } => Stored::Source {
                source,
                from,
                to,
                mark,
            },
        };
        let stored = StoredEntry { hlc: self.hlc, body };
        // Of a large entry nothing is written twice because a buffer had to grow.
        let blocks = match &stored.body {
            Stored::Commit { tables, .. } | Stored::CommitOnce { tables, .. } => {
                tables.iter().map(|(_, block)| block.0.len()).sum()
            }
            Stored::Bundles(blocks) => blocks.iter().map(|block| block.0.len()).sum(),
            Stored::Chunk(block) => block.0.len(),
            _ => 0,
        };
        let out = Vec::with_capacity(blocks + ENVELOPE_BYTES);
        Bytes::from(postcard::to_extend(&stored, out).expect("an entry is plain data"))
    }

    /// Reads a payload that this region wrote. The log has verified its checksum, so failing here means that
    /// another version wrote it, or a defect.
    pub fn decode(position: Position, payload: &[u8]) -> Result<Self> {
        let unreadable = |detail: String| RegionError::Unreadable {
            what: "log record",
            position: position.0,
            detail,
        };
        let stored: StoredEntry =
            postcard::from_bytes(payload).map_err(|error| unreadable(error.to_string()))?;
        let entry = match stored.body {
            Stored::Catalog(json) => Entry::Catalog(
                serde_json::from_slice(&json.0).map_err(|error| unreadable(error.to_string()))?,
            ),
            Stored::Joined => Entry::Joined,
            Stored::Commit { tables, source } => Entry::Commit {
                tables: decode_tables(tables).map_err(unreadable)?,
                source,
                tokens: Vec::new(),
            },
            Stored::CommitOnce {
                tokens,
                tables,
                source,
            } => Entry::Commit {
                tables: decode_tables(tables).map_err(unreadable)?,
                source,
                tokens,
            },
            Stored::Bundles(bundles) => {
                Entry::Bundles(bundles.into_iter().map(|bytes| Bytes::from(bytes.0)).collect())
            }
            Stored::Attach(view) => Entry::Attach(view),
            Stored::Chunk(bytes) => Entry::Chunk(Bytes::from(bytes.0)),
            Stored::Unstage(sender) => Entry::Unstage(sender),
            Stored::Lost(conflicts) => Entry::Lost(conflicts),
            Stored::Forget(conflicts) => Entry::Forget(conflicts),
            Stored::Collect { stable } => Entry::Collect { stable },
            Stored::Source {
                source,
                from,
                to,
                mark,
            } => Entry::Source {
                source,
                from,
                to,
                mark,
            },
        };
        Ok(Self {
            hlc: stored.hlc,
            entry,
        })
    }
}

/// Room for what stands around the rows of a commit.
const ENVELOPE_BYTES: usize = 1024;

/// The name of the column that carries `TableWrites::deleted` beside the rows.
const DELETED: &str = "tributary_deleted";

fn encode_writes(writes: &TableWrites) -> Vec<u8> {
    let schema = writes.rows.schema();
    let mut fields: Vec<_> = schema
        .fields()
        .iter()
        .map(|field| (**field).clone().with_nullable(true))
        .collect();
    fields.push(Field::new(DELETED, DataType::Boolean, false));
    let mut columns = writes.rows.columns().to_vec();
    columns.push(std::sync::Arc::new(writes.deleted.clone()));
    let schema = std::sync::Arc::new(Schema::new(fields));
    let batch = RecordBatch::try_new(schema.clone(), columns).expect("one flag per row");
    let bytes = |column: &arrow::array::ArrayRef| column.to_data().get_slice_memory_size().unwrap_or(0);
    let bytes: usize = batch.columns().iter().map(bytes).sum();
    let mut out = Vec::with_capacity(bytes + bytes / 16 + ENVELOPE_BYTES);
    let mut writer = StreamWriter::try_new(&mut out, &schema).expect("writing to memory");
    writer
        .write(&batch)
        .and_then(|()| writer.finish())
        .expect("writing to memory");
    drop(writer);
    out
}

fn decode_tables(
    tables: Vec<(ObjectId, Block)>,
) -> std::result::Result<BTreeMap<ObjectId, TableWrites>, String> {
    let decoded = tables
        .into_iter()
        .map(|(table, bytes)| Ok((table, decode_writes(&bytes.0)?)));
    decoded.collect()
}

fn decode_writes(bytes: &[u8]) -> std::result::Result<TableWrites, String> {
    let mut reader = StreamReader::try_new(Cursor::new(bytes), None).map_err(|error| error.to_string())?;
    let batch = reader
        .next()
        .ok_or("no rows")?
        .map_err(|error| error.to_string())?;
    let last = batch.num_columns().checked_sub(1).ok_or("no columns")?;
    let deleted = batch
        .column(last)
        .as_any()
        .downcast_ref::<BooleanArray>()
        .ok_or("no deletion flags")?
        .clone();
    if deleted.null_count() > 0 {
        return Err("deletion flags with nulls".into());
    }
    let kept: Vec<usize> = (0..last).collect();
    let rows = batch.project(&kept).map_err(|error| error.to_string())?;
    Ok(TableWrites { rows, deleted })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray};
    use tributary_replication::Epoch;
    use tributary_storage::{OriginId, RegionId};

    use super::*;

    #[test]
    fn a_commit_survives_the_log() {
        let schema = Arc::new(Schema::new(vec![
            Field::new("id", DataType::Int64, false),
            Field::new("name", DataType::Utf8, true),
        ]));
        let rows = RecordBatch::try_new(
            schema,
            vec![
                Arc::new(Int64Array::from(vec![1, 2])),
                Arc::new(StringArray::from(vec![Some("a"), None])),
            ],
        )
        .expect("columns match");
        let writes = TableWrites {
            rows,
            deleted: BooleanArray::from(vec![false, true]),
        };
        let timed = Timed {
            hlc: Hlc::from_ms(77),
            entry: Entry::Commit {
                tables: BTreeMap::from([(ObjectId(5), writes.clone())]),
                source: None,
                tokens: vec![CommitToken { id: [3; 16], rows: 2 }],
            },
        };
        let read = Timed::decode(Position(1), &timed.encode()).expect("just written");
        let Entry::Commit {
            tables,
            source: None,
            tokens,
        } = read.entry
        else {
            panic!("not a commit")
        };
        assert_eq!(tokens, [CommitToken { id: [3; 16], rows: 2 }]);
        assert_eq!(read.hlc, timed.hlc);
        assert_eq!(tables[&ObjectId(5)].rows.columns(), writes.rows.columns());
        assert_eq!(tables[&ObjectId(5)].deleted, writes.deleted);
    }

    #[test]
    fn a_block_is_written_as_the_vector_it_was_in_older_logs() {
        for length in [0, 1, 127, 128, 40_000] {
            let bytes = vec![7u8; length];
            let written = postcard::to_stdvec(&Block(bytes.clone())).expect("plain data");
            assert_eq!(written, postcard::to_stdvec(&bytes).expect("plain data"));
            assert_eq!(postcard::from_bytes::<Block>(&written), Ok(Block(bytes)));
            assert!(postcard::from_bytes::<Block>(&written[..written.len() - 1]).is_err());
        }
    }

    #[test]
    fn offsets_survive_the_log() {
        let timed = Timed {
            hlc: Hlc::from_ms(78),
            entry: Entry::Source {
                source: ObjectId(9),
                from: 500,
                to: u64::MAX,
                mark: 3,
            },
        };
        let bytes = timed.encode();
        assert!(bytes.len() < 32, "offsets are small");
        let read = Timed::decode(Position(1), &bytes).expect("just written");
        assert_eq!(read.hlc, timed.hlc);
        assert!(matches!(
            read.entry,
            Entry::Source {
                source: ObjectId(9),
                from: 500,
                to: u64::MAX,
                mark: 3
            }
        ));
    }

    #[test]
    fn a_collection_survives_the_log() {
        let stable = Frontier::from_iter([(OriginId::first(RegionId(3)), Epoch(70))]);
        let timed = Timed {
            hlc: Hlc::from_ms(79),
            entry: Entry::Collect {
                stable: stable.clone(),
            },
        };
        let read = Timed::decode(Position(1), &timed.encode()).expect("just written");
        assert!(matches!(read.entry, Entry::Collect { stable: read } if read == stable));
    }

    #[test]
    fn damaged_payloads_are_refused() {
        let bytes = Timed {
            hlc: Hlc::from_ms(1),
            entry: Entry::Bundles(vec![Bytes::from_static(b"x")]),
        }
        .encode();
        for cut in 0..bytes.len() {
            assert!(Timed::decode(Position(1), &bytes[..cut]).is_err(), "cut at {cut}");
        }
    }
}
