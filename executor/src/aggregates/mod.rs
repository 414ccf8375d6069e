//! Aggregates that merge: what a group holds, what of it is shipped, and how it becomes a result.
//!
//! ```text
//!   rows ──add_rows──▶ Accumulator ──partials──▶ columns ──(slots of many origins)──add_partials──▶ Accumulator
//!                                                                                       └──results──▶ values
//! ```
//!
//! An [`Accumulator`] holds one aggregate's state for many groups at once. All kinds but min and max are linear:
//! a row of weight -1 undoes one of weight +1 to the last bit, so the accumulated state *is* the partial.
//! Merging is commutative and associative, and equal multisets of rows give equal partial bytes.
//!
//! Partials may be a peer's: whatever they hold, merging neither panics nor yields a wrong value unnoticed where
//! it can be noticed. A damaged partial fails its group.

pub(crate) mod boolean;
pub(crate) mod count;
pub(crate) mod extreme;
pub(crate) mod finalise;
pub(crate) mod float_sum;
pub(crate) mod floats;
pub(crate) mod sum;

use std::borrow::Cow;
use std::collections::BTreeSet;

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, UInt32Array};
use arrow::compute::{prep_null_mask_filter, take};
use arrow::datatypes::DataType;
use tributary_planner::plan::{AggregateCall, AggregateFunction};

use crate::canonical::canonical;
use crate::columns::downcast;
use crate::error::{ExecutorError, Result};
use boolean::Truths;
use count::Counts;
use extreme::Extremes;
use floats::FloatSums;
use sum::Sums;

/// Why a group has no result.
pub(crate) type Message = String;

/// Results of one aggregate, one value per group.
pub(crate) struct Results {
    pub(crate) column: ArrayRef,
    /// Groups without a result; their value in `column` means nothing.
    pub(crate) failed: Vec<(usize, Message)>,
}

/// Groups that met a partial which no honest region writes.
#[derive(Debug, Default)]
pub(crate) struct Damaged(BTreeSet<u32>);

impl Damaged {
    fn note(&mut self, group: u32) {
        self.0.insert(group);
    }

    fn note_nulls(&mut self, column: &ArrayRef, groups: &[u32]) {
        if column.null_count() > 0 {
            groups
                .iter()
                .enumerate()
                .filter(|(row, _)| column.is_null(*row))
                .for_each(|(_, g)| self.note(*g));
        }
    }

    pub(crate) fn groups(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().map(|group| *group as usize)
    }
}

/// The numbers of a partial column; where one is null its group is damaged and the slot reads as some number.
fn values_of<'a>(column: &'a ArrayRef, groups: &[u32], damaged: &mut Damaged) -> Option<&'a [i64]> {
    damaged.note_nulls(column, groups);
    column
        .as_any()
        .downcast_ref::<Int64Array>()
        .map(|numbers| &numbers.values()[..])
}

/// The state of one aggregate in several groups.
#[derive(Clone, Debug)]
pub(crate) enum Accumulator {
    Count(Counts),
    Sum(Sums),
    FloatSum(FloatSums),
    Extreme(Extremes),
    Truth(Truths),
}

/// Whether a call is one that this crate computes, with the types of the table at [`AggregateFunction`].
///
/// # Errors
/// Names the call that is not.
pub(crate) fn check(call: &AggregateCall, input: &[DataType]) -> Result<()> {
    use AggregateFunction::*;
    let argument = call.argument.map(|column| input.get(column).cloned());
    if argument == Some(None)
        || call
            .filter
            .is_some_and(|f| input.get(f) != Some(&DataType::Boolean))
    {
        return Err(ExecutorError::Plan(format!(
            "{:?} reads a column that is not there",
            call.function
        )));
    }
    let argument = argument.flatten();
    let output = match (call.function, &argument) {
        (Count, _) => Some(DataType::Int64),
        (Sum, Some(DataType::Int16 | DataType::Int32)) => Some(DataType::Int64),
        (Sum, Some(DataType::Int64)) => Some(DataType::Decimal128(38, 0)),
        (Sum, Some(DataType::Decimal128(_, s))) if *s >= 0 => Some(DataType::Decimal128(38, *s)),
        (Sum, Some(float @ (DataType::Float32 | DataType::Float64))) => Some(float.clone()),
        (Avg, Some(DataType::Int16 | DataType::Int32 | DataType::Int64)) => {
            Some(DataType::Decimal128(38, sum::AVERAGE_SCALE_MIN))
        }
        (Avg, Some(DataType::Decimal128(_, s))) if *s >= 0 => {
            Some(DataType::Decimal128(38, (*s).max(sum::AVERAGE_SCALE_MIN)))
        }
        (Avg, Some(DataType::Float32 | DataType::Float64)) => Some(DataType::Float64),
        (Min | Max, Some(ordered)) if is_ordered(ordered) => Some(ordered.clone()),
        (BoolAnd | BoolOr, Some(DataType::Boolean)) => Some(DataType::Boolean),
        _ => None,
    };
    match output {
        Some(output) if output == call.output_type => Ok(()),
        Some(output) => Err(ExecutorError::Plan(format!(
            "{:?} yields {output}, the plan says {}",
            call.function, call.output_type
        ))),
        None => Err(ExecutorError::Unsupported(format!(
            "{:?} of {argument:?}",
            call.function
        ))),
    }
}

