//! Reading the rows of a section that a peer sent, and moving rows between batches.
//!
//! A section is untrusted: the number of its columns, their types and their nulls are checked before any of
//! it is used. Names are not: the fingerprint beside the section says that both sides mean the same columns.

use std::collections::BTreeSet;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch};
use arrow::compute::interleave;
use arrow::datatypes::{DataType, Int64Type};
use tributary_storage::Keys;

use crate::error::{ReplicationError, Result};
use crate::frontier::Epoch;

/// What one column of a section must be.
pub(crate) struct Expected {
    /// Its type.
    pub(crate) data_type: DataType,
    /// Whether it may hold nulls.
    pub(crate) nullable: bool,
}

/// Refuses rows whose columns are not the expected ones.
pub(crate) fn check_columns(what: &str, rows: &RecordBatch, expected: &[Expected]) -> Result<()> {
    if rows.num_columns() != expected.len() {
        let detail = format!("{} columns, expected {}", rows.num_columns(), expected.len());
        return Err(ReplicationError::corrupt(what, detail));
    }
    for (i, (column, expected)) in rows.columns().iter().zip(expected).enumerate() {
        if *column.data_type() != expected.data_type {
            let detail =
                format!("column {i} has type {}, expected {}", column.data_type(), expected.data_type);
            return Err(ReplicationError::corrupt(what, detail));
        }
        if !expected.nullable && column.null_count() > 0 {
            return Err(ReplicationError::corrupt(what, format!("column {i} holds a null")));
        }
    }
    Ok(())
}

/// Refuses rows that name a key twice.
pub(crate) fn check_distinct(what: &str, keys: &Keys) -> Result<()> {
    if keys.iter().collect::<BTreeSet<_>>().len() != keys.len() {
        return Err(ReplicationError::corrupt(what, "a key occurs twice"));
    }
    Ok(())
}

/// Reads a column of stamps; each must be an epoch later than 0.
pub(crate) fn stamps(what: &str, column: &ArrayRef) -> Result<Vec<Epoch>> {
    int64(column)
        .values()
        .iter()
        .map(|value| match Epoch::from_i64(*value) {
            Some(epoch) if epoch > Epoch(0) => Ok(epoch),
            _ => Err(ReplicationError::corrupt(what, format!("stamp {value} is not an epoch"))),
        })
        .collect()
}

/// A column whose type was checked.
pub(crate) fn int64(column: &ArrayRef) -> &Int64Array {
    column.as_primitive_opt::<Int64Type>().expect("the type of the column was checked before")
}

/// A column whose type was checked.
pub(crate) fn boolean(column: &ArrayRef) -> &BooleanArray {
    column.as_boolean_opt().expect("the type of the column was checked before")
}

/// Builds columns from rows of several sources: `picks` are (source, row) pairs. All sources have the same
/// column types.
pub(crate) fn pick(sources: &[&[ArrayRef]], picks: &[(usize, usize)]) -> Vec<ArrayRef> {
    let columns = sources.first().map_or(0, |columns| columns.len());
    (0..columns)
        .map(|column| {
            let arrays: Vec<&dyn Array> = sources.iter().map(|columns| columns[column].as_ref()).collect();
            interleave(&arrays, picks).expect("the sources have equal types and the picks lie within them")
        })
        .collect()
}
