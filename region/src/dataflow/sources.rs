//! Rows of sources that are not stored: into the views as they come, and once more for views that come later.

use std::ops::Range;

use tributary_storage::{Delta, ObjectId};

use super::Dataflow;
use super::apply::Gathered;
use crate::backfill;
use crate::error::{RegionError, Result};
use crate::sequencer::Sealed;
use crate::source::{Again, SourceRows, with_time};

impl Dataflow {
    /// Steps over rows of a source: those at hand, or in a replay the same rows read again.
    pub(super) fn apply_source(
        &mut self,
        record: &Sealed,
        source: ObjectId,
        rows: Range<u64>,
        mark: u64,
        gathered: &mut Gathered,
    ) -> Result<()> {
        let catalog = self.catalog.clone();
        // A source dropped between the record's seal and now takes its rows with it.
        let Some(def) = catalog.source(source) else {
            return Ok(());
        };
        let log = self.source_logs.entry(source).or_default();
        if log.consumed() != rows.start || rows.end <= rows.start {
            return Err(RegionError::Invariant(format!(
                "source {source} was consumed to {}, and its next record says {} to {}",
                log.consumed(),
                rows.start,
                rows.end
            )));
        }
        let hlc = record.timed.hlc;
        log.extend(rows.end, hlc, mark);
        self.sources.insert(source, rows.end);
        if !self.is_read(source) {
            return Ok(());
        }
        let unreadable = |detail: String| RegionError::Source {
            name: self.name_of(source),
            from: rows.start,
            to: rows.end,
            detail,
        };
        let batches: SourceRows = if record.rows.is_empty() {
            self.reader
                .read(source, def, rows.clone(), mark)
                .map_err(unreadable)?
        } else {
            Box::new(record.rows.clone().into_iter().map(Ok))
        };
        let schema = def.schema();
        let mut count = 0;
        for batch in batches {
            let batch = batch.map_err(unreadable)?;
            count += batch.num_rows() as u64;
            let timed = with_time(&batch, &schema, hlc.ms()).map_err(unreadable)?;
            gathered.deltas.push(source, Delta::inserts(timed));
        }
        if count != rows.end - rows.start {
            return Err(unreadable(format!("only {count} rows are there now")));
        }
        Ok(())
    }

    /// Everything a source has given so far, as the input of a backfill; `None` for what is no such source, or
    /// has given nothing.
    pub(super) fn source_again(&self, source: ObjectId) -> Option<backfill::Source> {
        let def = self.catalog.source(source)?;
        let log = self.source_logs.get(&source)?;
        let count = log.consumed();
        let rows = self
            .reader
            .read(source, def, 0..count, log.mark)
            .unwrap_or_else(|reason| Box::new(std::iter::once(Err(reason))));
        let name = self.name_of(source);
        let again = Again::new(rows, def, log.clone());
        let named = again.map(move |delta| {
            delta.map_err(|reason| format!("rows 0 to {count} of source \"{name}\": {reason}"))
        });
        Some((source, count, Box::new(named)))
    }

    /// The error of a view that was attached once and whose input cannot be read any more.
    pub(super) fn backfill_failed(&self, view: ObjectId, reason: String) -> RegionError {
        RegionError::Backfill {
            view: self.name_of(view),
            detail: reason,
        }
    }

    fn name_of(&self, object: ObjectId) -> String {
        self.catalog.by_id(object).map_or_else(
            || object.to_string(),
            |object| self.catalog.name_for_users(object),
        )
    }

    /// Whether any view has the source as an input.
    fn is_read(&self, source: ObjectId) -> bool {
        self.views.keys().any(|&view| {
            self.catalog
                .materialized_view(view)
                .is_some_and(|def| def.plan.inputs().contains(&source))
        })
    }
}
