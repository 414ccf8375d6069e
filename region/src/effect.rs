//! What a region asks of its shell.

use std::sync::Arc;

use thiserror::Error;
use tributary_replication::Hlc;
use tributary_replication::link::Message;
use tributary_storage::checkpoint::Checkpoint;
use tributary_storage::{ObjectId, Position, Record};

use crate::snapshot::Snapshot;

/// One thing to do, in the order given.
pub enum Effect {
    /// Append to the log. After the effects of one or more inputs the shell syncs once and says `Persisted`.
    Append {
        /// What to append.
        record: Record,
        /// The tokens of the inputs that it stems from.
        tokens: Vec<u64>,
    },
    /// Send to a peer; may be lost.
    Send {
        /// The peer's configured name.
        peer: String,
        /// The message.
        message: Message,
    },
    /// The outcome of a commit, of rows of a source, or of DDL. A success is given only when its record is durable.
    Reply {
        /// The input's token.
        token: u64,
        /// What became of it.
        outcome: Result<Committed, Rejected>,
    },
    /// A new snapshot for readers; durable up to its position.
    Publish(Arc<Snapshot>),
    /// A published snapshot, or one that was passed over, which a bundle that leaves now shows the end of: others may ask
    /// for its rows.
    Keep(Arc<Snapshot>),
    /// Write this checkpoint, then say `Checkpointed`.
    Checkpoint(Checkpoint),
    /// Log records before this position are no longer needed.
    Truncate(Position),
    /// Drop the connection to a peer.
    Close {
        /// The peer's configured name.
        peer: String,
        /// Why, for the log.
        reason: String,
    },
    /// Bytes of a peer were refused; to be logged and counted.
    Refused {
        /// The peer's configured name.
        peer: String,
        /// Why.
        reason: String,
    },
    /// A bundle for a peer was not sent, since residency forbids a part of it; to be logged and counted. Nothing is sent to
    /// the peer until the catalog changes.
    Withheld {
        /// The peer's configured name.
        peer: String,
        /// What may not leave, and why.
        reason: String,
    },
    /// The node must stop now, with this reason.
    Stop {
        /// Why.
        reason: String,
    },
}

/// A durable commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The log position of its record: a snapshot at or after it shows the commit.
    pub position: Position,
    /// Its time.
    pub hlc: Hlc,
    /// For a commit that came again: how many rows it had changed when it was carried out.
    pub repeated: Option<u64>,
}

/// Why a commit or DDL was refused. Nothing of it was written.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Rejected {
    /// A row was changed since it was read, or a key that was free is taken.
    #[error("a row of table {table} was changed concurrently")]
    Conflict {
        /// The table.
        table: ObjectId,
    },
    /// The region has not adopted a catalog yet.
    #[error("this region is still joining the cluster")]
    Joining,
    /// The region is leaving the cluster.
    #[error("this region is leaving the cluster")]
    Leaving,
    /// A table was dropped meanwhile.
    #[error("table {0} no longer exists")]
    NoSuchTable(ObjectId),
    /// The catalog changed since the statement was planned; plan again.
    #[error("the catalog changed concurrently")]
    CatalogChanged,
    /// The clock is too far ahead of the wall clock to write GLOBAL rows.
    #[error("the cluster's clock is {ahead_ms} ms ahead of this region's")]
    ClockDrift {
        /// By how much.
        ahead_ms: u64,
    },
    /// Too much is sealed and not yet computed.
    #[error("too many commits are waiting to be processed")]
    Overloaded,
    /// The disk is full.
    #[error("no space left on the device")]
    DiskFull,
    /// A view that cannot be computed: its plan asks for what no operator does.
    #[error("{0}")]
    Unsupported(String),
    /// DDL belongs to the primary region.
    #[error("this is not the primary region")]
    NotPrimary,
    /// The source has been consumed up to another row than the one submitted.
    #[error("source {source_id} goes on at row {consumed}")]
    SourceMoved {
        /// The source.
        source_id: ObjectId,
        /// The number of the next row.
        consumed: u64,
    },
    /// The rows submitted do not have the source's columns.
    #[error("rows without the columns of source {0}")]
    SourceColumns(ObjectId),
    /// No commit with the token that was asked for is in.
    #[error("no commit with this token is known")]
    NotCommitted,
    /// A GLOBAL table holds as many tombstones as it may, since members have not acknowledged them.
    #[error("table {table} has reached its maximum of {tombstones_max} tombstones")]
    Tombstones {
        /// The table.
        table: ObjectId,
        /// How many it may hold.
        tombstones_max: usize,
        /// The members that have not acknowledged the oldest ones, by name.
        kept_by: Vec<String>,
    },
    /// A connected region is further behind than the table allows.
    #[error("region {peer} is {lag_ms} ms behind, and table {table} allows {lag_max_ms} ms")]
    Behind {
        /// The table.
        table: ObjectId,
        /// The region that is behind most.
        peer: String,
        /// How far it is behind.
        lag_ms: u64,
        /// How far it may be.
        lag_max_ms: u64,
        /// Whether the writer is to wait until it is near enough.
        waits: bool,
    },
    /// Rows of this table are written in another region.
    #[error("rows of table {0} are written in another region")]
    OtherRegion(ObjectId),
}
