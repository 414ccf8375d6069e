//! What shipping the raw rows would have cost: the same events, as Arrow IPC under zstd, in batches of the size in
//! which they were committed.

use arrow::datatypes::DataType;
use arrow::ipc::CompressionType;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use arrow::record_batch::RecordBatch;

use super::DemoError;
use crate::source::nexmark::{Kind, all_columns, event_rows};

/// Columns of the events that the demo's views read.
const USED: [(Kind, &[&str]); 2] = [
    (Kind::Bid, &["auction", "price", "channel"]),
    (Kind::Auction, &["category", "reserve"]),
];

/// Sizes of all rows of the tables the views read.
#[derive(Clone, Copy, Debug, Default)]
pub struct RawBytes {
    /// Whole rows.
    pub whole: u64,
    /// Only the columns that the views read.
    pub used: u64,
}

/// Measures `events` events in batches of `batch` of them. Blocking, and busy for a while.
pub fn measure(events: u64, batch: u64) -> Result<RawBytes, DemoError> {
    let mut bytes = RawBytes::default();
    let mut from = 0;
    while from < events {
        let to = (from + batch).min(events);
        for (kind, used) in USED {
            let whole: Vec<(&str, DataType)> = all_columns(kind);
            let used: Vec<(&str, DataType)> = whole
                .iter()
                .filter(|(name, _)| used.contains(name))
                .cloned()
                .collect();
            bytes.whole += size(from..to, kind, &whole)?;
            bytes.used += size(from..to, kind, &used)?;
        }
        from = to;
    }
    Ok(bytes)
}

fn size(events: std::ops::Range<u64>, kind: Kind, columns: &[(&str, DataType)]) -> Result<u64, DemoError> {
    let rows: Option<RecordBatch> = event_rows(events, kind, columns).map_err(DemoError::Answer)?;
    let Some(rows) = rows else { return Ok(0) };
    let options = IpcWriteOptions::default()
        .try_with_compression(Some(CompressionType::ZSTD))
        .map_err(|error| DemoError::Answer(error.to_string()))?;
    let mut out = Vec::new();
    let written = StreamWriter::try_new_with_options(&mut out, &rows.schema(), options)
        .and_then(|mut writer| writer.write(&rows).and_then(|()| writer.finish()));
    written.map_err(|error| DemoError::Answer(error.to_string()))?;
    Ok(out.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewer_columns_are_fewer_bytes_and_more_events_more() {
        let small = measure(2_000, 1_000).expect("the generator works");
        assert!(small.used > 0 && small.used < small.whole, "{small:?}");
        let large = measure(4_000, 1_000).expect("the generator works");
        assert!(large.used > small.used && large.whole > small.whole);
    }
}
