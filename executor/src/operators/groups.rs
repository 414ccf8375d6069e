//! The state of a grouped relation: per group its number of rows and the state of its aggregates.
//!
//! Every aggregate but min and max is linear, so `state(new) = state(old) + state(delta)`. For min and max there
//! is an ordered multiset per (argument, filter): `extreme(group) = first or last element of multiset(group)`.
//!
//! ```text
//! groups:    keys ... | rows Int64 | partial columns ...        one row per group
//! multiset:  keys ... | value                                   weight = multiplicity, ordered by value
//! ```
//!
//! Invariants: a group has a state row exactly while its number of rows is not zero; keys are canonical unless they
//! are whole rows by identity; groups come out in the order of their encoded keys, whatever the order of the delta.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, UInt32Array};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, SchemaRef};
use tributary_planner::plan::{AggregateCall, AggregateFunction};
use tributary_storage::{Delta, KeyEncoder, Keys, Layout, Trace};

use crate::aggregates::{self, Accumulator, Arguments, Damaged};
use crate::canonical::canonical_all;
use crate::columns::{batch_of, int64_values, schema_of, take_all};
use crate::error::{ExecutorError, Result};
use crate::state::{Builder, StateId, States};

/// Rows sorted into groups of equal keys, groups in the order of their encoded keys.
pub(crate) struct Grouping {
    /// For each row its group.
    pub(crate) groups: Vec<u32>,
    /// For each group one of its rows.
    pub(crate) first: UInt32Array,
}

impl Grouping {
    pub(crate) fn new(keys: &Keys) -> Self {
        let mut sorted: Vec<u32> = (0..keys.len() as u32).collect();
        sorted.sort_by(|a, b| keys.get(*a as usize).cmp(keys.get(*b as usize)));
        let mut groups = vec![0; keys.len()];
        let mut first: Vec<u32> = Vec::new();
        for (place, row) in sorted.iter().enumerate() {
            let is_new = place == 0 || keys.get(sorted[place - 1] as usize) != keys.get(*row as usize);
            if is_new {
                first.push(*row);
            }
            groups[*row as usize] = first.len() as u32 - 1;
        }
        Self {
            groups,
            first: UInt32Array::from(first),
        }
    }

    /// The number of groups.
    pub(crate) fn len(&self) -> usize {
        self.first.len()
    }
}

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
    encoder: KeyEncoder,
    calls: Vec<AggregateCall>,
    /// For each call its columns among the partial columns.
    partials: Vec<std::ops::Range<usize>>,
    state_schema: SchemaRef,
    state: StateId,
    multisets: Vec<Multiset>,
}

