//! A table or materialized view of a snapshot, as DataFusion reads it.
//!
//! ```text
//!   trace scan (sorted runs) ─▶ live rows ─▶ minus keys written by the transaction ─▶ plus its rows ─▶ batches
//! ```
//!
//! Batches are made one at a time, when they are asked for. A predicate that fixes the whole key of a table, or any
//! columns of a view, becomes a lookup, one that bounds the key's first column a part of the scan; all others are left to
//! DataFusion (`Inexact`), so a mistake here could cost rows but never add any.
//! Which hidden columns are there is the statement's choice ([`Exposed`]): `*` must not find them.

mod batches;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{
    Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, Scalar, StringArray, new_null_array,
};
use datafusion::arrow::compute::kernels::cmp::eq;
use datafusion::arrow::compute::{and, filter_record_batch};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::TableType;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coop::cooperative;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use tributary_planner::catalog::TableDef;
use tributary_planner::dml::{ORIGIN_COLUMN, STAMP_COLUMN};
use tributary_region::{TableSnapshot, ViewSnapshot};
use tributary_storage::{Delta, OriginId, RowsSnapshot, TraceSnapshot};

use super::fixed::{Fixed, KeyRange, fixed_columns, fixed_key, key_range};
use crate::session::pending::{PendingState, PendingTable};
use batches::Batches;

/// The hidden column that names the region a row belongs to.
pub const REGION_COLUMN: &str = "tributary_region";
/// Rows of one batch.
const BATCH_ROWS_MAX: usize = 8192;
/// Where the version columns of a stored row begin to matter, counted from the end of the table's own columns.
const ORIGIN_OFFSET: usize = 0;
const STAMP_OFFSET: usize = 1;
const DELETED_OFFSET: usize = 3;

/// Which hidden columns a statement may name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exposed {
    /// The table's own hidden columns, and `tributary_region`.
    pub hidden: bool,
    /// The version of each row.
    pub versions: bool,
}

/// Names of regions by origin, as columns show them.
pub type RegionNames = Arc<dyn Fn(OriginId) -> Option<String> + Send + Sync>;

/// A relation of a snapshot.
pub struct Relation {
    schema: SchemaRef,
    source: Source,
}

#[derive(Clone)]
struct Source {
    schema: SchemaRef,
    rows: Rows,
}

/// Where the rows are.
#[derive(Clone)]
enum Rows {
    Table(Arc<TraceSnapshot>, TableSource),
    View(Arc<RowsSnapshot>),
}

impl Source {
    fn table(&self) -> Option<&TableSource> {
        match &self.rows {
            Rows::Table(_, table) => Some(table),
            Rows::View(_) => None,
        }
    }
}

/// What a table has beside its rows.
#[derive(Clone)]
struct TableSource {
    def: Arc<TableDef>,
    columns: Vec<Output>,
    pending: Option<Arc<PendingTable>>,
    region_names: RegionNames,
}

/// Where an exposed column comes from.
#[derive(Clone, Copy)]
enum Output {
    /// The table's column.
    Own(usize),
    Region,
    Origin,
    Stamp,
}

impl Relation {
    /// A table with the transaction's own writes to it.
    pub fn table(
        table: &TableSnapshot,
        exposed: Exposed,
        pending: Option<Arc<PendingTable>>,
        region_names: RegionNames,
    ) -> Self {
        let def = Arc::clone(&table.def);
        let own = def.schema();
        let mut columns = Vec::new();
        let mut fields = Vec::new();
        for (index, column) in def.columns.iter().enumerate() {
            if !column.hidden || exposed.hidden || exposed.versions {
                columns.push(Output::Own(index));
                fields.push(own.field(index).clone());
            }
        }
        if exposed.hidden || exposed.versions {
            columns.push(Output::Region);
            fields.push(Field::new(REGION_COLUMN, DataType::Utf8, true));
        }
        if exposed.versions {
            columns.extend([Output::Origin, Output::Stamp]);
            fields.push(Field::new(ORIGIN_COLUMN, DataType::Int64, true));
            fields.push(Field::new(STAMP_COLUMN, DataType::Int64, true));
        }
        let schema = Arc::new(Schema::new(fields));
        let source = TableSource {
            def,
            columns,
            pending,
            region_names,
        };
        Self::new(schema, Rows::Table(Arc::clone(&table.rows), source))
    }

