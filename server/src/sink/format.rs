//! Changes as rows of a file: the view's columns, then what happened and at which position.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use tributary_planner::catalog::{SINK_OP, SINK_POSITION};
use tributary_storage::Delta;

const CSV_TIMESTAMP: &str = "%Y-%m-%dT%H:%M:%S%.6f";
const BUFFER_BYTES: usize = 1 << 20;

/// How a segment is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object per line.
    Ndjson,
    /// Comma-separated values, names first.
    Csv,
    /// Apache Parquet.
    Parquet,
}

impl Format {
    /// The format of this name.
    pub fn named(name: &str) -> Option<Format> {
        Some(match name {
            "ndjson" => Format::Ndjson,
            "csv" => Format::Csv,
            "parquet" => Format::Parquet,
            _ => return None,
        })
    }

    /// What names of files end with.
    pub fn extension(self) -> &'static str {
        match self {
            Format::Ndjson => "ndjson",
            Format::Csv => "csv",
            Format::Parquet => "parquet",
        }
    }
}

/// The columns of a file: the view's, and the sink's own.
pub fn file_schema(view: &SchemaRef) -> SchemaRef {
    let mut fields: Vec<Field> = view.fields().iter().map(|field| (**field).clone()).collect();
    fields.push(Field::new(SINK_OP, DataType::Utf8, false));
    fields.push(Field::new(SINK_POSITION, DataType::Int64, false));
    Arc::new(Schema::new(fields))
}

/// Changes as rows: one for each time that a row came or went.
pub fn rows(schema: &SchemaRef, delta: &Delta, position: u64) -> Result<RecordBatch, String> {
    let once = delta
        .weights()
        .is_none_or(|weights| weights.values().iter().all(|weight| weight.unsigned_abs() == 1));
    let (batch, ops): (RecordBatch, StringArray) = match once {
        true => {
            let ops = (0..delta.len()).map(|row| Some(op(delta.weight(row)))).collect();
            (delta.rows().clone(), ops)
        }
        false => {
            let repeated = |row: usize| {
                let times = usize::try_from(delta.weight(row).unsigned_abs()).unwrap_or(usize::MAX);
                std::iter::repeat_n(row, times)
            };
            let numbers: Vec<usize> = (0..delta.len()).flat_map(repeated).collect();
            let indices = UInt32Array::from_iter_values(
                numbers.iter().map(|row| u32::try_from(*row).unwrap_or(u32::MAX)),
            );
            let batch = take_record_batch(delta.rows(), &indices).map_err(|error| error.to_string())?;
            let ops = numbers.iter().map(|row| Some(op(delta.weight(*row)))).collect();
            (batch, ops)
        }
    };
    let position = i64::try_from(position).map_err(|error| error.to_string())?;
    let mut columns: Vec<ArrayRef> = batch.columns().to_vec();
    columns.push(Arc::new(ops));
    columns.push(Arc::new(Int64Array::from_value(position, batch.num_rows())));
    RecordBatch::try_new(schema.clone(), columns).map_err(|error| error.to_string())
}

fn op(weight: i64) -> &'static str {
    if weight > 0 { "insert" } else { "delete" }
}

/// A file in the making.
pub enum Writer {
    /// One JSON object per line.
    Ndjson(Box<arrow_json::Writer<BufWriter<File>, arrow_json::writer::LineDelimited>>),
    /// Comma-separated values.
    Csv(Box<arrow_csv::Writer<BufWriter<File>>>),
    /// Apache Parquet.
    Parquet(Box<ArrowWriter<File>>),
}

impl Writer {
    /// A file without rows.
    pub fn new(format: Format, file: File, schema: &SchemaRef) -> Result<Writer, String> {
        Ok(match format {
            Format::Ndjson => {
                let builder = arrow_json::WriterBuilder::new().with_explicit_nulls(true);
                Writer::Ndjson(Box::new(builder.build(buffered(file))))
            }
            Format::Csv => {
                let builder = arrow_csv::WriterBuilder::new()
                    .with_header(true)
                    .with_timestamp_format(CSV_TIMESTAMP.to_owned())
                    .with_timestamp_tz_format(format!("{CSV_TIMESTAMP}%:z"));
                let mut writer = builder.build(buffered(file));
                // The names stand in a file without rows too.
                writer
                    .write(&RecordBatch::new_empty(schema.clone()))
                    .map_err(|error| error.to_string())?;
                Writer::Csv(Box::new(writer))
            }
            Format::Parquet => {
                let properties = WriterProperties::builder()
                    .set_compression(Compression::SNAPPY)
                    .build();
                let writer = ArrowWriter::try_new(file, schema.clone(), Some(properties));
                Writer::Parquet(Box::new(writer.map_err(|error| error.to_string())?))
            }
        })
    }

    /// Adds rows.
    pub fn write(&mut self, rows: &RecordBatch) -> Result<(), String> {
        match self {
            Writer::Ndjson(writer) => writer.write(rows).map_err(|error| error.to_string()),
            Writer::Csv(writer) => writer.write(rows).map_err(|error| error.to_string()),
            Writer::Parquet(writer) => writer.write(rows).map_err(|error| error.to_string()),
        }
    }

    /// Ends the file and makes it durable; its size.
    pub fn finish(self) -> Result<u64, String> {
        let file = match self {
            Writer::Ndjson(mut writer) => {
                writer.finish().map_err(|error| error.to_string())?;
                unbuffered(writer.into_inner())?
            }
            Writer::Csv(writer) => unbuffered(writer.into_inner())?,
            Writer::Parquet(writer) => writer.into_inner().map_err(|error| error.to_string())?,
        };
        file.sync_all()
            .and_then(|()| file.metadata())
            .map(|metadata| metadata.len())
            .map_err(|error| error.to_string())
    }
}

fn buffered(file: File) -> BufWriter<File> {
    BufWriter::with_capacity(BUFFER_BYTES, file)
}

fn unbuffered(mut buffered: BufWriter<File>) -> Result<File, String> {
    buffered.flush().map_err(|error| error.to_string())?;
    buffered.into_inner().map_err(|error| error.to_string())
}
