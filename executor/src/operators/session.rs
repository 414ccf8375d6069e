//! Session: each row with the bounds of its session, a run of rows of one partition in which each row is less than the
//! gap after the one before it. `Δ(sessions R) = sessions(R + ΔR) - sessions(R)`.
//!
//! Stateful: see [`crate::state::Sessions`]. A session's end is the gap after its last row, so windows are half-open as
//! all windows here: a row at the end of one is in the next. A row without a time is in no session; one whose session's
//! end is beyond what a timestamp holds is an error.

use arrow::array::{Array, TimestampMicrosecondArray, UInt32Array};
use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use tributary_storage::Delta;

use super::groups::key_types;
use super::hop::OUT_OF_RANGE;
use super::{Relation, Step};
use crate::columns::{downcast, schema_of, types_of};
use crate::error::{ExecutorError, Result};
use crate::state::{Builder, Sessionizing, Sessions, StateId};

#[derive(Debug)]
pub(crate) struct Session {
    operator: String,
    schema: SchemaRef,
    state: StateId,
    column: usize,
    gap_us: i64,
}

impl Session {
    pub(crate) fn build(
        builder: &mut Builder,
        operator: String,
        input: Relation,
        by: Sessionizing,
    ) -> Result<Self> {
        let time = match input.types.get(by.column) {
            Some(time @ DataType::Timestamp(TimeUnit::Microsecond, _)) => time.clone(),
            other => {
                return Err(ExecutorError::Plan(format!(
                    "sessions over a column of type {other:?}"
                )));
            }
        };
        if by.gap_us <= 0 {
            return Err(ExecutorError::Plan("a session without a gap".to_string()));
        }
        key_types(&by.partition, input.types)?;
        let mut types = input.types.to_vec();
        types.extend([time.clone(), time]);
        let (column, gap_us) = (by.column, by.gap_us);
        let empty = Sessions::new(schema_of(input.types), by, input.append_only);
        let state = builder.sessions(&operator, empty, input.placement)?;
        Ok(Self {
            operator,
            schema: schema_of(&types),
            state,
            column,
            gap_us,
        })
    }

    /// The types of the rows with their bounds.
    pub(crate) fn types(&self) -> Vec<DataType> {
        types_of(&self.schema)
    }

    pub(crate) fn eval(&self, step: &mut Step, delta: &Delta) -> Delta {
        let times = downcast::<TimestampMicrosecondArray>(delta.rows().column(self.column));
        let mut kept: Vec<u32> = Vec::with_capacity(delta.len());
        for row in (0..times.len()).filter(|row| times.is_valid(*row)) {
            match times.value(row).checked_add(self.gap_us) {
                Some(_) => kept.push(row as u32),
                None => step
                    .errors
                    .push(&self.operator, OUT_OF_RANGE, delta.rows(), row, delta.weight(row)),
            }
        }
        if kept.is_empty() {
            return Delta::empty(self.schema.clone());
        }
        let state = step.states.sessions_mut(self.state);
        match kept.len() == delta.len() {
            true => state.apply(delta, &self.schema),
            false => state.apply(&delta.take(&UInt32Array::from(kept)), &self.schema),
        }
    }
}
