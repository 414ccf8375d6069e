//! Runs as Arrow IPC streams: the trace's columns and a last one for the weights, in portions.
//!
//! The decoder of Arrow IPC is written for speed and may panic on bytes no encoder made. It sees only bytes
//! whose checksum was verified, and stands behind a boundary that turns a panic into an error all the same.
//! Streams are not compressed here: the decoder would allocate whatever length a compressed buffer claims,
//! which ends the process, and no boundary catches that. The key-value store compresses instead.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::ipc::reader::StreamDecoder;
use arrow::ipc::writer::StreamWriter;

use super::manifest::StoredObject;
use super::object::{ObjectReader, ObjectWriter, damaged};
use crate::Delta;
use crate::error::Result;
use crate::kv::Kv;
use crate::trace::RowCodec;
use crate::trace::{Layout, Run, RunId};

/// A portion ends at so many rows or encoded bytes, whichever comes first.
const PORTION_ROWS_MAX: usize = 16 << 10;
const PORTION_BYTES_MAX: usize = 4 << 20;

const WEIGHT_COLUMN: &str = "tributary_weight";

/// Stores a run under its id.
pub(super) fn write(kv: &dyn Kv, codec: &RowCodec, run: &Run) -> Result<StoredObject> {
    let mut writer = ObjectWriter::new(kv, run.id());
    let written = write_stream(&mut writer, codec, run).map_err(|error| error.to_string());
    writer.finish(written)
}

fn write_stream(
    out: &mut ObjectWriter<'_>,
    codec: &RowCodec,
    run: &Run,
) -> std::result::Result<(), arrow::error::ArrowError> {
    let schema = stored_schema(&codec.layout.schema);
    let mut stream = StreamWriter::try_new(out, &schema)?;
    let mut start = 0;
    while start < run.len() {
        let end = portion_end(run, start);
        let portion = run.decode(codec, start, end);
        let mut columns = portion.rows().columns().to_vec();
        columns.push(Arc::new(portion.weights_or_ones()) as ArrayRef);
        stream.write(&RecordBatch::try_new(schema.clone(), columns)?)?;
        start = end;
    }
    stream.finish()
}

fn portion_end(run: &Run, start: usize) -> usize {
    let (mut end, mut bytes) = (start, 0);
    while end < run.len() && end - start < PORTION_ROWS_MAX && bytes < PORTION_BYTES_MAX {
        bytes += run.rows().get(end).len();
        end += 1;
    }
    end
}

fn stored_schema(rows: &SchemaRef) -> SchemaRef {
    let mut fields: Vec<_> = rows.fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new(WEIGHT_COLUMN, DataType::Int64, false)));
    Arc::new(Schema::new(fields))
}

/// Reads a run back as portions of rows and weights, in the order they were written.
pub(super) fn read(kv: &dyn Kv, id: RunId, stored: StoredObject) -> Result<Vec<Delta>> {
    let name = format!("run {id}");
    let mut reader = ObjectReader::new(kv, &name, id, stored);
    let mut decoder = StreamDecoder::new();
    let mut portions = Vec::new();
    while let Some(chunk) = reader.next_chunk()? {
        let decoding = AssertUnwindSafe(|| decode_chunk(&mut decoder, chunk.into(), &mut portions));
        let decoded = catch_unwind(decoding).unwrap_or_else(|_| Err("the decoder stopped on it".into()));
        decoded.map_err(|message| damaged(&name, &format!("it cannot be decoded: {message}")))?;
    }
    decoder
        .finish()
        .map_err(|error| damaged(&name, &format!("it is incomplete: {error}")))?;
    Ok(portions)
}

fn decode_chunk(
    decoder: &mut StreamDecoder,
    mut chunk: Buffer,
    portions: &mut Vec<Delta>,
) -> std::result::Result<(), String> {
    while !chunk.is_empty() {
        if let Some(batch) = decoder.decode(&mut chunk).map_err(|error| error.to_string())? {
            portions.push(weighted(&batch)?);
        }
    }
    Ok(())
}

/// Takes the weights off a stored batch.
fn weighted(batch: &RecordBatch) -> std::result::Result<Delta, String> {
    let last = batch.num_columns().checked_sub(1).ok_or("it has no columns")?;
    let weights = batch
        .column(last)
        .as_primitive_opt::<Int64Type>()
        .ok_or("it has no weights")?
        .clone();
    if weights.null_count() > 0 {
        return Err("a weight is null".into());
    }
    let columns: Vec<usize> = (0..last).collect();
    let rows = batch.project(&columns).map_err(|error| error.to_string())?;
    Ok(Delta::new(rows, Some(weights)))
}

/// Whether portions that were read have the columns of a layout.
pub(super) fn check_layout(id: RunId, portion: &Delta, layout: &Layout) -> Result<()> {
    let schema = portion.schema();
    let own = layout.schema.fields();
    if schema.fields().len() != own.len() {
        return Err(damaged(
            &format!("run {id}"),
            "it has another number of columns than its trace",
        ));
    }
    for ((stored, own), column) in schema.fields().iter().zip(own).zip(portion.rows().columns()) {
        if !stored.data_type().equals_datatype(own.data_type()) {
            return Err(damaged(
                &format!("run {id}"),
                &format!("column {} has another type", own.name()),
            ));
        }
        if !own.is_nullable() && column.null_count() > 0 {
            return Err(damaged(
                &format!("run {id}"),
                &format!("column {} has a null", own.name()),
            ));
        }
    }
    Ok(())
}
