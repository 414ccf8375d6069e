//! The state of a view, by name.
//!
//! Operators are configuration and own no state: each opens what it needs here when it is built and keeps the
//! ids. So sealing, checkpoints, restarts and sizes are loops over one list, and an operator cannot have state
//! that a checkpoint forgets.
//!
//! | kind | holds | for |
//! |---|---|---|
//! | [`RunTrace`] | sorted runs | errors |
//! | [`GroupState`] | accumulators in plain vectors behind a hash index; with them ordered multisets, for min and max over rows that may go | aggregates, distinct, row counts |
//! | [`JoinSide`] | rows in segments, chained by key | joins |
//! | [`Paired`] | both sides of a join with one row per key, by key | joins of aggregates |
//! | [`Ranked`] | the first rows of each partition, in order | top-k |
//! | [`Sessions`] | rows by key and time | session windows |
//! | [`ResultRows`] | rows in segments, found by value or only appended | the result |
//!
//! Invariant: names are a function of the plan alone (`<tree>.<operator number>.<role>`), so that a restarted
//! process finds each state again. All but traces are saved as rows and built again from them.

mod groups;
mod join_side;
mod multiset;
mod paired;
mod ranked;
mod result_rows;
mod saved;
mod sessions;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use tributary_storage::{Layout, RowStore, RowsSnapshot, RunTrace, Spill, Trace, TraceSnapshot};

use crate::error::{ExecutorError, Result};
use crate::placement::{Placement, Share};
use crate::workers::Job;
pub(crate) use groups::GroupState;
pub(crate) use join_side::{JoinSide, Matches};
pub(crate) use multiset::Multiset;
pub(crate) use paired::{Of, Paired};
pub(crate) use ranked::{Ranked, Ranking};
pub(crate) use result_rows::ResultRows;
use saved::SavedRows;
pub use saved::SavedState;
pub(crate) use saved::{NothingSaved, PartitionedState};
pub(crate) use sessions::{Sessionizing, Sessions};

/// Which part of a state rows were saved of.
#[derive(Clone, Copy)]
enum Part {
    /// All of it, but for the values of groups.
    Rows,
    /// A multiset of groups.
    Values(usize),
    /// One side of a join.
    Side(Of),
}

/// One state, as a checkpoint keeps it.
#[derive(Clone, Debug)]
pub enum Saved {
    /// A trace.
    Trace(Arc<TraceSnapshot>),
    /// Rows.
    Rows(Arc<RowsSnapshot>),
}

/// The name of the view's result.
const RESULT: &str = "result";

/// One state of a [`States`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StateId(usize);

enum State {
    Trace(RunTrace),
    Groups(Box<GroupState>),
    Side(Box<JoinSide>),
    Paired(Box<Paired>),
    Ranked(Box<Ranked>),
    Sessions(Box<Sessions>),
    Result(Box<ResultRows>),
}

impl State {
    fn restore(&mut self, part: Part, rows: RowStore) {
        match (self, part) {
            (Self::Groups(groups), Part::Values(number)) => groups.restore_values(number, &rows.snapshot()),
            (Self::Groups(groups), _) => groups.restore(&rows.snapshot()),
            (Self::Side(side), _) => side.restore(rows),
            (Self::Paired(paired), Part::Side(of)) => paired.restore(of, rows),
            (Self::Ranked(ranked), _) => ranked.restore(rows),
            (Self::Sessions(sessions), _) => sessions.restore(rows),
            (Self::Result(result), _) => result.restore(rows),
            (Self::Trace(_) | Self::Paired(_), _) => unreachable!("no such part is saved"),
        }
    }
}

/// All state of one view.
#[derive(Default)]
pub(crate) struct States {
    states: Vec<(String, State)>,
    missing: Vec<String>,
    /// What states are yet to take in before the first step; in the order of the states.
    restoring: Vec<(StateId, Part, SavedRows)>,
    /// What a checkpoint in the making has of them.
    saved: Vec<(String, Saved)>,
}

