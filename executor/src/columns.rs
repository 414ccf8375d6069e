//! Schemas and batches as the operators use them: columns have types and positions; names matter to nobody.
//!
//! Every field is nullable. Column order is the meaning: plans refer to columns by index.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

/// A schema of nullable columns with the given types.
pub(crate) fn schema_of(types: &[DataType]) -> SchemaRef {
    let fields = types
        .iter()
        .enumerate()
        .map(|(i, t)| Field::new(format!("c{i}"), t.clone(), true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// The types of a schema's columns.
pub(crate) fn types_of(schema: &Schema) -> Vec<DataType> {
    schema
        .fields()
        .iter()
        .map(|field| field.data_type().clone())
        .collect()
}

/// A batch of `rows` rows, also when there are no columns.
///
/// # Panics
/// When the columns are not those of the schema.
pub(crate) fn batch_of(schema: SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> RecordBatch {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    match RecordBatch::try_new_with_options(schema, columns, &options) {
        Ok(batch) => batch,
        Err(error) => panic!("the columns of an operator have its types: {error}"),
    }
}

/// The columns' values at the given rows.
pub(crate) fn take_all(columns: &[ArrayRef], rows: &UInt32Array) -> Vec<ArrayRef> {
    columns
        .iter()
        .map(|c| take(c, rows, None).expect("row indices lie within the batch"))
        .collect()
}

/// The array as the type it is known to have.
///
/// # Panics
/// When it has another type.
pub(crate) fn downcast<T: Array + 'static>(array: &ArrayRef) -> &T {
    match array.as_any().downcast_ref::<T>() {
        Some(array) => array,
        None => panic!(
            "a column of type {} is read as {}",
            array.data_type(),
            std::any::type_name::<T>()
        ),
    }
}

/// The `i64` values of a column that has no nulls.
pub(crate) fn int64_values(array: &ArrayRef) -> &[i64] {
    debug_assert_eq!(array.null_count(), 0, "the column has no nulls");
    downcast::<Int64Array>(array).values()
}

/// An array of nulls is what an absent row looks like.
pub(crate) fn nulls(types: &[DataType], rows: usize) -> Vec<ArrayRef> {
    types
        .iter()
        .map(|data_type| arrow::array::new_null_array(data_type, rows))
        .collect()
}
