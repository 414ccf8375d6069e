//! From SQL text to a plan that knows where its rows are.
//!
//! ```text
//!  text ─▶ parse ─▶ Statement ─┬─▶ ddl ──▶ catalog changes (with a ViewPlan for a materialized view)
//!                              ├─▶ dml ──▶ a query that yields (key, expected version, new row)
//!                              └─▶ the server's one-shot queries
//!  query ─▶ datafusion/ (analysis) ─▶ default-deny conversion ─▶ locality ─▶ split ─▶ ViewPlan
//! ```
//!
//! Nothing here reads a clock, opens a file or runs a query. `datafusion/` is the only room of this crate that
//! names DataFusion.

pub mod catalog;
pub mod datafusion;
pub mod ddl;
pub mod dml;
pub mod error;
pub mod explain;
#[cfg(test)]
mod golden;
pub mod locality;
pub mod parse;
pub mod plan;
pub mod residency;
pub mod split;
pub mod types;
