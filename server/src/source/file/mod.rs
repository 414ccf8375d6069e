//! Files as a source: their rows are a relation that materialized views read, and are stored nowhere else.
//!
//! ```text
//!   listing ─▶ Rows: file after file, batch after batch ─┬─▶ feed: a thread decodes ahead, a task submits
//!   (by name)   (parquet | arrow | csv | ndjson)         └─▶ again: replay and backfill, from any row
//! ```
//!
//! A row's number is its place in all files, sorted by name, from 0. The log holds numbers only, so what was
//! consumed has to stay where it is and as it is: `Rows` folds each file it takes rows from into a digest
//! (see [`listing::Fold`]) that stands in the log beside the numbers, and is compared when rows are read again.
//!
//! Left out: files that grow (a file counts as complete once it is listed), compression of csv and ndjson.

mod again;
mod arrow;
mod columns;
mod complete;
mod csv;
mod feed;
mod listing;
mod ndjson;
mod parquet;
mod rows;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ::arrow::array::RecordBatch;
use ::arrow::datatypes::{Field, Schema, SchemaRef};
use tributary_planner::catalog::{REGION_PLACEHOLDER, SourceDef};

pub use again::FileReader;
pub use complete::complete;
pub use feed::feed;
pub use rows::{Piece, Rows};

/// Rows of one batch, unless said otherwise.
const BATCH_ROWS: usize = 65_536;

/// Rows of one file.
type Batches = Box<dyn Iterator<Item = Result<RecordBatch, String>> + Send>;

/// How the rows of files are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Apache Parquet.
    Parquet,
    /// Arrow IPC, as a file or as a stream.
    Arrow,
    /// Comma-separated values.
    Csv,
    /// One JSON object per line.
    Ndjson,
}

/// What the options of a file source say in one region.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The files: a path whose last part may have `*` and `?`.
    pub pattern: String,
    /// Their format.
    pub format: Format,
    /// The columns, without the hidden one.
    pub columns: SchemaRef,
    /// Whether a csv file begins with the names of its columns.
    pub header: bool,
    /// The column in which the rows of each file do not decrease.
    pub order_by: Option<usize>,
    /// Whether files may appear later.
    pub follow: bool,
    /// Rows per second, at most.
    pub rate: Option<f64>,
    /// Rows of one batch, at most.
    pub batch_rows: usize,
    /// Within what time rows are to be seen.
    pub latency: Option<Duration>,
}

impl Format {
    /// The format of this name.
    pub fn named(name: &str) -> Option<Format> {
        Some(match name {
            "parquet" => Format::Parquet,
            "arrow" => Format::Arrow,
            "csv" => Format::Csv,
            "ndjson" => Format::Ndjson,
            _ => return None,
        })
    }
}

impl Settings {
    /// The settings of a source in the region of this name. The planner has checked the options; what it does
    /// not know here was written by another version.
    pub fn of(def: &SourceDef, region: &str) -> Result<Settings, String> {
        let option = |name: &str| {
            def.option(name)
                .ok_or_else(|| format!("option {name} is missing"))
        };
        let number = |name: &str| match def.option(name) {
            None => Ok(None),
            Some(text) => text
                .parse::<u64>()
                .map(Some)
                .map_err(|_| format!("option {name} = '{text}' is not a whole number")),
        };
        let format = option("format")?;
        let fields: Vec<Field> = def
            .visible()
            .map(|column| Field::new(&column.name, column.sql_type.arrow(), true))
            .collect();
        let order_by = def
            .option("order_by")
            .map(|order| {
                fields
                    .iter()
                    .position(|field| field.name() == order)
                    .ok_or_else(|| format!("column {order} in option order_by does not exist"))
            })
            .transpose()?;
        let batch_rows = number("batch_rows")?.unwrap_or(BATCH_ROWS as u64);
        Ok(Settings {
            pattern: option("path")?.replace(REGION_PLACEHOLDER, region),
            format: Format::named(format)
                .ok_or_else(|| format!("format {format} is not known to this version"))?,
            columns: Arc::new(Schema::new(fields)),
            header: def.is_on("header"),
            order_by,
            follow: def.is_on("follow"),
            rate: number("rate")?.map(|rate| rate as f64),
            latency: number("latency_ms")?.map(Duration::from_millis),
            batch_rows: usize::try_from(batch_rows)
                .unwrap_or(BATCH_ROWS)
                .clamp(1, 1 << 20),
        })
    }

    /// The rows of one file after the first `skip`.
    fn open(&self, path: &Path, skip: u64, batch_rows: usize) -> Result<Batches, String> {
        match self.format {
            Format::Parquet => parquet::open(path, &self.columns, skip, batch_rows),
            Format::Arrow => arrow::open(path, &self.columns, skip),
            Format::Csv => csv::open(path, &self.columns, self.header, skip, batch_rows),
            Format::Ndjson => ndjson::open(path, &self.columns, skip, batch_rows),
        }
    }

    /// How many rows a file has.
    fn count(&self, path: &Path) -> Result<u64, String> {
        match self.format {
            Format::Parquet => parquet::count(path),
            Format::Arrow => arrow::count(path),
            Format::Csv => csv::count(path, self.header),
            Format::Ndjson => ndjson::count(path),
        }
    }
}

/// An error with the file it concerns.
fn in_file(path: &Path, error: impl std::fmt::Display) -> String {
    format!("file {}: {error}", path.display())
}
