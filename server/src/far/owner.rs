//! The owner's side: a scan of its own rows, a batch at a time, or the states of a partial aggregation over it
//! ([`super::states`]).

use std::sync::Arc;

use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::compute::filter_record_batch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::ToDFSchema;
use datafusion::error::DataFusionError;
use datafusion::execution::context::ExecutionProps;
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::physical_expr::create_physical_expr;
use datafusion::physical_plan::PhysicalExpr;
use tributary_region::Snapshot;
use tributary_replication::bundle::decode_rows;

use super::request::Request;
use super::states::States;
use super::window::Versions;
use super::{Opened, ScanRequest, condition};
use crate::query::relation::{Exposed, RegionNames, Relation};

/// Rows of one scan.
pub struct Scan {
    batches: Box<dyn Iterator<Item = Result<RecordBatch, DataFusionError>> + Send>,
    condition: Option<Arc<dyn PhysicalExpr>>,
    columns: Vec<usize>,
    rows_left: u64,
}

/// What an owner sends: batches, as they are asked for.
pub type Answer = Box<dyn Iterator<Item = Result<RecordBatch, DataFusionError>> + Send>;

/// Begins to answer a request.
///
/// # Errors
/// What is to be answered instead.
pub fn answer(versions: &Versions, snapshot: &Snapshot, request: &Request) -> Result<Answer, Opened> {
    let Some(part) = part(versions, snapshot, request.scan())? else {
        return Ok(Box::new(std::iter::empty()));
    };
    Ok(match request {
        Request::Rows(_) => Box::new(part.rows),
        Request::States(partial) => Box::new(States::open(partial, part)?),
    })
}

/// The rows that a request reads.
pub(super) struct Part {
    /// The columns that are read: they leave as they are, or as states of groups of their rows.
    pub columns: SchemaRef,
    pub rows: Scan,
}

/// The one way to rows that leave this region, as they are or aggregated: of a table whose residency is enforced there are
/// none, for a group may be a single row, and its key is one's value. `None` for a table of which nothing was here at
/// that epoch.
fn part(versions: &Versions, snapshot: &Snapshot, request: &ScanRequest) -> Result<Option<Part>, Opened> {
    // The owner's own catalog decides, whatever the asking region knows.
    if snapshot.catalog.is_resident(request.table) {
        return Err(Opened::Resident);
    }
    let tables = versions.get(request.origin, request.epoch)?;
    let Some(table) = tables.get(&request.table) else {
        // It was created later: nothing was in it here.
        return Ok(None);
    };
    if snapshot.catalog.table(request.table).is_none() {
        // It was dropped: how it was protected is not known any more.
        return Err(Opened::Gone);
    }
    let catalog = Arc::clone(&snapshot.catalog);
    let names: RegionNames = Arc::new(move |origin| catalog.region_name(origin.region).map(str::to_owned));
    let exposed = Exposed {
        hidden: request.hidden,
        versions: false,
    };
    let relation = Relation::table(table, exposed, None, names);
    let schema = relation.columns();
    let columns = request.columns.iter().map(|column| usize::try_from(*column).ok());
    let columns = columns
        .collect::<Option<Vec<usize>>>()
        .ok_or(Opened::Unreadable)?;
    let read = schema.project(&columns).map_err(|_| Opened::Unreadable)?;
    let filter = filter_of(request, &schema)?;
    let condition = match &filter {
        Some(filter) => Some(compile(filter, &schema).ok_or(Opened::Unreadable)?),
        None => None,
    };
    Ok(Some(Part {
        columns: Arc::new(read),
        rows: Scan {
            batches: relation.scan_for(filter.as_slice()),
            condition,
            columns,
            rows_left: request.rows_max.unwrap_or(u64::MAX),
        },
    }))
}

fn filter_of(request: &ScanRequest, schema: &SchemaRef) -> Result<Option<Expr>, Opened> {
    let Some(condition) = &request.condition else {
        return Ok(None);
    };
    let values = match request.values.is_empty() {
        true => None,
        false => Some(decode_rows(&request.values).map_err(|_| Opened::Unreadable)?),
    };
    if values
        .as_ref()
        .is_some_and(|values| values.num_columns() > condition::VALUES_MAX || values.num_rows() != 1)
    {
        return Err(Opened::Unreadable);
    }
    let filter = condition::read(condition, schema, values.as_ref());
    filter.ok_or(Opened::Unreadable).map(Some)
}

fn compile(filter: &Expr, schema: &SchemaRef) -> Option<Arc<dyn PhysicalExpr>> {
    let of_relation = Arc::clone(schema).to_dfschema().ok()?;
    create_physical_expr(
        filter,
        &of_relation,
        &ExecutionProps::new(),
        &PhysicalPlanningContext::default(),
    )
    .ok()
}

impl Scan {
    fn take(&mut self, batch: &RecordBatch) -> Result<RecordBatch, DataFusionError> {
        let kept = match &self.condition {
            None => batch.clone(),
            Some(condition) => {
                let holds = condition.evaluate(batch)?.into_array(batch.num_rows())?;
                filter_record_batch(batch, holds.as_boolean())?
            }
        };
        let rows = usize::try_from(self.rows_left)
            .unwrap_or(usize::MAX)
            .min(kept.num_rows());
        self.rows_left -= rows as u64;
        Ok(kept.slice(0, rows).project(&self.columns)?)
    }
}

impl Scan {
    /// What is wanted of the next batch, which may be nothing.
    pub(super) fn read(&mut self) -> Option<Result<RecordBatch, DataFusionError>> {
        if self.rows_left == 0 {
            return None;
        }
        let batch = self.batches.next()?;
        Some(batch.and_then(|batch| self.take(&batch)))
    }
}

impl Iterator for Scan {
    type Item = Result<RecordBatch, DataFusionError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.read()? {
                Ok(batch) if batch.num_rows() == 0 => {}
                read => return Some(read),
            }
        }
    }
}