/// Whether values of this type have SQL's order and equality as key bytes. Intervals do not: one month may be
/// thirty days.
pub(crate) fn is_ordered(data_type: &DataType) -> bool {
    !matches!(data_type, DataType::Interval(_)) && !data_type.is_nested()
}

/// The columns in which a call's partial is shipped.
pub(crate) fn partial_types(call: &AggregateCall) -> Vec<DataType> {
    match Accumulator::new(call, 0) {
        Accumulator::Count(_) => vec![DataType::Int64],
        Accumulator::Sum(_) => sum::partial_types(&call.input_type),
        Accumulator::FloatSum(_) => vec![DataType::Binary],
        Accumulator::Extreme(_) => vec![call.output_type.clone()],
        Accumulator::Truth(_) => vec![DataType::Int64, DataType::Int64],
    }
}

impl Accumulator {
    /// The state of `groups` groups without rows.
    pub(crate) fn new(call: &AggregateCall, groups: usize) -> Self {
        use AggregateFunction::*;
        match call.function {
            Count => Self::Count(Counts::new(groups)),
            Sum | Avg if call.input_type.is_floating() => Self::FloatSum(FloatSums::new(groups)),
            Sum | Avg => Self::Sum(Sums::new(groups, &call.input_type)),
            Min => Self::Extreme(Extremes::new(groups, &call.output_type, false)),
            Max => Self::Extreme(Extremes::new(groups, &call.output_type, true)),
            BoolAnd | BoolOr => Self::Truth(Truths::new(groups)),
        }
    }

    /// Makes room for `groups` groups; new ones have no rows.
    pub(crate) fn grow(&mut self, groups: usize) {
        match self {
            Self::Count(counts) => counts.grow(groups),
            Self::Sum(sums) => sums.grow(groups),
            Self::FloatSum(sums) => sums.grow(groups),
            Self::Extreme(extremes) => extremes.grow(groups),
            Self::Truth(truths) => truths.grow(groups),
        }
    }

    /// The state of some groups, in the order given.
    pub(crate) fn gather(&self, groups: &[u32]) -> Self {
        match self {
            Self::Count(counts) => Self::Count(counts.gather(groups)),
            Self::Sum(sums) => Self::Sum(sums.gather(groups)),
            Self::FloatSum(sums) => Self::FloatSum(sums.gather(groups)),
            Self::Extreme(extremes) => Self::Extreme(extremes.gather(groups)),
            Self::Truth(truths) => Self::Truth(truths.gather(groups)),
        }
    }

    /// Adds weighted rows; `groups` says for each row which group it belongs to. Extremes are not linear and
    /// take their values by [`Accumulator::set`], unless rows only ever come.
    pub(crate) fn add_rows(&mut self, rows: &Arguments) {
        let values = || rows.values.as_ref().expect("only count has no argument");
        let weights = rows.weights.as_deref();
        match self {
            Self::Count(counts) => counts.add_rows(&rows.groups, rows.values.as_ref(), weights),
            Self::Sum(sums) => sums.add_rows(&rows.groups, values(), weights),
            Self::FloatSum(sums) => sums.add_rows(&rows.groups, values(), weights),
            Self::Truth(truths) => truths.add_rows(&rows.groups, values(), weights),
            Self::Extreme(extremes) => {
                assert!(
                    weights.is_none(),
                    "extremes of rows that may go are read from their multiset"
                );
                extremes.add(&rows.groups, values());
            }
        }
    }

