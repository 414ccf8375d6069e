//! Pre-aggregation: the rows of one batch as partials, one row per group.
//!
//! What follows, an exchange or the expansion into windows, then moves groups instead of rows. Over windows that slide
//! in whole parts of their length rows are grouped by *pane*, the window of one slide: each pane is in `size / slide`
//! windows, and its partial is merged into each of them. (Li et al., "No pane, no gain", SIGMOD Record 2005.)
//!
//! ```text
//! partial rows:  keys ... | pane start (over windows) | rows Int64 | partial columns ...
//! ```
//!
//! Stateless, but for a guess: where nearly every row is a group of its own, grouping is left out for a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use arrow::array::{Array, ArrayRef, Int64Array, TimestampMicrosecondArray, UInt32Array};
use arrow::datatypes::{DataType, SchemaRef};
use tributary_planner::plan::{AggregateCall, AggregateFunction};
use tributary_storage::{Delta, KeyIndex};

use super::groups::partial_columns;
use super::{Relation, Step};
use crate::aggregates::{Accumulator, Arguments};
use crate::canonical::canonical_all;
use crate::columns::{batch_of, downcast, int64_values, schema_of, take_all};

/// What is aggregated in advance. Columns are those of the rows that are read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Partials {
    pub(crate) keys: Vec<usize>,
    pub(crate) calls: Vec<AggregateCall>,
    pub(crate) panes: Option<Panes>,
    /// The keys of the aggregate, from those of partial rows.
    pub(crate) shape: Vec<KeyPart>,
}

/// The panes of windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Panes {
    /// The time column.
    pub(crate) column: usize,
    pub(crate) slide_us: i64,
    /// A multiple of the slide.
    pub(crate) size_us: i64,
}

/// A key of an aggregate over partial rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyPart {
    /// The key of partial rows at this place.
    Key(usize),
    /// The start of the window.
    Start,
    /// The end of the window.
    End,
}

/// Whether partials of a call are small and quickly made.
pub(crate) fn is_worthwhile(call: &AggregateCall, append_only: bool) -> bool {
    match call.function {
        AggregateFunction::Count | AggregateFunction::BoolAnd | AggregateFunction::BoolOr => true,
        AggregateFunction::Sum | AggregateFunction::Avg => !call.input_type.is_floating(),
        AggregateFunction::Min | AggregateFunction::Max => append_only,
    }
}

/// Batches after one with hardly any equal keys that are not grouped either.
const UNGROUPED_BATCHES: u32 = 15;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct PreAggregate {
    /// The name under which rows without a window are errors.
    operator: String,
    partials: Partials,
    key_types: Vec<DataType>,
    schema: SchemaRef,
    ungrouped: AtomicU32,
}

impl PreAggregate {
    pub(crate) fn build(operator: String, input: Relation, partials: &Partials) -> Self {
        let mut key_types: Vec<DataType> = partials
            .keys
            .iter()
            .map(|key| input.types[*key].clone())
            .collect();
        key_types.extend(partials.panes.map(|panes| input.types[panes.column].clone()));
        let mut types = key_types.clone();
        types.push(DataType::Int64);
        types.extend(partial_columns(&partials.calls).0);
        Self {
            operator,
            partials: partials.clone(),
            key_types,
            schema: schema_of(&types),
            ungrouped: AtomicU32::new(0),
        }
    }

    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub(crate) fn eval(&self, step: &mut Step, delta: &Delta) -> Delta {
        let (delta, panes) = match self.partials.panes {
            None => (delta.clone(), None),
            Some(panes) => {
                let (delta, starts) = self.with_panes(step, delta, panes);
                (delta, Some(starts))
            }
        };
        if delta.is_empty() {
            return Delta::empty(self.schema.clone());
        }
        let columns = delta.rows().columns();
        let keys: Vec<ArrayRef> = self
            .partials
            .keys
            .iter()
            .map(|key| columns[*key].clone())
            .collect();
        let mut keys = canonical_all(&keys);
        keys.extend(panes);
        let (groups, mut out) = self.grouped(keys, delta.len());
        let count = out.first().map_or(1, |column| column.len());
        let weights = delta.weights().map(|weights| &weights.values()[..]);
        let mut rows = vec![0i64; count];
        for (row, group) in groups.iter().enumerate() {
            rows[*group as usize] += weights.map_or(1, |weights| weights[row]);
        }
        out.push(Arc::new(Int64Array::from(rows)));
        for call in &self.partials.calls {
            let mut accumulator = Accumulator::new(call, count);
            let arguments = Arguments::of(call, columns, &groups, weights);
            accumulator.add_rows(&match accumulator {
                Accumulator::Extreme(_) => arguments.known(),
                _ => arguments,
            });
            out.extend(accumulator.partials());
        }
        Delta::inserts(batch_of(self.schema.clone(), out, count))
    }

