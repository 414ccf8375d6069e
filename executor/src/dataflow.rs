//! One view: its operators, its state, and the two halves of a step.
//!
//! ```text
//!  inputs ─▶ fragment 0 ─▶ SlotChanges ┐                ┌─ merge 0 ─┐
//!  inputs ─▶ fragment 1 ─▶ SlotChanges ┤  (slot sets)   ├─ merge 1 ─┼─▶ global tree ─▶ Δ result ─▶ result trace
//!            step_local                ┘                └───────────┘   step_global
//! ```
//!
//! Invariants: the result is a function of the inputs and the slots, never of how changes were cut into steps; the
//! same steps give the same bytes; a step with nothing to do changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use tributary_planner::plan::{Boundary, Expr, GlobalLeaf, Node, Scan, ViewPlan};
use tributary_replication::{SlotChanges, SlotDelta, SlotLayout};
use tributary_storage::{Delta, KeyEncoder, Layout, ObjectId, RunTrace, StorageError, Trace, TraceSnapshot};

use crate::columns::{batch_of, types_of};
use crate::error::{ExecutorError, Result};
use crate::local::{LocalEnd, slot_layout};
use crate::merge::Merge;
use crate::operators::{LeafSource, Step, Tree};
use crate::row_errors::{ErrorLog, ErrorSink, RowError};
use crate::state::{Builder, OpenTrace, StateId, States};

/// Changes of tables and views, in the object's own columns.
pub type Inputs = BTreeMap<ObjectId, Delta>;

/// Defects that a test can switch on, to see that its checks catch them. Never set outside tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Defects {
    /// A new partial is added to the merged value instead of replacing its origin's old one.
    pub merge_by_adding: bool,
}

/// A materialized view at work in one region.
pub struct View {
    id: ObjectId,
    plan: Arc<ViewPlan>,
    states: States,
    errors: ErrorLog,
    fragments: Vec<Fragment>,
    global: Tree,
    result: StateId,
    schema: SchemaRef,
}

struct Fragment {
    tree: Tree,
    end: LocalEnd,
    merge: Merge,
}

/// The name of the trace that holds the result.
const RESULT: &str = "result";
/// The name of the trace that holds the errors.
const ERRORS: &str = "errors";

impl View {
    /// A view without rows. [`View::initialize`] comes next.
    ///
    /// # Errors
    /// When the plan asks for what is not supported, or contradicts itself.
    pub fn new(id: ObjectId, plan: Arc<ViewPlan>) -> Result<Self> {
        Self::build(id, plan, &mut |_, _| Ok(None))
    }

    /// The view as a checkpoint has it; `traces` gives the trace of a name.
    ///
    /// # Errors
    /// As [`View::new`]; when a trace is missing or cannot be read.
    pub fn restore(
        id: ObjectId,
        plan: Arc<ViewPlan>,
        traces: &mut dyn FnMut(&str, Layout) -> std::result::Result<Option<RunTrace>, StorageError>,
    ) -> Result<Self> {
        let view = Self::build(id, plan, &mut |name, layout| Ok(traces(name, layout)?))?;
        view.states.assert_complete()?;
        Ok(view)
    }

