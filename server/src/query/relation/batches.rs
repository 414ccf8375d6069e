//! The batches of a relation, one at a time.

use std::collections::VecDeque;

use datafusion::arrow::array::{RecordBatch, UInt32Array};
use datafusion::arrow::compute::take_record_batch;
use datafusion::error::Result;
use tributary_storage::Delta;

use super::super::fixed::KeyRange;
use super::{Access, BATCH_ROWS_MAX, Rows, Source};

/// The batches of a relation, made when asked for.
pub(super) struct Batches {
    source: Source,
    deltas: Box<dyn Iterator<Item = Delta> + Send>,
    repeated: Option<Repeated>,
    ready: VecDeque<RecordBatch>,
    own_rows_due: bool,
    access: Access,
}

impl Batches {
    pub(super) fn new(source: Source, access: Access) -> Self {
        let deltas: Box<dyn Iterator<Item = Delta> + Send> = match (&source.rows, &access) {
            (Rows::Table(rows, _), Access::Key(key)) => {
                let found = rows.lookup(&key.values, 1);
                Box::new(std::iter::once(Delta::new(found.rows, Some(found.weights))))
            }
            (Rows::Table(rows, _), Access::Range(range)) => {
                let KeyRange { lower, upper } = range;
                Box::new(rows.scan_between(lower.as_ref(), upper.as_ref(), BATCH_ROWS_MAX))
            }
            (Rows::View(rows), Access::Key(key)) => {
                Box::new(rows.lookup(&key.columns, &key.values, key.rows()))
            }
            (Rows::Table(rows, _), Access::All) => Box::new(rows.scan(BATCH_ROWS_MAX)),
            (Rows::View(rows), Access::All | Access::Range(_)) => Box::new(rows.scan(BATCH_ROWS_MAX)),
        };
        let own_rows_due = source.table().is_some_and(|table| table.pending.is_some());
        Self {
            source,
            deltas,
            repeated: None,
            ready: VecDeque::new(),
            own_rows_due,
            access,
        }
    }

    fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(batch) = self.ready.pop_front() {
                return Ok(Some(batch));
            }
            if let Some(repeated) = &mut self.repeated {
                match repeated.next_batch()? {
                    Some(rows) => return Ok(Some(rows)),
                    None => self.repeated = None,
                }
            }
            if let Some(delta) = self.deltas.next() {
                match self.source.table() {
                    None => self.repeated = Some(Repeated::new(delta)),
                    Some(table) => {
                        let rows = table.shown(&delta, &self.source.schema)?;
                        self.ready.extend((rows.num_rows() > 0).then_some(rows));
                    }
                }
                continue;
            }
            if !std::mem::take(&mut self.own_rows_due) {
                return Ok(None);
            }
            let table = self.source.table().expect("only tables have own rows");
            let key = match &self.access {
                Access::Key(key) => Some(key),
                Access::All | Access::Range(_) => None,
            };
            let own = table.own_rows(&self.source.schema, key)?;
            for start in (0..own.num_rows()).step_by(BATCH_ROWS_MAX) {
                self.ready
                    .push_back(own.slice(start, BATCH_ROWS_MAX.min(own.num_rows() - start)));
            }
        }
    }
}

impl Iterator for Batches {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_batch().transpose()
    }
}

/// The rows of a view, each as often as its weight says, in batches of bounded size, made when asked for.
struct Repeated {
    delta: Delta,
    row: usize,
    /// How often the row at `row` was given already.
    given: i64,
}

impl Repeated {
    fn new(delta: Delta) -> Self {
        Self {
            delta,
            row: 0,
            given: 0,
        }
    }

    fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        if self.delta.weights().is_none() {
            let is_new = std::mem::replace(&mut self.row, self.delta.len()) == 0;
            return Ok((is_new && !self.delta.is_empty()).then(|| self.delta.rows().clone()));
        }
        let mut indices: Vec<u32> = Vec::new();
        while self.row < self.delta.len() && indices.len() < BATCH_ROWS_MAX {
            if self.given >= self.delta.weight(self.row) {
                self.row += 1;
                self.given = 0;
                continue;
            }
            self.given += 1;
            indices.push(self.row as u32);
        }
        if indices.is_empty() {
            return Ok(None);
        }
        Ok(Some(take_record_batch(
            self.delta.rows(),
            &UInt32Array::from(indices),
        )?))
    }
}
