//! The guarantees, one file per place where they can be seen.

pub mod conflicts;
mod contents;
pub mod publication;
pub mod residency;
pub mod slots;
pub mod sql;

pub use contents::{contents, contents_plain};
pub use publication::publication;
