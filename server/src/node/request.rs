//! What reaches the region's thread, through one bounded queue.

use tokio::sync::{mpsc, oneshot, watch};
use tributary_planner::catalog::CatalogChange;
use tributary_region::dataflow::conflicts::{Conflict, ConflictId};
use tributary_region::{Committed, Rejected, SourceAppend, WriteSet};
use tributary_replication::link::Message;

/// The bound of the queue; senders wait when it is full.
pub const REQUESTS_MAX: usize = 1024;

/// Where the outcome of a commit or DDL goes.
pub type Reply = oneshot::Sender<Result<Committed, Rejected>>;

/// One thing for the region's thread to do.
pub enum Request {
    /// A transaction's writes.
    Commit {
        /// The writes.
        writes: WriteSet,
        /// The outcome, once durable.
        reply: Reply,
    },
    /// Rows read from a source.
    Source {
        /// The rows.
        append: SourceAppend,
        /// The outcome, once durable.
        reply: Reply,
    },
    /// Writes that were lost, to be recorded.
    Lost {
        /// What was lost.
        conflicts: Vec<Conflict>,
        /// The outcome, once durable.
        reply: Reply,
    },
    /// Conflicts to be removed from the table of conflicts.
    Forget {
        /// Which.
        conflicts: Vec<ConflictId>,
        /// The outcome, once durable.
        reply: Reply,
    },
    /// Catalog changes planned against a version.
    Ddl {
        /// The changes.
        changes: Vec<CatalogChange>,
        /// The version.
        base_version: u64,
        /// The outcome, once durable.
        reply: Reply,
    },
    /// Asks for the commit that carries a token.
    Find {
        /// The token.
        id: [u8; 16],
        /// The commit, once durable, or [`Rejected::NotCommitted`].
        reply: Reply,
    },
    /// The rows of earlier incarnations were taken over.
    TakenOver,
    /// Something happened on a connection to a peer.
    Link(LinkEvent),
    /// Checkpoint and end.
    Stop,
}

/// News of a connection. Events of one generation come in order; generations of a peer only go up, and an event
/// of a generation that was replaced means nothing.
pub struct LinkEvent {
    /// The peer's configured name.
    pub peer: String,
    /// Which connection to it.
    pub generation: u64,
    /// What happened.
    pub news: LinkNews,
}

/// What happened on a connection.
pub enum LinkNews {
    /// It is up; messages go out through the outbox.
    Up(Outbox),
    /// It is gone.
    Down,
    /// A message came in. The permit bounds the bytes that wait in the queue.
    Message {
        /// The message.
        message: Message,
        /// Freed when the message was taken in.
        permit: tokio::sync::OwnedSemaphorePermit,
    },
}

/// The sending side of a connection; dropping it closes the connection.
pub struct Outbox {
    messages: mpsc::Sender<Message>,
    closed: watch::Sender<bool>,
}

impl Outbox {
    /// An outbox with its queue, and the signal that it was dropped.
    pub fn new(messages_max: usize) -> (Outbox, mpsc::Receiver<Message>, watch::Receiver<bool>) {
        let (messages, queue) = mpsc::channel(messages_max);
        let (closed, was_closed) = watch::channel(false);
        (Outbox { messages, closed }, queue, was_closed)
    }

    /// Queues a message; false when the queue is full or the connection is gone.
    pub fn send(&self, message: Message) -> bool {
        self.messages.try_send(message).is_ok()
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        let _ = self.closed.send(true);
    }
}
