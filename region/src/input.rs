//! What the shell may tell a region.

use tributary_planner::catalog::CatalogChange;
use tributary_replication::link::Message;
use tributary_storage::Position;

use crate::commits::Submission;
use crate::dataflow::conflicts::{Conflict, ConflictId};
use crate::source::SourceAppend;

/// One event from outside. Time comes with every step; there are no other inputs.
#[derive(Debug)]
pub enum Input {
    /// Writes of transactions that wait together. Each is answered by exactly one `Reply` with its token; those that
    /// are accepted may share a record.
    Commits(Vec<Submission>),
    /// Rows that were read from a source. Answered like a commit.
    Source {
        /// Chosen by the shell.
        token: u64,
        /// What was read.
        append: SourceAppend,
    },
    /// Writes of an earlier log that were lost: to be recorded. Answered like a commit.
    Lost {
        /// Chosen by the shell.
        token: u64,
        /// What was lost.
        conflicts: Vec<Conflict>,
    },
    /// Conflicts that are to be removed from the table of conflicts. Answered like a commit.
    Forget {
        /// Chosen by the shell.
        token: u64,
        /// Which.
        conflicts: Vec<ConflictId>,
    },
    /// Catalog changes, planned against `base_version`. Only the primary accepts them.
    Ddl {
        /// Chosen by the shell.
        token: u64,
        /// The changes, in order.
        changes: Vec<CatalogChange>,
        /// The catalog version they were planned against.
        base_version: u64,
    },
    /// Asks for the commit that carries a token. Answered like that commit when it is durable, and otherwise with
    /// [`crate::Rejected::NotCommitted`].
    Find {
        /// Chosen by the shell.
        token: u64,
        /// The commit's token.
        id: [u8; 16],
    },
    /// A connection to the peer of this name is up.
    Connected {
        /// The peer's configured name.
        peer: String,
    },
    /// The connection is gone; whatever was in flight may be lost.
    Disconnected {
        /// The peer's configured name.
        peer: String,
    },
    /// A message from a peer, already checked and decoded.
    Message {
        /// The peer's configured name.
        peer: String,
        /// The message.
        message: Message,
    },
    /// Every record up to this position is on disk.
    Persisted {
        /// The last durable position.
        position: Position,
    },
    /// Time has passed: at least once a tick while something is going on.
    Timer,
    /// Step the dataflow over everything sealed. Separate from the inputs that seal, so that a shell can start
    /// the log's sync first and compute meanwhile.
    Work,
    /// Make a checkpoint when the dataflow is level with the log.
    CheckpointDue,
    /// Gather a portion of the checkpoint that is due, of about so many rows. Separate from `Work`, so that the shell
    /// can say how long the region is held by it, and choose portions accordingly.
    Gather {
        /// How many rows.
        rows_max: usize,
    },
    /// The checkpoint at this position is durable.
    Checkpointed {
        /// The checkpoint's position.
        position: Position,
    },
    /// The disk is full (true) or has space again (false).
    DiskFull(bool),
    /// The rows of earlier incarnations were taken over: tombstones need not be kept for that any more, see
    /// [`crate::RegionConfig::keeps_tombstones`].
    TakenOver,
}
