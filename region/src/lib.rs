//! A region: a deterministic state machine over one log.
//!
//! ```text
//!  Input ─▶ Sequencer ─▶ Record (sealed) ─▶ Dataflow ─▶ Snapshot ─▶ Publish     (after Persisted)
//!   ▲           │ Append                       │ cut at ticks
//!  peers ─▶ links, inbox                       └─▶ bundles ─▶ Send               (after Persisted)
//! ```
//!
//! [`Region::step`] is the only door: an [`Input`] goes in, [`Effect`]s come out. Everything that changes a
//! region's state is an [`entry::Entry`] of its log; everything that leaves it waits in
//! [`outbound::Outbound`] until the log record it depends on is durable. Two machines meet at the log: the
//! [`sequencer`] decides what is a record, the [`dataflow`] decides what a record means. The second never asks
//! the first, so a replay of the log needs only the dataflow.
//!
//! Left out on purpose: threads, clocks, sockets, disks and SQL text. The shell (the server, or the simulator)
//! owns them.

pub mod backfill;
pub mod bundles;
pub mod checkpoint;
mod chunks;
mod collection;
pub mod commits;
pub mod config;
pub mod dataflow;
mod door;
pub mod effect;
pub mod entry;
pub mod error;
pub mod input;
pub mod links;
mod merges;
pub mod outbound;
mod overlay;
pub mod region;
pub mod replay;
pub mod sequencer;
pub mod snapshot;
pub mod source;
mod staging;
pub mod tokens;
pub mod writes;

pub use commits::Submission;
pub use config::{Defects, Founding, RegionConfig};
pub use effect::{Committed, Effect, Rejected};
pub use error::RegionError;
pub use input::Input;
pub use region::Region;
pub use replay::{Past, look_into};
pub use snapshot::{HeldStage, RegionStatus, Snapshot, TableSnapshot, ViewSnapshot};
pub use source::{NoSources, SourceAppend, SourceReader, SourceRows};
pub use tokens::CommitToken;
pub use writes::{TableChange, WriteSet};
