//! The small side of a join that goes along with a request: computed here once, before anybody is asked, and joined by
//! each region with its own rows. An owner cannot take its own copy of a GLOBAL table: that is of another moment than
//! the statement's snapshot.
//!
//! What goes along is bounded, and so is the time that it may take, since owners keep versions for a short while only.
//! Where a bound is met nothing is sent ([`FarError::SideStays`]), and rows travel the other way.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use datafusion::arrow::array::{Array, RecordBatch};
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::row::{RowConverter, SortField};
use datafusion::catalog::memory::DataSourceExec;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::scalar_subquery::ScalarSubqueryExpr;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::memory::LazyMemoryExec;
use datafusion::physical_plan::placeholder_row::PlaceholderRowExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::{ExecutionPlan, displayable, execute_stream};
use futures::TryStreamExt;
use tributary_replication::bundle::{decode_rows_within, encode_rows};

use super::FarError;
use super::scan::FarExec;
use crate::pgwire::error::SqlError;

/// The most bytes of a side in memory; what is sent is packed and smaller.
pub(super) const BYTES_MAX: usize = 1 << 20;
/// The most rows of a side: what its hash table takes is bounded by them.
pub(super) const ROWS_MAX: usize = 65_536;
/// The most sides of a request.
pub(super) const SIDES_MAX: usize = 4;
/// About the most bytes of all sides of a statement.
pub(super) const STATEMENT_BYTES_MAX: usize = 16 << 20;
/// How long it may take to compute all of a statement.
pub(super) const TIME_MAX: Duration = Duration::from_secs(1);

/// One side, for all regions that are asked and for this one.
pub(super) struct Side {
    plan: Arc<dyn ExecutionPlan>,
    computed: OnceLock<Computed>,
}

struct Computed {
    rows: RecordBatch,
    bytes: Vec<u8>,
}

impl Side {
    /// A side with this plan, if it can be one: it reads nothing of other regions, and only what is known here.
    pub(super) fn of(plan: &Arc<dyn ExecutionPlan>) -> Option<Arc<Self>> {
        is_here(plan).then(|| {
            Arc::new(Self {
                plan: Arc::clone(plan),
                computed: OnceLock::new(),
            })
        })
    }

    /// Its columns.
    pub(super) fn schema(&self) -> SchemaRef {
        self.plan.schema()
    }

    /// What EXPLAIN says of it: its operators, the last one first.
    pub(super) fn text(&self) -> String {
        let plan = displayable(self.plan.as_ref()).indent(false).to_string();
        let lines: Vec<&str> = plan.lines().map(str::trim).collect();
        lines.join(" <- ")
    }

    /// Computes it, unless that is done.
    ///
    /// # Errors
    /// [`FarError::SideStays`] where it exceeds a bound; what its plan fails with.
    pub(super) async fn compute(&self, task: &Arc<TaskContext>) -> std::result::Result<(), FarError> {
        if self.computed.get().is_some() {
            return Ok(());
        }
        let rows = read(&self.plan, task).await;
        let rows = rows.map_err(|error| FarError::Failed(Box::new(SqlError::from(error))))?;
        let rows = rows.ok_or(FarError::SideStays)?;
        let bytes = encode_rows(&rows);
        self.computed.get_or_init(|| Computed { rows, bytes });
        Ok(())
    }

    /// What it takes here, as rows and as bytes to send.
    pub(super) fn memory_bytes(&self) -> usize {
        let computed = self.computed.get();
        computed.map_or(0, |computed| {
            bytes_of(&computed.rows).saturating_add(computed.bytes.len())
        })
    }

    /// What is sent; nothing before it was computed.
    pub(super) fn bytes(&self) -> &[u8] {
        self.computed.get().map_or(&[], |computed| &computed.bytes)
    }

    /// Its rows in a plan of this region.
    pub(super) fn leaf(self: &Arc<Self>) -> Option<Arc<dyn ExecutionPlan>> {
        leaf(Rows::Computed(Arc::clone(self)))
    }
}

impl fmt::Debug for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Side")
            .field("plan", &self.plan)
            .finish_non_exhaustive()
    }
}

/// The sides that came with a request.
#[derive(Default)]
pub(super) struct Received {
    /// As leaves of plans.
    pub leaves: Vec<Arc<dyn ExecutionPlan>>,
    /// Bytes of the longest row of each, together: about what a row of their join may have.
    pub widest_row: usize,
}

/// Reads what came; `None` for what is too much, or is no rows. A stream pads what a gateway counts, so twice the bytes
/// may come.
pub(super) fn received(sides: &[Vec<u8>]) -> Option<Received> {
    if sides.len() > SIDES_MAX {
        return None;
    }
    let mut received = Received::default();
    for bytes in sides {
        let rows = decode_rows_within(bytes, 2 * BYTES_MAX as u64).ok()?;
        if rows.num_rows() > ROWS_MAX {
            return None;
        }
        received.widest_row += widest_row(&rows)?;
        received.leaves.push(leaf(Rows::Received(rows))?);
    }
    Some(received)
}

