//! A session: settings, the transaction, and the execution of statements. It knows no protocol.
//!
//! ```text
//!   pgwire ─▶ Session::execute(Parsed) ─▶ Outcome (rows as a stream, a tag, or a COPY to be fed)
//!                │
//!                ├─ transaction.rs   one snapshot, pending writes, one WriteSet at the end
//!                └─ statement/       one file per kind of statement
//! ```
//!
//! All statements of a transaction read one snapshot with the transaction's own writes over it. A statement outside of
//! a transaction is one by itself and runs again when its commit meets a conflict. A session never reads a snapshot
//! older than its own last commit. What reads no rows, as an INSERT of values, does not wait for that snapshot: whether its
//! keys are free is decided when it is committed, and only if they seem taken is it run again, at a snapshot that shows all.

pub mod backend;
#[cfg(test)]
pub(crate) mod memory_backend;
pub mod parameters;
pub mod pending;
pub mod plain_insert;
pub mod prepared;
pub mod settings;
mod statement;
pub mod transaction;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::sql::sqlparser::ast;
use tributary_planner::catalog::PlanSettings;
use tributary_planner::parse::{Parsed, Statement};
use tributary_region::Snapshot;
use tributary_replication::Epoch;
use tributary_storage::{OriginId, Position};

use crate::copy::CopyTarget;
use crate::pgwire::error::{SqlError, SqlResult};
use crate::pgwire::sqlstate;
use crate::query::facts::{Facts, frontier_text};
use crate::query::lookup::Lookup;
use crate::query::reader::{Reader, Writes};
use crate::query::relation::{Exposed, Relation};
use crate::query::schema::PublicSchema;
use backend::{Backend, WaitError};
use settings::Settings;
use transaction::Transaction;

/// How long a session waits for a snapshot that shows its own last commit.
const OWN_WRITES_TIMEOUT: Duration = Duration::from_secs(30);

/// What a statement gave.
pub enum Outcome {
    /// Rows, computed as they are read. The tag is `SELECT`, `INSERT 0`, …: the number of rows is added to it.
    Rows {
        /// The columns.
        schema: SchemaRef,
        /// The rows.
        rows: SendableRecordBatchStream,
        /// The command tag without the number of rows.
        tag: &'static str,
    },
    /// Done, with this tag.
    Done(String),
    /// The client is to send data for this table.
    CopyIn(CopyTarget),
}

/// How a statement stands to transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Alone: outside of a transaction it is one by itself, and may run again on a conflict.
    Alone,
    /// One of several: outside of a transaction it begins an implicit one, which the protocol ends.
    Several,
}

/// A client's session.
pub struct Session {
    backend: Arc<dyn Backend>,
    user: String,
    process: i32,
    settings: Arc<Mutex<Settings>>,
    memory_bytes_max: usize,
    transaction: Option<Transaction>,
    /// An explicit transaction failed and waits for its ROLLBACK.
    is_failed: bool,
    /// A snapshot at or after this position shows everything this session wrote.
    own_position: Position,
    /// The last commit of this session here. DDL is not one: other regions wait for the catalog.
    own_commit: Position,
    /// What it wrote in other regions: where the last of it is in.
    written_elsewhere: BTreeMap<OriginId, Epoch>,
    /// A snapshot at or after this position has the catalog that this session's own DDL made.
    own_catalog: Position,
    notices: Vec<SqlError>,
    reported: Vec<&'static str>,
    /// What may interrupt a statement.
    interruption: Arc<Interruption>,
    /// How long a statement may wait for a region that is behind; without an end where somebody can interrupt it.
    behind_max: Option<Duration>,
}

/// What a connection and the statement that it runs know of an interruption.
#[derive(Debug, Default)]
pub struct Interruption {
    /// A commit is on its way: what it came to must be told, so nothing may interrupt it.
    is_committing: AtomicBool,
    /// An interruption came meanwhile. The statement takes it, if it turns out that nothing was written.
    is_pending: AtomicBool,
}

