//! A view in a region that is alone in its cluster: stages, each computed partition by partition.
//!
//! ```text
//!            partition 0     partition 1                  partition 0     partition 1
//!  inputs ─▶ stage 0         stage 0      ─ exchange ─▶   stage 1         stage 1     ─▶ Δ result
//! ```
//!
//! A partition has states of its own, so its part of a stage is computed without a lock; stages wait for each other.
//! With one partition nothing is divided, and there is nothing to wait for.

mod in_advance;
mod plan;
#[cfg(test)]
mod tests;

use arrow::datatypes::{DataType, SchemaRef};
use tributary_planner::plan::{GlobalLeaf, ViewPlan};
use tributary_storage::{Delta, ObjectId};

use crate::columns::schema_of;
use crate::dataflow::Inputs;
use crate::error::{ExecutorError, Result};
use crate::operators::pre_aggregate::PreAggregate;
use crate::operators::{LeafSource, Relation, Step, Tree, scan};
use crate::placement::{Placement, Share};
use crate::row_errors::ErrorSink;
use crate::state::{Builder, StateId, States};
use crate::workers::{Inline, Job, Workers};
use plan::{Source, StageInput, StagePlan};

/// Steps with fewer rows of input than this are computed on the calling thread: handing them over costs more.
const PARALLEL_ROWS_MIN: usize = 8_192;

/// The operators of all stages.
pub(crate) struct Stages {
    stages: Vec<Stage>,
}

struct Stage {
    tree: Tree,
    end: Option<PreAggregate>,
    inputs: Vec<Input>,
    placement: Placement,
}

/// What a stage reads.
struct Input {
    from: From,
    schema: SchemaRef,
    placement: Placement,
}

enum From {
    Scan { object: ObjectId, columns: Vec<usize> },
    Stage(usize),
}

/// One partition's state, and the errors it met in this step.
pub(crate) struct Partition {
    pub(crate) states: States,
    pub(crate) errors: ErrorSink,
}

impl Stages {
    /// The operators of a view, with the states that the builder opens for its partition.
    pub(crate) fn build(builder: &mut Builder, view: &ViewPlan) -> Result<Self> {
        let mut unknown = None;
        view.global.for_each_leaf(&mut |leaf: &GlobalLeaf| match leaf {
            GlobalLeaf::Merge(number) if *number >= view.fragments.len() => unknown = Some(*number),
            _ => {}
        });
        if let Some(number) = unknown {
            return Err(ExecutorError::Plan(format!("there is no fragment {number}")));
        }
        let mut stages: Vec<Stage> = Vec::new();
        for plan in plan::stages(view, builder.share().of) {
            let stage = Stage::build(builder, &plan, &stages)?;
            stages.push(stage);
        }
        Ok(Self { stages })
    }

    fn last(&self) -> &Stage {
        self.stages.last().expect("a view has a stage")
    }

    /// The types of the view's rows.
    pub(crate) fn types(&self) -> &[DataType] {
        self.last().tree.types()
    }

    /// Whether the view's rows only come.
    pub(crate) fn append_only(&self) -> bool {
        self.last().tree.append_only()
    }

    /// How the view's rows are divided.
    pub(crate) fn placement(&self) -> &Placement {
        &self.last().placement
    }

    /// The state of a top-k that gives the view's rows, if there is one.
    pub(crate) fn root_top_k(&self) -> Option<StateId> {
        self.last().tree.root_top_k()
    }

