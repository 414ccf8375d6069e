//! What can be wrong with what a peer sent. A region that meets one of these refuses the bytes, counts them
//! and asks again; it never panics and never guesses.

use thiserror::Error;

/// Why bytes from another region were refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReplicationError {
    /// The bytes do not mean anything valid: a damaged message, or a peer that breaks the protocol.
    #[error("{what} from a peer is corrupt: {detail}")]
    Corrupt {
        /// What was being read, for example `a bundle`.
        what: String,
        /// How it was noticed.
        detail: String,
    },
    /// The bytes are of a format version that this program does not speak.
    #[error(
        "{what} has format {found}, this program speaks format {known}: run the same version in every region"
    )]
    Format {
        /// What was being read.
        what: String,
        /// The format version found.
        found: u16,
        /// The format version spoken here.
        known: u16,
    },
    /// More than one message may carry.
    #[error("{what} of {bytes} bytes exceeds the maximum of {bytes_max} bytes for one message")]
    TooLarge {
        /// What was being made or read.
        what: String,
        /// Its size.
        bytes: usize,
        /// The most that is allowed.
        bytes_max: usize,
    },
}

impl ReplicationError {
    /// The error for bytes that mean nothing valid.
    pub fn corrupt(what: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Corrupt {
            what: what.into(),
            detail: detail.into(),
        }
    }
}

/// The result of reading what a peer sent.
pub type Result<T> = std::result::Result<T, ReplicationError>;
