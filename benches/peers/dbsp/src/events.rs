//! Events from Parquet files: a thread decodes every column and hands on what a circuit reads.

use std::fs::File;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use arrow::array::{Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::text::Text;

/// Decoded batches that wait for the circuit at most.
const BATCHES_AHEAD: usize = 4;

/// What an event is.
#[derive(Clone, Copy)]
pub enum Kind {
    Person = 0,
    Auction = 1,
    Bid = 2,
}

/// Decoded events.
pub struct Events(RecordBatch);

impl Events {
    fn column<T: 'static>(&self, name: &str) -> &T {
        let column = self
            .0
            .column_by_name(name)
            .expect("the bench's files have the column");
        column
            .as_any()
            .downcast_ref()
            .expect("the bench's files have the type")
    }

    /// Numbers of a column, row by row.
    pub fn numbers(&self, name: &str) -> &[i64] {
        self.column::<Int64Array>(name).values()
    }

    /// A column of text.
    pub fn texts(&self, name: &str) -> Texts<'_> {
        Texts(self.column(name))
    }

    /// A column of times.
    pub fn times(&self, name: &str) -> Times<'_> {
        Times(self.column::<TimestampMicrosecondArray>(name).values())
    }

    /// The rows of one kind.
    pub fn rows(&self, kind: Kind) -> impl Iterator<Item = usize> {
        let kinds = self.column::<Int32Array>("event_type").values();
        (0..kinds.len()).filter(move |row| kinds[*row] == kind as i32)
    }
}

/// A column of text.
pub struct Texts<'a>(&'a StringArray);

impl Texts<'_> {
    /// The text of a row.
    pub fn at(&self, row: usize) -> Text {
        Text::from(self.0.value(row))
    }
}

/// A column of times.
pub struct Times<'a>(&'a [i64]);

impl Times<'_> {
    /// Milliseconds since 1970; events have no finer times.
    pub fn ms(&self, row: usize) -> i64 {
        self.0[row] / 1000
    }
}

/// Decodes the files in their order on a thread of its own, `rows` events at a time, and makes of each batch what
/// `prepare` gives; with it comes the number of events.
pub fn decode<T: Send + 'static>(
    files: Vec<PathBuf>,
    rows: usize,
    prepare: impl Fn(&Events) -> T + Send + 'static,
) -> Receiver<(usize, T)> {
    let (sender, receiver) = sync_channel(BATCHES_AHEAD);
    thread::spawn(move || {
        for path in files {
            let file = File::open(&path).expect("the file is there");
            let reader = ParquetRecordBatchReaderBuilder::try_new(file)
                .and_then(|builder| builder.with_batch_size(rows).build())
                .expect("the file is Parquet");
            for batch in reader {
                let events = Events(batch.expect("the file is whole"));
                if sender.send((events.0.num_rows(), prepare(&events))).is_err() {
                    return;
                }
            }
        }
    });
    receiver
}