    /// A materialized view with its columns.
    pub fn view(view: &ViewSnapshot, columns: SchemaRef) -> Self {
        Self::new(columns, Rows::View(Arc::clone(&view.rows)))
    }

    /// Some columns under other names.
    pub(super) fn shown_as(&self, columns: &[usize], names: &[String]) -> SchemaRef {
        let fields = columns.iter().zip(names);
        let fields = fields.map(|(&column, name)| self.schema.field(column).clone().with_name(name));
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    /// The rows under a key, of these columns, at most so many; found as they are asked for.
    pub(super) fn lookup(
        &self,
        key: Fixed,
        columns: Vec<usize>,
        schema: SchemaRef,
        rows_max: usize,
    ) -> SendableRecordBatchStream {
        let mut batches = Batches::new(self.source.clone(), Access::Key(key.clone()));
        let is_view = self.source.table().is_none();
        let (shown, mut left) = (Arc::clone(&schema), rows_max);
        let mut next = move |batch: Result<RecordBatch>| {
            let mut batch = batch?;
            if is_view {
                // What a view's index finds may only share a bucket with what is asked for.
                batch = filter_record_batch(&batch, &equal_to(&batch, &key)?)?;
            }
            let batch = batch.slice(0, batch.num_rows().min(left));
            left -= batch.num_rows();
            let columns = columns.iter().map(|column| Arc::clone(batch.column(*column)));
            let batch = RecordBatch::try_new(Arc::clone(&shown), columns.collect())?;
            Ok((batch, left))
        };
        let mut is_done = rows_max == 0;
        let found = std::iter::from_fn(move || {
            if is_done {
                return None;
            }
            let found = next(batches.next()?);
            is_done = !matches!(found, Ok((_, 1..)));
            Some(found.map(|(batch, _)| batch))
        });
        // Each step reads one segment, whether it finds anything or not; between two the statement can be given up.
        let stream = RecordBatchStreamAdapter::new(schema, futures::stream::iter(found));
        Box::pin(cooperative(stream))
    }

    /// The exposed columns.
    pub(crate) fn columns(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// All batches that may hold rows for which the filters hold.
    pub(crate) fn scan_for(&self, filters: &[Expr]) -> Box<dyn Iterator<Item = Result<RecordBatch>> + Send> {
        Box::new(Batches::new(self.source.clone(), self.access(filters)))
    }

    /// Some columns of it as a partition of a plan.
    pub(crate) fn partition(
        &self,
        filters: &[Expr],
        columns: Vec<usize>,
        shown: SchemaRef,
    ) -> Arc<dyn PartitionStream> {
        Arc::new(Partition {
            source: self.source.clone(),
            access: self.access(filters),
            shown: Some((columns, shown)),
        })
    }

    /// Whether filters fix a whole key.
    pub(crate) fn is_lookup(&self, filters: &[Expr]) -> bool {
        matches!(self.access(filters), Access::Key(_))
    }

    fn access(&self, filters: &[Expr]) -> Access {
        match self.source.table() {
            Some(table) => match fixed_key(&table.def, filters) {
                Some(key) => Access::Key(key),
                None => key_range(&table.def, filters).map_or(Access::All, Access::Range),
            },
            None => fixed_columns(&self.schema, filters).map_or(Access::All, Access::Key),
        }
    }

    fn new(schema: SchemaRef, rows: Rows) -> Self {
        Self {
            schema: Arc::clone(&schema),
            source: Source { schema, rows },
        }
    }
}

impl fmt::Debug for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relation")
            .field("schema", &self.schema)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for Relation {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
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
        let partition = Arc::new(Partition {
            source: self.source.clone(),
            access: self.access(filters),
            shown: None,
        });
        let schema = Arc::clone(&self.schema);
        Ok(Arc::new(StreamingTableExec::try_new(
            schema,
            vec![partition],
            projection,
            [],
            false,
            limit,
        )?))
    }
}

/// The rows that have the one value of each column that a key fixes.
fn equal_to(rows: &RecordBatch, key: &Fixed) -> Result<BooleanArray> {
    let mut all = BooleanArray::from(vec![true; rows.num_rows()]);
    for (column, value) in key.columns.iter().zip(&key.values) {
        let equal = eq(rows.column(*column), &Scalar::new(value))?;
        all = and(&all, &equal)?;
    }
    Ok(all)
}

/// Which rows are read.
#[derive(Clone, Debug)]
enum Access {
    All,
    /// Those under a key.
    Key(Fixed),
    /// Of a table those in a range of its key.
    Range(KeyRange),
}

struct Partition {
    source: Source,
    access: Access,
    /// Some of the columns, where not all are shown.
    shown: Option<(Vec<usize>, SchemaRef)>,
}

impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Partition")
            .field("access", &self.access)
            .finish_non_exhaustive()
    }
}

