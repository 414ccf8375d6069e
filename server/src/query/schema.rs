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
use tributary_planner::catalog::{Object, ObjectKind, TableLocality};
use tributary_planner::dml::TARGET;
use tributary_region::Snapshot;
use tributary_storage::{ObjectId, OriginId};

use super::relation::{Exposed, RegionNames, Relation};
use crate::far::relation::{Far, FarRelation};
use crate::far::scan::FarScans;
use crate::far::{FarReads, owners};
use crate::session::pending::PendingTable;

/// How rows of other regions are read, and the scans that a statement has planned there.
#[derive(Clone)]
pub struct FarSource {
    /// The road there.
    pub reads: Arc<dyn FarReads>,
    /// The statement's scans.
    pub scans: Arc<FarScans>,
}

/// The relations of schema `public`.
pub struct PublicSchema {
    snapshot: Arc<Snapshot>,
    pending: BTreeMap<ObjectId, Arc<PendingTable>>,
    exposed: Exposed,
    region: String,
    far: Option<FarSource>,
    /// The table that the statement writes.
    target: Option<ObjectId>,
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
            far: None,
            target: None,
            replaced: Mutex::default(),
        }
    }

    /// The same with rows of other regions, for a statement that writes a table.
    pub fn with_far(mut self, far: Option<FarSource>, target: Option<ObjectId>) -> Self {
        self.far = far;
        self.target = target;
        self
    }

    /// Whether reading a relation takes other regions' rows.
    pub fn is_far(snapshot: &Snapshot, object: &Object) -> bool {
        match object.as_table().map(|table| table.locality) {
            None | Some(TableLocality::Global) => false,
            Some(TableLocality::RegionalByRow) => !owners(snapshot, None).is_empty(),
            Some(TableLocality::RegionalByTable(region)) => !owners(snapshot, Some(region)).is_empty(),
        }
    }

    /// The table that the statement writes: own rows only, with their versions.
    fn target(&self) -> Option<Arc<dyn TableProvider>> {
        let id = self.target?;
        let table = self.snapshot.tables.get(&id)?;
        let exposed = Exposed {
            hidden: true,
            versions: true,
        };
        let pending = self.pending.get(&id).cloned();
        Some(Arc::new(Relation::table(
            table,
            exposed,
            pending,
            self.region_names(),
        )))
    }

    fn far(&self, object: &Object, local: Relation) -> Arc<dyn TableProvider> {
        let table = object.as_table();
        let Some(far) = &self.far else {
            return Arc::new(local);
        };
        let only = match table.map(|table| table.locality) {
            None | Some(TableLocality::Global) => return Arc::new(local),
            Some(TableLocality::RegionalByRow) => None,
            Some(TableLocality::RegionalByTable(region)) => Some(region),
        };
        let owners = owners(&self.snapshot, only);
        if owners.is_empty() {
            return Arc::new(local);
        }
        let own = self.snapshot.origin.map(|origin| origin.region);
        Arc::new(FarRelation::new(
            local,
            Far {
                table: object.id,
                reads_own: only.is_none() || only == own,
                own_region: self.region.clone(),
                hidden: self.exposed.hidden,
                resident: self.snapshot.catalog.is_resident(object.id),
                owners,
                reads: Arc::clone(&far.reads),
                scans: Arc::clone(&far.scans),
            },
        ))
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
            ObjectKind::Table(_) => self.stored(object).map(|relation| self.far(object, relation)),
            ObjectKind::MaterializedView(_) => self.stored(object).map(|relation| Arc::new(relation) as _),
            // Not read by this statement, or it would have been planned: only its columns are of interest.
            ObjectKind::View(_) => Some(Arc::new(EmptyTable::new(object.columns_arrow()))),
            ObjectKind::Source(_) | ObjectKind::Sink(_) => None,
        }
    }

    /// Every relation comes from here: what a statement reads decides whether parts of it may go along to other
    /// regions.
    fn note_read(&self, object: Option<ObjectId>) {
        let (Some(far), Some(id)) = (&self.far, object) else {
            return;
        };
        let catalog = &self.snapshot.catalog;
        if catalog.table(id).is_some_and(|table| !table.is_global()) {
            far.scans.read(id);
        }
        if catalog.is_resident(id) {
            far.scans.keep_sides();
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
            .filter(|object| !object.is_hidden())
            .map(|object| object.name.clone())
            .collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let object = self.snapshot.catalog.object(name);
        self.note_read(object.map(|object| object.id));
        if let Some(replaced) = self.replaced(name) {
            return Ok(Some(replaced));
        }
        if name == TARGET {
            self.note_read(self.target);
            return Ok(self.target());
        }
        Ok(object.and_then(|object| self.relation(object)))
    }

    fn table_exist(&self, name: &str) -> bool {
        name == TARGET || self.replaced(name).is_some() || self.snapshot.catalog.object(name).is_some()
    }
}
