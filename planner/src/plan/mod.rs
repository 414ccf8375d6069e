//! The project's own plan of a materialized view: what is stored in the catalog, fingerprinted, exchanged
//! between regions and executed. It is planned once, by the primary; regions never plan it again.
//!
//! ```text
//!   LocalFragment 0 ── boundary ──┐
//!   LocalFragment 1 ── boundary ──┤
//!                                 ▼
//!                           global: Node<GlobalLeaf>  ──▶ result of the view
//! ```
//!
//! The types keep the split honest: a [`LocalFragment`] is a `Node<Scan>` and so cannot read what was merged;
//! only the global tree has [`GlobalLeaf::Merge`] leaves.

pub mod expr;
pub mod node;
mod partials;
pub mod time_format;
pub mod typing;
pub mod view;
mod walk;

pub use expr::{BinaryOp, Expr, Literal, LiteralValue};
pub use node::{AggregateCall, AggregateFunction, JoinKind, Node, SortKey};
pub use view::{Boundary, Column, GlobalLeaf, LocalFragment, Locality, Scan, ViewPlan};
