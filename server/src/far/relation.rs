//! A REGIONAL table over all regions, as DataFusion reads it at the gateway: one partition per region.
//!
//! Scans in other regions are opened when the statement's plan is ready ([`FarScans::open_all`]): once they all are, every
//! version is safe, and what can fail because of a version or a region has failed, before the first row.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::ScalarValue;
use datafusion::datasource::TableType;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, Operator, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use futures::StreamExt;
use tributary_replication::bundle::encode_rows;
use tributary_storage::ObjectId;

use super::condition::Writer;
use super::{FarError, FarReads, FarRows, Owner, ScanRequest};
use crate::pgwire::error::{SqlError, SqlResult};
use crate::query::relation::{REGION_COLUMN, Relation};

/// The scans of one statement in other regions.
#[derive(Default)]
pub struct FarScans(Mutex<Vec<Arc<FarPartition>>>);

impl FarScans {
    /// Opens all scans that were planned, at once.
    ///
    /// # Errors
    /// 57P03 for a region that cannot be reached, 40001 for a version that is gone.
    pub async fn open_all(&self) -> SqlResult<()> {
        let planned = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let opened = futures::future::join_all(planned.iter().map(|scan| scan.open())).await;
        opened.into_iter().collect()
    }
}

/// See the module's documentation.
pub struct FarRelation {
    local: Relation,
    /// Whether the gateway's own part is read.
    reads_own: bool,
    own_region: String,
    table: ObjectId,
    hidden: bool,
    resident: bool,
    owners: Vec<Owner>,
    reads: Arc<dyn FarReads>,
    scans: Arc<FarScans>,
}

/// What a [`FarRelation`] is made of, beside the gateway's own rows.
pub(crate) struct Far {
    pub table: ObjectId,
    pub reads_own: bool,
    pub own_region: String,
    pub hidden: bool,
    /// Whether the gateway knows that the table's residency is enforced: then nobody is asked.
    pub resident: bool,
    pub owners: Vec<Owner>,
    pub reads: Arc<dyn FarReads>,
    pub scans: Arc<FarScans>,
}

impl FarRelation {
    pub(crate) fn new(local: Relation, far: Far) -> Self {
        Self {
            local,
            reads_own: far.reads_own,
            own_region: far.own_region,
            table: far.table,
            hidden: far.hidden,
            resident: far.resident,
            owners: far.owners,
            reads: far.reads,
            scans: far.scans,
        }
    }
}

impl fmt::Debug for FarRelation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FarRelation")
            .field("table", &self.table)
            .field("owners", &self.owners)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for FarRelation {
    fn schema(&self) -> SchemaRef {
        self.local.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = self.local.schema();
        let columns: Vec<usize> =
            projection.map_or_else(|| (0..schema.fields().len()).collect(), Clone::clone);
        let shown = Arc::new(schema.project(&columns)?);
        let regions = regions_named(filters);
        let is_wanted = |region: &str| {
            regions
                .as_ref()
                .is_none_or(|regions| regions.iter().any(|named| named == region))
        };
        let mut partitions: Vec<Arc<dyn PartitionStream>> = Vec::new();
        if self.reads_own && is_wanted(&self.own_region) {
            partitions.push(self.local.partition(filters, columns.clone(), Arc::clone(&shown)));
        }
        let mut writer = Writer::new(&schema);
        let condition = writer.all(filters);
        let values = writer
            .values()
            .map(|values| encode_rows(&values))
            .unwrap_or_default();
        for owner in self.owners.iter().filter(|owner| is_wanted(&owner.region)) {
            if self.resident {
                let region = owner.region.clone();
                let error = SqlError::from(FarError::Resident { region });
                return Err(DataFusionError::External(Box::new(error)));
            }
            let request = ScanRequest {
                from: self.own_region.clone(),
                table: self.table,
                origin: owner.origin,
                epoch: owner.epoch,
                columns: columns.iter().map(|column| *column as u32).collect(),
                hidden: self.hidden,
                condition: condition.clone(),
                values: values.clone(),
                rows_max: limit.map(|limit| limit as u64),
            };
            let partition = Arc::new(FarPartition {
                region: owner.region.clone(),
                schema: Arc::clone(&shown),
                reads: Arc::clone(&self.reads),
                request,
                opened: Mutex::default(),
            });
            let mut scans = self.scans.0.lock().unwrap_or_else(PoisonError::into_inner);
            scans.push(Arc::clone(&partition));
            partitions.push(partition);
        }
        Ok(Arc::new(StreamingTableExec::try_new(
            shown,
            partitions,
            None,
            [],
            false,
            limit,
        )?))
    }
}

