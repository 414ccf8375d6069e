//! One view: its operators, its state, and the two halves of a step.
//!
//! ```text
//!  inputs ─▶ fragment 0 ─▶ SlotChanges ┐                ┌─ merge 0 ─┐
//!  inputs ─▶ fragment 1 ─▶ SlotChanges ┤  (slot sets)   ├─ merge 1 ─┼─▶ global tree ─▶ Δ result ─▶ result rows
//!            step_local                ┘                └───────────┘   step_global
//! ```
//!
//! In a region that is alone in its cluster there is one half, [`View::step_alone`], without slots: see
//! [`crate::stages`].
//!
//! Invariants: the result is a function of the inputs and the slots, never of how changes were cut into steps; the
//! same steps give the same rows in the same order; a step with nothing to do changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use tributary_planner::plan::{Scan, ViewPlan};
use tributary_replication::{SlotChanges, SlotDelta, SlotLayout};
use tributary_storage::{Delta, KeyEncoder, ObjectId, RowsSnapshot, Spill};

use crate::columns::{batch_of, types_of};
use crate::error::{ExecutorError, Result};
use crate::local::{LocalEnd, slot_layout};
use crate::merge::Merge;
use crate::operators::Step;
use crate::placement::{Placement, Share};
use crate::row_errors::{ErrorLog, ErrorSink, RowError};
use crate::split::{Fragment, Split};
use crate::stages::{Partition, Stages};
use crate::state::{Builder, NothingSaved, PartitionedState, ResultRows, Saved, SavedState, StateId, States};
use crate::workers::{Job, Workers};

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
    /// The first holds the errors, too; there are no others in a cluster.
    partitions: Vec<Partition>,
    errors: ErrorLog,
    operators: Operators,
    result: Held,
    schema: SchemaRef,
    workers: Arc<dyn Workers>,
}

/// The operators of either scope.
enum Operators {
    Alone(Stages),
    Cluster(Box<Split>),
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

/// The name of the trace that holds the errors.
const ERRORS: &str = "errors";

impl View {
    /// A view without rows. [`View::initialize`] comes next.
    ///
    /// # Errors
    /// When the plan asks for what is not supported, or contradicts itself.
    pub fn new(id: ObjectId, plan: Arc<ViewPlan>, scope: Scope, workers: Arc<dyn Workers>) -> Result<Self> {
        Self::build(id, plan, scope, workers, &mut NothingSaved)
    }

    /// The view as a checkpoint has it; the number of workers may have been another.
    ///
    /// # Errors
    /// As [`View::new`]; when a state is missing or cannot be read.
    pub fn restore(
        id: ObjectId,
        plan: Arc<ViewPlan>,
        scope: Scope,
        workers: Arc<dyn Workers>,
        saved: &mut dyn SavedState,
    ) -> Result<Self> {
        let mut view = Self::begin_restore(id, plan, scope, workers.clone(), saved)?;
        workers.run(view.restore_jobs());
        Ok(view)
    }

    /// As [`View::restore`], but the states are empty until all [`View::restore_jobs`] are done.
    ///
    /// # Errors
    /// As [`View::restore`].
    pub fn begin_restore(
        id: ObjectId,
        plan: Arc<ViewPlan>,
        scope: Scope,
        workers: Arc<dyn Workers>,
        saved: &mut dyn SavedState,
    ) -> Result<Self> {
        let view = Self::build(id, plan, scope, workers, saved)?;
        for partition in &view.partitions {
            partition.states.assert_complete()?;
        }
        Ok(view)
    }

    /// Pieces of work that take in what was saved, in any order, before anything else is done with the view.
    pub fn restore_jobs(&mut self) -> Vec<Job<'_>> {
        let partitions = self.partitions.iter_mut();
        partitions
            .flat_map(|partition| partition.states.restore_jobs())
            .collect()
    }

