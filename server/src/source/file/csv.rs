//! Comma-separated values. With `header = 'true'` columns are found by name, otherwise by place. An empty field is
//! null.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_csv::ReaderBuilder;
use arrow_csv::reader::Format;

use super::columns::Mapping;
use super::{Batches, in_file};

/// The names in the first line, in the file's order.
fn header_names(path: &Path) -> Result<Vec<String>, String> {
    let file = File::open(path).map_err(|error| in_file(path, error))?;
    let (schema, _) = Format::default()
        .with_header(true)
        .infer_schema(BufReader::new(file), Some(0))
        .map_err(|error| in_file(path, error))?;
    Ok(schema.fields().iter().map(|field| field.name().clone()).collect())
}

/// The file's columns with the types of the source's; those it lacks are text.
fn file_schema(path: &Path, columns: &SchemaRef) -> Result<Schema, String> {
    let type_of = |name: &str| {
        columns
            .fields()
            .iter()
            .find(|field| field.name().eq_ignore_ascii_case(name))
            .map_or(DataType::Utf8, |field| field.data_type().clone())
    };
    let fields: Vec<Field> = header_names(path)?
        .into_iter()
        .map(|name| {
            let data_type = type_of(&name);
            Field::new(name, data_type, true)
        })
        .collect();
    Ok(Schema::new(fields))
}

pub fn open(
    path: &Path,
    columns: &SchemaRef,
    header: bool,
    skip: u64,
    batch_rows: usize,
) -> Result<Batches, String> {
    let file_schema = match header {
        true => file_schema(path, columns)?,
        false => (**columns).clone(),
    };
    let mapping = Mapping::of(path, &file_schema, columns)?;
    let skip = usize::try_from(skip).map_err(|_| in_file(path, "it has not that many rows"))?;
    let file = File::open(path).map_err(|error| in_file(path, error))?;
    let reader = ReaderBuilder::new(Arc::new(file_schema))
        .with_header(header)
        .with_projection(mapping.needed())
        .with_bounds(skip, usize::MAX - 1)
        .with_batch_size(batch_rows)
        .build(file)
        .map_err(|error| in_file(path, error))?;
    Ok(Box::new(reader.map(move |batch| {
        let batch = batch.map_err(|error| error.to_string())?;
        mapping.apply(&batch)
    })))
}

pub fn count(path: &Path, header: bool) -> Result<u64, String> {
    let fail = |error: &dyn std::fmt::Display| in_file(path, error);
    let file = File::open(path).map_err(|error| fail(&error))?;
    // Without a header the first row says how many columns there are; everything is text.
    let names = match header {
        true => header_names(path)?,
        false => {
            let (schema, _) = Format::default()
                .infer_schema(BufReader::new(&file), Some(1))
                .map_err(|error| fail(&error))?;
            schema.fields().iter().map(|field| field.name().clone()).collect()
        }
    };
    if names.is_empty() {
        return Ok(0);
    }
    let fields: Vec<Field> = names
        .into_iter()
        .map(|name| Field::new(name, DataType::Utf8, true))
        .collect();
    let file = File::open(path).map_err(|error| fail(&error))?;
    let reader = ReaderBuilder::new(Arc::new(Schema::new(fields)))
        .with_header(header)
        .with_projection(vec![0])
        .with_batch_size(super::BATCH_ROWS)
        .build(file)
        .map_err(|error| fail(&error))?;
    let mut rows = 0;
    for batch in reader {
        rows += batch.map_err(|error| fail(&error))?.num_rows() as u64;
    }
    Ok(rows)
}
