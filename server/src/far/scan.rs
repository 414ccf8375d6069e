//! What is read in other regions, as a node of a statement's plan: rows of a table, or states of its groups.
//!
//! One partition per region, the gateway's own first. Scans are opened when the statement's plan is ready
//! ([`FarScans::open_all`]): once they all are, every version is safe, and what can fail because of a version or a
//! region has failed, before the first row. The sides of joins that go along are computed before.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use datafusion::arrow::array::{RecordBatch, RecordBatchOptions};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_plan::coop::make_cooperative;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, SchedulingType};
use datafusion::physical_plan::limit::LimitStream;
use datafusion::physical_plan::metrics::{
    BaselineMetrics, Count, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PhysicalExpr,
    PlanProperties, ReplaceChildrenOptions,
};
use futures::StreamExt;
use tributary_storage::ObjectId;

use super::request::Request;
use super::side::{self, Side};
use super::{FarError, FarReads, FarRows};
use crate::pgwire::error::SqlError;

/// The scans of one statement in other regions.
#[derive(Default)]
pub struct FarScans {
    planned: Mutex<Vec<Arc<FarPartition>>>,
    /// The REGIONAL tables that the statement reads.
    tables: Mutex<BTreeSet<ObjectId>>,
    /// The statement reads what must not be sent to other regions.
    keeps_sides: AtomicBool,
}

impl FarScans {
    /// Opens all scans that were planned, at once.
    ///
    /// # Errors
    /// For a region that cannot be reached, a version that is gone, and what an owner does not understand.
    pub async fn open_all(
        &self,
        task: impl FnOnce() -> Arc<TaskContext>,
    ) -> std::result::Result<(), FarError> {
        let planned = std::mem::take(&mut *self.planned());
        if planned.iter().any(|scan| !scan.sides.is_empty()) {
            self.compute_sides(&planned, &task()).await?;
        }
        let opened = futures::future::join_all(planned.iter().map(|scan| scan.open())).await;
        opened.into_iter().collect()
    }

    /// Computes what goes along. A transaction may have begun before residency of what it reads was enforced.
    async fn compute_sides(
        &self,
        planned: &[Arc<FarPartition>],
        task: &Arc<TaskContext>,
    ) -> std::result::Result<(), FarError> {
        let computing = async {
            let mut bytes = 0_usize;
            let mut known = Vec::new();
            for side in planned.iter().flat_map(|scan| &scan.sides) {
                // Each is there once per region.
                if known.iter().any(|known| Arc::ptr_eq(known, side)) {
                    continue;
                }
                side.compute(task).await?;
                bytes = bytes.saturating_add(side.memory_bytes());
                if bytes > side::STATEMENT_BYTES_MAX {
                    return Err(FarError::SideStays);
                }
                known.push(Arc::clone(side));
            }
            Ok(())
        };
        let computed = tokio::time::timeout(side::TIME_MAX, computing).await;
        computed.unwrap_or(Err(FarError::SideStays))?;
        let tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let is_resident =
            |scan: &Arc<FarPartition>| tables.iter().any(|table| scan.reads.is_resident(*table));
        match planned.first().is_some_and(is_resident) {
            true => Err(FarError::SideStays),
            false => Ok(()),
        }
    }

    /// The statement reads a REGIONAL table.
    pub fn read(&self, table: ObjectId) {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        tables.insert(table);
    }

    /// The statement reads what must not be sent to other regions: no join goes along.
    pub fn keep_sides(&self) {
        self.keeps_sides.store(true, Ordering::Relaxed);
    }

    pub(super) fn may_send_sides(&self) -> bool {
        !self.keeps_sides.load(Ordering::Relaxed)
    }

    /// Whether regions are asked to aggregate.
    pub fn has_pushed(&self) -> bool {
        let planned = self.planned();
        planned
            .iter()
            .any(|scan| matches!(scan.request, Request::States(_)))
    }

    pub(super) fn add(&self, scan: Arc<FarPartition>) {
        self.planned().push(scan);
    }

    /// Others take the place of these.
    pub(super) fn replace(&self, old: &[Arc<FarPartition>], new: &[Arc<FarPartition>]) {
        let mut planned = self.planned();
        planned.retain(|scan| !old.iter().any(|old| Arc::ptr_eq(old, scan)));
        planned.extend(new.iter().cloned());
    }

    fn planned(&self) -> MutexGuard<'_, Vec<Arc<FarPartition>>> {
        self.planned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The part of a table that is in another region.
pub(crate) struct FarPartition {
    pub(super) region: String,
    pub(super) schema: SchemaRef,
    pub(super) reads: Arc<dyn FarReads>,
    pub(super) request: Request,
    /// What goes along with it.
    sides: Vec<Arc<Side>>,
    opened: Mutex<Option<FarRows>>,
}

impl FarPartition {
    pub(super) fn new(region: String, schema: SchemaRef, reads: Arc<dyn FarReads>, request: Request) -> Self {
        Self {
            region,
            schema,
            reads,
            request,
            sides: Vec::new(),
            opened: Mutex::default(),
        }
    }

    /// The same with sides of joins that go along, once they are computed.
    pub(super) fn with_sides(mut self, sides: Vec<Arc<Side>>) -> Self {
        self.sides = sides;
        self
    }

