//! Errors that end a region. What a user can mend is a [`crate::Rejected`] instead.

use thiserror::Error;

/// The region cannot go on: its disk, its log or one of its invariants is broken.
#[derive(Debug, Error)]
pub enum RegionError {
    /// The storage below failed.
    #[error(transparent)]
    Storage(#[from] tributary_storage::StorageError),
    /// Replicated state does not have the form it was checked to have.
    #[error("replication: {0}")]
    Replication(#[from] tributary_replication::ReplicationError),
    /// An operator broke.
    #[error("executor: {0}")]
    Executor(#[from] tributary_executor::ExecutorError),
    /// A log record or checkpoint blob cannot be read by this version.
    #[error("the {what} at log position {position} cannot be read: {detail}")]
    Unreadable {
        /// What was being read.
        what: &'static str,
        /// The position in the log.
        position: u64,
        /// Why.
        detail: String,
    },
    /// Rows that a source gave once cannot be read again.
    #[error("rows {from} to {to} of source \"{name}\" cannot be read again: {detail}")]
    Source {
        /// The source.
        name: String,
        /// The number of the first row.
        from: u64,
        /// The number after the last one.
        to: u64,
        /// Why.
        detail: String,
    },
    /// A view that was complete cannot be computed again from its inputs.
    #[error("materialized view \"{view}\" cannot be built again: {detail}")]
    Backfill {
        /// The view.
        view: String,
        /// Why.
        detail: String,
    },
    /// Something was about to leave the region that must not; the link that asked for it rests.
    #[error("residency: {0}")]
    Withheld(String),
    /// This log must not be continued: it was lost in part, fenced, or its region was dropped.
    #[error("{0}")]
    Superseded(String),
    /// This region lacks what others have dropped the tombstones of: it may hold rows that were deleted, and must not go
    /// on from what it has.
    #[error(
        "this region is too far behind: it lacks {lacks}, and {peer} has dropped the tombstones up to there, so rows \
         that were deleted could come back. {}",
        match joined {
            true => "It was restored from an old copy: start it with --reincarnate, its own rows are kept",
            false => "It had not joined yet: start it with an empty data directory (or with --reincarnate, which puts this one aside)",
        }
    )]
    TooFarBehind {
        /// Who told.
        peer: String,
        /// An origin and its epoch.
        lacks: String,
        /// Whether it had joined the cluster.
        joined: bool,
    },
    /// An invariant does not hold; the values are in the text.
    #[error("invariant broken: {0}")]
    Invariant(String),
}

/// A result that may end the region.
pub type Result<T> = std::result::Result<T, RegionError>;
