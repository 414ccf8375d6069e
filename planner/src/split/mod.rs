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
//! A side of a join that is merged below a local operator becomes a view of its own ([`hidden_views`]).
//!
//! An invariant: the global tree reads no regional table. The types keep local fragments free of merged rows.

mod cut;
pub mod distinct;
mod equalities;
mod hidden_views;
pub mod named;
mod prune;
mod push_down;
pub mod rank;
pub mod regions;
pub mod sides;

use crate::catalog::{Catalog, Object};
use crate::error::PlanError;
use crate::plan::{Column, Node, Scan, ViewPlan};
use hidden_views::HiddenViews;
use sides::{Merge, RowCounts, Sides};

/// A tree after the split.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    /// What is executed.
    pub plan: ViewPlan,
    /// The hidden views that it reads and that do not exist yet, in the order of their ids, which begin with the
    /// catalog's next.
    pub hidden: Vec<Object>,
}

/// Splits a typed tree whose columns are `columns`. Scans are marked with the relations that `merge` names
/// ([`named`]); hidden views are looked for in the catalog.
///
/// # Errors
/// `Unsupported` for joins without an equality and for row numbers without a bound; those of [`Sides`].
pub fn split(
    tree: Node<Scan>,
    columns: Vec<Column>,
    catalog: &Catalog,
    merge: &Merge,
    rows: &RowCounts,
) -> Result<Split, PlanError> {
    let tree = push_down::push_down(tree, Vec::new());
    rank::check(&tree)?;
    let all: Vec<usize> = (0..columns.len()).collect();
    let tree = prune::prune(equalities::keys(tree)?, &all);
    let tree = distinct::expand(tree);
    let sides = Sides::new(merge, rows, &tree)?;
    let split = cut::cut(tree, columns, sides, HiddenViews::new(catalog))?;
    let columns = split.plan.columns.iter();
    debug_assert_eq!(
        split.plan.global_types(),
        columns.map(|column| column.data_type.clone()).collect::<Vec<_>>(),
        "the columns of a view have the types of its tree",
    );
    Ok(split)
}
