//! Rows of catalog tables, given by column name; columns that are not given get the zero of their type (or null, where
//! the column may be null).

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, BooleanArray, Float32Array, Float64Array, Int16Array, Int16Builder, Int32Array, Int64Array,
    ListBuilder, RecordBatch, StringArray, new_null_array,
};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::error::Result;

/// A value.
#[derive(Clone, Debug)]
pub(super) enum Cell {
    Int(i64),
    Text(String),
    Bool(bool),
    Ints(Vec<i16>),
}

/// The type of a list of small integers (`int2vector`, `int2[]`).
pub(super) fn small_integers() -> DataType {
    DataType::List(Arc::new(Field::new_list_field(DataType::Int16, true)))
}

/// The type of a list of texts.
pub(super) fn texts() -> DataType {
    DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)))
}

impl From<u32> for Cell {
    fn from(value: u32) -> Self {
        Cell::Int(value.into())
    }
}

impl From<i64> for Cell {
    fn from(value: i64) -> Self {
        Cell::Int(value)
    }
}

impl From<bool> for Cell {
    fn from(value: bool) -> Self {
        Cell::Bool(value)
    }
}

impl From<&str> for Cell {
    fn from(value: &str) -> Self {
        Cell::Text(value.into())
    }
}

impl From<String> for Cell {
    fn from(value: String) -> Self {
        Cell::Text(value)
    }
}

/// Collects rows.
pub(super) struct Rows {
    schema: SchemaRef,
    rows: Vec<BTreeMap<&'static str, Cell>>,
}

impl Rows {
    /// No rows yet, of the columns of a schema and of more columns, which replace those of the same name.
    pub(super) fn new(schema: Option<SchemaRef>, more: &[(&str, DataType)]) -> Self {
        let mut fields: Vec<Arc<Field>> = schema
            .iter()
            .flat_map(|schema| schema.fields().iter().cloned())
            .collect();
        for (name, data_type) in more {
            let field = Arc::new(Field::new(*name, data_type.clone(), true));
            match fields.iter_mut().find(|field| field.name() == name) {
                Some(known) => *known = field,
                None => fields.push(field),
            }
        }
        Self {
            schema: Arc::new(Schema::new(fields)),
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub(super) fn push<const N: usize>(&mut self, cells: [(&'static str, Cell); N]) {
        self.rows.push(BTreeMap::from(cells));
    }

    /// The rows as a batch.
    pub(super) fn finish(self) -> Result<RecordBatch> {
        let columns = self
            .schema
            .fields()
            .iter()
            .map(|field| self.column(field))
            .collect::<Result<Vec<_>>>()?;
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }

    fn column(&self, field: &Field) -> Result<ArrayRef> {
        let cells = || self.rows.iter().map(|row| row.get(field.name().as_str()));
        // Most columns of the crate are nullable whether or not PostgreSQL's are; zero is the better default for
        // numbers and flags, null for texts.
        let int = |cell: Option<&Cell>| match cell {
            Some(Cell::Int(value)) => *value,
            Some(Cell::Bool(value)) => i64::from(*value),
            Some(Cell::Text(value)) => value.parse().unwrap_or(0),
            Some(Cell::Ints(_)) | None => 0,
        };
        let text = |cell: Option<&Cell>| match cell {
            Some(Cell::Text(value)) => Some(value.clone()),
            Some(Cell::Int(value)) => Some(value.to_string()),
            Some(Cell::Bool(value)) => Some(if *value { "t" } else { "f" }.to_string()),
            Some(Cell::Ints(values)) => Some(values.iter().map(i16::to_string).collect::<Vec<_>>().join(" ")),
            None => (!field.is_nullable()).then(String::new),
        };
        let array: ArrayRef = match field.data_type() {
            DataType::Boolean => Arc::new(BooleanArray::from_iter(cells().map(|cell| Some(int(cell) != 0)))),
            DataType::Int16 => Arc::new(Int16Array::from_iter_values(cells().map(|cell| int(cell) as i16))),
            DataType::Int32 => Arc::new(Int32Array::from_iter_values(cells().map(|cell| int(cell) as i32))),
            DataType::Int64 => Arc::new(Int64Array::from_iter_values(cells().map(int))),
            DataType::Float32 => Arc::new(Float32Array::from_iter_values(
                cells().map(|cell| int(cell) as f32),
            )),
            DataType::Float64 => Arc::new(Float64Array::from_iter_values(
                cells().map(|cell| int(cell) as f64),
            )),
            DataType::Utf8 => Arc::new(StringArray::from_iter(cells().map(text))),
            DataType::LargeUtf8 | DataType::Utf8View => {
                let texts: ArrayRef = Arc::new(StringArray::from_iter(cells().map(text)));
                cast(&texts, field.data_type())?
            }
            list if *list == small_integers() => {
                let mut builder = ListBuilder::new(Int16Builder::new());
                for cell in cells() {
                    match cell {
                        Some(Cell::Ints(values)) => builder.append_value(values.iter().copied().map(Some)),
                        _ => builder.append_null(),
                    }
                }
                Arc::new(builder.finish())
            }
            other => new_null_array(other, self.rows.len()),
        };
        Ok(array)
    }
}
