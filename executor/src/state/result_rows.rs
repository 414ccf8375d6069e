//! The rows of a view's result: appended only, where rows never go, or found by their values.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use tributary_storage::{Delta, RowStore, RowsSnapshot, Spill, ZSet};

/// See the module's documentation.
#[derive(Debug)]
pub(crate) enum ResultRows {
    Appended(RowStore),
    Weighted(Box<ZSet>),
}

impl ResultRows {
    pub(crate) fn new(schema: SchemaRef, append_only: bool) -> Self {
        match append_only {
            true => Self::Appended(RowStore::new(schema)),
            false => Self::Weighted(Box::new(ZSet::new(schema))),
        }
    }

    pub(crate) fn schema(&self) -> &SchemaRef {
        self.store().schema()
    }

    fn store(&self) -> &RowStore {
        match self {
            Self::Appended(rows) => rows,
            Self::Weighted(rows) => rows.store(),
        }
    }

    /// Rows, dead ones included.
    pub(crate) fn len(&self) -> usize {
        self.store().len()
    }

    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Appended(rows) => rows.bytes(),
            Self::Weighted(rows) => rows.bytes(),
        }
    }

    pub(crate) fn apply(&mut self, delta: &Delta) {
        match self {
            Self::Appended(rows) => {
                assert!(delta.weights().is_none(), "rows of this view never go");
                rows.append(delta.rows());
            }
            Self::Weighted(rows) => {
                rows.apply(delta);
                rows.compact_if_due();
            }
        }
    }

    pub(crate) fn spillable(&mut self) -> &mut dyn Spill {
        match self {
            Self::Appended(rows) => rows,
            Self::Weighted(rows) => &mut **rows,
        }
    }

    pub(crate) fn snapshot(&self) -> Arc<RowsSnapshot> {
        self.store().snapshot()
    }

    /// Takes in the rows that were saved, as they are.
    pub(crate) fn restore(&mut self, saved: RowStore) {
        *self = match self {
            Self::Appended(_) => Self::Appended(saved),
            Self::Weighted(_) => Self::Weighted(Box::new(ZSet::from_store(saved))),
        };
    }
}
