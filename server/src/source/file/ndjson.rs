//! One JSON object per line. Fields that the source does not have are left out; absent ones are null.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use arrow::datatypes::SchemaRef;
use arrow_json::ReaderBuilder;

use super::{Batches, in_file};

fn lines(path: &Path) -> Result<BufReader<File>, String> {
    let file = File::open(path).map_err(|error| in_file(path, error))?;
    Ok(BufReader::with_capacity(1 << 20, file))
}

/// Reads the next line that is not blank; false at the end.
fn next_line(lines: &mut BufReader<File>, line: &mut Vec<u8>) -> std::io::Result<bool> {
    loop {
        line.clear();
        if lines.read_until(b'\n', line)? == 0 {
            return Ok(false);
        }
        if !line.trim_ascii().is_empty() {
            return Ok(true);
        }
    }
}

pub fn open(path: &Path, columns: &SchemaRef, skip: u64, batch_rows: usize) -> Result<Batches, String> {
    let mut lines = lines(path)?;
    let mut line = Vec::new();
    for _ in 0..skip {
        next_line(&mut lines, &mut line).map_err(|error| in_file(path, error))?;
    }
    let reader = ReaderBuilder::new(columns.clone())
        .with_batch_size(batch_rows)
        .build(lines)
        .map_err(|error| in_file(path, error))?;
    Ok(Box::new(
        reader.map(|batch| batch.map_err(|error| error.to_string())),
    ))
}

pub fn count(path: &Path) -> Result<u64, String> {
    let mut lines = lines(path)?;
    let mut line = Vec::new();
    let mut rows = 0;
    while next_line(&mut lines, &mut line).map_err(|error| in_file(path, error))? {
        rows += 1;
    }
    Ok(rows)
}
