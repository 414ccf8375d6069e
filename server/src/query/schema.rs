//! Schema `public` of a snapshot: tables, materialized views, and views expanded to their queries.
//!
//! Views are planned when the statement's relations are resolved, inner ones first, in the statement's own context: so
//! they read the same snapshot and the transaction's own writes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{SchemaProvider, TableProvider};
use datafusion::datasource::empty::EmptyTable;
use datafusion::error::Result;
use tributary_planner::catalog::{Object, ObjectKind};
use tributary_region::Snapshot;
use tributary_storage::{ObjectId, OriginId};

use super::relation::{Exposed, RegionNames, Relation};
use crate::session::pending::PendingTable;

/// The relations of schema `public`.
pub struct PublicSchema {
    snapshot: Arc<Snapshot>,
    pending: BTreeMap<ObjectId, Arc<PendingTable>>,
    exposed: Exposed,
    region: String,
    /// Views that the statement reads, planned; and relations that stand in for a table (RETURNING).
    replaced: Mutex<BTreeMap<String, Arc<dyn TableProvider>>>,
}

impl PublicSchema {
    /// The relations of a snapshot with a transaction's own writes.
    pub fn new(
        snapshot: Arc<Snapshot>,
        pending: BTreeMap<ObjectId, Arc<PendingTable>>,
        exposed: Exposed,
        region: String,
    ) -> Self {
        Self {
            snapshot,
            pending,
            exposed,
            region,
            replaced: Mutex::default(),
        }
    }

    /// Puts a relation in the place of the one of this name.
    pub fn replace(&self, name: &str, relation: Arc<dyn TableProvider>) {
        self.replaced
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name.to_string(), relation);
    }

    fn replaced(&self, name: &str) -> Option<Arc<dyn TableProvider>> {
        self.replaced
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(name)
            .cloned()
    }

    /// A table or a materialized view.
    pub fn stored(&self, object: &Object) -> Option<Relation> {
        match &object.kind {
            ObjectKind::Table(_) => {
                let table = self.snapshot.tables.get(&object.id)?;
                let pending = self.pending.get(&object.id).cloned();
                Some(Relation::table(table, self.exposed, pending, self.region_names()))
            }
            ObjectKind::MaterializedView(_) => {
                let view = self.snapshot.views.get(&object.id)?;
                Some(Relation::view(view, object.columns_arrow()))
            }
            ObjectKind::View(_) | ObjectKind::Source(_) | ObjectKind::Sink(_) => None,
        }
    }

    fn relation(&self, object: &Object) -> Option<Arc<dyn TableProvider>> {
        match &object.kind {
            ObjectKind::Table(_) | ObjectKind::MaterializedView(_) => {
                self.stored(object).map(|relation| Arc::new(relation) as _)
            }
            // Not read by this statement, or it would have been planned: only its columns are of interest.
            ObjectKind::View(_) => Some(Arc::new(EmptyTable::new(object.columns_arrow()))),
            ObjectKind::Source(_) | ObjectKind::Sink(_) => None,
        }
    }

    fn region_names(&self) -> RegionNames {
        let catalog = Arc::clone(&self.snapshot.catalog);
        let here = self.region.clone();
        Arc::new(move |origin: OriginId| match origin.incarnation {
            0 => Some(here.clone()),
            _ => catalog
                .regions
                .get(&origin.region)
                .map(|region| region.name.clone()),
        })
    }

    /// The columns of a relation, hidden ones left out.
    pub fn visible_columns(object: &Object) -> SchemaRef {
        match object.as_table() {
            Some(table) => {
                let visible: Vec<usize> = table.visible().collect();
                Arc::new(table.schema().project(&visible).expect("the table's own columns"))
            }
            None => object.columns_arrow(),
        }
    }
}

impl std::fmt::Debug for PublicSchema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PublicSchema")
            .field("exposed", &self.exposed)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl SchemaProvider for PublicSchema {
    fn table_names(&self) -> Vec<String> {
        let relations = self.snapshot.catalog.objects.values();
        relations
            .filter(|object| !matches!(object.kind, ObjectKind::Source(_) | ObjectKind::Sink(_)))
            .map(|object| object.name.clone())
            .collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        if let Some(replaced) = self.replaced(name) {
            return Ok(Some(replaced));
        }
        Ok(self
            .snapshot
            .catalog
            .object(name)
            .and_then(|object| self.relation(object)))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.replaced(name).is_some() || self.snapshot.catalog.object(name).is_some()
    }
}
