//! Rows as Arrow IPC streams: one object per segment, and one for the weights of a segment whose rows are not all
//! weighed 1.
//!
//! Sealed segments keep their name from checkpoint to checkpoint, so only new ones are written; the tail and the
//! weights are written again when they changed. Decoding stands behind the same boundary as that of runs.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{Array, AsArray, Int64Array, RecordBatch};
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::ipc::reader::StreamDecoder;
use arrow::ipc::writer::StreamWriter;

use super::CheckpointStats;
use super::manifest::{Manifest, StoredObject, StoredRows, StoredSegment};
use super::object::{ObjectReader, ObjectWriter, damaged};
use crate::error::Result;
use crate::kv::Kv;
use crate::rows::{RowsSnapshot, Segment};
use crate::trace::RunId;

/// A segment with one weight for each row, or 1 for all.
pub(super) type Part = (Segment, Option<Int64Array>);

/// Stores the segments of some rows that are not stored yet, and enters the rows into the manifest.
pub(super) fn write(
    kv: &dyn Kv,
    name: &str,
    rows: &RowsSnapshot,
    stored: &Manifest,
    manifest: &mut Manifest,
    stats: &mut CheckpointStats,
) -> Result<()> {
    let mut segments = Vec::new();
    for (segment, weights) in rows.parts() {
        let weights = weights.map(weights_segment);
        for segment in weights.iter().chain([&**segment]) {
            let id = segment.id();
            if manifest.segments.contains_key(&id) {
                continue;
            }
            let object = match stored.segments.get(&id) {
                Some(object) => *object,
                None => {
                    let object = write_segment(kv, segment)?;
                    stats.runs_written += 1;
                    stats.bytes_written += object.bytes;
                    object
                }
            };
            manifest.segments.insert(id, object);
        }
        segments.push(StoredSegment {
            rows: segment.id(),
            weights: weights.map(|weights| weights.id()),
        });
    }
    let types = types(rows.schema());
    manifest
        .rows
        .insert(name.to_owned(), StoredRows { types, segments });
    Ok(())
}

fn weights_segment(weights: Vec<i64>) -> Segment {
    let schema = Schema::new(vec![Field::new("tributary_weight", DataType::Int64, false)]);
    let rows = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(Int64Array::from(weights))]);
    Segment::new(rows.expect("one column of the schema's type"))
}

fn write_segment(kv: &dyn Kv, segment: &Segment) -> Result<StoredObject> {
    let mut out = ObjectWriter::new(kv, segment.id());
    let write = |out: &mut ObjectWriter<'_>| {
        let mut stream = StreamWriter::try_new(out, &segment.rows().schema())?;
        stream.write(segment.rows())?;
        stream.finish()
    };
    let written = write(&mut out).map_err(|error: arrow::error::ArrowError| error.to_string());
    out.finish(written)
}

/// The types of columns, as text: what stored rows are compared with.
pub(super) fn types(schema: &SchemaRef) -> String {
    let types: Vec<String> = schema
        .fields()
        .iter()
        .map(|field| field.data_type().to_string())
        .collect();
    types.join(", ")
}

/// Reads a segment of some rows.
pub(super) fn read(
    kv: &dyn Kv,
    name: &str,
    segment: StoredSegment,
    objects: &BTreeMap<RunId, StoredObject>,
) -> Result<Part> {
    let object = |id: RunId| {
        let object = objects.get(&id).copied();
        object.ok_or_else(|| {
            damaged(
                &format!("segment {id} of {name}"),
                "the manifest does not list it",
            )
        })
    };
    let rows = read_segment(kv, segment.rows, object(segment.rows)?)?;
    let weights = match segment.weights {
        None => None,
        Some(id) => Some(weights(id, &read_segment(kv, id, object(id)?)?, rows.num_rows())?),
    };
    Ok((Segment::stored(rows, segment.rows), weights))
}

fn weights(id: RunId, batch: &RecordBatch, rows: usize) -> Result<Int64Array> {
    let column = batch
        .columns()
        .first()
        .and_then(|column| column.as_primitive_opt::<Int64Type>());
    column
        .filter(|weights| weights.len() == rows && weights.null_count() == 0)
        .cloned()
        .ok_or_else(|| damaged(&format!("segment {id}"), "it does not hold one weight per row"))
}

fn read_segment(kv: &dyn Kv, id: RunId, stored: StoredObject) -> Result<RecordBatch> {
    let name = format!("segment {id}");
    let mut reader = ObjectReader::new(kv, &name, id, stored);
    let mut decoder = StreamDecoder::new();
    let mut batches = Vec::new();
    while let Some(chunk) = reader.next_chunk()? {
        let decoding = AssertUnwindSafe(|| {
            let mut chunk: Buffer = chunk.into();
            while !chunk.is_empty() {
                batches.extend(decoder.decode(&mut chunk).map_err(|error| error.to_string())?);
            }
            Ok::<(), String>(())
        });
        let decoded = catch_unwind(decoding).unwrap_or_else(|_| Err("the decoder stopped on it".into()));
        decoded.map_err(|message| damaged(&name, &format!("it cannot be decoded: {message}")))?;
    }
    decoder
        .finish()
        .map_err(|error| damaged(&name, &format!("it is incomplete: {error}")))?;
    match <[RecordBatch; 1]>::try_from(batches) {
        Ok([batch]) => Ok(batch),
        Err(batches) => Err(damaged(
            &name,
            &format!("it has {} batches instead of one", batches.len()),
        )),
    }
}
