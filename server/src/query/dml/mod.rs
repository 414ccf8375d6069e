//! INSERT, UPDATE and DELETE: runs the bound query at the transaction's snapshot and turns its rows into pending writes.
//!
//! Constraints are checked here, on the rows: NOT NULL (23502), the length of varchar (22001), the primary key (23505).
//! The key is checked again when the commit is, against what others wrote meanwhile.

mod constraints;
mod delete;
mod insert;
mod rows;
mod update;

use std::borrow::Cow;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch};
use datafusion::sql::sqlparser::ast;
use tributary_planner::catalog::{Object, TableLocality};
use tributary_planner::dml::BoundDml;
use tributary_planner::plan::Locality;
use tributary_region::Snapshot;
use tributary_storage::ObjectId;

use super::reader::{PlanOptions, Reader, Writes};
use crate::pgwire::error::{SqlError, SqlResult};
use crate::pgwire::sqlstate;
use crate::session::pending::{Expected, PendingTable};
use crate::session::transaction::Transaction;

pub use constraints::check as check_constraints;
pub use rows::KeyedRows;
use rows::complete_rows;

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

/// Rows to write to one table, or to delete from it.
pub struct Change {
    table: ObjectId,
    /// The transaction's writes to the table before the statement, until they are taken.
    earlier: Option<Arc<PendingTable>>,
    rows: RecordBatch,
    deleted: bool,
    expected: Vec<Expected>,
    /// Each key is written for the first time.
    new_keys: bool,
}

/// The table a statement writes, the transaction's earlier writes to it, and the statement's own.
pub(crate) struct Target<'a> {
    snapshot: &'a Snapshot,
    started_ns: i64,
    /// For statements with queries.
    reader: Option<&'a Reader>,
    pub(crate) object: Arc<Object>,
    pub(crate) pending: Arc<PendingTable>,
    changes: Vec<Change>,
}

/// Runs a bound statement. The changes are not made yet: see [`apply`].
pub async fn run(reader: &Reader, bound: &BoundDml) -> SqlResult<(Affected, Vec<Change>)> {
    let mut target = Target::of_reader(reader, table_of(bound))?;
    let affected = match bound {
        BoundDml::Insert(insert) => insert::run(&mut target, insert).await?,
        BoundDml::Update(update) => update::run(&mut target, update).await?,
        BoundDml::Delete(delete) => delete::run(&mut target, delete).await?,
    };
    Ok((affected, target.changes))
}

/// Inserts rows that are given as columns of the table and not by a query: all of them, or none.
pub fn load(transaction: &Transaction, table: ObjectId, given: &GivenRows<'_>) -> SqlResult<Vec<Change>> {
    let mut target = Target::new(
        &transaction.snapshot,
        &transaction.writes,
        transaction.started_ns,
        table,
    )?;
    let object = Arc::clone(&target.object);
    let def = object.as_table().expect("the target is a table");
    let rows = complete_rows(def, &given.columns, given.values, given.count, target.started_ns)?;
    insert::write_new(&mut target, rows)?;
    Ok(target.changes)
}

/// Rows given as columns; the others of the table get their defaults.
pub struct GivenRows<'a> {
    /// Which columns of the table.
    pub columns: Cow<'a, [usize]>,
    /// The values of each.
    pub values: &'a [ArrayRef],
    /// The number of rows.
    pub count: usize,
}