/// A pair of accessors for one kind of state.
macro_rules! accessors {
    ($variant:ident, $kind:ty, $get:ident, $get_mut:ident) => {
        #[allow(dead_code)]
        pub(crate) fn $get(&self, id: StateId) -> &$kind {
            match &self.states[id.0].1 {
                State::$variant(state) => state,
                _ => unreachable!("an operator reads the state that it opened"),
            }
        }

        #[allow(dead_code)]
        pub(crate) fn $get_mut(&mut self, id: StateId) -> &mut $kind {
            match &mut self.states[id.0].1 {
                State::$variant(state) => state,
                _ => unreachable!("an operator reads the state that it opened"),
            }
        }
    };
}

impl States {
    accessors!(Trace, RunTrace, trace, trace_mut);
    accessors!(Groups, GroupState, groups, groups_mut);
    accessors!(Side, JoinSide, side, side_mut);
    accessors!(Paired, Paired, paired, paired_mut);
    accessors!(Ranked, Ranked, ranked, ranked_mut);
    accessors!(Sessions, Sessions, sessions, sessions_mut);
    accessors!(Result, ResultRows, result, result_mut);

    fn push(&mut self, name: String, state: State) -> StateId {
        self.states.push((name, state));
        StateId(self.states.len() - 1)
    }

    /// Opens the trace `name`; a new one is empty.
    pub(crate) fn open_trace(
        &mut self,
        name: String,
        layout: Layout,
        saved: &mut PartitionedState,
    ) -> Result<StateId> {
        let found = saved.trace(&name, layout.clone())?;
        if found.is_none() {
            self.missing.push(name.clone());
        }
        let trace = found.unwrap_or_else(|| RunTrace::new(layout));
        Ok(self.push(name, State::Trace(trace)))
    }

    /// After restoring: every state must have been there.
    ///
    /// # Errors
    /// Names the first one that was not.
    pub(crate) fn assert_complete(&self) -> Result<()> {
        match self.missing.first() {
            None => Ok(()),
            Some(name) => Err(ExecutorError::MissingState { name: name.clone() }),
        }
    }