    /// Sets the values of some groups; for extremes.
    pub(crate) fn set(&mut self, groups: &[u32], values: &ArrayRef) {
        match self {
            Self::Extreme(extremes) => extremes.set(groups, values),
            _ => unreachable!("only extremes are set"),
        }
    }

    /// Merges partials; row i of the columns belongs to group `groups[i]`.
    pub(crate) fn add_partials(&mut self, groups: &[u32], columns: &[ArrayRef], damaged: &mut Damaged) {
        match self {
            Self::Count(counts) => counts.add_partials(groups, &columns[0], damaged),
            Self::Sum(sums) => sums.add_partials(groups, columns, damaged),
            Self::FloatSum(sums) => sums.add_partials(groups, &columns[0], damaged),
            Self::Extreme(extremes) => extremes.add(groups, &columns[0]),
            Self::Truth(truths) => truths.add_partials(groups, columns, damaged),
        }
    }

    /// The partial columns, one row per group.
    pub(crate) fn partials(&self) -> Vec<ArrayRef> {
        match self {
            Self::Count(counts) => vec![counts.column()],
            Self::Sum(sums) => sums.columns(),
            Self::FloatSum(sums) => vec![sums.column()],
            Self::Extreme(extremes) => vec![extremes.column()],
            Self::Truth(truths) => truths.columns(),
        }
    }

    /// The results, one per group.
    pub(crate) fn results(&self, call: &AggregateCall) -> Results {
        let average = call.function == AggregateFunction::Avg;
        let exact = |column| Results {
            column,
            failed: Vec::new(),
        };
        match self {
            Self::Count(counts) => exact(counts.column()),
            Self::Sum(sums) if average => sums.averages(),
            Self::Sum(sums) => sums.sums(&call.output_type),
            Self::FloatSum(sums) if average => sums.averages(),
            Self::FloatSum(sums) => sums.sums(&call.output_type),
            Self::Extreme(extremes) => exact(extremes.column()),
            Self::Truth(truths) => exact(truths.results(call.function == AggregateFunction::BoolAnd)),
        }
    }
}

/// The rows that count for one call: its FILTER applied, its argument read.
pub(crate) struct Arguments<'a> {
    pub(crate) groups: Cow<'a, [u32]>,
    pub(crate) values: Option<ArrayRef>,
    /// `None` when every row counts once.
    pub(crate) weights: Option<Cow<'a, [i64]>>,
}

impl<'a> Arguments<'a> {
    /// From whole columns: `groups` and `weights` have one entry per row.
    pub(crate) fn of(
        call: &AggregateCall,
        columns: &[ArrayRef],
        groups: &'a [u32],
        weights: Option<&'a [i64]>,
    ) -> Self {
        let values = call.argument.map(|column| columns[column].clone());
        let is_extreme = matches!(call.function, AggregateFunction::Min | AggregateFunction::Max);
        let values = if is_extreme {
            values.as_ref().map(canonical)
        } else {
            values
        };
        let Some(filter) = call.filter else {
            return Self {
                groups: Cow::Borrowed(groups),
                values,
                weights: weights.map(Cow::Borrowed),
            };
        };
        let filter = downcast::<BooleanArray>(&columns[filter]);
        let kept = match filter.nulls() {
            None => filter.clone(),
            Some(_) => prep_null_mask_filter(filter),
        };
        let kept: Vec<u32> = kept.values().set_indices_u32().collect();
        Self {
            groups: kept.iter().map(|row| groups[*row as usize]).collect(),
            weights: weights.map(|weights| kept.iter().map(|row| weights[*row as usize]).collect()),
            values: values.map(|v| {
                take(&v, &UInt32Array::from(kept.clone()), None).expect("rows lie within the batch")
            }),
        }
    }

    /// Only the rows that have a value.
    pub(crate) fn known(self) -> Self {
        let Some(values) = self.values.as_ref().filter(|values| values.null_count() > 0) else {
            return self;
        };
        let kept: Vec<u32> = (0..values.len() as u32)
            .filter(|row| values.is_valid(*row as usize))
            .collect();
        Self {
            groups: kept.iter().map(|row| self.groups[*row as usize]).collect(),
            weights: self
                .weights
                .as_ref()
                .map(|weights| kept.iter().map(|row| weights[*row as usize]).collect()),
            values: Some(take(values, &UInt32Array::from(kept), None).expect("rows lie within the batch")),
        }
    }
}
