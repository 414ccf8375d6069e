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
//! | [`Ranked`] | the first rows of each partition, in order | top-k |
//! | [`ResultRows`] | rows in segments, found by value or only appended | the result |
//!
//! Invariant: names are a function of the plan alone (`<tree>.<operator number>.<role>`), so that a restarted
//! process finds each state again. All but traces are saved as rows and built again from them.

mod groups;
mod join_side;
mod multiset;
mod ranked;
mod result_rows;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use tributary_storage::{Layout, RowStore, RowsSnapshot, RunTrace, StorageError, Trace, TraceSnapshot};

use crate::error::{ExecutorError, Result};
pub(crate) use groups::GroupState;
pub(crate) use join_side::{JoinSide, Matches};
pub(crate) use multiset::Multiset;
pub(crate) use ranked::{Ranked, Ranking};
pub(crate) use result_rows::ResultRows;

/// State as a checkpoint has it.
pub trait SavedState {
    /// The trace of a name, if there is one.
    ///
    /// # Errors
    /// When it cannot be read.
    fn trace(&mut self, name: &str, layout: Layout) -> std::result::Result<Option<RunTrace>, StorageError>;

    /// The rows of a name, if there are any.
    ///
    /// # Errors
    /// When they cannot be read.
    fn rows(&mut self, name: &str, schema: SchemaRef) -> std::result::Result<Option<RowStore>, StorageError>;
}

/// The state of a view that is new.
pub(crate) struct NothingSaved;

impl SavedState for NothingSaved {
    fn trace(&mut self, _: &str, _: Layout) -> std::result::Result<Option<RunTrace>, StorageError> {
        Ok(None)
    }

    fn rows(&mut self, _: &str, _: SchemaRef) -> std::result::Result<Option<RowStore>, StorageError> {
        Ok(None)
    }
}

/// One state, as a checkpoint keeps it.
#[derive(Clone, Debug)]
pub enum Saved {
    /// A trace.
    Trace(Arc<TraceSnapshot>),
    /// Rows.
    Rows(Arc<RowsSnapshot>),
}

/// One state of a [`States`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StateId(usize);

enum State {
    Trace(RunTrace),
    Groups(Box<GroupState>),
    Side(Box<JoinSide>),
    Ranked(Box<Ranked>),
    Result(Box<ResultRows>),
}

/// All state of one view.
#[derive(Default)]
pub(crate) struct States {
    states: Vec<(String, State)>,
    missing: Vec<String>,
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
    accessors!(Ranked, Ranked, ranked, ranked_mut);
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
        saved: &mut dyn SavedState,
    ) -> Result<StateId> {
        let found = saved.trace(&name, layout.clone())?;
        if found.is_none() {
            self.missing.push(name.clone());
        }
        let trace = found.unwrap_or_else(|| RunTrace::new(layout));
        Ok(self.push(name, State::Trace(trace)))
    }

    /// The saved rows of a name, if there are any.
    fn saved_rows(
        &mut self,
        name: &str,
        schema: SchemaRef,
        saved: &mut dyn SavedState,
    ) -> Result<Option<RowStore>> {
        let found = saved.rows(name, schema)?;
        if found.is_none() {
            self.missing.push(name.to_string());
        }
        Ok(found)
    }

    /// Opens the result `name`.
    pub(crate) fn open_result(
        &mut self,
        name: String,
        empty: ResultRows,
        saved: &mut dyn SavedState,
    ) -> Result<StateId> {
        let found = self.saved_rows(&name, empty.schema().clone(), saved)?;
        let rows = match found {
            Some(rows) => empty.restored(rows),
            None => empty,
        };
        Ok(self.push(name, State::Result(Box::new(rows))))
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

    /// Makes pending changes of traces immutable, under `stamp`.
    pub(crate) fn seal(&mut self, stamp: u64) {
        for (_, state) in &mut self.states {
            if let State::Trace(trace) = state {
                trace.seal(stamp);
            }
        }
    }

    /// Every state by name, as of now; traces as of the last seal.
    pub(crate) fn save(&self) -> impl Iterator<Item = (String, Saved)> {
        self.states.iter().flat_map(|(name, state)| {
            let saved = match state {
                State::Trace(trace) => Saved::Trace(trace.snapshot()),
                State::Groups(groups) => Saved::Rows(groups.save()),
                State::Side(side) => Saved::Rows(side.save()),
                State::Ranked(ranked) => Saved::Rows(ranked.save()),
                State::Result(rows) => Saved::Rows(rows.snapshot()),
            };
            let values: Vec<_> = match state {
                State::Groups(groups) => groups.save_values().collect(),
                _ => Vec::new(),
            };
            let values = values.into_iter().enumerate();
            let values = values.map(move |(number, rows)| (values_name(name, number), Saved::Rows(rows)));
            std::iter::once((name.clone(), saved)).chain(values)
        })
    }

    /// Every state's name, rows and bytes.
    pub(crate) fn sizes(&self) -> impl Iterator<Item = (&str, usize, usize)> {
        self.states.iter().map(|(name, state)| {
            let (rows, bytes) = match state {
                State::Trace(trace) => (trace.row_count(), trace.bytes()),
                State::Groups(groups) => (groups.len(), groups.bytes()),
                State::Side(side) => (side.len(), side.bytes()),
                State::Ranked(ranked) => (ranked.len(), ranked.bytes()),
                State::Result(rows) => (rows.len(), rows.bytes()),
            };
            (name.as_str(), rows, bytes)
        })
    }
}

/// The name of a multiset of groups.
fn values_name(groups: &str, number: usize) -> String {
    format!("{groups}.values{number}")
}

/// Builds the operators of one tree: numbers them, and opens their state.
pub(crate) struct Builder<'a> {
    states: &'a mut States,
    saved: &'a mut dyn SavedState,
    tree: String,
    operators: usize,
}

impl<'a> Builder<'a> {
    pub(crate) fn new(
        tree: impl Into<String>,
        states: &'a mut States,
        saved: &'a mut dyn SavedState,
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

    /// Opens the groups of an operator.
    pub(crate) fn groups(&mut self, operator: &str, mut empty: GroupState) -> Result<StateId> {
        let name = format!("{operator}.groups");
        if let Some(rows) = self.states.saved_rows(&name, empty.schema(), self.saved)? {
            empty.restore(&rows.snapshot());
        }
        for number in 0..empty.multisets().len() {
            let schema = empty.values_schema(number);
            let values = values_name(&name, number);
            if let Some(rows) = self.states.saved_rows(&values, schema, self.saved)? {
                empty.restore_values(number, &rows.snapshot());
            }
        }
        Ok(self.states.push(name, State::Groups(Box::new(empty))))
    }

    /// Opens one side of a join.
    pub(crate) fn side(&mut self, operator: &str, role: &str, mut empty: JoinSide) -> Result<StateId> {
        let name = format!("{operator}.{role}");
        if let Some(rows) = self
            .states
            .saved_rows(&name, empty.schema().clone(), self.saved)?
        {
            empty.restore(&rows.snapshot());
        }
        Ok(self.states.push(name, State::Side(Box::new(empty))))
    }

    /// Opens the rows of a top-k.
    pub(crate) fn ranked(&mut self, operator: &str, mut empty: Ranked) -> Result<StateId> {
        let name = format!("{operator}.rows");
        if let Some(rows) = self
            .states
            .saved_rows(&name, empty.schema().clone(), self.saved)?
        {
            empty.restore(&rows.snapshot());
        }
        Ok(self.states.push(name, State::Ranked(Box::new(empty))))
    }
}
