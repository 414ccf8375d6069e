//! Incremental operators and the dataflow step of one view.
//!
//! ```text
//!   own rows (deltas)                      slots of all regions (before/after)     deltas of global inputs
//!        │                                        │                                        │
//!        ▼                                        ▼                                        │
//!   operators ─▶ local/ ─▶ SlotChanges       merge/ ─▶ merged rows (delta) ─▶ operators ◀──┘ ─▶ result
//!   └── step_local ────────────────────┘     └── step_global ─────────────────────────────────────────┘
//! ```
//!
//! [`View`] is the whole surface: it is built from a [`ViewPlan`](tributary_planner::plan::ViewPlan), stepped with
//! deltas, sealed, and its state is a set of named states. Operators move whole batches; only [`expr`] knows
//! DataFusion. The same deltas give the same output: its order follows that of the input, never addresses or hashes.
//!
//! Left out on purpose: where deltas come from, when steps happen, and every decision about other regions.

mod aggregates;
mod canonical;
mod columns;
mod dataflow;
mod error;
pub mod expr;
mod local;
mod merge;
mod operators;
mod placement;
mod row_errors;
mod split;
mod stages;
mod state;
mod workers;

pub use dataflow::{Defects, Inputs, Scope, View};
pub use error::ExecutorError;
pub use operators::hop::windows_of;
pub use row_errors::{ERRORS_LISTED_MAX, RowError};
pub use state::{Saved, SavedState};
pub use workers::{Inline, Job, Workers};
