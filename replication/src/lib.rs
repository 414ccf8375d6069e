//! What regions say to each other, and what they keep of what they heard.
//!
//! ```text
//!   own changes ─▶ SlotSet / RowVersions ─▶ section ─▶ Bundle ─▶ Link ═══ the wire ═══▶ Link ─▶ Inbox
//!                        ▲                                                                      │
//!                        └──────────── merge_foreign ◀── one applicable set, one log record ◀───┘
//! ```
//!
//! Everything here is pure: no socket, no clock, no thread. Time and messages are inputs; messages and
//! verdicts are outputs. The values that travel are *absolute* and have one writer each, so that loss,
//! duplication and reordering of messages cannot change what a region ends up holding.
//!
//! Left out on purpose: SQL (partials are opaque columns behind [`PartialOps`]), the log, the catalog, and
//! everything that decides what to do with an applicable set of bundles.

pub mod bundle;
pub mod changes;
pub mod defects;
pub mod error;
pub mod frontier;
pub mod hlc;
pub mod inbox;
pub mod lattice;
pub mod link;
pub mod partials;
pub mod rows;
mod section;
pub mod slots;
pub mod walk;

pub use bundle::{Bundle, Chunk, Included, Section, SectionObject};
pub use changes::{Changed, Changes, KeySet};
pub use defects::Defects;
pub use error::ReplicationError;
pub use frontier::{ClusterId, Epoch, Frontier};
pub use hlc::{Hlc, HlcClock, Tick};
pub use inbox::{Inbox, Offered, ReceivedBundle};
pub use lattice::Lattice;
pub use link::{
    CutRequest, Identity, Link, LinkConfig, LinkEffect, LinkState, LinkStatus, Local, Member, Message,
    OriginChanges,
};
pub use partials::{ArrowPartials, PartialOps};
pub use rows::{LostVersion, MergedRows, RowVersion, RowVersions, TableWrites};
pub use slots::{LiveSlots, SlotChanges, SlotDelta, SlotLayout, SlotSet};
pub use walk::Walk;
