//! One view: its operators, its state, and the two halves of a step.
//!
//! ```text
//!  inputs ─▶ fragment 0 ─▶ SlotChanges ┐                ┌─ merge 0 ─┐
//!  inputs ─▶ fragment 1 ─▶ SlotChanges ┤  (slot sets)   ├─ merge 1 ─┼─▶ global tree ─▶ Δ result ─▶ result rows
//!            step_local                ┘                └───────────┘   step_global
//! ```
//!
//! In a region that is alone in its cluster there is one half, [`View::step_alone`], without slots: see
//! [`crate::alone`].
//!
//! Invariants: the result is a function of the inputs and the slots, never of how changes were cut into steps; the
//! same steps give the same rows in the same order; a step with nothing to do changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use tributary_planner::plan::{GlobalLeaf, Node, Scan, ViewPlan};
use tributary_replication::{SlotChanges, SlotDelta, SlotLayout};
use tributary_storage::{Delta, KeyEncoder, ObjectId, RowsSnapshot};

use crate::alone::Alone;
use crate::columns::{batch_of, types_of};
use crate::error::{ExecutorError, Result};
use crate::local::{LocalEnd, slot_layout};
use crate::merge::Merge;
use crate::operators::{LeafSource, Step, Tree};
use crate::row_errors::{ErrorLog, ErrorSink, RowError};
use crate::state::{Builder, NothingSaved, ResultRows, Saved, SavedState, StateId, States};

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
    below: Below,
    global: Tree,
    result: Held,
    schema: SchemaRef,
}

/// What lies below the global tree.
enum Below {
    /// Fragments and the merges of their slots.
    Split(Split),
    Alone(Alone),
}

/// Where the rows of the result are.
#[derive(Clone, Copy)]
enum Held {
    /// In a state of their own.
    Apart(StateId),
    /// In the state of the top-k at the root, which keeps just the rows that it shows.
    TopK(StateId),
}

/// Which regions a view has to do with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The region is alone in its cluster: there are no slots.
    Alone,
    /// Several regions merge their slots.
    Cluster,
}

struct Split {
    /// What fragments read; those with the same root share it.
    roots: Vec<Tree>,
    fragments: Vec<Fragment>,
}

struct Fragment {
    root: usize,
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
    pub fn new(id: ObjectId, plan: Arc<ViewPlan>, scope: Scope) -> Result<Self> {
        Self::build(id, plan, scope, &mut NothingSaved)
    }

    /// The view as a checkpoint has it.
    ///
    /// # Errors
    /// As [`View::new`]; when a state is missing or cannot be read.
    pub fn restore(
        id: ObjectId,
        plan: Arc<ViewPlan>,
        scope: Scope,
        saved: &mut dyn SavedState,
    ) -> Result<Self> {
        let view = Self::build(id, plan, scope, saved)?;
        view.states.assert_complete()?;
        Ok(view)
    }