impl Interruption {
    /// Whether a statement must not be interrupted now; then it is told that it would have been.
    pub fn must_wait(&self) -> bool {
        let must_wait = self.is_committing.load(Ordering::Acquire);
        self.is_pending.store(must_wait, Ordering::Release);
        must_wait
    }

    /// Whether an interruption that had to wait was not taken by its statement: it is over with this.
    pub fn take_pending(&self) -> bool {
        self.is_pending.swap(false, Ordering::AcqRel)
    }
}

/// The transaction's state, as ReadyForQuery tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// In none.
    Idle,
    /// In one.
    Open,
    /// In one that failed.
    Failed,
}

impl Session {
    /// A session of a user; `process` is the number told to the client.
    pub fn new(
        backend: Arc<dyn Backend>,
        user: String,
        process: i32,
        settings: Settings,
        memory_bytes_max: usize,
    ) -> Self {
        Self {
            backend,
            user,
            process,
            settings: Arc::new(Mutex::new(settings)),
            memory_bytes_max,
            transaction: None,
            is_failed: false,
            own_position: Position(0),
            own_commit: Position(0),
            written_elsewhere: BTreeMap::new(),
            own_catalog: Position(0),
            notices: Vec::new(),
            reported: Vec::new(),
            interruption: Arc::default(),
            behind_max: None,
        }
    }

    /// For who interrupts its statements.
    pub fn interruption(&self) -> Arc<Interruption> {
        Arc::clone(&self.interruption)
    }

    /// Has statements wait no longer than this for a region that is behind.
    pub fn wait_at_most(&mut self, max: Duration) {
        self.behind_max = Some(max);
    }