impl PartitionStream for Partition {
    fn schema(&self) -> &SchemaRef {
        self.shown
            .as_ref()
            .map_or(&self.source.schema, |(_, shown)| shown)
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let batches = Batches::new(self.source.clone(), self.access.clone());
        let columns = self.shown.as_ref().map(|(columns, _)| columns.clone());
        let batches = batches.map(move |batch| match &columns {
            Some(columns) => Ok(batch?.project(columns)?),
            None => batch,
        });
        Box::pin(RecordBatchStreamAdapter::new(
            Arc::clone(self.schema()),
            futures::stream::iter(batches),
        ))
    }
}

impl TableSource {
    /// The live rows of a delta that the transaction has not written itself, with the exposed columns.
    fn shown(&self, delta: &Delta, schema: &SchemaRef) -> Result<RecordBatch> {
        let width = self.def.columns.len();
        let deleted = delta.rows().column(width + DELETED_OFFSET);
        let deleted = deleted
            .as_any()
            .downcast_ref::<BooleanArray>()
            .expect("the deleted column is boolean");
        let own: Vec<usize> = (0..width).collect();
        let keys = match &self.pending {
            Some(pending) => Some((pending, pending.keys(&delta.rows().project(&own)?))),
            None => None,
        };
        let is_untouched = |row: usize| match &keys {
            Some((pending, keys)) => pending.state(keys.get(row)) == PendingState::Untouched,
            None => true,
        };
        let keep: BooleanArray = (0..delta.len())
            .map(|row| Some(delta.weight(row) > 0 && !deleted.value(row) && is_untouched(row)))
            .collect();
        let rows = match keep.true_count() == delta.len() {
            true => delta.rows().clone(),
            false => filter_record_batch(delta.rows(), &keep)?,
        };
        let origins = rows.column(width + ORIGIN_OFFSET);
        let column = |output: &Output| match output {
            Output::Own(index) => Arc::clone(rows.column(*index)),
            Output::Region => self.regions(origins),
            Output::Origin => Arc::clone(origins),
            Output::Stamp => Arc::clone(rows.column(width + STAMP_OFFSET)),
        };
        Ok(RecordBatch::try_new(
            Arc::clone(schema),
            self.columns.iter().map(column).collect(),
        )?)
    }

    fn regions(&self, origins: &ArrayRef) -> ArrayRef {
        let origins = origins
            .as_any()
            .downcast_ref::<Int64Array>()
            .expect("origins are integers");
        let mut last: Option<(i64, Option<String>)> = None;
        let names: StringArray = origins
            .values()
            .iter()
            .map(|&origin| {
                if last.as_ref().is_none_or(|(known, _)| *known != origin) {
                    let name = OriginId::from_i64(origin).and_then(|origin| (self.region_names)(origin));
                    last = Some((origin, name));
                }
                last.as_ref().and_then(|(_, name)| name.clone())
            })
            .collect();
        Arc::new(names)
    }

    /// The transaction's own rows. They have no version yet; their region is this one.
    fn own_rows(&self, schema: &SchemaRef, key: Option<&Fixed>) -> Result<RecordBatch> {
        let rows = match (&self.pending, key) {
            (Some(pending), Some(key)) => {
                pending.live_rows_of(pending.key_of(&key.values).iter().map(AsRef::as_ref))
            }
            (Some(pending), None) => pending.live_rows(),
            (None, _) => RecordBatch::new_empty(self.def.schema()),
        };
        // The own origin, under a number that no region has, names this region.
        let here = (self.region_names)(OriginId {
            region: tributary_storage::RegionId(u16::MAX),
            incarnation: 0,
        });
        let column = |output: &Output| -> ArrayRef {
            match output {
                Output::Own(index) => Arc::clone(rows.column(*index)),
                Output::Region => Arc::new(StringArray::from(vec![here.clone(); rows.num_rows()])),
                Output::Origin | Output::Stamp => new_null_array(&DataType::Int64, rows.num_rows()),
            }
        };
        Ok(RecordBatch::try_new(
            Arc::clone(schema),
            self.columns.iter().map(column).collect(),
        )?)
    }
}