/// Makes a statement's changes part of its transaction. Without readers of the transaction's writes nothing is copied.
///
/// # Errors
/// 54000 when the transaction writes too much; it has to be given up then.
pub fn apply(writes: &mut Writes, mut changes: Vec<Change>) -> SqlResult<()> {
    // First of all each lets go of what it holds: what is shared would be copied.
    for change in &mut changes {
        if let (Some(earlier), true) = (change.earlier.take(), change.rows.num_rows() > 0) {
            writes.entry(change.table).or_insert(earlier);
        }
    }
    for change in changes.into_iter().filter(|change| change.rows.num_rows() > 0) {
        let Some(pending) = writes.get_mut(&change.table) else {
            return Err(SqlError::internal("a change without its table"));
        };
        let pending = Arc::make_mut(pending);
        match change.new_keys {
            true => pending.insert(change.rows, change.expected),
            false => pending.write(change.rows, change.deleted, &change.expected),
        }
    }
    if writes.values().map(|pending| pending.bytes()).sum::<usize>() > TRANSACTION_BYTES_MAX {
        return Err(
            SqlError::new(sqlstate::PROGRAM_LIMIT, "the transaction writes too much")
                .detail(format!(
                    "The writes of a transaction may take {} MiB.",
                    TRANSACTION_BYTES_MAX >> 20
                ))
                .hint("commit in portions"),
        );
    }
    Ok(())
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
    fn of_reader(reader: &'a Reader, table: ObjectId) -> SqlResult<Self> {
        let target = Self::new(&reader.snapshot, &reader.writes, reader.facts.started_ns, table)?;
        Ok(Self {
            reader: Some(reader),
            ..target
        })
    }

    fn new(snapshot: &'a Snapshot, writes: &Writes, started_ns: i64, table: ObjectId) -> SqlResult<Self> {
        let object = snapshot.catalog.by_id(table).cloned();
        let object =
            object.ok_or_else(|| SqlError::new(sqlstate::UNDEFINED_TABLE, "the table does not exist"))?;
        let Some(def) = object.as_table() else {
            return Err(SqlError::new(
                sqlstate::WRONG_OBJECT_TYPE,
                format!("\"{}\" is not a table", object.name),
            ));
        };
        let Some(origin) = snapshot.origin else {
            return Err(SqlError::new(
                sqlstate::CANNOT_CONNECT_NOW,
                "this region is still joining the cluster",
            )
            .hint("it accepts writes once it has heard from the primary region"));
        };
        if let TableLocality::RegionalByTable(region) = def.locality
            && region != origin.region
        {
            let name = snapshot
                .catalog
                .regions
                .get(&region)
                .map_or("?", |region| region.name.as_str());
            return Err(SqlError::unsupported(format!(
                "rows of table \"{}\" are written in region \"{name}\" only",
                object.name
            ))
            .hint(format!("connect to region \"{name}\"")));
        }
        let earlier = writes.get(&table).cloned();
        let pending = earlier.unwrap_or_else(|| {
            let known = snapshot.tables.get(&table).map(|table| Arc::clone(&table.def));
            Arc::new(PendingTable::new(known.unwrap_or_else(|| Arc::new(def.clone()))))
        });
        Ok(Self {
            snapshot,
            started_ns,
            reader: None,
            object,
            pending,
            changes: Vec::new(),
        })
    }

    fn reader(&self) -> &'a Reader {
        self.reader.expect("a statement with queries has a reader")
    }

    /// Writes rows with the version under each key.
    pub(crate) fn write(&mut self, rows: RecordBatch, deleted: bool, expected: &[Expected]) {
        let (table, earlier) = (self.object.id, Some(Arc::clone(&self.pending)));
        self.changes.push(Change {
            table,
            earlier,
            rows,
            deleted,
            expected: expected.to_vec(),
            new_keys: false,
        });
    }

    /// Writes rows whose keys are distinct, and under which the transaction sees no row and has written none.
    fn write_new(&mut self, rows: RecordBatch, expected: Vec<Expected>) {
        let (table, earlier) = (self.object.id, Some(Arc::clone(&self.pending)));
        self.changes.push(Change {
            table,
            earlier,
            rows,
            deleted: false,
            expected,
            new_keys: true,
        });
    }

    /// Evaluates RETURNING over the affected rows.
    async fn returning(
        &self,
        query: &Option<Box<ast::Query>>,
        rows: &RecordBatch,
    ) -> SqlResult<Option<RecordBatch>> {
        let Some(query) = query else { return Ok(None) };
        let replaced = vec![(self.object.name.clone(), rows.clone())];
        let planned = self
            .reader()
            .plan(
                query.as_ref().clone(),
                PlanOptions {
                    replaced,
                    ..PlanOptions::default()
                },
            )
            .await?;
        planned.collect().await.map(Some)
    }

    /// The notice of a statement that found nothing here while other regions may hold rows.
    fn nothing_matched(&self, count: usize) -> Vec<SqlError> {
        let reader = self.reader();
        let is_partial = self.object.locality() == Locality::Regional && reader.is_multi_region();
        if count > 0 || !is_partial || reader.facts.settings().reads_local() {
            return Vec::new();
        }
        let message = format!(
            "no row of region \"{}\" matched; rows of other regions were not looked at",
            reader.facts.region
        );
        vec![SqlError::new("00000", message).hint("WHERE tributary_region = 'r' writes in region r")]
    }
}