    /// The change of the view's rows, by partition, after `finish` has seen to it.
    pub(crate) fn eval(
        &self,
        partitions: &mut [Partition],
        workers: &dyn Workers,
        inputs: &Inputs,
        initial: bool,
        finish: impl Fn(&mut Partition, Delta) -> Delta + Sync,
    ) -> Vec<Delta> {
        let rows: usize = inputs.values().map(Delta::len).sum();
        let few = Inline::new(partitions.len());
        let workers = if rows < PARALLEL_ROWS_MIN { &few } else { workers };
        let of = partitions.len();
        let mut done: Vec<Vec<Delta>> = Vec::with_capacity(self.stages.len());
        for stage in &self.stages {
            let nothing = Delta::empty(stage.schema());
            let mut deltas = vec![nothing; of];
            let earlier = &done;
            let mut jobs: Vec<Job> = Vec::with_capacity(of);
            for (number, (partition, delta)) in partitions.iter_mut().zip(&mut deltas).enumerate() {
                if number == 0 || stage.placement != Placement::One {
                    let share = Share { number, of };
                    jobs.push(Box::new(move || {
                        *delta = stage.eval(partition, share, inputs, earlier, initial);
                    }));
                }
            }
            workers.run(jobs);
            done.push(deltas);
        }
        let mut deltas = done.pop().expect("a view has a stage");
        let mut jobs: Vec<Job> = Vec::with_capacity(of);
        for (partition, delta) in partitions.iter_mut().zip(&mut deltas) {
            let finish = &finish;
            jobs.push(Box::new(move || *delta = finish(partition, delta.clone())));
        }
        workers.run(jobs);
        deltas
    }
}

impl Stage {
    fn build(builder: &mut Builder, plan: &StagePlan, earlier: &[Stage]) -> Result<Self> {
        let tree = Tree::build(builder, &plan.root, &|number: &usize| {
            let input = &plan.inputs[*number];
            Ok(match &input.stands_for {
                Some(rows) => LeafSource::Partials(*number, relation(input, earlier), &rows.partials),
                None => LeafSource::Merged(*number, relation(input, earlier)),
            })
        })?;
        let end = plan.end.as_ref().map(|partials| {
            let operator = match partials.panes {
                Some(_) => builder.next_operator("hop"),
                None => String::new(),
            };
            PreAggregate::build(operator, tree.relation(), partials)
        });
        let input = |input: &StageInput| Input {
            from: match &input.source {
                Source::Scan(scan) => From::Scan {
                    object: scan.object,
                    columns: scan.columns.clone(),
                },
                Source::Stage(number) => From::Stage(*number),
            },
            schema: match &input.source {
                Source::Scan(scan) => schema_of(&scan.types),
                Source::Stage(number) => earlier[*number].schema(),
            },
            placement: input.placement.clone(),
        };
        Ok(Self {
            tree,
            end,
            inputs: plan.inputs.iter().map(input).collect(),
            placement: plan.placement.clone(),
        })
    }

    fn schema(&self) -> SchemaRef {
        match &self.end {
            Some(end) => end.schema().clone(),
            None => schema_of(self.tree.types()),
        }
    }

    fn eval(
        &self,
        partition: &mut Partition,
        share: Share,
        inputs: &Inputs,
        done: &[Vec<Delta>],
        initial: bool,
    ) -> Delta {
        let read: Vec<Delta> = self
            .inputs
            .iter()
            .map(|input| input.read(share, inputs, done))
            .collect();
        let mut step = Step {
            states: &mut partition.states,
            errors: &mut partition.errors,
            inputs,
            merged: &read,
            initial,
        };
        let delta = self.tree.eval(&mut step);
        match &self.end {
            Some(end) => end.eval(&mut step, &delta),
            None => delta,
        }
    }
}

/// What is known of a stage's input.
fn relation<'a>(input: &'a StageInput, earlier: &'a [Stage]) -> Relation<'a> {
    if let Some(rows) = &input.stands_for {
        return Relation {
            types: &rows.types,
            append_only: rows.append_only,
            placement: &rows.placement,
            unique: None,
        };
    }
    let placement = &input.placement;
    match &input.source {
        Source::Scan(scan) => Relation {
            types: &scan.types,
            append_only: scan.append_only,
            placement,
            unique: None,
        },
        Source::Stage(number) => Relation {
            placement,
            ..earlier[*number].tree.relation()
        },
    }
}

impl Input {
    /// The rows of one partition.
    fn read(&self, share: Share, inputs: &Inputs, done: &[Vec<Delta>]) -> Delta {
        match &self.from {
            From::Scan { object, columns } => {
                let all = scan(inputs, *object, columns, &self.schema);
                share.of_delta(&all, &self.placement)
            }
            From::Stage(stage) if self.placement == Placement::Any => done[*stage][share.number].clone(),
            From::Stage(stage) => {
                let parts = done[*stage].iter();
                let own: Vec<Delta> = parts.map(|part| share.of_delta(part, &self.placement)).collect();
                Delta::concat(self.schema.clone(), &own)
            }
        }
    }
}
