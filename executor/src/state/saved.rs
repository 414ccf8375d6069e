//! State as a checkpoint has it, and as one partition of several takes it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use tributary_storage::{Layout, RowStore, RowsSnapshot, RunTrace, StorageError};

use crate::error::Result;
use crate::placement::{Placement, Share};

/// State as a checkpoint has it.
pub trait SavedState {
    /// The trace of a name, if there is one.
    ///
    /// # Errors
    /// When it cannot be read.
    fn trace(&mut self, name: &str, layout: Layout) -> std::result::Result<Option<RunTrace>, StorageError>;

    /// The rows of a name, if there are any.
    ///
    /// # Errors
    /// When they cannot be read.
    fn rows(&mut self, name: &str, schema: SchemaRef) -> std::result::Result<Option<RowStore>, StorageError>;
}

/// The state of a view that is new.
pub(crate) struct NothingSaved;

impl SavedState for NothingSaved {
    fn trace(&mut self, _: &str, _: Layout) -> std::result::Result<Option<RunTrace>, StorageError> {
        Ok(None)
    }

    fn rows(&mut self, _: &str, _: SchemaRef) -> std::result::Result<Option<RowStore>, StorageError> {
        Ok(None)
    }
}

/// What was saved, as one partition of several takes it: the number of partitions may have been another.
pub(crate) struct PartitionedState<'s> {
    saved: &'s mut dyn SavedState,
    /// The partition whose state is opened.
    pub(super) share: Share,
    /// Rows that more than one partition reads.
    kept: BTreeMap<String, Option<Arc<RowsSnapshot>>>,
}

impl<'s> PartitionedState<'s> {
    pub(crate) fn new(saved: &'s mut dyn SavedState) -> Self {
        Self {
            saved,
            share: Share::ALL,
            kept: BTreeMap::new(),
        }
    }

    /// From here on this partition reads.
    pub(crate) fn turn_to(&mut self, share: Share) {
        self.share = share;
    }

    pub(super) fn trace(&mut self, name: &str, layout: Layout) -> Result<Option<RunTrace>> {
        Ok(self.saved.trace(name, layout)?)
    }

    pub(super) fn rows(
        &mut self,
        name: &str,
        schema: SchemaRef,
        placement: &Placement,
    ) -> Result<Option<SavedRows>> {
        if self.share.of == 1 {
            return Ok(self.saved.rows(name, schema)?.map(SavedRows::All));
        }
        if !self.kept.contains_key(name) {
            let rows = self.saved.rows(name, schema)?;
            self.kept
                .insert(name.to_string(), rows.map(|rows| rows.snapshot()));
        }
        let shared = |rows: &Arc<RowsSnapshot>| SavedRows::Share {
            rows: rows.clone(),
            share: self.share,
            placement: placement.clone(),
        };
        Ok(self.kept[name].as_ref().map(shared))
    }
}

/// Rows that were saved, as a partition takes them.
pub(super) enum SavedRows {
    All(RowStore),
    /// This partition's among the rows of all.
    Share {
        rows: Arc<RowsSnapshot>,
        share: Share,
        placement: Placement,
    },
}

impl SavedRows {
    /// The partition's own rows.
    pub(super) fn own(self) -> RowStore {
        let (rows, share, placement) = match self {
            Self::All(rows) => return rows,
            Self::Share {
                rows,
                share,
                placement,
            } => (rows, share, placement),
        };
        let mut own = RowStore::new(rows.schema().clone());
        for portion in rows.scan(1 << 16) {
            let part = share.of_delta(&portion, &placement);
            let first = own.append(part.rows());
            for (row, weight) in part.weights().iter().flat_map(|w| w.values().iter().enumerate()) {
                own.set_weight(first + row as u32, *weight);
            }
        }
        own
    }
}