/// About the bytes of the longest row.
fn widest_row(rows: &RecordBatch) -> Option<usize> {
    if rows.num_columns() == 0 {
        return Some(0);
    }
    let fields = rows.schema_ref().fields().iter();
    let fields = fields.map(|field| SortField::new(field.data_type().clone()));
    let converter = RowConverter::new(fields.collect()).ok()?;
    let encoded = converter.convert_columns(rows.columns()).ok()?;
    Some(encoded.iter().map(|row| row.data().len()).max().unwrap_or(0))
}

/// Its rows, if they are few enough.
async fn read(plan: &Arc<dyn ExecutionPlan>, task: &Arc<TaskContext>) -> Result<Option<RecordBatch>> {
    let schema = plan.schema();
    let mut stream = execute_stream(Arc::clone(plan), Arc::clone(task))?;
    let (mut batches, mut rows, mut bytes) = (Vec::new(), 0, 0);
    while let Some(batch) = stream.try_next().await? {
        rows += batch.num_rows();
        bytes = bytes_of(&batch).saturating_add(bytes);
        if rows > ROWS_MAX || bytes > BYTES_MAX {
            return Ok(None);
        }
        batches.push(batch);
    }
    Ok(Some(concat_batches(&schema, &batches)?))
}

/// What the rows of a batch take, whatever it is a part of.
fn bytes_of(rows: &RecordBatch) -> usize {
    let columns = rows.columns().iter();
    let bytes = columns.map(|column| column.to_data().get_slice_memory_size());
    // What cannot be told is too much.
    bytes.fold(0, |sum, bytes| sum.saturating_add(bytes.unwrap_or(usize::MAX)))
}

/// Whether a plan reads relations of this region, constants and generated rows, and nothing else: it can be run by
/// itself.
fn is_here(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let inputs = plan.children();
    if waits_for_subquery(plan) {
        return false;
    }
    match inputs.is_empty() {
        true => {
            plan.is::<StreamingTableExec>()
                || plan.is::<DataSourceExec>()
                || plan.is::<LazyMemoryExec>()
                || plan.is::<PlaceholderRowExec>()
                || plan.is::<EmptyExec>()
        }
        false => inputs.into_iter().all(is_here),
    }
}

/// Whether an operator computes with the value of a subquery, which is there only once the whole statement runs.
fn waits_for_subquery(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let mut waits = false;
    let looked = plan.apply_expressions(&mut |expr| {
        expr.apply(|part| {
            waits |= part.is::<ScalarSubqueryExpr>();
            Ok(TreeNodeRecursion::Continue)
        })
    });
    waits || looked.is_err()
}

/// Whether a plan reads rows of other regions.
pub(super) fn reads_far(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.is::<FarExec>() || plan.children().into_iter().any(reads_far)
}

/// The rows of a side, as a plan reads them.
#[derive(Debug)]
enum Rows {
    Computed(Arc<Side>),
    Received(RecordBatch),
}

#[derive(Debug)]
struct Leaf {
    schema: SchemaRef,
    rows: Rows,
}

fn leaf(rows: Rows) -> Option<Arc<dyn ExecutionPlan>> {
    let schema = match &rows {
        Rows::Computed(side) => side.schema(),
        Rows::Received(rows) => rows.schema(),
    };
    let partition = Leaf {
        schema: Arc::clone(&schema),
        rows,
    };
    let leaf = StreamingTableExec::try_new(schema, vec![Arc::new(partition)], None, [], false, None);
    Some(Arc::new(leaf.ok()?))
}

impl PartitionStream for Leaf {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let rows = match &self.rows {
            Rows::Received(rows) => Ok(rows.clone()),
            Rows::Computed(side) => match side.computed.get() {
                Some(computed) => Ok(computed.rows.clone()),
                None => Err(DataFusionError::Internal("a side was not computed".into())),
            },
        };
        let rows = futures::stream::once(async move { rows });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), rows))
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{ArrayRef, BooleanArray, StringArray};

    use super::*;

    fn sent(column: ArrayRef) -> Vec<u8> {
        encode_rows(&RecordBatch::try_from_iter([("a", column)]).expect("one column"))
    }

    #[test]
    fn sides_from_outside_are_bounded_in_number_rows_and_bytes() {
        let flags = |rows| sent(Arc::new(BooleanArray::from(vec![true; rows])));
        let is_taken = |sides: &[Vec<u8>]| received(sides).is_some();
        assert!(is_taken(&vec![flags(ROWS_MAX); SIDES_MAX]));
        assert!(!is_taken(&vec![flags(1); SIDES_MAX + 1]));
        assert!(!is_taken(&[flags(ROWS_MAX + 1)]));
        let text = "x".repeat(100);
        let texts = |rows| sent(Arc::new(StringArray::from(vec![text.as_str(); rows])));
        assert!(is_taken(&[texts(10_000)]));
        let packed = texts(3 * BYTES_MAX / 100);
        assert!(packed.len() < BYTES_MAX / 10, "it is small on the wire");
        assert!(!is_taken(&[packed]));
        assert!(!is_taken(&[vec![7; 100]]));
        let uneven = sent(Arc::new(StringArray::from(vec!["short", &text.repeat(1_000)])));
        let widest = received(&[uneven, flags(5)]).map(|received| received.widest_row);
        assert!(
            widest.is_some_and(|bytes| (100_000..110_000).contains(&bytes)),
            "{widest:?}"
        );
    }
}