/// The values of one argument in each group.
#[derive(Debug)]
struct Multiset {
    argument: usize,
    filter: Option<usize>,
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
    ) -> Result<Self> {
        let key_types = key_types(keys, input)?;
        Self::build_typed(builder, operator, input, (keys, key_types), calls)
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
        let table = Self::build_typed(builder, operator, input, (keys, types), &[])?;
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
    ) -> Result<Self> {
        calls.iter().try_for_each(|call| aggregates::check(call, input))?;
        let (partial_types, partials) = partial_columns(calls);
        let mut state_types = key_types.clone();
        state_types.push(DataType::Int64);
        state_types.extend(partial_types);
        let state_schema = schema_of(&state_types);
        let key_columns: Vec<usize> = (0..keys.len()).collect();
        let layout = Layout::keyed(state_schema.clone(), key_columns.clone());
        let state = builder.trace(operator, "groups", layout)?;
        let mut multisets: Vec<Multiset> = Vec::new();
        for call in calls.iter().filter(|call| is_extreme(call)) {
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
        let encoder = KeyEncoder::new(&key_types);
        Ok(Self {
            keys: keys.to_vec(),
            by_identity: false,
            encoder,
            calls: calls.to_vec(),
            partials,
            state_schema,
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
        let grouping = Grouping::new(&self.encoder.encode_rows(&key_columns, delta.len()));
        let keys = take_all(&key_columns, &grouping.first);
        let before = self.read(states, &keys, grouping.len());

        let weights = delta.weights_or_ones();
        let mut rows = before.rows.clone();
        for (group, weight) in grouping.groups.iter().zip(weights.values()) {
            rows[*group as usize] += weight;
        }
        let mut after = Groups {
            rows,
            accumulators: before.accumulators.clone(),
            damaged: Damaged::default(),
        };
        let linear = self
            .calls
            .iter()
            .zip(&mut after.accumulators)
            .filter(|(call, _)| !is_extreme(call));
        for (call, accumulator) in linear {
            accumulator.add_rows(&Arguments::of(call, columns, &grouping.groups, weights.values()));
        }
        self.update_multisets(states, columns, &grouping, weights.values(), &keys);
        self.read_extremes(states, &keys, grouping.len(), &mut after);
        self.write(states, &keys, &before, &after);
        Some(GroupChange { keys, before, after })
    }

    fn read(&self, states: &States, keys: &[ArrayRef], groups: usize) -> Groups {
        let found = states[self.state].lookup(keys, groups);
        let mut read = Groups::empty(&self.calls, groups);
        let probe = found.probe.values();
        let rows = int64_values(found.rows.column(self.keys.len()));
        probe
            .iter()
            .zip(rows)
            .for_each(|(group, count)| read.rows[*group as usize] = *count);
        let partials = &found.rows.columns()[self.keys.len() + 1..];
        for (accumulator, range) in read.accumulators.iter_mut().zip(&self.partials) {
            accumulator.add_partials(probe, &partials[range.clone()], &mut read.damaged);
        }
        assert!(
            read.damaged.groups().next().is_none(),
            "own state is never damaged: the disk is checked"
        );
        read
    }

    fn update_multisets(
        &self,
        states: &mut States,
        columns: &[ArrayRef],
        grouping: &Grouping,
        weights: &[i64],
        keys: &[ArrayRef],
    ) {
        for multiset in &self.multisets {
            let call = self.call_of(multiset);
            let arguments = Arguments::of(call, columns, &grouping.groups, weights);
            if arguments.groups.is_empty() {
                continue;
            }
            let rows = arguments.groups.len();
            let mut entry = take_all(keys, &UInt32Array::from(arguments.groups));
            entry.push(arguments.values.expect("extremes have an argument"));
            let rows = batch_of(multiset.schema.clone(), entry, rows);
            states[multiset.state].apply(&Delta::new(rows, Some(Int64Array::from(arguments.weights))));
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

    fn read_extremes(&self, states: &States, keys: &[ArrayRef], groups: usize, after: &mut Groups) {
        for (call, accumulator) in self.calls.iter().zip(&mut after.accumulators) {
            if !is_extreme(call) {
                continue;
            }
            let multiset = self
                .multisets
                .iter()
                .find(|m| Some(m.argument) == call.argument && m.filter == call.filter)
                .expect("every extreme has its multiset");
            let from_end = call.function == AggregateFunction::Max;
            let found = states[multiset.state].lookup_n(keys, groups, 1, from_end);
            let values = found.rows.column(self.keys.len());
            accumulator.replace(aggregates::extreme::scatter(values, &found.probe, groups));
        }
    }

    /// Replaces the state rows of groups whose state changed.
    fn write(&self, states: &mut States, keys: &[ArrayRef], before: &Groups, after: &Groups) {
        let groups = before.rows.len();
        let old = self.state_rows(keys, before, groups);
        let new = self.state_rows(keys, after, groups);
        let types: Vec<DataType> = old[self.keys.len()..]
            .iter()
            .map(|c| c.data_type().clone())
            .collect();
        let encoder = KeyEncoder::new(&types);
        let (was, is) = (
            encoder.encode(&old[self.keys.len()..]),
            encoder.encode(&new[self.keys.len()..]),
        );
        let changed = |group: &u32| was.get(*group as usize) != is.get(*group as usize);
        let replaced = |columns: Vec<ArrayRef>, rows: &[i64]| {
            let kept: Vec<u32> = (0..groups as u32)
                .filter(|g| rows[*g as usize] != 0 && changed(g))
                .collect();
            let rows = batch_of(self.state_schema.clone(), columns, groups);
            Delta::inserts(rows).take(&UInt32Array::from(kept))
        };
        let parts = [replaced(old, &before.rows).negated(), replaced(new, &after.rows)];
        let delta = Delta::concat(self.state_schema.clone(), &parts);
        if !delta.is_empty() {
            states[self.state].apply(&delta);
        }
    }

    fn state_rows(&self, keys: &[ArrayRef], state: &Groups, groups: usize) -> Vec<ArrayRef> {
        debug_assert!(keys.iter().all(|key| key.len() == groups));
        let mut columns = keys.to_vec();
        columns.push(Arc::new(Int64Array::from(state.rows.clone())));
        columns.extend(state.partials());
        columns
    }
}

fn is_extreme(call: &AggregateCall) -> bool {
    matches!(call.function, AggregateFunction::Min | AggregateFunction::Max)
}
