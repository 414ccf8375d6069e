//! The rows of all files of a source as one sequence, from any row.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::kernels::cmp::lt;

use super::listing::{Fold, list};
use super::{Batches, Settings, in_file};

/// Rows that stand together in one file.
#[derive(Clone, Debug)]
pub struct Piece {
    /// At least one row, in the columns that users see.
    pub rows: RecordBatch,
    /// The digest of all files that rows were taken from so far.
    pub mark: u64,
    /// The file.
    pub file: PathBuf,
}

/// See the module's documentation.
pub struct Rows {
    settings: Settings,
    files: VecDeque<PathBuf>,
    /// The newest file of those that were looked at: later ones come after it.
    last: Option<PathBuf>,
    current: Option<Current>,
    fold: Fold,
    next: u64,
}

/// A file that is being read.
struct Current {
    path: PathBuf,
    batches: Batches,
    /// Rows of the file that were given or skipped.
    given: u64,
    /// Whether the file is in the digest: it is when the first row was taken.
    folded: bool,
    /// The rest of a batch.
    rest: Option<RecordBatch>,
    /// The last row in the order's column.
    previous: Option<RecordBatch>,
}

impl Rows {
    /// Starts at a row. Files before it are counted, not decoded, where the format allows.
    ///
    /// # Errors
    /// Files that cannot be read, and fewer rows than `from`.
    pub fn open(settings: Settings, from: u64) -> Result<Rows, String> {
        let mut files: VecDeque<PathBuf> = list(&settings.pattern)?.into();
        let mut fold = Fold::new();
        let mut before = from;
        let mut last = None;
        let mut current = None;
        while before > 0 {
            let path = files.pop_front().ok_or_else(|| {
                format!(
                    "{from} rows were consumed, but {} holds only {} now",
                    settings.pattern,
                    from - before
                )
            })?;
            let rows = settings.count(&path)?;
            if rows > 0 {
                fold.add(&path)?;
            }
            if rows > before {
                let batches = settings.open(&path, before, settings.batch_rows)?;
                current = Some(Current {
                    path: path.clone(),
                    batches,
                    given: before,
                    folded: true,
                    rest: None,
                    previous: None,
                });
            }
            before = before.saturating_sub(rows);
            last = Some(path);
        }
        Ok(Rows {
            settings,
            files,
            last,
            current,
            fold,
            next: from,
        })
    }

    /// The number of the next row.
    pub fn next_row(&self) -> u64 {
        self.next
    }

    /// The digest of all files that rows were taken from so far.
    pub fn mark(&self) -> u64 {
        self.fold.mark()
    }

    /// The next rows, at most so many; `None` when all files are used up.
    ///
    /// # Errors
    /// A file that cannot be read, is malformed or out of order, with its name and, where it is known, the row.
    pub fn next_piece(&mut self, rows_max: usize) -> Result<Option<Piece>, String> {
        loop {
            let Some(current) = &mut self.current else {
                let Some(path) = self.files.pop_front() else {
                    return Ok(None);
                };
                let batches = self.settings.open(&path, 0, self.settings.batch_rows)?;
                self.last = Some(path.clone());
                self.current = Some(Current {
                    path,
                    batches,
                    given: 0,
                    folded: false,
                    rest: None,
                    previous: None,
                });
                continue;
            };
            match current.take(&self.settings, rows_max)? {
                None => self.current = None,
                Some(rows) => {
                    if !current.folded {
                        self.fold.add(&current.path)?;
                        current.folded = true;
                    }
                    self.next += rows.num_rows() as u64;
                    return Ok(Some(Piece {
                        rows,
                        mark: self.fold.mark(),
                        file: current.path.clone(),
                    }));
                }
            }
        }
    }

    /// Looks for files that have appeared since; true when there are new ones.
    ///
    /// A new file whose name stands before one that was read already is passed over here; its rows would have had
    /// other numbers, so the next start refuses to go on.
    ///
    /// # Errors
    /// The file that was read last is gone.
    pub fn look_again(&mut self) -> Result<bool, String> {
        let known = self.files.back().or(self.last.as_ref()).cloned();
        let first = self.last.clone();
        for path in list(&self.settings.pattern)? {
            if known.as_ref().is_none_or(|known| path > *known) {
                self.files.push_back(path);
            }
        }
        if let Some(first) = first
            && !first.is_file()
        {
            return Err(in_file(&first, "it is gone, though its rows were consumed"));
        }
        Ok(!self.files.is_empty())
    }
}

impl Current {
    fn take(&mut self, settings: &Settings, rows_max: usize) -> Result<Option<RecordBatch>, String> {
        let batch = match self.rest.take() {
            Some(batch) => batch,
            None => match self.batches.next() {
                None => return Ok(None),
                Some(Ok(batch)) if batch.num_rows() == 0 => return self.take(settings, rows_max),
                Some(Ok(batch)) => {
                    self.check_order(settings, &batch)?;
                    batch
                }
                Some(Err(reason)) => return Err(self.located(settings, &reason)),
            },
        };
        let wanted = batch.num_rows().min(rows_max).min(settings.batch_rows).max(1);
        if wanted < batch.num_rows() {
            self.rest = Some(batch.slice(wanted, batch.num_rows() - wanted));
        }
        self.given += wanted as u64;
        Ok(Some(batch.slice(0, wanted)))
    }

    /// The error of a batch that cannot be decoded, with the first row that cannot: rows are tried one by one.
    fn located(&self, settings: &Settings, reason: &str) -> String {
        let mut row = self.given;
        if let Ok(singly) = settings.open(&self.path, self.given, 1) {
            for batch in singly.take(settings.batch_rows) {
                match batch {
                    Ok(batch) => row += batch.num_rows() as u64,
                    Err(reason) => return in_file(&self.path, format_args!("row {}: {reason}", row + 1)),
                }
            }
        }
        in_file(&self.path, format_args!("after row {}: {reason}", self.given))
    }

    /// Refuses rows that are less than the row before them in the order's column.
    fn check_order(&mut self, settings: &Settings, batch: &RecordBatch) -> Result<(), String> {
        let Some(order) = settings.order_by else {
            return Ok(());
        };
        let column = batch.column(order);
        let rows = batch.num_rows();
        let fail = |row: u64| order_error(&self.path, settings.columns.field(order).name(), row);
        let compare = |later: ArrayRef, earlier: ArrayRef| {
            let less = lt(&later, &earlier).map_err(|error| in_file(&self.path, error))?;
            Ok::<_, String>((0..less.len()).find(|&at| less.is_valid(at) && less.value(at)))
        };
        if let Some(previous) = &self.previous
            && compare(column.slice(0, 1), previous.column(order).clone())?.is_some()
        {
            return Err(fail(self.given + 1));
        }
        if let Some(at) = compare(column.slice(1, rows - 1), column.slice(0, rows - 1))? {
            return Err(fail(self.given + at as u64 + 2));
        }
        self.previous = Some(batch.slice(rows - 1, 1));
        Ok(())
    }
}

fn order_error(path: &Path, column: &str, row: u64) -> String {
    in_file(
        path,
        format_args!(
            "row {row} is less in \"{column}\" than the row before it, and order_by says that it is not"
        ),
    )
}
