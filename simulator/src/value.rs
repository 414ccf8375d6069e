//! Single values and rows, and their way from and to Arrow.
//!
//! The oracle works on these and nothing else, so that it shares no code with the operators it judges. The
//! order of values is the order that SQL gives them within one column, nulls first.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Float64Array, Int16Array, Int32Array,
    Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{
    DataType, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, SchemaRef, TimeUnit,
    TimestampMicrosecondType,
};

/// One value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// NULL.
    Null,
    /// A boolean.
    Bool(bool),
    /// An integer of any width, or the microseconds of a timestamp.
    Int(i64),
    /// A decimal: `unscaled / 10^scale`.
    Decimal {
        /// Digits after the point.
        scale: i8,
        /// The value without its point.
        unscaled: i128,
    },
    /// A float of any width.
    Float(Float),
    /// Text.
    Text(String),
}

/// A float with a total order and one zero.
#[derive(Clone, Copy, Debug)]
pub struct Float(f64);

impl Float {
    /// The float, with minus zero made zero.
    pub fn new(value: f64) -> Self {
        Self(if value == 0.0 { 0.0 } else { value })
    }

    /// The float.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl PartialEq for Float {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Float {}

impl PartialOrd for Float {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Float {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// A row.
pub type Row = Vec<Value>;
/// A bag of rows, in no particular order.
pub type Rows = Vec<Row>;

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => f.write_str("NULL"),
            Value::Bool(value) => write!(f, "{value}"),
            Value::Int(value) => write!(f, "{value}"),
            Value::Decimal { scale, unscaled } => write!(f, "{unscaled}e-{scale}"),
            Value::Float(value) => write!(f, "{:?}", value.0),
            Value::Text(value) => write!(f, "{value:?}"),
        }
    }
}

/// A row as text.
pub fn show_row(row: &[Value]) -> String {
    let values: Vec<String> = row.iter().map(ToString::to_string).collect();
    format!("({})", values.join(", "))
}

/// The value of one cell; an error for types that the simulator does not use.
pub fn cell(column: &ArrayRef, row: usize) -> Result<Value, String> {
    if column.is_null(row) {
        return Ok(Value::Null);
    }
    Ok(match column.data_type() {
        DataType::Null => Value::Null,
        DataType::Boolean => Value::Bool(column.as_boolean().value(row)),
        DataType::Int16 => Value::Int(i64::from(column.as_primitive::<Int16Type>().value(row))),
        DataType::Int32 => Value::Int(i64::from(column.as_primitive::<Int32Type>().value(row))),
        DataType::Int64 => Value::Int(column.as_primitive::<Int64Type>().value(row)),
        DataType::Timestamp(TimeUnit::Microsecond, None) => {
            Value::Int(column.as_primitive::<TimestampMicrosecondType>().value(row))
        }
        DataType::Float32 => Value::Float(Float::new(f64::from(
            column.as_primitive::<Float32Type>().value(row),
        ))),
        DataType::Float64 => Value::Float(Float::new(column.as_primitive::<Float64Type>().value(row))),
        DataType::Decimal128(_, scale) => Value::Decimal {
            scale: *scale,
            unscaled: column.as_primitive::<Decimal128Type>().value(row),
        },
        DataType::Utf8 => Value::Text(column.as_string::<i32>().value(row).to_owned()),
        DataType::LargeUtf8 => Value::Text(column.as_string::<i64>().value(row).to_owned()),
        DataType::Utf8View => Value::Text(column.as_string_view().value(row).to_owned()),
        other => return Err(format!("a value of type {other}")),
    })
}

/// One row of a batch, restricted to its first `columns` columns.
pub fn row_of(batch: &RecordBatch, row: usize, columns: usize) -> Result<Row, String> {
    batch.columns()[..columns]
        .iter()
        .map(|column| cell(column, row))
        .collect()
}

/// A batch of rows in these columns.
///
/// # Errors
/// For types that the simulator does not use, and values of another type than their column's.
pub fn batch_of(schema: &SchemaRef, rows: &[Row]) -> Result<RecordBatch, String> {
    let columns = schema.fields().iter().enumerate();
    let columns: Vec<ArrayRef> = columns
        .map(|(index, field)| column_of(field.data_type(), rows.iter().map(|row| &row[index])))
        .collect::<Result<_, _>>()?;
    RecordBatch::try_new(schema.clone(), columns).map_err(|error| error.to_string())
}

fn column_of<'a>(data_type: &DataType, values: impl Iterator<Item = &'a Value>) -> Result<ArrayRef, String> {
    let wrong = |value: &Value| format!("the value {value} in a column of type {data_type}");
    macro_rules! build {
        ($array:ty, $pattern:pat => $result:expr) => {{
            let mut built = Vec::new();
            for value in values {
                built.push(match value {
                    Value::Null => None,
                    $pattern => Some($result),
                    other => return Err(wrong(other)),
                });
            }
            Arc::new(<$array>::from(built)) as ArrayRef
        }};
    }
    let narrow = |_| format!("an integer too large for {data_type}");
    Ok(match data_type {
        DataType::Boolean => build!(BooleanArray, Value::Bool(value) => *value),
        DataType::Int16 => build!(Int16Array, Value::Int(value) => i16::try_from(*value).map_err(narrow)?),
        DataType::Int32 => build!(Int32Array, Value::Int(value) => i32::try_from(*value).map_err(narrow)?),
        DataType::Int64 => build!(Int64Array, Value::Int(value) => *value),
        DataType::Timestamp(TimeUnit::Microsecond, None) => {
            build!(TimestampMicrosecondArray, Value::Int(value) => *value)
        }
        DataType::Float64 => build!(Float64Array, Value::Float(value) => value.get()),
        DataType::Utf8 => build!(StringArray, Value::Text(value) => value.as_str()),
        DataType::Decimal128(precision, scale) => {
            let mut built = Vec::new();
            for value in values {
                built.push(match value {
                    Value::Null => None,
                    Value::Decimal {
                        scale: given,
                        unscaled,
                    } if given == scale => Some(*unscaled),
                    other => return Err(wrong(other)),
                });
            }
            let array = Decimal128Array::from(built).with_precision_and_scale(*precision, *scale);
            Arc::new(array.map_err(|error| error.to_string())?)
        }
        other => return Err(format!("a column of type {other}")),
    })
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{Field, Schema};

    use super::*;

    #[test]
    fn rows_survive_arrow() {
        let schema = Arc::new(Schema::new(vec![
            Field::new("a", DataType::Int32, false),
            Field::new("b", DataType::Utf8, true),
            Field::new("c", DataType::Decimal128(12, 2), true),
            Field::new("d", DataType::Float64, true),
        ]));
        let rows: Rows = vec![
            vec![
                Value::Int(1),
                Value::Text("x".into()),
                Value::Decimal {
                    scale: 2,
                    unscaled: 150,
                },
                Value::Float(Float::new(-0.0)),
            ],
            vec![Value::Int(2), Value::Null, Value::Null, Value::Null],
        ];
        let batch = batch_of(&schema, &rows).expect("the types fit");
        let read: Rows = (0..2)
            .map(|row| row_of(&batch, row, 4).expect("known types"))
            .collect();
        assert_eq!(read, rows);
        assert!(
            batch_of(
                &schema,
                &[vec![Value::Null, Value::Int(1), Value::Null, Value::Null]]
            )
            .is_err()
        );
    }
}
