//! Rows as plain values, and their way into Arrow batches and back.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, Decimal128Array, Float64Array, Int64Array, RecordBatch, StringArray,
};
use arrow::datatypes::{DataType, Field, Schema};
use tributary_storage::Delta;

/// One value; the order is that of keys: nulls first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    /// Unscaled.
    Decimal(i128),
    /// Quarters, so that every sum is exact.
    Quarters(i64),
    Text(String),
}

pub type Row = Vec<Value>;

/// A Z-set of rows, without zero weights.
pub type Bag = BTreeMap<Row, i64>;

pub fn add(bag: &mut Bag, row: Row, weight: i64) {
    let sum = bag.entry(row.clone()).or_default();
    *sum += weight;
    if *sum == 0 {
        bag.remove(&row);
    }
}

/// The bag as a delta with columns of the given types.
pub fn delta(types: &[DataType], bag: &[(Row, i64)]) -> Delta {
    let fields: Vec<Field> = types
        .iter()
        .enumerate()
        .map(|(i, t)| Field::new(format!("x{i}"), t.clone(), true))
        .collect();
    let columns = types
        .iter()
        .enumerate()
        .map(|(i, t)| column(t, bag.iter().map(|(row, _)| &row[i])))
        .collect();
    let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("typed rows");
    Delta::new(rows, Some(bag.iter().map(|(_, weight)| Some(*weight)).collect()))
}

fn column<'a>(data_type: &DataType, values: impl Iterator<Item = &'a Value>) -> ArrayRef {
    match data_type {
        DataType::Int64 => Arc::new(
            values
                .map(|v| if let Value::Int(i) = v { Some(*i) } else { None })
                .collect::<Int64Array>(),
        ),
        DataType::Float64 => Arc::new(
            values
                .map(|v| {
                    if let Value::Quarters(q) = v {
                        Some(*q as f64 / 4.0)
                    } else {
                        None
                    }
                })
                .collect::<Float64Array>(),
        ),
        DataType::Utf8 => Arc::new(
            values
                .map(|v| {
                    if let Value::Text(t) = v {
                        Some(t.clone())
                    } else {
                        None
                    }
                })
                .collect::<StringArray>(),
        ),
        other => panic!("tables have no {other}"),
    }
}

/// A delta added to a bag.
pub fn apply(bag: &mut Bag, delta: &Delta) {
    for row in 0..delta.len() {
        let values = delta
            .rows()
            .columns()
            .iter()
            .map(|column| value(column, row))
            .collect();
        add(bag, values, delta.weight(row));
    }
}

fn value(column: &ArrayRef, row: usize) -> Value {
    if column.is_null(row) {
        return Value::Null;
    }
    let any = column.as_any();
    match column.data_type() {
        DataType::Boolean => Value::Bool(any.downcast_ref::<BooleanArray>().expect("typed").value(row)),
        DataType::Int64 => Value::Int(any.downcast_ref::<Int64Array>().expect("typed").value(row)),
        DataType::Decimal128(..) => {
            Value::Decimal(any.downcast_ref::<Decimal128Array>().expect("typed").value(row))
        }
        DataType::Float64 => {
            let quarters = any.downcast_ref::<Float64Array>().expect("typed").value(row) * 4.0;
            assert_eq!(quarters.fract(), 0.0, "results of quarters are quarters");
            Value::Quarters(quarters as i64)
        }
        DataType::Utf8 => Value::Text(
            any.downcast_ref::<StringArray>()
                .expect("typed")
                .value(row)
                .to_string(),
        ),
        other => panic!("results have no {other}"),
    }
}
