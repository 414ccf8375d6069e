//! The state of a grouped relation: per group its number of rows and the state of its aggregates.
//!
//! Every aggregate but min and max is linear, so `state(new) = state(old) + state(delta)`. Over rows that only come,
//! min and max are kept like the others. Over rows that may go there is an ordered multiset per (argument, filter):
//! `extreme(group) = first or last element of multiset(group)`.
//!
//! ```text
//! groups:    see [`crate::state::GroupState`]
//! multiset:  see [`crate::state::Multiset`]
//! ```
//!
//! Invariants: keys are canonical unless they are whole rows by identity; groups come out in the order of their first
//! row in the delta.

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use tributary_planner::plan::{AggregateCall, AggregateFunction};
use tributary_storage::{Delta, KeyEncoder};

use super::Relation;
use super::pre_aggregate::Partials;
use crate::aggregates::{self, Accumulator, Arguments, Damaged};
use crate::canonical::canonical_all;
use crate::error::{ExecutorError, Result};
use crate::state::{Builder, GroupState, StateId, States};

/// The state of several groups at one moment.
#[derive(Debug)]
pub(crate) struct Groups {
    /// The number of rows of each group.
    pub(crate) rows: Vec<i64>,
    /// One accumulator per aggregate.
    pub(crate) accumulators: Vec<Accumulator>,
    /// Groups whose state cannot be trusted; only merged ones can be such.
    pub(crate) damaged: Damaged,
}

impl Groups {
    pub(crate) fn empty(calls: &[AggregateCall], groups: usize) -> Self {
        let accumulators = calls.iter().map(|call| Accumulator::new(call, groups)).collect();
        Self {
            rows: vec![0; groups],
            accumulators,
            damaged: Damaged::default(),
        }
    }

    /// The partial columns of all aggregates.
    pub(crate) fn partials(&self) -> Vec<ArrayRef> {
        self.accumulators.iter().flat_map(Accumulator::partials).collect()
    }
}

/// The groups that a delta touched.
pub(crate) struct GroupChange {
    /// The key of each group.
    pub(crate) keys: Vec<ArrayRef>,
    pub(crate) before: Groups,
    pub(crate) after: Groups,
}

/// Groups a relation and keeps the state of its groups.
#[derive(Debug)]
pub(crate) struct GroupTable {
    keys: Vec<usize>,
    /// Whether keys are rows as they are, rather than values that SQL compares.
    by_identity: bool,
    calls: Vec<AggregateCall>,
    state: StateId,
    multisets: Vec<Multiset>,
}

/// The values of one argument in each group; the state has one [`crate::state::Multiset`] for it.
#[derive(Debug)]
struct Multiset {
    argument: usize,
    filter: Option<usize>,
}

/// The partial columns of several aggregates, and which belong to which.
pub(crate) fn partial_columns(calls: &[AggregateCall]) -> (Vec<DataType>, Vec<std::ops::Range<usize>>) {
    let mut types = Vec::new();
    let ranges = calls
        .iter()
        .map(|call| {
            let start = types.len();
            types.extend(aggregates::partial_types(call));
            start..types.len()
        })
        .collect();
    (types, ranges)
}

/// The types of key columns.
///
/// # Errors
/// When SQL's equality on a type is not that of its bytes.
pub(crate) fn key_types(keys: &[usize], input: &[DataType]) -> Result<Vec<DataType>> {
    let key_type = |key: &usize| match input.get(*key) {
        Some(t) if aggregates::is_ordered(t) => Ok(t.clone()),
        Some(t) => Err(ExecutorError::Unsupported(format!("{t} as a key"))),
        None => Err(ExecutorError::Plan(format!("there is no key column {key}"))),
    };
    keys.iter().map(key_type).collect()
}

impl GroupTable {
    pub(crate) fn build(
        builder: &mut Builder,
        operator: &str,
        input: Relation,
        keys: &[usize],
        calls: &[AggregateCall],
    ) -> Result<Self> {
        let key_types = key_types(keys, input.types)?;
        Self::build_typed(builder, operator, input, (keys, key_types), calls)
    }

    /// Groups whole rows by what they are, not by SQL's equality: types that SQL compares otherwise are welcome.
    ///
    /// # Errors
    /// When a type cannot be kept in a trace.
    pub(crate) fn build_by_identity(
        builder: &mut Builder,
        operator: &str,
        input: Relation,
        keys: &[usize],
    ) -> Result<Self> {
        if let Some(other) = input.types.iter().find(|t| !KeyEncoder::supports(t)) {
            return Err(ExecutorError::Unsupported(format!("columns of type {other}")));
        }
        let types = keys.iter().map(|key| input.types[*key].clone()).collect();
        let input = Relation {
            append_only: false,
            ..input
        };
        let table = Self::build_typed(builder, operator, input, (keys, types), &[])?;
        Ok(Self {
            by_identity: true,
            ..table
        })
    }

