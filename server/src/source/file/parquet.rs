//! Parquet files: whole row groups are left out where rows are skipped.

use std::fs::File;
use std::path::Path;

use arrow::datatypes::SchemaRef;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::columns::Mapping;
use super::{Batches, in_file};

fn builder(path: &Path) -> Result<ParquetRecordBatchReaderBuilder<File>, String> {
    let file = File::open(path).map_err(|error| in_file(path, error))?;
    ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| in_file(path, error))
}

pub fn open(path: &Path, columns: &SchemaRef, skip: u64, batch_rows: usize) -> Result<Batches, String> {
    let builder = builder(path)?;
    let mapping = Mapping::of(path, builder.schema(), columns)?;
    let mask = ProjectionMask::roots(builder.parquet_schema(), mapping.needed());
    let mut before = usize::try_from(skip).map_err(|_| in_file(path, "it has not that many rows"))?;
    let mut groups = Vec::new();
    for (number, group) in builder.metadata().row_groups().iter().enumerate() {
        let rows = usize::try_from(group.num_rows()).unwrap_or(0);
        if groups.is_empty() && before >= rows {
            before -= rows;
        } else {
            groups.push(number);
        }
    }
    let mut builder = builder
        .with_projection(mask)
        .with_batch_size(batch_rows)
        .with_row_groups(groups);
    if before > 0 {
        builder = builder.with_offset(before);
    }
    let reader = builder.build().map_err(|error| in_file(path, error))?;
    Ok(Box::new(reader.map(move |batch| {
        let batch = batch.map_err(|error| error.to_string())?;
        mapping.apply(&batch)
    })))
}

pub fn count(path: &Path) -> Result<u64, String> {
    let rows = builder(path)?.metadata().file_metadata().num_rows();
    u64::try_from(rows).map_err(|_| in_file(path, "its number of rows is negative"))
}

pub fn schema(path: &Path) -> Result<SchemaRef, String> {
    builder(path).map(|builder| builder.schema().clone())
}
