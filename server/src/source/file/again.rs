//! Files read again, for replay and backfill: the region asks for rows by their numbers.
//!
//! A replay asks for one record's rows after the other. So a reader that was used up to some row is put aside,
//! and goes on when the next request starts there.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use tributary_planner::catalog::SourceDef;
use tributary_region::{SourceReader, SourceRows};
use tributary_storage::ObjectId;

use super::{Rows, Settings};

type Aside = Arc<Mutex<BTreeMap<ObjectId, Rows>>>;

/// The reader of one region's files.
pub struct FileReader {
    region: String,
    aside: Aside,
}

impl FileReader {
    /// The reader of the region of this name.
    pub fn new(region: &str) -> FileReader {
        FileReader {
            region: region.to_owned(),
            aside: Aside::default(),
        }
    }
}

impl std::fmt::Debug for FileReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileReader")
            .field("region", &self.region)
            .finish()
    }
}

impl SourceReader for FileReader {
    fn read(
        &self,
        source: ObjectId,
        def: &SourceDef,
        rows: Range<u64>,
        mark: u64,
    ) -> Result<SourceRows, String> {
        let waiting = take(&self.aside, source).filter(|waiting| waiting.next_row() == rows.start);
        let reader = match waiting {
            Some(waiting) => waiting,
            None => Rows::open(Settings::of(def, &self.region)?, rows.start)?,
        };
        Ok(Box::new(Again {
            source,
            reader: Some(reader),
            end: rows.end,
            mark,
            aside: self.aside.clone(),
        }))
    }
}

/// The rows up to `end`.
struct Again {
    source: ObjectId,
    reader: Option<Rows>,
    end: u64,
    mark: u64,
    aside: Aside,
}

impl Again {
    fn next_rows(&mut self) -> Result<Option<RecordBatch>, String> {
        let Some(reader) = &mut self.reader else {
            return Ok(None);
        };
        let left = self.end.saturating_sub(reader.next_row());
        if left == 0 {
            if let Some(reader) = self.reader.take() {
                let mut aside = self.aside.lock().unwrap_or_else(PoisonError::into_inner);
                aside.insert(self.source, reader);
            }
            return Ok(None);
        }
        let Some(piece) = reader.next_piece(usize::try_from(left).unwrap_or(usize::MAX))? else {
            return Err(format!(
                "there are only {} rows now, {} were consumed",
                reader.next_row(),
                self.end
            ));
        };
        if reader.next_row() == self.end && piece.mark != self.mark {
            return Err(changed(&piece.file.display().to_string()));
        }
        Ok(Some(piece.rows))
    }
}

/// The error of files that are not those of which rows were consumed.
pub fn changed(file: &str) -> String {
    format!("file {file}, or one before it, is not what it was when its rows were consumed")
}

impl Iterator for Again {
    type Item = Result<RecordBatch, String>;

    fn next(&mut self) -> Option<Self::Item> {
        let rows = self.next_rows();
        if rows.is_err() {
            self.reader = None;
        }
        rows.transpose()
    }
}

fn take(aside: &Aside, source: ObjectId) -> Option<Rows> {
    aside
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .remove(&source)
}