    fn build_typed(
        builder: &mut Builder,
        operator: &str,
        input: Relation,
        (keys, key_types): (&[usize], Vec<DataType>),
        calls: &[AggregateCall],
    ) -> Result<Self> {
        calls
            .iter()
            .try_for_each(|call| aggregates::check(call, input.types))?;
        let mut multisets: Vec<Multiset> = Vec::new();
        for call in calls.iter().filter(|call| is_extreme(call) && !input.append_only) {
            if !multisets.iter().any(|multiset| multiset.serves(call)) {
                multisets.push(Multiset {
                    argument: call.argument.expect("checked: extremes have an argument"),
                    filter: call.filter,
                });
            }
        }
        let value_types = multisets
            .iter()
            .map(|m| input.types[m.argument].clone())
            .collect();
        // A saved group begins with its key.
        let placement = input.placement.among(keys)?;
        let state = builder.groups(
            operator,
            GroupState::new(key_types, calls, value_types),
            &placement,
        )?;
        Ok(Self {
            keys: keys.to_vec(),
            by_identity: false,
            calls: calls.to_vec(),
            state,
            multisets,
        })
    }

    /// Where the groups are kept.
    pub(crate) fn state(&self) -> StateId {
        self.state
    }

    /// Takes in partial rows; `None` when there are none.
    pub(crate) fn eval_partials(
        &self,
        states: &mut States,
        partials: &Partials,
        delta: &Delta,
    ) -> Option<GroupChange> {
        if delta.is_empty() {
            return None;
        }
        let (keys, rows, columns) = partials.expanded(delta);
        let state = states.groups_mut(self.state);
        let groups = state.groups_of(&keys, rows.len());
        let distinct = state.distinct(&groups);
        let before = state.gather(&distinct);
        state.count_rows(&groups, Some(&rows));
        let (_, ranges) = partial_columns(&self.calls);
        let mut damaged = Damaged::default();
        for (accumulator, range) in state.accumulators().iter_mut().zip(ranges) {
            accumulator.add_partials(&groups, &columns[range], &mut damaged);
        }
        assert!(
            damaged.groups().next().is_none(),
            "what was just made is never damaged"
        );
        let keys = state.keys(&distinct);
        let after = state.gather(&distinct);
        state.settle(&before.rows, &after.rows);
        Some(GroupChange { keys, before, after })
    }

    /// Takes in a delta; `None` when it is empty. The groups touched are returned whether or not they changed.
    pub(crate) fn eval(&self, states: &mut States, delta: &Delta) -> Option<GroupChange> {
        if delta.is_empty() {
            return None;
        }
        let columns = delta.rows().columns();
        let key_columns: Vec<ArrayRef> = self.keys.iter().map(|key| columns[*key].clone()).collect();
        let key_columns = if self.by_identity {
            key_columns
        } else {
            canonical_all(&key_columns)
        };
        let weights = delta.weights().map(|weights| &weights.values()[..]);
        let state = states.groups_mut(self.state);
        let groups = state.groups_of(&key_columns, delta.len());
        let distinct = state.distinct(&groups);
        let before = state.gather(&distinct);
        state.count_rows(&groups, weights);
        for (call, accumulator) in self.calls.iter().zip(state.accumulators()) {
            let arguments = Arguments::of(call, columns, &groups, weights);
            match is_extreme(call) {
                false => accumulator.add_rows(&arguments),
                true if self.multisets.is_empty() => accumulator.add_rows(&arguments.known()),
                true => {}
            }
        }
        for (number, multiset) in self.multisets.iter().enumerate() {
            let call = self.calls.iter().find(|call| multiset.serves(call));
            let call = call.expect("a multiset exists for a call");
            let arguments = Arguments::of(call, columns, &groups, weights).known();
            let values = arguments.values.expect("extremes have an argument");
            state.multisets()[number].add(&arguments.groups, &values, arguments.weights.as_deref());
            for (place, call) in self
                .calls
                .iter()
                .enumerate()
                .filter(|(_, call)| multiset.serves(call))
            {
                state.read_extremes(place, number, &distinct, call.function == AggregateFunction::Max);
            }
        }
        let keys = state.keys(&distinct);
        let after = state.gather(&distinct);
        state.settle(&before.rows, &after.rows);
        Some(GroupChange { keys, before, after })
    }
}

impl Multiset {
    /// Whether a call reads it.
    fn serves(&self, call: &AggregateCall) -> bool {
        is_extreme(call) && call.argument == Some(self.argument) && call.filter == self.filter
    }
}

fn is_extreme(call: &AggregateCall) -> bool {
    matches!(call.function, AggregateFunction::Min | AggregateFunction::Max)
}