/// The regions that a filter on the region's name leaves; `None` when none does.
fn regions_named(filters: &[Expr]) -> Option<Vec<String>> {
    let is_region = |expr: &Expr| matches!(expr, Expr::Column(column) if column.name == REGION_COLUMN);
    let text = |expr: &Expr| match expr {
        Expr::Literal(ScalarValue::Utf8(Some(text)), _) => Some(text.clone()),
        _ => None,
    };
    filters.iter().find_map(|filter| named(filter, &is_region, &text))
}

fn named(
    filter: &Expr,
    is_region: &impl Fn(&Expr) -> bool,
    text: &impl Fn(&Expr) -> Option<String>,
) -> Option<Vec<String>> {
    match filter {
        Expr::BinaryExpr(binary) if binary.op == Operator::Eq => {
            let sides = [(&*binary.left, &*binary.right), (&*binary.right, &*binary.left)];
            let mut named = sides.into_iter().filter(|(column, _)| is_region(column));
            named.find_map(|(_, value)| text(value)).map(|one| vec![one])
        }
        Expr::BinaryExpr(binary) if binary.op == Operator::And => {
            named(&binary.left, is_region, text).or_else(|| named(&binary.right, is_region, text))
        }
        Expr::BinaryExpr(binary) if binary.op == Operator::Or => {
            let (left, right) = (
                named(&binary.left, is_region, text)?,
                named(&binary.right, is_region, text)?,
            );
            Some([left, right].concat())
        }
        Expr::InList(list) if !list.negated && is_region(&list.expr) => list.list.iter().map(text).collect(),
        _ => None,
    }
}

/// The part of a table that is in another region.
pub(crate) struct FarPartition {
    region: String,
    schema: SchemaRef,
    reads: Arc<dyn FarReads>,
    request: ScanRequest,
    opened: Mutex<Option<FarRows>>,
}

impl FarPartition {
    async fn open(&self) -> SqlResult<()> {
        let rows = self.reads.open(&self.region, self.request.clone()).await?;
        *self.opened.lock().unwrap_or_else(PoisonError::into_inner) = Some(rows);
        Ok(())
    }

    fn checked(schema: &SchemaRef, rows: &RecordBatch) -> Result<RecordBatch> {
        let fits = rows.num_columns() == schema.fields().len()
            && rows
                .columns()
                .iter()
                .zip(schema.fields())
                .all(|(column, field)| column.data_type() == field.data_type());
        if !fits {
            let error = SqlError::internal("another region sent rows of other columns");
            return Err(DataFusionError::External(Box::new(error)));
        }
        Ok(RecordBatch::try_new_with_options(
            Arc::clone(schema),
            rows.columns().to_vec(),
            &datafusion::arrow::array::RecordBatchOptions::new().with_row_count(Some(rows.num_rows())),
        )?)
    }
}

impl fmt::Debug for FarPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FarPartition")
            .field("region", &self.region)
            .field("epoch", &self.request.epoch)
            .field("condition", &self.request.condition)
            .finish_non_exhaustive()
    }
}

impl PartitionStream for FarPartition {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner).take();
        let schema = Arc::clone(&self.schema);
        let external = |error: SqlError| DataFusionError::External(Box::new(error));
        let rows = match opened {
            Some(rows) => rows
                .map(move |batch| match batch {
                    Ok(batch) => Self::checked(&schema, &batch),
                    Err(error) => Err(external(error.into())),
                })
                .boxed(),
            // Every other plan reads a partition once.
            None => futures::stream::once(async move {
                Err(external(
                    SqlError::unsupported("the recursive part of a query cannot read rows of other regions")
                        .hint("SET regional_reads = 'local', or read them from a materialized view"),
                ))
            })
            .boxed(),
        };
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), rows))
    }
}
