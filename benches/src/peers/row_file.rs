//! The events as one file of rows, for engines without Parquet: made once, of the Parquet files and beside them.
//!
//! ```text
//!   file   block*
//!   block  bytes u32, events u32, event*          of the events alone; numbers are little endian
//!   event  kind u8, a value for each column of the kind
//!   value  bigint i64 | text: bytes u32, UTF-8 | time: milliseconds since 1970 i64
//! ```

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Int32Type, Int64Type, TimestampMicrosecondType};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::Result;
use crate::events::columns_of;

const BLOCK_EVENTS: usize = 4096;
const MICROSECONDS_PER_MILLISECOND: i64 = 1000;

/// Makes the file unless it is there.
pub fn beside(pattern: &Path) -> Result<()> {
    let directory = pattern.parent().ok_or("a pattern of files has a directory")?;
    let (path, unfinished) = (directory.join("events.rows"), directory.join("unfinished-rows"));
    if path.is_file() {
        return Ok(());
    }
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", unfinished.display());
    let mut out = BufWriter::new(File::create(&unfinished).map_err(|error| failed(&error))?);
    for file in parquet_files(directory)? {
        let file = File::open(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        let reader = ParquetRecordBatchReaderBuilder::try_new(file)
            .and_then(|builder| builder.with_batch_size(BLOCK_EVENTS).build())
            .map_err(|error| error.to_string())?;
        for batch in reader {
            let batch = batch.map_err(|error| error.to_string())?;
            out.write_all(&block(&batch)).map_err(|error| failed(&error))?;
        }
    }
    out.flush().map_err(|error| failed(&error))?;
    fs::rename(&unfinished, &path).map_err(|error| failed(&error))
}

fn parquet_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "parquet"))
        .collect();
    files.sort();
    Ok(files)
}

fn block(batch: &RecordBatch) -> Vec<u8> {
    let mut events = Vec::new();
    let kinds = batch.column(0).as_primitive::<Int32Type>().values();
    for (row, kind) in kinds.iter().enumerate() {
        events.push(*kind as u8);
        for column in columns_of(*kind) {
            // The kind comes first.
            put(batch.column(1 + column), row, &mut events);
        }
    }
    let mut block = Vec::with_capacity(8 + events.len());
    block.extend((events.len() as u32).to_le_bytes());
    block.extend((kinds.len() as u32).to_le_bytes());
    block.extend(events);
    block
}

fn put(column: &dyn Array, row: usize, out: &mut Vec<u8>) {
    match column.data_type() {
        DataType::Int64 => out.extend(column.as_primitive::<Int64Type>().value(row).to_le_bytes()),
        DataType::Utf8 => {
            let text = column.as_string::<i32>().value(row);
            out.extend((text.len() as u32).to_le_bytes());
            out.extend(text.as_bytes());
        }
        _ => {
            let microseconds = column.as_primitive::<TimestampMicrosecondType>().value(row);
            out.extend((microseconds / MICROSECONDS_PER_MILLISECOND).to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use nexmark::EventGenerator;
    use nexmark::config::NexmarkConfig;
    use nexmark::event::Event;

    use super::*;
    use crate::events::Rows;

    #[test]
    fn a_bid_is_its_kind_three_numbers_two_texts_a_time_and_a_text() {
        let bid = EventGenerator::new(NexmarkConfig::default())
            .find_map(|event| match event {
                Event::Bid(bid) => Some(bid),
                _ => None,
            })
            .expect("most events are bids");
        let mut expected = vec![2];
        for number in [bid.auction, bid.bidder, bid.price] {
            expected.extend((number as i64).to_le_bytes());
        }
        let text = |text: &str, out: &mut Vec<u8>| {
            out.extend((text.len() as u32).to_le_bytes());
            out.extend(text.as_bytes());
        };
        text(&bid.channel, &mut expected);
        text(&bid.url, &mut expected);
        expected.extend((bid.date_time as i64).to_le_bytes());
        text(&bid.extra, &mut expected);
        let mut rows = Rows::new();
        rows.push(&Event::Bid(bid));
        let block = block(&rows.finish().expect("a row"));
        assert_eq!(block[..4], (expected.len() as u32).to_le_bytes());
        assert_eq!(block[4..8], 1_u32.to_le_bytes());
        assert_eq!(block[8..], expected);
    }
}
