//! Reading the rows of a section that a peer sent, and moving rows between batches.
//!
//! A section is untrusted: the number of its columns, their types and their nulls are checked before any of
//! it is used. Names are not: the fingerprint beside the section says that both sides mean the same columns.
//!
//! Also finding what goes into one: the values of an origin that are stamped later than an epoch.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch, interleave};
use arrow::datatypes::{DataType, Int64Type};
use tributary_storage::{Delta, Keys, OriginId, RunTrace, Trace};

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
            let detail = format!(
                "column {i} has type {}, expected {}",
                column.data_type(),
                expected.data_type
            );
            return Err(ReplicationError::corrupt(what, detail));
        }
        if !expected.nullable && column.null_count() > 0 {
            return Err(ReplicationError::corrupt(
                what,
                format!("column {i} holds a null"),
            ));
        }
    }
    Ok(())
}

/// Refuses rows that name a key twice.
pub(crate) fn check_distinct(what: &str, keys: &Keys) -> Result<()> {
    if keys.first_repeated().is_some() {
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
            _ => Err(ReplicationError::corrupt(
                what,
                format!("stamp {value} is not an epoch"),
            )),
        })
        .collect()
}

/// A column whose type was checked.
pub(crate) fn int64(column: &ArrayRef) -> &Int64Array {
    column
        .as_primitive_opt::<Int64Type>()
        .expect("the type of the column was checked before")
}

/// A column whose type was checked.
pub(crate) fn boolean(column: &ArrayRef) -> &BooleanArray {
    column
        .as_boolean_opt()
        .expect("the type of the column was checked before")
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

/// Rows per batch when runs are scanned for a section.
const SCAN_ROWS_MAX: usize = 8192;

/// Everything of `origin` in a trace that is stamped later than `since`. In column `origin_column` stands the
/// origin, behind it the stamp. The stamps of runs are this region's log positions, so only the changes of
/// `own` can be found by them; for other origins all runs are read.
pub(crate) fn changed_since(
    trace: &RunTrace,
    origin_column: usize,
    own: Option<OriginId>,
    origin: OriginId,
    since: Epoch,
) -> RecordBatch {
    let snapshot = trace.snapshot();
    let scan = if own == Some(origin) {
        snapshot.scan_since(since.0, SCAN_ROWS_MAX)
    } else {
        snapshot.scan(SCAN_ROWS_MAX)
    };
    let parts: Vec<RecordBatch> = scan
        .map(|delta| of_origin_since(&delta, origin_column, origin, since))
        .collect();
    concat_batches(&trace.layout().schema, &parts).expect("all parts have the schema of the trace")
}

/// The rows of `origin` that are held and stamped later than `since`.
pub(crate) fn of_origin_since(
    delta: &Delta,
    origin_column: usize,
    origin: OriginId,
    since: Epoch,
) -> RecordBatch {
    let rows = delta.rows();
    let (origins, stamps) = (
        int64(rows.column(origin_column)),
        int64(rows.column(origin_column + 1)),
    );
    let wanted: BooleanArray = (0..rows.num_rows())
        .map(|row| {
            let held = delta.weight(row) > 0;
            Some(held && origins.value(row) == origin.as_i64() && stamps.value(row) > since.as_i64())
        })
        .collect();
    filter_record_batch(rows, &wanted).expect("there is one verdict per row")
}