    /// Pieces of work that take in what was saved, one for each state. All must be done before anything else.
    pub(crate) fn restore_jobs(&mut self) -> Vec<Job<'_>> {
        let mut waiting = self.restoring.drain(..).peekable();
        let mut jobs: Vec<Job<'_>> = Vec::new();
        for (number, (_, state)) in self.states.iter_mut().enumerate() {
            let mut parts = Vec::new();
            while let Some((_, part, rows)) = waiting.next_if(|(id, ..)| id.0 == number) {
                parts.push((part, rows));
            }
            if !parts.is_empty() {
                let restore = move |(part, rows): (Part, SavedRows)| state.restore(part, rows.own());
                jobs.push(Box::new(move || parts.into_iter().for_each(restore)));
            }
        }
        jobs
    }

    /// Makes pending changes of traces immutable, under `stamp`.
    pub(crate) fn seal(&mut self, stamp: u64) {
        for (_, state) in &mut self.states {
            if let State::Trace(trace) = state {
                trace.seal(stamp);
            }
        }
    }

    /// Begins to save every state as it is now, traces as of the last seal. What is shared is taken at once.
    pub(crate) fn begin_save(&mut self) {
        let mut saved = Vec::new();
        for (name, state) in &mut self.states {
            match state {
                State::Trace(trace) => saved.push((name.clone(), Saved::Trace(trace.snapshot()))),
                State::Groups(groups) => groups.begin_cut(),
                State::Side(side) => saved.push((name.clone(), Saved::Rows(side.save()))),
                State::Paired(paired) => saved.extend(
                    [Of::Left, Of::Right].map(|of| (side_name(name, of), Saved::Rows(paired.save(of)))),
                ),
                State::Ranked(ranked) => saved.push((name.clone(), Saved::Rows(ranked.save()))),
                State::Sessions(sessions) => saved.push((name.clone(), Saved::Rows(sessions.save()))),
                State::Result(rows) => saved.push((name.clone(), Saved::Rows(rows.snapshot()))),
            }
        }
        self.saved = saved;
    }

    /// Gathers about so many rows of what is not shared; tells how many of them are left over when everything is
    /// gathered, and `None` while it is not.
    pub(crate) fn gather(&mut self, rows_max: usize) -> Option<usize> {
        let mut left = rows_max;
        for (_, state) in &mut self.states {
            if let State::Groups(groups) = state {
                left = groups.gather_cut(left)?;
            }
        }
        Some(left)
    }

    /// Takes what was saved of several partitions with the same operators, by name, put together again.
    pub(crate) fn take_saved<'a>(partitions: impl Iterator<Item = &'a mut Self>) -> BTreeMap<String, Saved> {
        let mut rows: BTreeMap<String, Vec<Arc<RowsSnapshot>>> = BTreeMap::new();
        let mut all = BTreeMap::new();
        for states in partitions {
            for (name, state) in &mut states.states {
                if let State::Groups(groups) = state {
                    let (groups, values) = groups.take_cut();
                    states.saved.push((name.clone(), Saved::Rows(groups)));
                    let values = values.into_iter().enumerate();
                    let values = values.map(|(number, rows)| (values_name(name, number), Saved::Rows(rows)));
                    states.saved.extend(values);
                }
            }
            for (name, saved) in states.saved.drain(..) {
                match saved {
                    Saved::Rows(part) => rows.entry(name).or_default().push(part),
                    trace => drop(all.insert(name, trace)),
                }
            }
        }
        let rows = rows.into_iter();
        all.extend(rows.map(|(name, parts)| (name, Saved::Rows(RowsSnapshot::concat(&parts)))));
        all
    }

    /// The rows that can be spilled: of joins, top-k, sessions and results.
    pub(crate) fn spillable(&mut self) -> impl Iterator<Item = &mut dyn Spill> {
        self.states
            .iter_mut()
            .flat_map(|(_, state)| -> Vec<&mut dyn Spill> {
                match state {
                    State::Trace(_) | State::Groups(_) => Vec::new(),
                    State::Side(side) => vec![side.spillable()],
                    State::Paired(paired) => paired.spillable().into(),
                    State::Ranked(ranked) => vec![ranked.spillable()],
                    State::Sessions(sessions) => vec![sessions.spillable()],
                    State::Result(rows) => vec![rows.spillable()],
                }
            })
    }

    /// Every state's name, rows and bytes.
    pub(crate) fn sizes(&self) -> impl Iterator<Item = (&str, usize, usize)> {
        self.states.iter().map(|(name, state)| {
            let (rows, bytes) = match state {
                State::Trace(trace) => (trace.row_count(), trace.bytes()),
                State::Groups(groups) => (groups.len(), groups.bytes()),
                State::Side(side) => (side.len(), side.bytes()),
                State::Paired(paired) => (paired.len(), paired.bytes()),
                State::Ranked(ranked) => (ranked.len(), ranked.bytes()),
                State::Sessions(sessions) => (sessions.len(), sessions.bytes()),
                State::Result(rows) => (rows.len(), rows.bytes()),
            };
            (name.as_str(), rows, bytes)
        })
    }
}

/// The name of one side of a join.
fn side_name(join: &str, of: Of) -> String {
    let role = match of {
        Of::Left => "left",
        Of::Right => "right",
    };
    format!("{join}.{role}")
}

/// The name of a multiset of groups.
fn values_name(groups: &str, number: usize) -> String {
    format!("{groups}.values{number}")
}

/// Builds the operators of one tree: numbers them, and opens their state.
pub(crate) struct Builder<'a, 's> {
    states: &'a mut States,
    saved: &'a mut PartitionedState<'s>,
    tree: String,
    operators: usize,
}