    /// The group of each row, and the keys of the groups.
    fn grouped(&self, keys: Vec<ArrayRef>, rows: usize) -> (Vec<u32>, Vec<ArrayRef>) {
        let all = |rows: usize| (0..rows as u32).collect::<Vec<u32>>();
        // Partitions share the count, so it is taken down in one go.
        let left = |count: u32| count.checked_sub(1);
        if !keys.is_empty()
            && self
                .ungrouped
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, left)
                .is_ok()
        {
            return (all(rows), keys);
        }
        let mut index = KeyIndex::new(&self.key_types);
        let groups = index.insert(&keys, rows);
        if index.len() * 4 > rows * 3 {
            self.ungrouped.store(UNGROUPED_BATCHES, Ordering::Relaxed);
        }
        let keys = index.columns(&all(index.len()));
        (groups, keys)
    }

    /// The rows that are in a window, and the start of the pane of each.
    fn with_panes(&self, step: &mut Step, delta: &Delta, panes: Panes) -> (Delta, ArrayRef) {
        let times = downcast::<TimestampMicrosecondArray>(delta.rows().column(panes.column));
        let (mut rows, mut starts) = (Vec::with_capacity(times.len()), Vec::with_capacity(times.len()));
        for row in (0..times.len()).filter(|row| times.is_valid(*row)) {
            match pane_start(times.value(row), panes) {
                Some(start) => {
                    rows.push(row as u32);
                    starts.push(start);
                }
                None => step.errors.push(
                    &self.operator,
                    super::hop::OUT_OF_RANGE,
                    delta.rows(),
                    row,
                    delta.weight(row),
                ),
            }
        }
        let starts: ArrayRef = Arc::new(Int64Array::from(starts));
        let time = self.key_types.last().expect("the pane is the last key");
        let starts = arrow::compute::cast(&starts, time).expect("microseconds are integers");
        let delta = match rows.len() == delta.len() {
            true => delta.clone(),
            false => delta.take(&UInt32Array::from(rows)),
        };
        (delta, starts)
    }
}

/// The start of a time's pane; `None` when a window that contains the time has a bound beyond what a timestamp holds.
fn pane_start(time: i64, panes: Panes) -> Option<i64> {
    let start = time.checked_sub(time.rem_euclid(panes.slide_us))?;
    time.checked_sub(panes.size_us)?;
    start.checked_add(panes.size_us)?;
    Some(start)
}

impl Partials {
    /// The columns of partial rows that hold the keys.
    fn key_columns(&self) -> usize {
        self.keys.len() + usize::from(self.panes.is_some())
    }

    /// Partial rows as an aggregate takes them in: for each of its groups the keys, the number of rows, and the
    /// partial columns.
    pub(crate) fn expanded(&self, delta: &Delta) -> (Vec<ArrayRef>, Vec<i64>, Vec<ArrayRef>) {
        let mut columns = delta.rows().columns().to_vec();
        let (mut start, mut end) = (None, None);
        if let Some(panes) = self.panes {
            let pane = self.keys.len();
            let windows = panes.size_us / panes.slide_us;
            let starts =
                arrow::compute::cast(&columns[pane], &DataType::Int64).expect("a timestamp is a number");
            let starts = int64_values(&starts);
            let at = |offset: i64| -> ArrayRef {
                let bounds = starts.iter().flat_map(|start| {
                    (0..windows).map(move |window| start - window * panes.slide_us + offset)
                });
                let bounds: ArrayRef = Arc::new(Int64Array::from_iter_values(bounds));
                arrow::compute::cast(&bounds, columns[pane].data_type()).expect("microseconds are integers")
            };
            (start, end) = (Some(at(0)), Some(at(panes.size_us)));
            let rows = 0..delta.len() as u32;
            let rows = rows.flat_map(|row| std::iter::repeat_n(row, windows as usize));
            columns = take_all(&columns, &UInt32Array::from_iter_values(rows));
        }
        let bound = |column: &Option<ArrayRef>| column.clone().expect("only windows have bounds");
        let keys = self.shape.iter().map(|part| match part {
            KeyPart::Key(place) => columns[*place].clone(),
            KeyPart::Start => bound(&start),
            KeyPart::End => bound(&end),
        });
        let keys = keys.collect();
        let partials = columns.split_off(self.key_columns() + 1);
        let rows = int64_values(&columns[self.key_columns()]).to_vec();
        (keys, rows, partials)
    }
}
