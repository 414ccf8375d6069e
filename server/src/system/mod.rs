//! Schema `tributary`: what the system knows of itself, as tables over the statement's snapshot.
//!
//! One file per table: its columns, and its rows as text (the input functions give them their types). To add one, add
//! the file and its line in [`TABLES`].

mod conflicts;
mod errors;
mod frontier;
mod links;
mod materialized_views;
mod operators;
mod regions;
mod sinks;
mod sources;
mod tables;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::catalog::{MemTable, SchemaProvider, TableProvider};
use datafusion::error::{DataFusionError, Result};
use tributary_planner::types::SqlType;
use tributary_region::Snapshot;
use tributary_storage::{ObjectId, RegionId};

use crate::far::scan::FarScans;
use crate::pgwire::types::datetime::{Zone, write_timestamp};
use crate::pgwire::types::input::ColumnBuilder;
use crate::sink::state::Task as SinkTask;
use crate::source::state::Task;

/// A row as text; `None` is null.
type Row = Vec<Option<String>>;

/// A system table.
pub(crate) struct SystemTable {
    /// Its name.
    pub name: &'static str,
    /// Its columns.
    pub columns: &'static [(&'static str, SqlType)],
    rows: fn(&Facts<'_>) -> Vec<Row>,
}

/// What rows are made from.
pub(crate) struct Facts<'a> {
    pub snapshot: &'a Snapshot,
    /// This region's name.
    pub region: &'a str,
    /// What the tasks of sources are doing.
    pub source_tasks: &'a BTreeMap<ObjectId, Task>,
    /// What the tasks of sinks are doing.
    pub sink_tasks: &'a BTreeMap<ObjectId, SinkTask>,
    /// Whether links are encrypted and both their ends proven.
    pub secure_links: bool,
}

/// All system tables.
pub(crate) const TABLES: &[SystemTable] = &[
    conflicts::TABLE,
    errors::TABLE,
    frontier::TABLE,
    links::TABLE,
    materialized_views::TABLE,
    operators::TABLE,
    regions::TABLE,
    sinks::TABLE,
    sources::TABLE,
    tables::TABLE,
];

impl SystemTable {
    /// The columns as an Arrow schema.
    pub fn schema(&self) -> SchemaRef {
        let field = |(name, sql_type): &(&str, SqlType)| Field::new(*name, sql_type.arrow(), true);
        Arc::new(Schema::new(self.columns.iter().map(field).collect::<Vec<_>>()))
    }

    fn batch(&self, facts: &Facts<'_>) -> Result<RecordBatch> {
        let external = |error| DataFusionError::External(Box::new(error) as _);
        let mut builders: Vec<ColumnBuilder> = self
            .columns
            .iter()
            .map(|(_, sql_type)| ColumnBuilder::new(*sql_type, Zone::UTC))
            .collect();
        for row in (self.rows)(facts) {
            assert_eq!(
                row.len(),
                builders.len(),
                "a row of tributary.{} has its columns",
                self.name
            );
            for (builder, value) in builders.iter_mut().zip(row) {
                match value {
                    Some(text) => builder.append_text(&text).map_err(external)?,
                    None => builder.append_null(),
                }
            }
        }
        let columns = builders.into_iter().map(ColumnBuilder::finish).collect();
        Ok(RecordBatch::try_new(self.schema(), columns)?)
    }
}

impl Facts<'_> {
    fn region_name(&self, region: RegionId) -> String {
        let known = self.snapshot.catalog.regions.get(&region);
        known.map_or_else(|| format!("r{}", region.0), |region| region.name.clone())
    }
}

/// A value as text.
fn text(value: impl ToString) -> Option<String> {
    Some(value.to_string())
}

/// What was set, as `SET (…)` takes it.
fn options(settings: &[(&str, String)]) -> Option<String> {
    let set: Vec<String> = settings
        .iter()
        .map(|(name, value)| format!("{name} = '{value}'"))
        .collect();
    (!set.is_empty()).then(|| set.join(", "))
}

/// A moment in milliseconds since 1970 as text.
fn moment(ms: u64) -> Option<String> {
    let mut out = String::new();
    write_timestamp(
        i64::try_from(ms).ok()?.checked_mul(1000)?,
        Some(&Zone::UTC),
        &mut out,
    );
    Some(out)
}

/// The schema over a snapshot.
pub struct SystemSchema {
    snapshot: Arc<Snapshot>,
    region: String,
    source_tasks: Arc<BTreeMap<ObjectId, Task>>,
    sink_tasks: Arc<BTreeMap<ObjectId, SinkTask>>,
    secure_links: bool,
    scans: Arc<FarScans>,
}

impl SystemSchema {
    /// The system tables of a snapshot in this region, for a statement with these scans of others.
    pub fn new(
        snapshot: Arc<Snapshot>,
        region: String,
        source_tasks: Arc<BTreeMap<ObjectId, Task>>,
        sink_tasks: Arc<BTreeMap<ObjectId, SinkTask>>,
        secure_links: bool,
        scans: Arc<FarScans>,
    ) -> Self {
        Self {
            snapshot,
            region,
            source_tasks,
            sink_tasks,
            secure_links,
            scans,
        }
    }
}

impl std::fmt::Debug for SystemSchema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SystemSchema").finish_non_exhaustive()
    }
}

#[async_trait]
impl SchemaProvider for SystemSchema {
    fn table_names(&self) -> Vec<String> {
        TABLES.iter().map(|table| table.name.to_string()).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let Some(table) = TABLES.iter().find(|table| table.name == name) else {
            return Ok(None);
        };
        // Errors and conflicts quote values that may have to stay here.
        self.scans.keep_sides();
        let batch = table.batch(&Facts {
            snapshot: &self.snapshot,
            region: &self.region,
            source_tasks: &self.source_tasks,
            sink_tasks: &self.sink_tasks,
            secure_links: self.secure_links,
        })?;
        Ok(Some(Arc::new(MemTable::try_new(
            table.schema(),
            vec![vec![batch]],
        )?)))
    }

    fn table_exist(&self, name: &str) -> bool {
        TABLES.iter().any(|table| table.name == name)
    }
}
