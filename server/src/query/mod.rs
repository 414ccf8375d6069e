//! One-shot queries over a snapshot, and the DML that is bound to such queries.
//!
//! ```text
//!   text ─▶ planner::parse ─▶ AST ─▶ Reader (relations, views, `*`) ─▶ DataFusion ─▶ stream of batches
//!                              └─▶ planner::dml ─▶ queries ─▶ dml/ (keys, constraints) ─▶ pending writes
//! ```
//!
//! Everything here reads exactly one `Arc<Snapshot>` and the transaction's own writes. Nothing here commits.

pub mod columns;
pub mod context;
pub mod dml;
pub mod facts;
mod fixed;
pub mod functions;
pub mod lookup;
pub mod readable;
pub mod reader;
pub mod relation;
pub mod rules;
pub mod schema;
pub mod stack;
pub mod wildcard;
mod windows;