    fn build(id: ObjectId, plan: Arc<ViewPlan>, open: OpenTrace) -> Result<Self> {
        let mut states = States::default();
        let mut fragments = Vec::with_capacity(plan.fragments.len());
        for (number, fragment) in plan.fragments.iter().enumerate() {
            let mut builder = Builder::new(format!("local{number}"), &mut states, &mut *open);
            let tree = Tree::build(&mut builder, &fragment.root, &|scan: &Scan| {
                Ok(LeafSource::Scan(scan))
            })?;
            let end = LocalEnd::build(&mut builder, &fragment.boundary, tree.types())?;
            let merge = Merge::build(number, &fragment.boundary, tree.types());
            fragments.push(Fragment { tree, end, merge });
        }
        let merged: Vec<Vec<DataType>> = plan.fragments.iter().map(|f| f.merged_types()).collect();
        let mut builder = Builder::new("global", &mut states, &mut *open);
        let global = Tree::build(&mut builder, &plan.global, &|leaf: &GlobalLeaf| match leaf {
            GlobalLeaf::Scan(scan) => Ok(LeafSource::Scan(scan)),
            GlobalLeaf::Merge(number) => match merged.get(*number) {
                Some(types) => Ok(LeafSource::Merged(*number, types)),
                None => Err(ExecutorError::Plan(format!("there is no fragment {number}"))),
            },
        })?;
        let schema = result_schema(&plan, global.types())?;
        let layout = Layout::keyed(schema.clone(), result_key(&plan));
        let result = states.open(RESULT.to_string(), layout, &mut *open)?;
        let errors = states.open(ERRORS.to_string(), ErrorLog::layout(), open)?;
        Ok(Self {
            id,
            errors: ErrorLog::new(errors),
            states,
            fragments,
            global,
            result,
            schema,
            plan,
        })
    }

    /// The view's id.
    pub fn id(&self) -> ObjectId {
        self.id
    }

    /// The view's plan.
    pub fn plan(&self) -> &Arc<ViewPlan> {
        &self.plan
    }

    /// The columns of the result.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The columns of a fragment's slots.
    ///
    /// # Panics
    /// When there is no such fragment.
    pub fn slot_layout(&self, fragment: usize) -> SlotLayout {
        slot_layout(
            &self.plan.fragments[fragment].boundary,
            self.fragments[fragment].tree.types(),
        )
    }

    /// Switches defects on or off. For tests only.
    pub fn set_defects(&mut self, defects: Defects) {
        for fragment in &mut self.fragments {
            if let Merge::Partials(partials) = &mut fragment.merge {
                partials.set_merge_by_adding(defects.merge_by_adding);
            }
        }
    }

    /// Takes in changes of the region's own rows and of global inputs; returns, per fragment, the new absolute
    /// values of the region's own slots that changed.
    pub fn step_local(&mut self, inputs: &Inputs) -> Vec<Option<SlotChanges>> {
        let mut sink = ErrorSink::default();
        let mut changes = Vec::with_capacity(self.fragments.len());
        for fragment in &self.fragments {
            let mut step = Step {
                states: &mut self.states,
                errors: &mut sink,
                inputs,
                merged: &[],
                initial: false,
            };
            let delta = fragment.tree.eval(&mut step);
            changes.push(fragment.end.eval(&mut self.states, &delta));
        }
        self.errors.record(&mut self.states, sink);
        changes
    }

    /// Takes in changes of global inputs and of slots, one entry per fragment; returns the change of the result,
    /// consolidated, in the view's columns.
    ///
    /// # Panics
    /// When there is not one entry per fragment.
    pub fn step_global(&mut self, inputs: &Inputs, merges: &[Option<SlotDelta>]) -> Delta {
        assert_eq!(
            merges.len(),
            self.fragments.len(),
            "every fragment has its merge input"
        );
        self.evaluate_global(inputs, merges, false)
    }

    /// The result over no input: the one row of an aggregate without keys. Called once, when the view is new.
    pub fn initialize(&mut self) -> Delta {
        let inputs = Inputs::new();
        let mut sink = ErrorSink::default();
        for fragment in &self.fragments {
            let mut step = Step {
                states: &mut self.states,
                errors: &mut sink,
                inputs: &inputs,
                merged: &[],
                initial: true,
            };
            let delta = fragment.tree.eval(&mut step);
            assert!(
                delta.consolidated().is_empty(),
                "no row of a fragment exists without a regional row"
            );
        }
        self.errors.record(&mut self.states, sink);
        self.evaluate_global(&inputs, &vec![None; self.fragments.len()], true)
    }

