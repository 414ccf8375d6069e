//! Many regions in one process under a seeded network, clock and disk.
//!
//! ```text
//!   seed ─▶ Options ─▶ World: regions + shells + disks + network + clients, one queue of events
//!                        │ every effect
//!                        ├─▶ trace (digest)
//!                        └─▶ checks ◀── Model (from the logs alone) ◀── oracle (evaluate/), DataFusion
//! ```
//!
//! A run alternates trouble (crashes with lost writes, partitions, loss, duplication, reordering, damage, skewed
//! clocks, full disks) with healing, after which all regions must agree, and with what was committed. The same
//! seed gives the same run, effect by effect. Deliberate faults ([`Control`]) show that the checks can fail.
//!
//! Unlike the crates it tests, this one may use threads: one seed each.

pub mod checks;
pub mod clock;
pub mod evaluate;
pub mod failure;
pub mod ledger;
pub mod model;
pub mod network;
pub mod options;
pub mod report;
pub mod rng;
pub mod suite;
pub mod trace;
pub mod value;
pub mod workload;
pub mod world;

pub use failure::{Failure, Violation};
pub use options::{Control, Options};
pub use report::Report;
