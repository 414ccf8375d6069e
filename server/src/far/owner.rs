//! The owner's side: a scan of its own rows, a batch at a time.

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

/// Begins a scan.
///
/// # Errors
/// What is to be answered instead.
pub fn open(versions: &Versions, snapshot: &Snapshot, request: &ScanRequest) -> Result<Scan, Opened> {
    // The owner's own catalog decides, whatever the asking region knows.
    if snapshot.catalog.is_resident(request.table) {
        return Err(Opened::Resident);
    }
    let tables = versions.get(request.origin, request.epoch)?;
    let Some(table) = tables.get(&request.table) else {
        // It was created later: nothing was in it here. One that was dropped here is dropped where that is known.
        return Ok(Scan {
            batches: Box::new(std::iter::empty()),
            condition: None,
            columns: Vec::new(),
            rows_left: 0,
        });
    };
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
    if columns.iter().any(|column| *column >= schema.fields().len()) {
        return Err(Opened::Unreadable);
    }
    let filter = filter_of(request, &schema)?;
    let condition = match &filter {
        Some(filter) => Some(compile(filter, &schema).ok_or(Opened::Unreadable)?),
        None => None,
    };
    Ok(Scan {
        batches: relation.scan_for(filter.as_slice()),
        condition,
        columns,
        rows_left: request.rows_max.unwrap_or(u64::MAX),
    })
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

impl Iterator for Scan {
    type Item = Result<RecordBatch, DataFusionError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.rows_left > 0 {
            let taken = match self.batches.next()? {
                Ok(batch) => self.take(&batch),
                Err(error) => Err(error),
            };
            match taken {
                Ok(batch) if batch.num_rows() == 0 => {}
                taken => return Some(taken),
            }
        }
        None
    }
}
