//! What can go wrong below the SQL: the disk, or the bytes on it.

use thiserror::Error;

/// An error of the storage layer. None of these is the user's fault.
#[derive(Debug, Error)]
pub enum StorageError {
    /// The device refused: EIO, a lost mount, a permission. Fatal to this node; never retried as success.
    #[error("storage: {operation} failed: {message}")]
    Io {
        /// What was being done, for example `sync of the log`.
        operation: String,
        /// What the system said.
        message: String,
    },
    /// No space is left. Writes fail with it, reads go on, and it heals when space returns.
    #[error("storage: no space left on the device ({operation})")]
    Full {
        /// What was being done.
        operation: String,
    },
    /// Bytes that were written by us no longer mean what they meant. The node must not start on them.
    #[error("storage: {what} is corrupt: {detail}")]
    Corrupt {
        /// The file, family or record that is damaged.
        what: String,
        /// How it was noticed.
        detail: String,
    },
}

/// The result of a storage operation.
pub type Result<T> = std::result::Result<T, StorageError>;
