//! Sources whose rows are not stored: the log says which rows came, a reader has them.
//!
//! ```text
//!   log:      Source { from: 0, to: 500 }   Source { from: 500, to: 900 }   …      offsets only
//!   memory:   500 rows ──▶ step             400 rows ──▶ step                      as they were read
//!   later:    SourceReader::read(0..900) ──▶ replay, backfill                      read again
//! ```
//!
//! Rows have numbers in the source's own order, from 0. What was logged must be read again unchanged, for ever:
//! each record carries a *mark*, a digest by which the reader recognises what the rows came from. A
//! reader that finds something else refuses, and the node does not start (replay) or the view is not built
//! (backfill): nothing is half-loaded.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::SchemaRef;
use serde::{Deserialize, Serialize};
use tributary_planner::catalog::SourceDef;
use tributary_replication::Hlc;
use tributary_storage::{Delta, ObjectId};

/// Rows of a source in its order, in the columns that users see.
pub type SourceRows = Box<dyn Iterator<Item = Result<RecordBatch, String>> + Send>;

/// Reads rows again that were consumed before.
pub trait SourceReader: Send + Sync + Debug {
    /// The rows of these numbers. `mark` is that of the record that consumed the last of them, or of a later
    /// one.
    ///
    /// # Errors
    /// A text for people: what the rows came from is gone or is not what it was.
    fn read(
        &self,
        source: ObjectId,
        def: &SourceDef,
        rows: Range<u64>,
        mark: u64,
    ) -> Result<SourceRows, String>;
}

/// A reader without sources: for regions that have none.
#[derive(Clone, Copy, Debug)]
pub struct NoSources;

impl SourceReader for NoSources {
    fn read(&self, source: ObjectId, _: &SourceDef, _: Range<u64>, _: u64) -> Result<SourceRows, String> {
        Err(format!("source {source} cannot be read here"))
    }
}

/// Rows that were read for the first time, to be logged.
#[derive(Clone, Debug)]
pub struct SourceAppend {
    /// The source.
    pub source: ObjectId,
    /// The number of the first row.
    pub from: u64,
    /// The reader's digest of what was read so far.
    pub mark: u64,
    /// The rows, in the columns that users see; at least one.
    pub rows: Vec<RecordBatch>,
}

impl SourceAppend {
    /// The number after the last row.
    pub fn to(&self) -> u64 {
        self.from + self.rows.iter().map(|batch| batch.num_rows() as u64).sum::<u64>()
    }

    /// Whether there are rows and all have the source's columns.
    pub fn fits(&self, def: &SourceDef) -> bool {
        let types: Vec<_> = def.visible().map(|column| column.sql_type.arrow()).collect();
        let fits = |batch: &RecordBatch| {
            batch.num_columns() == types.len()
                && batch
                    .columns()
                    .iter()
                    .zip(&types)
                    .all(|(column, data_type)| column.data_type() == data_type)
        };
        self.to() > self.from && self.rows.iter().all(fits)
    }
}

/// What the log says of one source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceLog {
    /// The reader's newest digest.
    pub mark: u64,
    /// For each record the number after its last row, and its time: 16 bytes a record. Neighbours of the same
    /// millisecond are one.
    times: Vec<(u64, u64)>,
}

impl SourceLog {
    /// Rows consumed.
    pub fn consumed(&self) -> u64 {
        self.times.last().map_or(0, |(to, _)| *to)
    }

    /// Notes a record.
    pub fn extend(&mut self, to: u64, hlc: Hlc, mark: u64) {
        self.mark = mark;
        match self.times.last_mut() {
            Some((last, ms)) if *ms == hlc.ms() => *last = to,
            _ => self.times.push((to, hlc.ms())),
        }
    }
}

/// Rows with the hidden time column, as the views see them.
pub(crate) fn with_time(rows: &RecordBatch, schema: &SchemaRef, ms: u64) -> Result<RecordBatch, String> {
    let micros = i64::try_from(ms.saturating_mul(1000)).unwrap_or(i64::MAX);
    let times = TimestampMicrosecondArray::from_value(micros, rows.num_rows()).with_timezone("UTC");
    let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
    columns.push(Arc::new(times));
    RecordBatch::try_new(schema.clone(), columns).map_err(|error| error.to_string())
}

/// All rows that a source has given so far, read again, each with the time of its record.
pub(crate) struct Again {
    rows: SourceRows,
    schema: SchemaRef,
    log: SourceLog,
    /// The rest of a batch that reaches beyond its record.
    rest: Option<RecordBatch>,
    next: u64,
    segment: usize,
    failed: bool,
}

impl Again {
    pub(crate) fn new(rows: SourceRows, def: &SourceDef, log: SourceLog) -> Self {
        Self {
            rows,
            schema: def.schema(),
            log,
            rest: None,
            next: 0,
            segment: 0,
            failed: false,
        }
    }

    fn next_delta(&mut self) -> Result<Option<Delta>, String> {
        let Some(&(to, ms)) = self.log.times.get(self.segment) else {
            return Ok(None);
        };
        let batch = match self.rest.take() {
            Some(batch) => batch,
            None => self.rows.next().ok_or_else(|| {
                format!(
                    "{} rows were consumed, but only {} are there now",
                    self.log.consumed(),
                    self.next
                )
            })??,
        };
        let wanted = usize::try_from(to - self.next)
            .unwrap_or(usize::MAX)
            .min(batch.num_rows());
        if wanted < batch.num_rows() {
            self.rest = Some(batch.slice(wanted, batch.num_rows() - wanted));
        }
        self.next += wanted as u64;
        if self.next == to {
            self.segment += 1;
        }
        with_time(&batch.slice(0, wanted), &self.schema, ms).map(|rows| Some(Delta::inserts(rows)))
    }
}

impl Iterator for Again {
    type Item = Result<Delta, String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let delta = self.next_delta().transpose();
        self.failed = matches!(delta, Some(Err(_)));
        delta
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_one_millisecond_are_kept_as_one() {
        let mut log = SourceLog::default();
        assert_eq!(log.consumed(), 0);
        log.extend(10, Hlc::from_ms(5), 1);
        log.extend(15, Hlc::from_ms(5).successor(), 2);
        log.extend(20, Hlc::from_ms(6), 3);
        assert_eq!((log.consumed(), log.mark), (20, 3));
        assert_eq!(log.times, [(15, 5), (20, 6)]);
    }
}
