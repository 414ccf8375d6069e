//! INSERT, UPDATE and DELETE: runs the bound query at the transaction's snapshot and turns its rows into pending writes.
//!
//! Constraints are checked here, on the rows: NOT NULL (23502), the length of varchar (22001), the primary key (23505).
//! The key is checked again when the commit is, against what others wrote meanwhile.

mod constraints;
mod delete;
mod insert;
mod rows;
mod update;

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::sql::sqlparser::ast;
use tributary_planner::catalog::{Object, TableLocality};
use tributary_planner::dml::BoundDml;
use tributary_planner::plan::Locality;
use tributary_storage::ObjectId;

use super::reader::{PlanOptions, Reader, Writes};
use crate::pgwire::error::{SqlError, SqlResult};
use crate::pgwire::sqlstate;
use crate::session::pending::PendingTable;

pub use constraints::check as check_constraints;
pub use rows::{KeyedRows, complete_rows};

/// Memory that a transaction's writes may take, in bytes; more is refused with 54000.
pub const TRANSACTION_BYTES_MAX: usize = 512 * 1024 * 1024;

/// What a statement did.
pub struct Affected {
    /// Rows inserted, changed or deleted.
    pub count: usize,
    /// What RETURNING gives.
    pub returned: Option<RecordBatch>,
    /// What the client should know.
    pub notices: Vec<SqlError>,
}

/// The table a statement writes, and the transaction's writes to it.
pub(crate) struct Target<'a> {
    pub(crate) reader: &'a Reader,
    pub(crate) object: Arc<Object>,
    pub(crate) pending: PendingTable,
}

/// Runs a bound statement; `writes` is changed only when it succeeds.
pub async fn run(reader: &Reader, bound: &BoundDml, writes: &mut Writes) -> SqlResult<Affected> {
    let mut target = Target::new(reader, table_of(bound), writes)?;
    let affected = match bound {
        BoundDml::Insert(insert) => insert::run(&mut target, insert).await?,
        BoundDml::Update(update) => update::run(&mut target, update).await?,
        BoundDml::Delete(delete) => delete::run(&mut target, delete).await?,
    };
    target.store(writes)?;
    Ok(affected)
}

/// Inserts rows (all columns of the table) that came with a COPY; `writes` is changed only when all of them go in.
pub async fn load(reader: &Reader, table: ObjectId, rows: RecordBatch, writes: &mut Writes) -> SqlResult<()> {
    let mut target = Target::new(reader, table, writes)?;
    insert::write(&mut target, rows, None).await?;
    target.store(writes)
}

/// The table that a bound statement writes.
pub fn table_of(bound: &BoundDml) -> ObjectId {
    match bound {
        BoundDml::Insert(insert) => insert.table,
        BoundDml::Update(update) => update.table,
        BoundDml::Delete(delete) => delete.table,
    }
}

impl<'a> Target<'a> {
    pub(crate) fn new(reader: &'a Reader, table: ObjectId, writes: &Writes) -> SqlResult<Self> {
        let object = reader.snapshot.catalog.by_id(table).cloned();
        let object = object.ok_or_else(|| SqlError::new(sqlstate::UNDEFINED_TABLE, "the table does not exist"))?;
        let Some(def) = object.as_table() else {
            return Err(SqlError::new(sqlstate::WRONG_OBJECT_TYPE, format!("\"{}\" is not a table", object.name)));
        };
        let Some(origin) = reader.snapshot.origin else {
            return Err(SqlError::new(sqlstate::CANNOT_CONNECT_NOW, "this region is still joining the cluster")
                .hint("it accepts writes once it has heard from the primary region"));
        };
        if let TableLocality::RegionalByTable(region) = def.locality
            && region != origin.region
        {
            let name = reader.snapshot.catalog.regions.get(&region).map_or("?", |region| region.name.as_str());
            return Err(SqlError::unsupported(format!("rows of table \"{}\" are written in region \"{name}\" only", object.name))
                .hint(format!("connect to region \"{name}\"")));
        }
        let pending = match writes.get(&table) {
            Some(pending) => pending.as_ref().clone(),
            None => PendingTable::new(Arc::new(def.clone())),
        };
        Ok(Self { reader, object, pending })
    }

    pub(crate) fn store(self, writes: &mut Writes) -> SqlResult<()> {
        let others: usize =
            writes.iter().filter(|(id, _)| **id != self.object.id).map(|(_, pending)| pending.bytes()).sum();
        if others + self.pending.bytes() > TRANSACTION_BYTES_MAX {
            return Err(SqlError::new(sqlstate::PROGRAM_LIMIT, "the transaction writes too much")
                .detail(format!("The writes of a transaction may take {} MiB.", TRANSACTION_BYTES_MAX >> 20))
                .hint("commit in portions"));
        }
        if !self.pending.is_empty() {
            writes.insert(self.object.id, Arc::new(self.pending));
        }
        Ok(())
    }

    /// Evaluates RETURNING over the affected rows.
    async fn returning(&self, query: &Option<Box<ast::Query>>, rows: &RecordBatch) -> SqlResult<Option<RecordBatch>> {
        let Some(query) = query else { return Ok(None) };
        let replaced = vec![(self.object.name.clone(), rows.clone())];
        let planned = self.reader.plan(query.as_ref().clone(), PlanOptions { replaced, ..PlanOptions::default() }).await?;
        planned.collect().await.map(Some)
    }

    /// The notice of a statement that found nothing here while other regions may hold rows.
    fn nothing_matched(&self, count: usize) -> Vec<SqlError> {
        let is_partial = self.object.locality() == Locality::Regional && self.reader.is_multi_region();
        if count > 0 || !is_partial || self.reader.facts.settings().reads_local() {
            return Vec::new();
        }
        let message = format!(
            "no row of region \"{}\" matched; rows of other regions were not looked at",
            self.reader.facts.region
        );
        vec![SqlError::new("00000", message).hint("connect to the region that owns the rows")]
    }
}