    fn evaluate_global(&mut self, inputs: &Inputs, merges: &[Option<SlotDelta>], initial: bool) -> Delta {
        let mut sink = ErrorSink::default();
        let merged: Vec<Delta> = self
            .fragments
            .iter_mut()
            .zip(merges)
            .map(|(fragment, slots)| fragment.merge.eval(slots.as_ref(), initial, &mut sink))
            .collect();
        let mut step = Step {
            states: &mut self.states,
            errors: &mut sink,
            inputs,
            merged: &merged,
            initial,
        };
        let delta = self.global.eval(&mut step);
        let rows = batch_of(self.schema.clone(), delta.rows().columns().to_vec(), delta.len());
        let delta = delta.with_rows(rows).consolidated();
        if !delta.is_empty() {
            self.states[self.result].apply(&delta);
        }
        self.errors.record(&mut self.states, sink);
        delta
    }

    /// Makes all pending state immutable, under `stamp`.
    pub fn seal(&mut self, stamp: u64) {
        self.states.iter_mut().for_each(|trace| trace.seal(stamp));
    }

    /// The result as of the last seal.
    pub fn result(&self) -> Arc<TraceSnapshot> {
        self.states[self.result].snapshot()
    }

    /// All state as of the last seal, the result included, by name: what a checkpoint keeps.
    pub fn traces(&self) -> BTreeMap<String, Arc<TraceSnapshot>> {
        self.states
            .iter()
            .map(|(name, trace)| (name.to_string(), trace.snapshot()))
            .collect()
    }

    /// Rows and groups that are left out at present because they cannot be computed, at most
    /// [`ERRORS_LISTED_MAX`](crate::ERRORS_LISTED_MAX).
    pub fn errors(&self) -> Vec<RowError> {
        self.errors.live(&self.states)
    }

    /// The number of rows of state, as an upper bound.
    pub fn state_rows(&self) -> usize {
        self.states.iter().map(|(_, trace)| trace.row_count()).sum()
    }

    /// The memory held by state, in bytes.
    pub fn state_bytes(&self) -> usize {
        self.states.iter().map(|(_, trace)| trace.bytes()).sum()
    }
}

/// The schema of the result, with the plan's names.
fn result_schema(plan: &ViewPlan, types: &[DataType]) -> Result<SchemaRef> {
    let fields = plan
        .columns
        .iter()
        .map(|column| Field::new(&column.name, column.data_type.clone(), true));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    if types_of(&schema) != types {
        return Err(ExecutorError::Plan(format!(
            "the view's columns are {:?}, its rows {types:?}",
            types_of(&schema)
        )));
    }
    match types.iter().find(|t| !KeyEncoder::supports(t)) {
        Some(other) => Err(ExecutorError::Unsupported(format!(
            "a result column of type {other}"
        ))),
        None => Ok(schema),
    }
}

/// The columns by which the result is looked up: the group keys where the root evidently has them, else all.
fn result_key(plan: &ViewPlan) -> Vec<usize> {
    let keys = evident_keys(plan, &plan.global).filter(|keys| !keys.is_empty());
    let Some(mut keys) = keys else {
        return (0..plan.columns.len()).collect();
    };
    keys.sort_unstable();
    keys.dedup();
    keys
}

fn evident_keys(plan: &ViewPlan, node: &Node<GlobalLeaf>) -> Option<Vec<usize>> {
    match node {
        Node::Leaf(GlobalLeaf::Merge(fragment)) => match &plan.fragments.get(*fragment)?.boundary {
            Boundary::MergePartials { keys, .. } => Some((0..keys.len()).collect()),
            Boundary::MergeRows | Boundary::AppendRows => None,
        },
        Node::Aggregate { keys, .. } => Some((0..keys.len()).collect()),
        Node::Filter { input, .. } | Node::TopK { input, .. } => evident_keys(plan, input),
        Node::Project {
            input, expressions, ..
        } => evident_keys(plan, input)?
            .into_iter()
            .map(|key| {
                expressions
                    .iter()
                    .position(|expression| *expression == Expr::Column(key))
            })
            .collect(),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
