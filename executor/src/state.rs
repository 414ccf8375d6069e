//! The traces of a view, by name.
//!
//! Operators are configuration and own no state: each opens its traces here when it is built and keeps their
//! ids. So sealing, checkpoints, restarts and sizes are loops over one list, and an operator cannot have state
//! that a checkpoint forgets.
//!
//! Invariant: names are a function of the plan alone (`<tree>.<operator number>.<role>`), so that a restarted
//! process finds each trace again.

use std::ops::{Index, IndexMut};

use tributary_storage::{Layout, RunTrace};

use crate::error::{ExecutorError, Result};

/// Gives the trace with a name, or a new one.
pub(crate) type OpenTrace<'a> = &'a mut dyn FnMut(&str, Layout) -> Result<Option<RunTrace>>;

/// One trace of a [`States`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StateId(usize);

/// All traces of one view.
#[derive(Default)]
pub(crate) struct States {
    traces: Vec<(String, RunTrace)>,
    missing: Vec<String>,
}

impl States {
    /// Opens the trace `name`; a new one is empty.
    pub(crate) fn open(&mut self, name: String, layout: Layout, open: OpenTrace) -> Result<StateId> {
        let trace = match open(&name, layout.clone())? {
            Some(trace) => trace,
            None => {
                self.missing.push(name.clone());
                RunTrace::new(layout)
            }
        };
        self.traces.push((name, trace));
        Ok(StateId(self.traces.len() - 1))
    }

    /// After restoring: every trace must have been there.
    ///
    /// # Errors
    /// Names the first one that was not.
    pub(crate) fn assert_complete(&self) -> Result<()> {
        match self.missing.first() {
            None => Ok(()),
            Some(name) => Err(ExecutorError::MissingState { name: name.clone() }),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &RunTrace)> {
        self.traces.iter().map(|(name, trace)| (name.as_str(), trace))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut RunTrace> {
        self.traces.iter_mut().map(|(_, trace)| trace)
    }
}

impl Index<StateId> for States {
    type Output = RunTrace;

    fn index(&self, id: StateId) -> &RunTrace {
        &self.traces[id.0].1
    }
}

impl IndexMut<StateId> for States {
    fn index_mut(&mut self, id: StateId) -> &mut RunTrace {
        &mut self.traces[id.0].1
    }
}

/// Builds the operators of one tree: numbers them, and opens their traces.
pub(crate) struct Builder<'a> {
    pub(crate) states: &'a mut States,
    open: OpenTrace<'a>,
    tree: String,
    operators: usize,
}

impl<'a> Builder<'a> {
    pub(crate) fn new(tree: impl Into<String>, states: &'a mut States, open: OpenTrace<'a>) -> Self {
        Self {
            states,
            open,
            tree: tree.into(),
            operators: 0,
        }
    }

    /// The name of the next operator, for its traces and its errors.
    pub(crate) fn next_operator(&mut self, kind: &str) -> String {
        self.operators += 1;
        format!("{}.{}.{kind}", self.tree, self.operators)
    }

    /// Opens a trace of an operator.
    pub(crate) fn trace(&mut self, operator: &str, role: &str, layout: Layout) -> Result<StateId> {
        self.states.open(format!("{operator}.{role}"), layout, self.open)
    }
}