    fn build(id: ObjectId, plan: Arc<ViewPlan>, scope: Scope, saved: &mut dyn SavedState) -> Result<Self> {
        let mut states = States::default();
        let below = match scope {
            Scope::Alone => Below::Alone(Alone::build(
                &mut Builder::new("alone", &mut states, &mut *saved),
                &plan,
            )?),
            Scope::Cluster => Below::Split(Split::build(&plan, &mut states, &mut *saved)?),
        };
        let merged: Vec<(Vec<DataType>, bool)> = (0..plan.fragments.len())
            .map(|number| match &below {
                Below::Alone(alone) => alone.merged(number),
                Below::Split(split) => {
                    let append_only = matches!(split.fragments[number].merge, Merge::Appended(_));
                    (plan.fragments[number].merged_types(), append_only)
                }
            })
            .collect();
        let mut builder = Builder::new("global", &mut states, &mut *saved);
        let global = Tree::build(&mut builder, &plan.global, &|leaf: &GlobalLeaf| match leaf {
            GlobalLeaf::Scan(scan) => Ok(LeafSource::Scan(scan)),
            GlobalLeaf::Merge(number) => match merged.get(*number) {
                Some((types, append_only)) => Ok(LeafSource::Merged(*number, types, *append_only)),
                None => Err(ExecutorError::Plan(format!("there is no fragment {number}"))),
            },
        })?;
        let schema = result_schema(&plan, global.types())?;
        let shown = global
            .root_top_k()
            .filter(|id| states.ranked(*id).keeps_what_it_shows());
        let result = match shown {
            Some(top_k) => Held::TopK(top_k),
            None => {
                let empty = ResultRows::new(schema.clone(), global.append_only());
                Held::Apart(states.open_result(RESULT.to_string(), empty, &mut *saved)?)
            }
        };
        let errors = states.open_trace(ERRORS.to_string(), ErrorLog::layout(), saved)?;
        Ok(Self {
            id,
            errors: ErrorLog::new(errors),
            states,
            below,
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
    pub fn slot_layout(plan: &ViewPlan, fragment: usize) -> SlotLayout {
        let fragment = &plan.fragments[fragment];
        let types = fragment.root.types(&|scan: &Scan| scan.types.clone());
        slot_layout(&fragment.boundary, &types)
    }

    /// Switches defects on or off. For tests only.
    pub fn set_defects(&mut self, defects: Defects) {
        if let Below::Split(split) = &mut self.below {
            for fragment in &mut split.fragments {
                if let Merge::Partials(partials) = &mut fragment.merge {
                    partials.set_merge_by_adding(defects.merge_by_adding);
                }
            }
        }
    }

    /// Takes in changes of all inputs, in a region that is alone; returns the change of the result.
    ///
    /// # Panics
    /// When the view was built for a cluster.
    pub fn step_alone(&mut self, inputs: &Inputs) -> Delta {
        assert!(
            matches!(self.below, Below::Alone(_)),
            "a view of a cluster merges slots"
        );
        self.evaluate_global(inputs, &[], false)
    }

    /// Takes in changes of the region's own rows and of global inputs; returns, per fragment, the new absolute
    /// values of the region's own slots that changed.
    ///
    /// # Panics
    /// When the view was built for a region that is alone.
    pub fn step_local(&mut self, inputs: &Inputs) -> Vec<Option<SlotChanges>> {
        let Below::Split(split) = &self.below else {
            panic!("a region that is alone has no slots");
        };
        let mut sink = ErrorSink::default();
        let deltas = split.eval_roots(&mut Step {
            states: &mut self.states,
            errors: &mut sink,
            inputs,
            merged: &[],
            initial: false,
        });
        let end = |fragment: &Fragment| fragment.end.eval(&mut self.states, &deltas[fragment.root]);
        let changes = split.fragments.iter().map(end).collect();
        self.errors.record(&mut self.states, sink);
        changes
    }

    /// Takes in changes of global inputs and of slots, one entry per fragment; returns the change of the result, in
    /// the view's columns.
    ///
    /// # Panics
    /// When there is not one entry per fragment.
    pub fn step_global(&mut self, inputs: &Inputs, merges: &[Option<SlotDelta>]) -> Delta {
        let Below::Split(split) = &self.below else {
            panic!("a region that is alone has no slots");
        };
        assert_eq!(
            merges.len(),
            split.fragments.len(),
            "every fragment has its merge input"
        );
        self.evaluate_global(inputs, merges, false)
    }

    /// The result over no input: the one row of an aggregate without keys. Called once, when the view is new.
    pub fn initialize(&mut self) -> Delta {
        let inputs = Inputs::new();
        let fragments = match &self.below {
            Below::Alone(_) => 0,
            Below::Split(split) => split.fragments.len(),
        };
        if let Below::Split(split) = &self.below {
            let mut sink = ErrorSink::default();
            let deltas = split.eval_roots(&mut Step {
                states: &mut self.states,
                errors: &mut sink,
                inputs: &inputs,
                merged: &[],
                initial: true,
            });
            assert!(
                deltas.iter().all(|delta| delta.consolidated().is_empty()),
                "no row of a fragment exists without a regional row"
            );
            self.errors.record(&mut self.states, sink);
        }
        self.evaluate_global(&inputs, &vec![None; fragments], true)
    }

    fn evaluate_global(&mut self, inputs: &Inputs, merges: &[Option<SlotDelta>], initial: bool) -> Delta {
        let mut sink = ErrorSink::default();
        let merged: Vec<Delta> = match &mut self.below {
            Below::Split(split) => split
                .fragments
                .iter_mut()
                .zip(merges)
                .map(|(fragment, slots)| fragment.merge.eval(slots.as_ref(), initial, &mut sink))
                .collect(),
            Below::Alone(alone) => alone.eval(&mut Step {
                states: &mut self.states,
                errors: &mut sink,
                inputs,
                merged: &[],
                initial,
            }),
        };
        let mut step = Step {
            states: &mut self.states,
            errors: &mut sink,
            inputs,
            merged: &merged,
            initial,
        };
        let delta = self.global.eval(&mut step);
        let rows = batch_of(self.schema.clone(), delta.rows().columns().to_vec(), delta.len());
        let delta = delta.with_rows(rows);
        if let Held::Apart(result) = self.result
            && !delta.is_empty()
        {
            self.states.result_mut(result).apply(&delta);
        }
        self.errors.record(&mut self.states, sink);
        delta
    }

    /// Makes pending changes of traces immutable, under `stamp`.
    pub fn seal(&mut self, stamp: u64) {
        self.states.seal(stamp);
    }

    /// The result as it is now. Cheap, and never changes afterwards.
    pub fn result(&self) -> Arc<RowsSnapshot> {
        match self.result {
            Held::Apart(result) => self.states.result(result).snapshot(),
            Held::TopK(state) => self.states.ranked(state).kept(self.schema.clone()),
        }
    }

    /// All state, the result included, by name: what a checkpoint keeps. Traces are as of the last seal.
    pub fn save(&self) -> BTreeMap<String, Saved> {
        self.states.save().collect()
    }

    /// Rows and groups that are left out at present because they cannot be computed, at most
    /// [`ERRORS_LISTED_MAX`](crate::ERRORS_LISTED_MAX).
    pub fn errors(&self) -> Vec<RowError> {
        self.errors.live(&self.states)
    }

    /// Every state's name, its rows as an upper bound, and the bytes it holds.
    pub fn state_sizes(&self) -> Vec<(String, usize, usize)> {
        self.states
            .sizes()
            .map(|(name, rows, bytes)| (name.to_string(), rows, bytes))
            .collect()
    }
}

impl Split {
    fn build(plan: &ViewPlan, states: &mut States, saved: &mut dyn SavedState) -> Result<Self> {
        let mut nodes: Vec<&Node<Scan>> = Vec::new();
        let mut split = Self {
            roots: Vec::new(),
            fragments: Vec::with_capacity(plan.fragments.len()),
        };
        for (number, fragment) in plan.fragments.iter().enumerate() {
            let mut builder = Builder::new(format!("local{number}"), states, &mut *saved);
            let root = match nodes.iter().position(|other| **other == fragment.root) {
                Some(root) => root,
                None => {
                    let leaf = |scan| Ok(LeafSource::Scan(scan));
                    split
                        .roots
                        .push(Tree::build(&mut builder, &fragment.root, &leaf)?);
                    nodes.push(&fragment.root);
                    nodes.len() - 1
                }
            };
            let tree = &split.roots[root];
            let end = LocalEnd::build(&mut builder, &fragment.boundary, tree.types(), tree.append_only())?;
            let merge = Merge::build(number, &fragment.boundary, tree.types());
            split.fragments.push(Fragment { root, end, merge });
        }
        Ok(split)
    }

    /// The change of each root's rows.
    fn eval_roots(&self, step: &mut Step) -> Vec<Delta> {
        self.roots.iter().map(|root| root.eval(step)).collect()
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

#[cfg(test)]
mod tests;