    async fn open(&self) -> std::result::Result<(), FarError> {
        let rows = match &self.request {
            Request::States(request) if !self.sides.is_empty() => {
                let mut request = request.clone();
                request.sides = self.sides.iter().map(|side| side.bytes().to_vec()).collect();
                self.reads.open(&self.region, &Request::States(request)).await?
            }
            request => self.reads.open(&self.region, request).await?,
        };
        *self.opened.lock().unwrap_or_else(PoisonError::into_inner) = Some(rows);
        Ok(())
    }

    /// What comes, its bytes counted.
    fn read(&self, bytes: Count) -> SendableRecordBatchStream {
        let opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner).take();
        let schema = Arc::clone(&self.schema);
        let rows = match opened {
            Some(rows) => rows
                .map(move |batch| match batch {
                    Ok(arrived) => {
                        bytes.add(arrived.bytes);
                        checked(&schema, &arrived.rows)
                    }
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

fn external(error: SqlError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

fn checked(schema: &SchemaRef, rows: &RecordBatch) -> Result<RecordBatch> {
    let fits = rows.num_columns() == schema.fields().len()
        && rows
            .columns()
            .iter()
            .zip(schema.fields())
            .all(|(column, field)| column.data_type() == field.data_type());
    if !fits {
        return Err(external(SqlError::internal(
            "another region sent rows of other columns",
        )));
    }
    Ok(RecordBatch::try_new_with_options(
        Arc::clone(schema),
        rows.columns().to_vec(),
        &RecordBatchOptions::new().with_row_count(Some(rows.num_rows())),
    )?)
}

impl fmt::Debug for FarPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FarPartition")
            .field("region", &self.region)
            .field("request", &self.request)
            .finish_non_exhaustive()
    }
}

/// See the module's documentation.
#[derive(Clone, Debug)]
pub(crate) struct FarExec {
    parts: FarParts,
    rows_max: Option<usize>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

/// What a [`FarExec`] reads.
#[derive(Clone)]
pub(crate) struct FarParts {
    /// The columns of every part.
    pub schema: SchemaRef,
    /// The gateway's own part, if it is read.
    pub own: Option<Arc<dyn PartitionStream>>,
    /// The parts of other regions.
    pub far: Vec<Arc<FarPartition>>,
    /// The statement's scans, while it is planned.
    pub scans: Weak<FarScans>,
    /// Whether conditions leave no more than a few rows.
    pub is_lookup: bool,
    /// What EXPLAIN says that owners do.
    pub text: String,
}

impl fmt::Debug for FarParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FarParts")
            .field("own", &self.own)
            .field("far", &self.far)
            .finish_non_exhaustive()
    }
}

impl FarExec {
    pub(super) fn new(parts: FarParts, rows_max: Option<usize>) -> Self {
        let number = parts.far.len() + usize::from(parts.own.is_some());
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&parts.schema)),
            Partitioning::UnknownPartitioning(number),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self {
            parts,
            rows_max,
            properties: Arc::new(properties.with_scheduling_type(SchedulingType::Cooperative)),
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }

    pub(super) fn parts(&self) -> &FarParts {
        &self.parts
    }
}

impl DisplayAs for FarExec {
    fn fmt_as(&self, _kind: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let here = self.parts.own.as_ref().map(|_| "here");
        let far = self.parts.far.iter().map(|part| part.region.as_str());
        let regions = far.chain(here).collect::<Vec<_>>().join(", ");
        write!(f, "FarExec: regions=[{regions}], {}", self.parts.text)?;
        match self.rows_max {
            Some(rows_max) => write!(f, ", fetch={rows_max}"),
            None => Ok(()),
        }
    }
}

impl ExecutionPlan for FarExec {
    fn name(&self) -> &'static str {
        "FarExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match children.is_empty() {
            true => Ok(self),
            false => Err(DataFusionError::Internal("FarExec has no inputs".into())),
        }
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let anew = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
        self.replace_children(children, anew)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let far = match &self.parts.own {
            Some(own) if partition == 0 => return Ok(self.limited(own.execute(context), partition)),
            own => partition - usize::from(own.is_some()),
        };
        let part = self.parts.far.get(far);
        let part = part.ok_or_else(|| DataFusionError::Internal("FarExec has no such partition".into()))?;
        let rows = MetricBuilder::new(&self.metrics).output_rows(partition);
        let bytes = MetricBuilder::new(&self.metrics).counter("bytes_received", partition);
        if !part.sides.is_empty() {
            let sent = MetricBuilder::new(&self.metrics).counter("bytes_sent", partition);
            sent.add(part.sides.iter().map(|side| side.bytes().len()).sum());
        }
        let counted = part.read(bytes).inspect(move |batch| {
            if let Ok(batch) = batch {
                rows.add(batch.num_rows());
            }
        });
        let counted = RecordBatchStreamAdapter::new(Arc::clone(&self.parts.schema), counted);
        Ok(self.limited(Box::pin(counted), partition))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn fetch(&self) -> Option<usize> {
        self.rows_max
    }

    fn with_fetch(&self, rows_max: Option<usize>) -> Option<Arc<dyn ExecutionPlan>> {
        Some(Arc::new(Self {
            rows_max,
            ..self.clone()
        }))
    }
}

impl FarExec {
    fn limited(&self, stream: SendableRecordBatchStream, partition: usize) -> SendableRecordBatchStream {
        let stream = make_cooperative(stream);
        match self.rows_max {
            None => stream,
            Some(rows_max) => {
                // Rows are counted as they arrive.
                let metrics = BaselineMetrics::new(&ExecutionPlanMetricsSet::new(), partition);
                Box::pin(LimitStream::new(stream, 0, Some(rows_max), metrics))
            }
        }
    }
}
