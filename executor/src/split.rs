//! A view in a region of a cluster: fragments over the region's own rows, merges of slots, and the tree above them.

use arrow::datatypes::DataType;
use tributary_planner::plan::{Boundary, GlobalLeaf, Node, Scan, ViewPlan};
use tributary_storage::Delta;

use crate::error::{ExecutorError, Result};
use crate::local::LocalEnd;
use crate::merge::Merge;
use crate::operators::{LeafSource, Relation, Step, Tree};
use crate::placement::Placement;
use crate::state::{Builder, PartitionedState, States};

/// Fragments, the merges of their slots, and the tree over what is merged.
pub(crate) struct Split {
    /// What fragments read; those with the same root share it.
    roots: Vec<Tree>,
    pub(crate) fragments: Vec<Fragment>,
    pub(crate) global: Tree,
}

pub(crate) struct Fragment {
    pub(crate) root: usize,
    pub(crate) end: LocalEnd,
    pub(crate) merge: Merge,
}

impl Split {
    pub(crate) fn build(plan: &ViewPlan, states: &mut States, saved: &mut PartitionedState) -> Result<Self> {
        let mut nodes: Vec<&Node<Scan>> = Vec::new();
        let mut roots: Vec<Tree> = Vec::new();
        let mut fragments: Vec<Fragment> = Vec::with_capacity(plan.fragments.len());
        for (number, fragment) in plan.fragments.iter().enumerate() {
            let mut builder = Builder::new(format!("local{number}"), states, saved);
            let root = match nodes.iter().position(|other| **other == fragment.root) {
                Some(root) => root,
                None => {
                    let leaf = |scan| Ok(LeafSource::Scan(scan));
                    roots.push(Tree::build(&mut builder, &fragment.root, &leaf)?);
                    nodes.push(&fragment.root);
                    nodes.len() - 1
                }
            };
            let tree = &roots[root];
            let end = LocalEnd::build(&mut builder, &fragment.boundary, tree.relation())?;
            let merge = Merge::build(number, &fragment.boundary, tree.types());
            fragments.push(Fragment { root, end, merge });
        }
        let types: Vec<Vec<DataType>> = plan.fragments.iter().map(|f| f.merged_types()).collect();
        let keys: Vec<Option<Vec<usize>>> = plan.fragments.iter().map(|f| merged_key(&f.boundary)).collect();
        let merged = |number: usize| Relation {
            types: &types[number],
            append_only: matches!(fragments[number].merge, Merge::Appended(_)),
            placement: &Placement::One,
            unique: keys[number].as_deref(),
        };
        let mut builder = Builder::new("global", states, saved);
        let global = Tree::build(&mut builder, &plan.global, &|leaf: &GlobalLeaf| match leaf {
            GlobalLeaf::Scan(scan) => Ok(LeafSource::Scan(scan)),
            GlobalLeaf::Merge(number) if *number < fragments.len() => {
                Ok(LeafSource::Merged(*number, merged(*number)))
            }
            GlobalLeaf::Merge(number) => Err(ExecutorError::Plan(format!("there is no fragment {number}"))),
        })?;
        Ok(Self {
            roots,
            fragments,
            global,
        })
    }

    /// The change of each root's rows.
    pub(crate) fn eval_roots(&self, step: &mut Step) -> Vec<Delta> {
        self.roots.iter().map(|root| root.eval(step)).collect()
    }
}

/// Columns of a fragment's merged rows of which no two have equal values.
fn merged_key(boundary: &Boundary) -> Option<Vec<usize>> {
    match boundary {
        Boundary::MergePartials { keys, .. } if !keys.is_empty() => Some((0..keys.len()).collect()),
        _ => None,
    }
}
