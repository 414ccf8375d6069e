//! Hop: each row once per window that contains it, with the window's bounds appended. Linear, without state.
//!
//! Windows begin at multiples of the slide since 1970 and are half-open. A row without a time is in no window; a
//! window whose bounds are beyond what a timestamp holds makes its row an error.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, TimestampMicrosecondArray, UInt32Array};
use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use tributary_storage::Delta;

use super::Step;
use crate::columns::{batch_of, downcast, schema_of};
use crate::error::{ExecutorError, Result};

/// A window has a bound that no timestamp can say.
pub(crate) const OUT_OF_RANGE: &str = "timestamp out of range";

#[derive(Debug)]
pub(crate) struct Hop {
    operator: String,
    column: usize,
    slide_us: i64,
    size_us: i64,
    time: DataType,
    schema: SchemaRef,
}

impl Hop {
    pub(crate) fn build(
        operator: String,
        input: &[DataType],
        column: usize,
        slide_us: i64,
        size_us: i64,
    ) -> Result<Self> {
        let time = match input.get(column) {
            Some(time @ DataType::Timestamp(TimeUnit::Microsecond, _)) => time.clone(),
            other => {
                return Err(ExecutorError::Plan(format!(
                    "windows over a column of type {other:?}"
                )));
            }
        };
        if slide_us <= 0 || size_us <= 0 {
            return Err(ExecutorError::Plan("a window without a length".to_string()));
        }
        let mut types = input.to_vec();
        types.extend([time.clone(), time.clone()]);
        Ok(Self {
            operator,
            column,
            slide_us,
            size_us,
            time,
            schema: schema_of(&types),
        })
    }

    /// The types of the rows with their bounds.
    pub(crate) fn types(&self) -> Vec<DataType> {
        crate::columns::types_of(&self.schema)
    }

    pub(crate) fn eval(&self, step: &mut Step, delta: &Delta) -> Delta {
        let times = downcast::<TimestampMicrosecondArray>(delta.rows().column(self.column));
        let windows = usize::try_from(self.size_us / self.slide_us).unwrap_or(0) + 1;
        let mut rows: Vec<u32> = Vec::with_capacity(times.len() * windows.min(16));
        let (mut starts, mut ends) = (
            Vec::with_capacity(rows.capacity()),
            Vec::with_capacity(rows.capacity()),
        );
        for row in (0..times.len()).filter(|row| times.is_valid(*row)) {
            let Some(windows) = windows_of(times.value(row), self.slide_us, self.size_us) else {
                step.errors
                    .push(&self.operator, OUT_OF_RANGE, delta.rows(), row, delta.weight(row));
                continue;
            };
            for (start, end) in windows {
                rows.push(row as u32);
                starts.push(start);
                ends.push(end);
            }
        }
        let bound = |values: Vec<i64>| -> ArrayRef {
            let values: ArrayRef = Arc::new(Int64Array::from(values));
            arrow::compute::cast(&values, &self.time).expect("microseconds are integers")
        };
        let expanded = match is_identity(&rows, delta.len()) {
            true => delta.clone(),
            false => delta.take(&UInt32Array::from(rows)),
        };
        let mut columns = expanded.rows().columns().to_vec();
        columns.extend([bound(starts), bound(ends)]);
        expanded.with_rows(batch_of(self.schema.clone(), columns, expanded.len()))
    }
}

/// The start and end of each window that contains a time, newest first, in microseconds since 1970; `None` when one of
/// them is beyond what 64 bits hold. Slide and size are positive.
pub fn windows_of(time: i64, slide_us: i64, size_us: i64) -> Option<impl Iterator<Item = (i64, i64)>> {
    let newest = time.checked_sub(time.rem_euclid(slide_us))?;
    let oldest = time.checked_sub(size_us)?;
    newest.checked_add(size_us)?;
    let starts = std::iter::successors(Some(newest), move |start: &i64| start.checked_sub(slide_us));
    Some(
        starts
            .take_while(move |start| *start > oldest)
            .map(move |start| (start, start + size_us)),
    )
}

/// Whether the indices are all rows in order, as they are for windows that do not overlap.
fn is_identity(rows: &[u32], len: usize) -> bool {
    rows.len() == len && rows.iter().enumerate().all(|(at, row)| at == *row as usize)
}

#[cfg(test)]
mod tests {
    use super::windows_of;

    fn windows(time: i64, slide: i64, size: i64) -> Option<Vec<(i64, i64)>> {
        windows_of(time, slide, size).map(Iterator::collect)
    }

    #[test]
    fn windows_contain_their_start_and_not_their_end() {
        assert_eq!(windows(10, 5, 10), Some(vec![(10, 20), (5, 15)]));
        assert_eq!(windows(9, 5, 10), Some(vec![(5, 15), (0, 10)]));
        assert_eq!(windows(-1, 10, 10), Some(vec![(-10, 0)]));
        assert_eq!(windows(7, 10, 5), Some(vec![]), "between two windows");
        assert_eq!(windows(3, 10, 5), Some(vec![(0, 5)]));
    }

    #[test]
    fn a_window_that_no_timestamp_bounds_is_none() {
        for time in [i64::MIN, i64::MIN + 9, i64::MAX, i64::MAX / 10 * 10] {
            assert_eq!(windows(time, 10, 10), None, "{time}");
        }
        // The first and the last time whose windows can be told.
        let last = i64::MAX / 10 * 10 - 1;
        assert_eq!(windows(last, 10, 10), Some(vec![(last - 9, last + 1)]));
        let first = i64::MIN / 10 * 10;
        assert_eq!(windows(i64::MIN + 10, 10, 10), Some(vec![(first, first + 10)]));
    }
}
