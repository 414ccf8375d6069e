//! Events as files: the same numbers give the same bytes. One millisecond between events, 1 person and 3 auctions
//! to 46 bids.
//!
//! Each region of a cluster has a stream of its own, from the same moment on: its persons bid on its auctions, and no
//! id occurs in two regions.

use std::fs::{self, File};
use std::path::Path;

use arrow::array::RecordBatch;
use arrow::ipc::writer::FileWriter;
use nexmark::EventGenerator;
use nexmark::config::NexmarkConfig;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

use crate::Result;
use crate::events::{Rows, schema};

const BATCH_ROWS: u64 = 16_384;
const ROW_GROUP_ROWS: usize = 65_536;
const FILE_ROWS: u64 = 2_097_152;
const REGION_FILE_ROWS: u64 = 65_536;
/// Events between the first ones of two regions: more than any of them has, and a multiple of the 50 in which kinds
/// repeat and of the 100 persons and auctions among which one is hot.
const REGION_EVENTS: usize = 50 * 100 * 1_000_000;
/// 2015-07-15, the beginning of Nexmark.
const BASE_TIME_MS: u64 = 1_436_918_400_000;

enum Writer {
    Parquet(Box<ArrowWriter<File>>),
    Arrow(Box<FileWriter<File>>),
}

impl Writer {
    fn create(path: &Path, format: &str) -> Result<Writer> {
        let file = File::create(path).map_err(|error| format!("{}: {error}", path.display()))?;
        match format {
            "parquet" => {
                let properties = WriterProperties::builder()
                    .set_compression(Compression::UNCOMPRESSED)
                    .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
                    .build();
                let writer = ArrowWriter::try_new(file, schema(), Some(properties));
                Ok(Writer::Parquet(Box::new(
                    writer.map_err(|error| error.to_string())?,
                )))
            }
            "arrow" => {
                let writer = FileWriter::try_new(file, &schema());
                Ok(Writer::Arrow(Box::new(
                    writer.map_err(|error| error.to_string())?,
                )))
            }
            other => Err(format!("format {other} is neither parquet nor arrow")),
        }
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        match self {
            Writer::Parquet(writer) => writer.write(batch).map_err(|error| error.to_string()),
            Writer::Arrow(writer) => writer.write(batch).map_err(|error| error.to_string()),
        }
    }

    fn finish(self) -> Result<()> {
        match self {
            Writer::Parquet(writer) => writer.close().map(drop).map_err(|error| error.to_string()),
            Writer::Arrow(mut writer) => writer.finish().map_err(|error| error.to_string()),
        }
    }
}

/// One stream of events and how it is laid out in files.
pub struct Stream<'a> {
    /// parquet or arrow.
    format: &'a str,
    /// The number of the first event, from which all ids and random values follow.
    first_event: usize,
    /// Rows of a file; a multiple of what is written at once.
    file_rows: u64,
}

impl<'a> Stream<'a> {
    /// The stream of a region that has all events.
    pub fn whole(format: &'a str) -> Stream<'a> {
        Stream {
            format,
            first_event: 0,
            file_rows: FILE_ROWS,
        }
    }

    /// The stream of a region that has one of several, from 0. Its files are short, so that a region with all of them
    /// can take them in turns.
    pub fn of_region(format: &'a str, region: usize) -> Stream<'a> {
        Stream {
            format,
            first_event: (region + 1) * REGION_EVENTS,
            file_rows: REGION_FILE_ROWS,
        }
    }

    /// Writes so many events into a directory.
    pub fn write(&self, events: u64, out: &Path) -> Result<()> {
        fs::create_dir_all(out).map_err(|error| format!("{}: {error}", out.display()))?;
        let config = NexmarkConfig {
            base_time: BASE_TIME_MS,
            first_rate: 1000,
            next_rate: 1000,
            first_event_id: self.first_event,
            ..NexmarkConfig::default()
        };
        let mut generator = EventGenerator::new(config);
        let mut made = 0;
        let mut number = 0;
        while made < events {
            let path = out.join(format!("events-{number:05}.{}", self.format));
            let unfinished = out.join(format!("unfinished-{number:05}"));
            let mut writer = Writer::create(&unfinished, self.format)?;
            let end = events.min(made + self.file_rows);
            while made < end {
                let count = BATCH_ROWS.min(end - made);
                let mut rows = Rows::new();
                for _ in 0..count {
                    rows.push(&generator.next().ok_or("the generator never ends")?);
                }
                writer.write(&rows.finish()?)?;
                made += count;
            }
            writer.finish()?;
            fs::rename(&unfinished, &path).map_err(|error| format!("{}: {error}", path.display()))?;
            number += 1;
        }
        Ok(())
    }
}
