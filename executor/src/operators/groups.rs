//! The state of a grouped relation: per group its number of rows and the state of its aggregates.
//!
//! Every aggregate but min and max is linear, so `state(new) = state(old) + state(delta)`. Over rows that only come,
//! min and max are kept like the others. Over rows that may go there is an ordered multiset per (argument, filter):
//! `extreme(group) = first or last element of multiset(group)`.
//!
//! ```text
//! groups:    see [`crate::state::GroupState`]
//! multiset:  keys ... | value                                   weight = multiplicity, ordered by value
//! ```
//!
//! Invariants: keys are canonical unless they are whole rows by identity; groups come out in the order of their first
//! row in the delta.

use arrow::array::{ArrayRef, Int64Array, UInt32Array};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, SchemaRef};
use tributary_planner::plan::{AggregateCall, AggregateFunction};
use tributary_storage::{Delta, KeyEncoder, Layout, Trace};

use crate::aggregates::{self, Accumulator, Arguments, Damaged};
use crate::canonical::canonical_all;
use crate::columns::{batch_of, schema_of, take_all};
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

/// The values of one argument in each group.
#[derive(Debug)]
struct Multiset {
    argument: usize,
    filter: Option<usize>,
    /// Keys, then the value.
    schema: SchemaRef,
    state: StateId,
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
        input: &[DataType],
        keys: &[usize],
        calls: &[AggregateCall],
        append_only: bool,
    ) -> Result<Self> {
        let key_types = key_types(keys, input)?;
        Self::build_typed(builder, operator, input, (keys, key_types), calls, append_only)
    }

    /// Groups whole rows by what they are, not by SQL's equality: types that SQL compares otherwise are welcome.
    ///
    /// # Errors
    /// When a type cannot be kept in a trace.
    pub(crate) fn build_by_identity(
        builder: &mut Builder,
        operator: &str,
        input: &[DataType],
        keys: &[usize],
    ) -> Result<Self> {
        if let Some(other) = input.iter().find(|t| !KeyEncoder::supports(t)) {
            return Err(ExecutorError::Unsupported(format!("columns of type {other}")));
        }
        let types = keys.iter().map(|key| input[*key].clone()).collect();
        let table = Self::build_typed(builder, operator, input, (keys, types), &[], false)?;
        Ok(Self {
            by_identity: true,
            ..table
        })
    }

    fn build_typed(
        builder: &mut Builder,
        operator: &str,
        input: &[DataType],
        (keys, key_types): (&[usize], Vec<DataType>),
        calls: &[AggregateCall],
        append_only: bool,
    ) -> Result<Self> {
        calls.iter().try_for_each(|call| aggregates::check(call, input))?;
        let key_columns: Vec<usize> = (0..keys.len()).collect();
        let state = builder.groups(operator, GroupState::new(key_types.clone(), calls))?;
        let mut multisets: Vec<Multiset> = Vec::new();
        for call in calls.iter().filter(|call| is_extreme(call) && !append_only) {
            let argument = call.argument.expect("checked: extremes have an argument");
            if multisets
                .iter()
                .any(|m| m.argument == argument && m.filter == call.filter)
            {
                continue;
            }
            let mut types = key_types.clone();
            types.push(input[argument].clone());
            let schema = schema_of(&types);
            let order = vec![(
                keys.len(),
                SortOptions {
                    descending: false,
                    nulls_first: true,
                },
            )];
            let layout = Layout {
                schema: schema.clone(),
                key: key_columns.clone(),
                order,
            };
            let state = builder.trace(operator, &format!("values{}", multisets.len()), layout)?;
            multisets.push(Multiset {
                argument,
                filter: call.filter,
                schema,
                state,
            });
        }
        Ok(Self {
            keys: keys.to_vec(),
            by_identity: false,
            calls: calls.to_vec(),
            state,
            multisets,
        })
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
        let keys = state.keys(&distinct);
        if !self.multisets.is_empty() {
            self.update_multisets(states, columns, &groups, weights, &key_columns);
            self.read_extremes(states, &keys, &distinct);
        }
        let state = states.groups_mut(self.state);
        let after = state.gather(&distinct);
        state.settle(&before.rows, &after.rows);
        Some(GroupChange { keys, before, after })
    }

    fn update_multisets(
        &self,
        states: &mut States,
        columns: &[ArrayRef],
        groups: &[u32],
        weights: Option<&[i64]>,
        keys: &[ArrayRef],
    ) {
        let rows: Vec<u32> = (0..groups.len() as u32).collect();
        for multiset in &self.multisets {
            // The row's own number stands in for its group: what is wanted of it are its keys.
            let arguments = Arguments::of(self.call_of(multiset), columns, &rows, weights).known();
            if arguments.groups.is_empty() {
                continue;
            }
            let count = arguments.groups.len();
            let mut entry = take_all(keys, &UInt32Array::from(arguments.groups.into_owned()));
            entry.push(arguments.values.expect("extremes have an argument"));
            let rows = batch_of(multiset.schema.clone(), entry, count);
            let weights = arguments
                .weights
                .map(|weights| Int64Array::from(weights.into_owned()));
            states.trace_mut(multiset.state).apply(&Delta::new(rows, weights));
        }
    }

    fn call_of(&self, multiset: &Multiset) -> &AggregateCall {
        let reads = |call: &&AggregateCall| {
            is_extreme(call) && call.argument == Some(multiset.argument) && call.filter == multiset.filter
        };
        self.calls
            .iter()
            .find(reads)
            .expect("a multiset exists for a call")
    }

    /// Sets the extremes of some groups to what their multisets now say.
    fn read_extremes(&self, states: &mut States, keys: &[ArrayRef], groups: &[u32]) {
        for (number, call) in self.calls.iter().enumerate().filter(|(_, call)| is_extreme(call)) {
            let multiset = self
                .multisets
                .iter()
                .find(|m| Some(m.argument) == call.argument && m.filter == call.filter)
                .expect("every extreme has its multiset");
            let from_end = call.function == AggregateFunction::Max;
            let found = states
                .trace(multiset.state)
                .lookup_n(keys, groups.len(), 1, from_end);
            let values = found.rows.column(self.keys.len());
            let values = aggregates::extreme::scatter(values, &found.probe, groups.len());
            states.groups_mut(self.state).accumulators()[number].set(groups, &values);
        }
    }
}

fn is_extreme(call: &AggregateCall) -> bool {
    matches!(call.function, AggregateFunction::Min | AggregateFunction::Max)
}