    fn build(
        id: ObjectId,
        plan: Arc<ViewPlan>,
        scope: Scope,
        workers: Arc<dyn Workers>,
        saved: &mut dyn SavedState,
    ) -> Result<Self> {
        let mut saved = PartitionedState::new(saved);
        let of = match scope {
            Scope::Alone => workers.count(),
            Scope::Cluster => 1,
        };
        let mut partitions = Vec::with_capacity(of);
        let mut first = None;
        for number in 0..of {
            saved.turn_to(Share { number, of });
            let mut states = States::default();
            let operators = Operators::build(&plan, scope, &mut states, &mut saved)?;
            let schema = result_schema(&plan, operators.types())?;
            let shown = operators
                .root_top_k()
                .filter(|id| states.ranked(*id).keeps_what_it_shows());
            let result = match shown {
                Some(top_k) => Held::TopK(top_k),
                None => {
                    let empty = ResultRows::new(schema.clone(), operators.append_only());
                    let mut builder = Builder::new("view", &mut states, &mut saved);
                    Held::Apart(builder.result(empty, operators.placement())?)
                }
            };
            if first.is_none() {
                let errors = states.open_trace(ERRORS.to_string(), ErrorLog::layout(), &mut saved)?;
                first = Some((operators, result, schema, ErrorLog::new(errors)));
            }
            let errors = ErrorSink::default();
            partitions.push(Partition { states, errors });
        }
        // States are opened in the same order in each partition, so the operators of one serve all.
        let (operators, result, schema, errors) = first.expect("there is a worker");
        Ok(Self {
            id,
            plan,
            partitions,
            errors,
            operators,
            result,
            schema,
            workers,
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
        if let Operators::Cluster(split) = &mut self.operators {
            for fragment in &mut split.fragments {
                if let Merge::Partials(partials) = &mut fragment.merge {
                    partials.set_merge_by_adding(defects.merge_by_adding);
                }
            }
        }
    }

    /// Holds back, per fragment, groups with fewer rows than this: they get no slots. Comes before the first step, and is
    /// the same for as long as the view lives. In a region that is alone nothing leaves and nothing is held back.
    pub fn hold_back_groups(&mut self, rows_min: &[u64]) {
        let Operators::Cluster(split) = &mut self.operators else {
            return;
        };
        let states = &mut self.partitions[0].states;
        for (fragment, rows_min) in split.fragments.iter_mut().zip(rows_min) {
            if let LocalEnd::Partials(partials) = &mut fragment.end {
                partials.set_rows_min(i64::try_from(*rows_min).unwrap_or(i64::MAX), states);
            }
        }
    }

    /// How many rows a group of a fragment must have for its slot to be written; 1 where nothing is held back.
    pub fn group_rows_min(&self, fragment: usize) -> u64 {
        match &self.operators {
            Operators::Cluster(split) => match split.fragments.get(fragment).map(|fragment| &fragment.end) {
                Some(LocalEnd::Partials(partials)) => u64::try_from(partials.rows_min()).unwrap_or(1),
                _ => 1,
            },
            Operators::Alone(_) => 1,
        }
    }

    /// The groups of this region's own rows that are held back at present, over all fragments.
    pub fn groups_held_back(&self) -> usize {
        let Operators::Cluster(split) = &self.operators else {
            return 0;
        };
        let states = &self.partitions[0].states;
        let held_back = split.fragments.iter().map(|fragment| match &fragment.end {
            LocalEnd::Partials(partials) => states.groups(partials.state()).small(),
            LocalEnd::Rows(_) | LocalEnd::Appended(_) => 0,
        });
        held_back.sum()
    }

    /// Takes in changes of all inputs, in a region that is alone; returns the change of the result, in parts.
    ///
    /// # Panics
    /// When the view was built for a cluster.
    pub fn step_alone(&mut self, inputs: &Inputs) -> Vec<Delta> {
        self.evaluate_alone(inputs, false)
    }

    fn evaluate_alone(&mut self, inputs: &Inputs, initial: bool) -> Vec<Delta> {
        let Operators::Alone(stages) = &self.operators else {
            panic!("a view of a cluster merges slots");
        };
        let (result, schema) = (self.result, &self.schema);
        let finish = |partition: &mut Partition, delta| partition.take_in(result, schema, delta);
        let deltas = stages.eval(&mut self.partitions, &*self.workers, inputs, initial, finish);
        self.record_errors();
        deltas
    }

    /// Takes in changes of the region's own rows and of global inputs; returns, per fragment, the new absolute
    /// values of the region's own slots that changed.
    ///
    /// # Panics
    /// When the view was built for a region that is alone.
    pub fn step_local(&mut self, inputs: &Inputs) -> Vec<Option<SlotChanges>> {
        let (split, partition) = split_of(&self.operators, &mut self.partitions);
        let deltas = split.eval_roots(&mut partition.step(inputs, &[], false));
        let end = |fragment: &Fragment| fragment.end.eval(&mut partition.states, &deltas[fragment.root]);
        let changes = split.fragments.iter().map(end).collect();
        self.record_errors();
        changes
    }

    /// Takes in changes of global inputs and of slots, one entry per fragment; returns the change of the result, in
    /// the view's columns.
    ///
    /// # Panics
    /// When there is not one entry per fragment, or the view was built for a region that is alone.
    pub fn step_global(&mut self, inputs: &Inputs, merges: &[Option<SlotDelta>]) -> Delta {
        self.evaluate_global(inputs, merges, false)
    }

    /// The result over no input: the one row of an aggregate without keys. Called once, when the view is new.
    pub fn initialize(&mut self) -> Delta {
        let inputs = Inputs::new();
        if let Operators::Alone(_) = &self.operators {
            let parts = self.evaluate_alone(&inputs, true);
            return Delta::concat(self.schema.clone(), &parts);
        }
        let (split, partition) = split_of(&self.operators, &mut self.partitions);
        let deltas = split.eval_roots(&mut partition.step(&inputs, &[], true));
        assert!(
            deltas.iter().all(|delta| delta.consolidated().is_empty()),
            "no row of a fragment exists without a regional row"
        );
        let merges = vec![None; split.fragments.len()];
        self.evaluate_global(&inputs, &merges, true)
    }

    fn evaluate_global(&mut self, inputs: &Inputs, merges: &[Option<SlotDelta>], initial: bool) -> Delta {
        let Operators::Cluster(split) = &mut self.operators else {
            panic!("a region that is alone has no slots");
        };
        assert_eq!(
            merges.len(),
            split.fragments.len(),
            "every fragment has its merge input"
        );
        let partition = &mut self.partitions[0];
        let fragments = split.fragments.iter_mut().zip(merges);
        let merged: Vec<Delta> = fragments
            .map(|(fragment, slots)| {
                fragment
                    .merge
                    .eval(slots.as_ref(), initial, &mut partition.errors)
            })
            .collect();
        let delta = split.global.eval(&mut partition.step(inputs, &merged, initial));
        let delta = partition.take_in(self.result, &self.schema, delta);
        self.record_errors();
        delta
    }

    fn record_errors(&mut self) {
        let mut met = self
            .partitions
            .iter_mut()
            .map(|partition| std::mem::take(&mut partition.errors));
        let mut all = met.next().expect("there is a partition");
        met.for_each(|errors| all.append(errors));
        self.errors.record(&mut self.partitions[0].states, all);
    }

    /// Makes pending changes of traces immutable, under `stamp`.
    pub fn seal(&mut self, stamp: u64) {
        let partitions = self.partitions.iter_mut();
        partitions.for_each(|partition| partition.states.seal(stamp));
    }

    /// The result as it is now. Cheap, and never changes afterwards.
    pub fn result(&self) -> Arc<RowsSnapshot> {
        let partitions = self.partitions.iter().map(|partition| &partition.states);
        let part = |states: &States| match self.result {
            Held::Apart(result) => states.result(result).snapshot(),
            Held::TopK(state) => states.ranked(state).kept(self.schema.clone()),
        };
        RowsSnapshot::concat(&partitions.map(part).collect::<Vec<_>>())
    }

    /// The rows that can be spilled.
    pub fn spillable(&mut self) -> impl Iterator<Item = &mut dyn Spill> {
        let partitions = self.partitions.iter_mut();
        partitions.flat_map(|partition| partition.states.spillable())
    }

    /// All state, the result included, by name: what a checkpoint keeps. Traces are as of the last seal.
    pub fn save(&mut self) -> BTreeMap<String, Saved> {
        self.begin_save();
        self.gather(usize::MAX).expect("there are fewer rows");
        self.take_saved()
    }

    /// Begins to save the state as it is now; one that was begun before is forgotten. Cheap.
    pub fn begin_save(&mut self) {
        let partitions = self.partitions.iter_mut();
        partitions.for_each(|partition| partition.states.begin_save());
    }

    /// Gathers about so many rows of each partition of what was begun to be saved. Steps may come in between. Tells
    /// how many rows are left over when everything is gathered, and `None` while it is not.
    pub fn gather(&mut self, rows_max: usize) -> Option<usize> {
        let mut left = vec![Some(rows_max); self.partitions.len()];
        let mut jobs: Vec<Job> = Vec::with_capacity(left.len());
        for (partition, left) in self.partitions.iter_mut().zip(&mut left) {
            jobs.push(Box::new(move || *left = partition.states.gather(rows_max)));
        }
        self.workers.run(jobs);
        left.into_iter()
            .reduce(|a, b| Some(a?.min(b?)))
            .expect("there is a partition")
    }

    /// Takes what was saved, when all of it is gathered.
    ///
    /// # Panics
    /// When it is not.
    pub fn take_saved(&mut self) -> BTreeMap<String, Saved> {
        let partitions = self.partitions.iter_mut();
        States::take_saved(partitions.map(|partition| &mut partition.states))
    }

    /// Rows and groups that are left out at present because they cannot be computed, at most
    /// [`ERRORS_LISTED_MAX`](crate::ERRORS_LISTED_MAX).
    pub fn errors(&self) -> Vec<RowError> {
        self.errors.live(&self.partitions[0].states)
    }

    /// Every state's name, its rows as an upper bound, and the bytes it holds.
    pub fn state_sizes(&self) -> Vec<(String, usize, usize)> {
        let mut sizes: Vec<(String, usize, usize)> = Vec::new();
        for (name, rows, bytes) in self
            .partitions
            .iter()
            .flat_map(|partition| partition.states.sizes())
        {
            match sizes.iter_mut().find(|(other, ..)| other == name) {
                Some(size) => (size.1, size.2) = (size.1 + rows, size.2 + bytes),
                None => sizes.push((name.to_string(), rows, bytes)),
            }
        }
        sizes
    }
}

fn split_of<'a>(operators: &'a Operators, partitions: &'a mut [Partition]) -> (&'a Split, &'a mut Partition) {
    match operators {
        Operators::Cluster(split) => (split, &mut partitions[0]),
        Operators::Alone(_) => panic!("a region that is alone has no slots"),
    }
}

impl Operators {
    fn build(
        plan: &ViewPlan,
        scope: Scope,
        states: &mut States,
        saved: &mut PartitionedState,
    ) -> Result<Self> {
        Ok(match scope {
            Scope::Alone => Self::Alone(Stages::build(&mut Builder::new("alone", states, saved), plan)?),
            Scope::Cluster => Self::Cluster(Box::new(Split::build(plan, states, saved)?)),
        })
    }