impl<'a, 's> Builder<'a, 's> {
    pub(crate) fn new(
        tree: impl Into<String>,
        states: &'a mut States,
        saved: &'a mut PartitionedState<'s>,
    ) -> Self {
        Self {
            states,
            saved,
            tree: tree.into(),
            operators: 0,
        }
    }

    /// The name of the next operator, for its state and its errors.
    pub(crate) fn next_operator(&mut self, kind: &str) -> String {
        self.operators += 1;
        format!("{}.{}.{kind}", self.tree, self.operators)
    }

    /// The partition whose state is opened.
    pub(crate) fn share(&self) -> Share {
        self.saved.share
    }

    /// Sees to it that the state which is opened next takes in the saved rows of a name, if there are any.
    fn restore(&mut self, name: &str, part: Part, schema: SchemaRef, placement: &Placement) -> Result<()> {
        let next = StateId(self.states.states.len());
        match self.saved.rows(name, schema, placement)? {
            Some(rows) => self.states.restoring.push((next, part, rows)),
            None => self.states.missing.push(name.to_string()),
        }
        Ok(())
    }

    /// Opens the view's result, whose rows are divided like this.
    pub(crate) fn result(&mut self, empty: ResultRows, placement: &Placement) -> Result<StateId> {
        let name = RESULT.to_string();
        self.restore(&name, Part::Rows, empty.schema().clone(), placement)?;
        Ok(self.states.push(name, State::Result(Box::new(empty))))
    }

    /// Opens the groups of an operator, whose keys are divided like this.
    pub(crate) fn groups(
        &mut self,
        operator: &str,
        mut empty: GroupState,
        placement: &Placement,
    ) -> Result<StateId> {
        let name = format!("{operator}.groups");
        self.restore(&name, Part::Rows, empty.schema(), placement)?;
        for number in 0..empty.multisets().len() {
            let schema = empty.values_schema(number);
            let values = values_name(&name, number);
            self.restore(&values, Part::Values(number), schema, placement)?;
        }
        Ok(self.states.push(name, State::Groups(Box::new(empty))))
    }

    /// Opens one side of a join.
    pub(crate) fn side(
        &mut self,
        operator: &str,
        role: &str,
        empty: JoinSide,
        placement: &Placement,
    ) -> Result<StateId> {
        let name = format!("{operator}.{role}");
        self.restore(&name, Part::Rows, empty.schema().clone(), placement)?;
        Ok(self.states.push(name, State::Side(Box::new(empty))))
    }

    /// Opens both sides of a join with one row per key.
    pub(crate) fn paired(
        &mut self,
        operator: &str,
        empty: Paired,
        placements: (&Placement, &Placement),
    ) -> Result<StateId> {
        for (of, placement) in [(Of::Left, placements.0), (Of::Right, placements.1)] {
            let schema = empty.schema(of).clone();
            self.restore(&side_name(operator, of), Part::Side(of), schema, placement)?;
        }
        Ok(self
            .states
            .push(operator.to_string(), State::Paired(Box::new(empty))))
    }

    /// Opens the rows of a top-k.
    pub(crate) fn ranked(&mut self, operator: &str, empty: Ranked, placement: &Placement) -> Result<StateId> {
        let name = format!("{operator}.rows");
        self.restore(&name, Part::Rows, empty.schema().clone(), placement)?;
        Ok(self.states.push(name, State::Ranked(Box::new(empty))))
    }

    /// Opens the rows of session windows.
    pub(crate) fn sessions(
        &mut self,
        operator: &str,
        empty: Sessions,
        placement: &Placement,
    ) -> Result<StateId> {
        let name = format!("{operator}.rows");
        self.restore(&name, Part::Rows, empty.schema().clone(), placement)?;
        Ok(self.states.push(name, State::Sessions(Box::new(empty))))
    }
}