    /// The settings now.
    pub fn settings(&self) -> Settings {
        self.settings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Reads the settings.
    pub fn with_settings<T>(&self, read: impl FnOnce(&Settings) -> T) -> T {
        read(&self.settings.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether a transaction is open, be it the client's or an implicit one.
    pub fn is_in_transaction(&self) -> bool {
        self.transaction.is_some()
    }

    /// The transaction's state. An implicit transaction is none to the client.
    pub fn status(&self) -> Status {
        match &self.transaction {
            _ if self.is_failed => Status::Failed,
            Some(transaction) if transaction.is_explicit => Status::Open,
            _ => Status::Idle,
        }
    }

    /// Notices since the last call.
    pub fn take_notices(&mut self) -> Vec<SqlError> {
        std::mem::take(&mut self.notices)
    }

    /// Settings that changed since the last call and that clients follow, with their values.
    pub fn take_reported(&mut self) -> Vec<(&'static str, String)> {
        let settings = self.settings();
        let changed = std::mem::take(&mut self.reported);
        changed
            .into_iter()
            .filter_map(|name| settings.get(name).ok().map(|value| (name, value)))
            .collect()
    }

    /// Runs a statement. An error ends an implicit transaction and fails an explicit one.
    pub async fn execute(&mut self, parsed: &Parsed, scope: Scope) -> SqlResult<Outcome> {
        let ends = statement::transactions::ends_failed(&parsed.statement);
        if self.is_failed && !ends {
            return Err(failed_transaction());
        }
        let outcome = self.run(parsed, scope).await;
        if outcome.is_err() {
            self.fail();
        }
        outcome
    }

    /// An error outside of `execute` (a protocol error, a cancel, a failed parse) in the current transaction.
    pub fn fail(&mut self) {
        if let Some(transaction) = self.transaction.take() {
            self.is_failed |= transaction.is_explicit;
        }
    }

    /// Ends an implicit transaction, if there is one: at Sync, or after the last statement of a simple query.
    pub async fn end_implicit(&mut self) -> SqlResult<()> {
        match &self.transaction {
            Some(transaction) if !transaction.is_explicit => self.commit().await,
            _ => Ok(()),
        }
    }

    async fn run(&mut self, parsed: &Parsed, scope: Scope) -> SqlResult<Outcome> {
        use statement::*;
        match &parsed.statement {
            Statement::Sql(sql) => sql::run(self, sql, parsed, scope).await,
            Statement::Insert(_) | Statement::Update(_) | Statement::Delete(_) => {
                dml::run(self, parsed, scope).await
            }
            Statement::Truncate(tables) => truncate::run(self, tables, scope).await,
            Statement::Copy(copy) => copy::start(self, copy, &parsed.text, scope).await,
            Statement::ExplainCreateMaterializedView(create) => explain::create_view(self, create).await,
            Statement::ExplainMaterializedView(name) => explain::view(self, name).await,
            Statement::Flush => flush::run(self).await,
            Statement::ShowRegions => {
                system_query(self, "SELECT * FROM tributary.regions ORDER BY name").await
            }
            Statement::ShowTables => system_query(self, "SELECT * FROM tributary.tables ORDER BY name").await,
            Statement::CreateTable(_)
            | Statement::CreateSource(_)
            | Statement::AlterSource(_)
            | Statement::AlterDatabase(_)
            | Statement::AlterTable(_)
            | Statement::CreateSink(_)
            | Statement::CreateView(_)
            | Statement::CreateMaterializedView(_)
            | Statement::Drop(_) => ddl::run(self, parsed).await,
        }
    }

    /// The data of a COPY are complete.
    pub async fn finish_copy(
        &mut self,
        target: CopyTarget,
        input: Vec<u8>,
        scope: Scope,
    ) -> SqlResult<Outcome> {
        let outcome = statement::copy::finish(self, &target, input, scope).await;
        if outcome.is_err() {
            self.fail();
        }
        outcome
    }

    /// The newest snapshot that shows this session's own writes.
    async fn fresh_snapshot(&self) -> SqlResult<Arc<Snapshot>> {
        let snapshot = self.backend.snapshot();
        if snapshot.position >= self.own_position {
            return Ok(snapshot);
        }
        self.backend
            .wait_for(self.own_position, OWN_WRITES_TIMEOUT)
            .await
            .map_err(of_wait_error)
    }

    /// The newest snapshot there is, for what reads no rows. It may lack this session's last commits, not its DDL.
    async fn newest_snapshot(&self) -> SqlResult<Arc<Snapshot>> {
        let snapshot = self.backend.snapshot();
        match snapshot.position >= self.own_catalog {
            true => Ok(snapshot),
            false => self.fresh_snapshot().await,
        }
    }

    /// Where everything is in that this session wrote, here and elsewhere.
    fn written(&self, snapshot: &Snapshot) -> Vec<(OriginId, Epoch)> {
        let here = snapshot.origin.filter(|_| self.own_commit > Position(0));
        let here = here.map(|origin| (origin, Epoch(self.own_commit.0)));
        // What was lost with a region's disk is shown nowhere any more.
        let is_there = |(origin, epoch): &(OriginId, Epoch)| {
            let region = origin.region;
            snapshot.frontier.get(*origin) >= *epoch
                || (snapshot.catalog.members().any(|(member, _)| member == region)
                    && snapshot.catalog.origin_of(region) == Some(*origin))
        };
        let elsewhere = self
            .written_elsewhere
            .iter()
            .map(|(&origin, &epoch)| (origin, epoch))
            .filter(is_there);
        here.into_iter().chain(elsewhere).collect()
    }

    /// Whether a snapshot lacks something that this session wrote: then an error found in it is no answer.
    fn lacks_own_writes(&self, snapshot: &Snapshot) -> bool {
        snapshot.position < self.own_position
    }

    /// What a statement is planned by, when it is not run.
    async fn planning_reader(&self) -> SqlResult<Reader> {
        match &self.transaction {
            Some(transaction) => Ok(self.reader_of(transaction)),
            None => {
                let snapshot = self.newest_snapshot().await?;
                Ok(self.reader_of(&Transaction::new(snapshot, false)))
            }
        }
    }

    /// What a statement reads: the transaction's snapshot, or a fresh one.
    async fn reader(&self) -> SqlResult<Reader> {
        match &self.transaction {
            Some(transaction) => Ok(self.reader_of(transaction)),
            None => {
                let snapshot = self.fresh_snapshot().await?;
                Ok(self.reader_of(&Transaction::new(snapshot, false)))
            }
        }
    }

    /// The query as a lookup in what a statement reads, with its relation, if it is one.
    async fn lookup(&self, query: &ast::Query) -> SqlResult<Option<(Lookup, Relation, Arc<Snapshot>)>> {
        let (snapshot, writes) = match &self.transaction {
            Some(transaction) => (Arc::clone(&transaction.snapshot), transaction.writes.clone()),
            None => (self.fresh_snapshot().await?, Writes::new()),
        };
        let Some(lookup) = Lookup::of(query, &snapshot) else {
            return Ok(None);
        };
        // The same key may be there in every region.
        let reads_local = self.with_settings(|settings| settings.reads_local());
        if !reads_local && self.backend.far().is_some() && PublicSchema::is_far(&snapshot, &lookup.object) {
            return Ok(None);
        }
        let region = self.backend.region_name();
        let public = PublicSchema::new(Arc::clone(&snapshot), writes, Exposed::default(), region);
        let relation = public.stored(&lookup.object);
        Ok(relation.map(|relation| (lookup, relation, snapshot)))
    }

    fn reader_of(&self, transaction: &Transaction) -> Reader {
        let snapshot = Arc::clone(&transaction.snapshot);
        let facts = Facts {
            user: self.user.clone(),
            process: self.process,
            region: self.backend.region_name(),
            version: self.backend.version(),
            source_tasks: Arc::new(self.backend.source_tasks()),
            sink_tasks: Arc::new(self.backend.sink_tasks()),
            secure_links: self.backend.secure_links(),
            frontier: frontier_text(&snapshot),
            started_ns: transaction.started_ns,
            settings: Arc::clone(&self.settings),
        };
        let reads_local = self.with_settings(|settings| settings.reads_local());
        Reader {
            snapshot,
            writes: transaction.writes.clone(),
            facts,
            memory_bytes_max: self.memory_bytes_max,
            far: self.backend.far().filter(|_| !reads_local),
            sends_sides: true,
        }
    }

    /// Whether a statement that failed may be run at a newer snapshot: alone it reads whichever there is.
    fn may_read_again(&self, error: &SqlError, attempt: u32) -> bool {
        error.state == sqlstate::SERIALIZATION_FAILURE
            && self.transaction.is_none()
            && attempt < transaction::AUTOCOMMIT_ATTEMPTS_MAX
    }

    fn plan_settings(&self) -> PlanSettings {
        PlanSettings {
            time_zone: self.settings().get("TimeZone").unwrap_or_else(|_| "UTC".into()),
        }
    }

    fn notice(&mut self, notice: SqlError) {
        let least = self.settings().get("client_min_messages").unwrap_or_default();
        let is_warning = notice.state.starts_with("01");
        let is_wanted = match least.as_str() {
            "error" => false,
            "warning" => is_warning,
            _ => true,
        };
        if is_wanted {
            self.notices.push(notice);
        }
    }
}

fn failed_transaction() -> SqlError {
    SqlError::new(
        sqlstate::IN_FAILED_TRANSACTION,
        "current transaction is aborted, commands ignored until end of transaction block",
    )
    .hint("ROLLBACK, then run the transaction again")
}

fn of_wait_error(error: WaitError) -> SqlError {
    match error {
        WaitError::Timeout => SqlError::new(
            sqlstate::NOT_IN_PREREQUISITE_STATE,
            "the snapshot with this session's own writes is late",
        )
        .hint("the region is busy; try again"),
        WaitError::Stopped => SqlError::new(sqlstate::ADMIN_SHUTDOWN, "the server is stopping").fatal(),
    }
}