    fn types(&self) -> &[DataType] {
        match self {
            Self::Alone(stages) => stages.types(),
            Self::Cluster(split) => split.global.types(),
        }
    }

    fn append_only(&self) -> bool {
        match self {
            Self::Alone(stages) => stages.append_only(),
            Self::Cluster(split) => split.global.append_only(),
        }
    }

    fn placement(&self) -> &Placement {
        match self {
            Self::Alone(stages) => stages.placement(),
            Self::Cluster(_) => &Placement::One,
        }
    }

    fn root_top_k(&self) -> Option<StateId> {
        match self {
            Self::Alone(stages) => stages.root_top_k(),
            Self::Cluster(split) => split.global.root_top_k(),
        }
    }
}

impl Partition {
    fn step<'a>(&'a mut self, inputs: &'a Inputs, merged: &'a [Delta], initial: bool) -> Step<'a> {
        Step {
            states: &mut self.states,
            errors: &mut self.errors,
            inputs,
            merged,
            initial,
        }
    }

    /// The change of the result, in the view's columns; the result takes it in.
    fn take_in(&mut self, result: Held, schema: &SchemaRef, delta: Delta) -> Delta {
        let rows = batch_of(schema.clone(), delta.rows().columns().to_vec(), delta.len());
        let delta = delta.with_rows(rows);
        if let Held::Apart(result) = result
            && !delta.is_empty()
        {
            self.states.result_mut(result).apply(&delta);
        }
        delta
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
