//! A view in a region that is alone in its cluster: the same plan without slots.
//!
//! ```text
//!  inputs ─▶ root 0 ─┬─▶ aggregate 0 ─▶ merged rows 0 ─┐
//!                    └─▶ aggregate 1 ─▶ merged rows 1 ─┼─▶ global tree ─▶ Δ result
//!  inputs ─▶ root 1 ─────────────────▶ merged rows 2 ─┘
//! ```
//!
//! With one origin, merging is finalising: a merge of partials is the aggregate of the region's own rows, and a merge
//! of rows is those rows. Fragments with the same root share its evaluation, and a top-k of a region's rows below the
//! same top-k of all rows is left out.

use arrow::datatypes::DataType;
use tributary_planner::plan::{Boundary, GlobalLeaf, Node, Scan, ViewPlan};
use tributary_storage::Delta;

use crate::error::Result;
use crate::operators::aggregate::Aggregate;
use crate::operators::{LeafSource, Step, Tree};
use crate::state::Builder;

/// The fragments of a view whose slots would all be the region's own.
pub(crate) struct Alone {
    roots: Vec<Tree>,
    fragments: Vec<Fragment>,
}

struct Fragment {
    root: usize,
    aggregate: Option<Aggregate>,
}

impl Alone {
    pub(crate) fn build(builder: &mut Builder, plan: &ViewPlan) -> Result<Self> {
        let mut nodes: Vec<&Node<Scan>> = Vec::new();
        let mut alone = Self {
            roots: Vec::new(),
            fragments: Vec::new(),
        };
        for (number, fragment) in plan.fragments.iter().enumerate() {
            let node = match (&fragment.boundary, &fragment.root) {
                (Boundary::MergeRows, Node::TopK { input, .. }) if repeats_top_k(plan, number) => input,
                (_, root) => root,
            };
            let root = match nodes.iter().position(|other| *other == node) {
                Some(root) => root,
                None => {
                    let tree = Tree::build(builder, node, &|scan: &Scan| Ok(LeafSource::Scan(scan)))?;
                    nodes.push(node);
                    alone.roots.push(tree);
                    nodes.len() - 1
                }
            };
            let tree = &alone.roots[root];
            let aggregate = match &fragment.boundary {
                Boundary::MergePartials { keys, aggregates } => {
                    let name = builder.next_operator("aggregate");
                    let (types, append_only) = (tree.types(), tree.append_only());
                    Some(Aggregate::build(
                        builder,
                        name,
                        types,
                        keys,
                        aggregates,
                        append_only,
                    )?)
                }
                Boundary::MergeRows | Boundary::AppendRows => None,
            };
            alone.fragments.push(Fragment { root, aggregate });
        }
        Ok(alone)
    }

    /// The types of a fragment's merged rows, and whether they only come.
    pub(crate) fn merged(&self, fragment: usize) -> (Vec<DataType>, bool) {
        let Fragment { root, aggregate } = &self.fragments[fragment];
        let tree = &self.roots[*root];
        match aggregate {
            Some(aggregate) => (aggregate.types(), false),
            None => (tree.types().to_vec(), tree.append_only()),
        }
    }

    /// The change of each fragment's merged rows.
    pub(crate) fn eval(&self, step: &mut Step) -> Vec<Delta> {
        let deltas: Vec<Delta> = self.roots.iter().map(|root| root.eval(step)).collect();
        let merged = |fragment: &Fragment| match &fragment.aggregate {
            Some(aggregate) => aggregate.eval(step, &deltas[fragment.root]),
            None => deltas[fragment.root].clone(),
        };
        self.fragments.iter().map(merged).collect()
    }
}

/// Whether every reader of a fragment, whose root is a top-k, asks for no more than the first of its rows again.
fn repeats_top_k(plan: &ViewPlan, fragment: usize) -> bool {
    let Node::TopK {
        partition: own_partition,
        keys: own_keys,
        fetch: own_fetch,
        skip: 0,
        rank: false,
        ..
    } = &plan.fragments[fragment].root
    else {
        return false;
    };
    let (mut readers, mut repeats) = (0, 0);
    plan.global.for_each_leaf(&mut |leaf: &GlobalLeaf| {
        readers += usize::from(*leaf == GlobalLeaf::Merge(fragment));
    });
    let mut nodes = vec![&plan.global];
    while let Some(node) = nodes.pop() {
        if let Node::TopK {
            input,
            partition,
            keys,
            skip,
            fetch,
            ..
        } = node
        {
            let is_same = partition == own_partition && keys == own_keys && skip + fetch <= *own_fetch;
            let reads = **input == Node::Leaf(GlobalLeaf::Merge(fragment));
            repeats += usize::from(is_same && reads);
        }
        nodes.extend(node.inputs());
    }
    readers == repeats
}
