//! From one tree over tables to a [`ViewPlan`]: filters go down, unused columns go away, and the tree is cut where
//! regional rows become global ones.
//!
//! ```text
//!      TopK 10                               global:  TopK 10
//!        │                                              │
//!      Aggregate sum(x) by k                          Merge 0
//!        │                    ══════▶        ═══════════╪══════ MergePartials key k: sum(x)
//!      Join                                  local 0: Join
//!      ├─ orders (regional)                           ├─ orders
//!      └─ customers (global)                          └─ customers
//! ```
//!
//! An invariant: the global tree reads no regional table. The types keep local fragments free of merged rows.

mod cut;
pub mod distinct;
mod equalities;
mod prune;
mod push_down;
pub mod rank;
pub mod regions;

use crate::error::PlanError;
use crate::plan::{Column, Node, Scan, ViewPlan};

/// Splits a typed tree whose columns are `columns`.
///
/// # Errors
/// `Unsupported` for joins without an equality and for row numbers without a bound.
pub fn split(tree: Node<Scan>, columns: Vec<Column>) -> Result<ViewPlan, PlanError> {
    let tree = push_down::push_down(tree, Vec::new());
    rank::check(&tree)?;
    let all: Vec<usize> = (0..columns.len()).collect();
    let tree = prune::prune(equalities::keys(tree)?, &all);
    let plan = cut::cut(distinct::expand(tree), columns)?;
    debug_assert_eq!(
        plan.global_types(),
        plan.columns
            .iter()
            .map(|column| column.data_type.clone())
            .collect::<Vec<_>>(),
        "the columns of a view have the types of its tree",
    );
    Ok(plan)
}
