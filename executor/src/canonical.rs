//! Equal floats as equal bytes.
//!
//! Keys are compared as bytes in an order that tells -0.0 from 0.0 and one NaN from another; SQL does not.
//! So floats are made canonical wherever they *identify* something: group keys, distinct rows, join keys,
//! sort keys. Values that are only carried along stay as they are: where a canonical key would replace a row's
//! own value, [`KeyColumns`] appends it as an extra column instead.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array, Float64Array, RecordBatch};
use arrow::datatypes::{DataType, Float32Type, Float64Type, SchemaRef};

use crate::columns::{batch_of, downcast, schema_of, types_of};

/// The column with -0.0 as 0.0 and one NaN for all; other types unchanged.
pub(crate) fn canonical(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Float32 => {
            let column = downcast::<Float32Array>(column);
            Arc::new(column.unary::<_, Float32Type>(|v| if v.is_nan() { f32::NAN } else { v + 0.0 }))
        }
        DataType::Float64 => {
            let column = downcast::<Float64Array>(column);
            Arc::new(column.unary::<_, Float64Type>(|v| if v.is_nan() { f64::NAN } else { v + 0.0 }))
        }
        _ => column.clone(),
    }
}

/// All columns made canonical.
pub(crate) fn canonical_all(columns: &[ArrayRef]) -> Vec<ArrayRef> {
    columns.iter().map(canonical).collect()
}

/// Rows extended by canonical copies of those key columns that are floats, and where the key then is.
#[derive(Clone, Debug)]
pub(crate) struct KeyColumns {
    /// The schema of extended rows: the rows' own columns, then the copies.
    pub(crate) schema: SchemaRef,
    /// The key columns within extended rows.
    pub(crate) key: Vec<usize>,
    own: usize,
    copied: Vec<usize>,
}

impl KeyColumns {
    /// For rows of the given types with the key at `key`. A column may occur in the key twice: the second
    /// time stands for a copy, since a trace gives a column one role only.
    pub(crate) fn new(types: &[DataType], key: &[usize]) -> Self {
        let mut extended = types.to_vec();
        let mut copied = Vec::new();
        let mut located: Vec<usize> = Vec::with_capacity(key.len());
        for &column in key {
            if types[column].is_floating() || located.contains(&column) {
                located.push(extended.len());
                copied.push(column);
                extended.push(types[column].clone());
            } else {
                located.push(column);
            }
        }
        Self {
            schema: schema_of(&extended),
            key: located,
            own: types.len(),
            copied,
        }
    }

    /// The rows with the copies appended.
    pub(crate) fn extend(&self, rows: &RecordBatch) -> RecordBatch {
        let mut columns = rows.columns().to_vec();
        columns.extend(self.copied.iter().map(|&column| canonical(rows.column(column))));
        batch_of(self.schema.clone(), columns, rows.num_rows())
    }

    /// The key of extended rows.
    pub(crate) fn keys(&self, extended: &RecordBatch) -> Vec<ArrayRef> {
        self.key
            .iter()
            .map(|&column| extended.column(column).clone())
            .collect()
    }

    /// The rows' own columns.
    pub(crate) fn own(&self, extended: &RecordBatch) -> RecordBatch {
        let types = types_of(&extended.schema());
        batch_of(
            schema_of(&types[..self.own]),
            extended.columns()[..self.own].to_vec(),
            extended.num_rows(),
        )
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;
    use tributary_storage::KeyEncoder;

    use super::*;

    #[test]
    fn zeros_and_nans_are_one_key_each() {
        let odd_nan = f64::from_bits(0xfff8_0000_0000_0001);
        let column: ArrayRef = Arc::new(Float64Array::from(vec![-0.0, 0.0, f64::NAN, odd_nan, 1.5]));
        let keys = KeyEncoder::new(&[DataType::Float64]).encode(&[canonical(&column)]);
        assert_eq!(keys.get(0), keys.get(1));
        assert_eq!(keys.get(2), keys.get(3));
        assert_ne!(keys.get(0), keys.get(4));
    }

    #[test]
    fn carried_floats_keep_their_sign() {
        let key = KeyColumns::new(&[DataType::Float64, DataType::Int64], &[0, 1, 1]);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Float64Array::from(vec![-0.0])),
            Arc::new(Int64Array::from(vec![7])),
        ];
        let rows = batch_of(schema_of(&[DataType::Float64, DataType::Int64]), columns, 1);
        let extended = key.extend(&rows);
        assert_eq!(key.key, vec![2, 1, 3]);
        assert!(
            downcast::<Float64Array>(extended.column(2))
                .value(0)
                .is_sign_positive()
        );
        assert!(
            downcast::<Float64Array>(key.own(&extended).column(0))
                .value(0)
                .is_sign_negative()
        );
    }
}
