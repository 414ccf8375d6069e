//! `pg_catalog`: PostgreSQL's own description of a database, made from the snapshot's catalog.
//!
//! What never changes (types, operators, collations) comes from `datafusion-pg-catalog`. What describes our relations
//! is made here, one file per table, because that crate knows no materialized views, no keys and no stable OIDs: an
//! OID here is a function of the object's id, so it means the same in every statement and in every region.

mod build;
mod definitions;
mod oids;
mod pg_attrdef;
mod pg_attribute;
mod pg_class;
mod pg_constraint;
mod pg_database;
mod pg_index;
mod pg_namespace;
mod pg_relations;
mod pg_settings;
pub mod rewrite;

use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{
    CatalogProviderList, MemTable, MemoryCatalogProviderList, SchemaProvider, TableProvider,
};
use datafusion::error::Result;
use datafusion::logical_expr::ScalarUDF;
use datafusion_pg_catalog::pg_catalog::context::EmptyContextProvider;
use datafusion_pg_catalog::pg_catalog::{PgCatalogSchemaProvider, PgCatalogStaticTables};
use tributary_planner::catalog::{Object, ObjectKind};
use tributary_region::Snapshot;

use crate::pgwire::error::{SqlError, SqlResult};
use crate::query::facts::Facts;
use crate::session::settings::Settings;

type Static = PgCatalogSchemaProvider<Arc<dyn CatalogProviderList>, EmptyContextProvider>;

/// The tables that are the same for everybody.
static STATIC: LazyLock<std::result::Result<Static, String>> = LazyLock::new(|| {
    let tables = PgCatalogStaticTables::try_new().map_err(|error| error.to_string())?;
    let list: Arc<dyn CatalogProviderList> = Arc::new(MemoryCatalogProviderList::new());
    PgCatalogSchemaProvider::try_new(list, Arc::new(tables), EmptyContextProvider)
        .map_err(|error| error.to_string())
});

/// What the tables are made from.
pub(crate) struct Source {
    snapshot: Arc<Snapshot>,
    settings: Settings,
    user: String,
}

impl Source {
    /// Tables, views and materialized views of users, in the order of their ids.
    fn relations(&self) -> impl Iterator<Item = &Arc<Object>> {
        let objects = self.snapshot.catalog.objects.values();
        objects.filter(|object| {
            !object.is_hidden() && !matches!(object.kind, ObjectKind::Source(_) | ObjectKind::Sink(_))
        })
    }
}

/// A table made here: its name, and its rows given the columns that the crate knows.
struct Made {
    name: &'static str,
    rows: fn(&Source, Option<SchemaRef>) -> Result<RecordBatch>,
}

const MADE: &[Made] = &[
    Made {
        name: "pg_attrdef",
        rows: pg_attrdef::rows,
    },
    Made {
        name: "pg_attribute",
        rows: pg_attribute::rows,
    },
    Made {
        name: "pg_class",
        rows: pg_class::rows,
    },
    Made {
        name: "pg_constraint",
        rows: pg_constraint::rows,
    },
    Made {
        name: "pg_database",
        rows: pg_database::rows,
    },
    Made {
        name: "pg_index",
        rows: pg_index::rows,
    },
    Made {
        name: "pg_matviews",
        rows: pg_relations::matviews,
    },
    Made {
        name: "pg_namespace",
        rows: pg_namespace::rows,
    },
    Made {
        name: "pg_roles",
        rows: pg_relations::roles,
    },
    Made {
        name: "pg_settings",
        rows: pg_settings::rows,
    },
    Made {
        name: "pg_tables",
        rows: pg_relations::tables,
    },
    Made {
        name: "pg_views",
        rows: pg_relations::views,
    },
];

/// The schema over a snapshot.
pub struct PgCatalog {
    source: Arc<Source>,
    fixed: &'static Static,
}

impl PgCatalog {
    /// The catalog of a snapshot, as one session sees it.
    pub fn new(snapshot: Arc<Snapshot>, facts: &Facts) -> SqlResult<Self> {
        let fixed = STATIC
            .as_ref()
            .map_err(|error| SqlError::internal(error.clone()))?;
        let source = Source {
            snapshot,
            settings: facts.settings(),
            user: facts.user.clone(),
        };
        Ok(Self {
            source: Arc::new(source),
            fixed,
        })
    }

    /// Functions over OIDs of this catalog.
    pub fn functions(&self) -> Vec<Arc<ScalarUDF>> {
        definitions::functions(&self.source)
    }
}

impl std::fmt::Debug for PgCatalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PgCatalog").finish_non_exhaustive()
    }
}

#[async_trait]
impl SchemaProvider for PgCatalog {
    fn table_names(&self) -> Vec<String> {
        self.fixed.table_names()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let fixed = self.fixed.build_table_by_name(name)?;
        match MADE.iter().find(|made| made.name == name) {
            Some(made) => {
                let batch = (made.rows)(&self.source, fixed.map(|table| table.schema()))?;
                Ok(Some(Arc::new(MemTable::try_new(
                    batch.schema(),
                    vec![vec![batch]],
                )?)))
            }
            None => fixed.map(|table| table.try_into_table_provider()).transpose(),
        }
    }

    fn table_exist(&self, name: &str) -> bool {
        self.fixed.table_exist(name) || MADE.iter().any(|made| made.name == name)
    }
}
