//! Arrow IPC files and streams. Batches are as they were written.

use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::Path;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::reader::{FileReader, StreamReader};

use super::columns::Mapping;
use super::{Batches, in_file};

/// What a file, as opposed to a stream, begins with.
const MAGIC: &[u8] = b"ARROW1";

enum Reader {
    File(FileReader<BufReader<File>>),
    Stream(StreamReader<BufReader<File>>),
}

impl Reader {
    fn open(path: &Path, projection: Option<Vec<usize>>) -> Result<Reader, String> {
        let fail = |error: std::io::Error| in_file(path, error);
        let mut file = File::open(path).map_err(fail)?;
        let mut magic = Vec::new();
        (&mut file)
            .take(MAGIC.len() as u64)
            .read_to_end(&mut magic)
            .map_err(fail)?;
        file.rewind().map_err(fail)?;
        let file = BufReader::with_capacity(1 << 20, file);
        let reader = match magic == MAGIC {
            true => FileReader::try_new(file, projection).map(Reader::File),
            false => StreamReader::try_new(file, projection).map(Reader::Stream),
        };
        reader.map_err(|error| in_file(path, error))
    }

    fn schema(&self) -> SchemaRef {
        match self {
            Reader::File(reader) => reader.schema(),
            Reader::Stream(reader) => reader.schema(),
        }
    }
}

impl Iterator for Reader {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Reader::File(reader) => reader.next(),
            Reader::Stream(reader) => reader.next(),
        }
    }
}

pub fn open(path: &Path, columns: &SchemaRef, skip: u64) -> Result<Batches, String> {
    let file: SchemaRef = schema(path)?;
    let mapping = Mapping::of(path, &file, columns)?;
    let mut reader = Reader::open(path, Some(mapping.needed()))?;
    let mut left = skip;
    let mut first = None;
    while left > 0 {
        let Some(batch) = reader.next() else { break };
        let batch = batch.map_err(|error| in_file(path, error))?;
        let rows = batch.num_rows() as u64;
        if rows > left {
            let at = usize::try_from(left).expect("less than the rows of a batch");
            first = Some(Ok(batch.slice(at, batch.num_rows() - at)));
        }
        left = left.saturating_sub(rows);
    }
    Ok(Box::new(first.into_iter().chain(reader).map(move |batch| {
        let batch = batch.map_err(|error| error.to_string())?;
        mapping.apply(&batch)
    })))
}

pub fn count(path: &Path) -> Result<u64, String> {
    let mut rows = 0;
    for batch in Reader::open(path, Some(Vec::new()))? {
        rows += batch.map_err(|error| in_file(path, error))?.num_rows() as u64;
    }
    Ok(rows)
}

pub fn schema(path: &Path) -> Result<SchemaRef, String> {
    let schema = Reader::open(path, None)?.schema();
    Ok(SchemaRef::new(Schema::new(schema.fields().clone())))
}
