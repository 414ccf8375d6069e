//! The owner's side of a partial aggregation: DataFusion's operators over a scan, driven on the thread of the answer.
//!
//! What comes are keys and states of groups, mostly at the end. While rows are still being read, an empty batch now and
//! then tells the gateway that work goes on, and this side whether anybody still waits for it. Memory is bounded, for
//! all requests together ([`memory`]): where groups would take more, those there are go out early, and are merged at
//! the gateway like those of another region.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use futures::StreamExt;
use futures::stream::poll_fn;
use tokio::task::unconstrained;

use super::owner::{Part, Scan};
use super::partial::PartialRequest;
use super::{Opened, memory, side};
use crate::pgwire::error::SqlError;
use crate::query::context::shared;
use crate::query::stack::of_panic;

/// Rows that are read, and made, at a stretch where they are joined: each may meet all rows of a side.
const JOINED_ROWS_AT_ONCE: usize = 1024;
/// About the most bytes of what a join makes at a stretch.
const JOINED_BYTES_MAX: usize = 16 << 20;
/// How long it says nothing.
const SILENCE_MAX: Duration = Duration::from_secs(1);

/// Keys and states of groups, as they are ready.
pub(super) struct States {
    stream: SendableRecordBatchStream,
    spoke: Instant,
    is_broken: bool,
}

impl States {
    /// Plans the aggregation over the rows.
    ///
    /// # Errors
    /// [`Opened::Unreadable`] for what makes no sense here.
    pub(super) fn open(request: &PartialRequest, part: Part) -> std::result::Result<Self, Opened> {
        let opened = catch_unwind(AssertUnwindSafe(|| stream_of(request, part)));
        let opened = opened.unwrap_or_else(|panic| {
            of_panic(panic.as_ref());
            None
        });
        Ok(Self {
            stream: opened.ok_or(Opened::Unreadable)?,
            spoke: Instant::now(),
            is_broken: false,
        })
    }

    /// The next batch, or an empty one when nothing was said for long; `None` at the end.
    fn advance(&mut self) -> Option<Result<RecordBatch>> {
        let mut context = Context::from_waker(Waker::noop());
        loop {
            // The thread is the answer's own: what tasks may do at a stretch is no matter here.
            let next = pin!(unconstrained(self.stream.next()));
            match next.poll(&mut context) {
                Poll::Ready(next) => return next,
                Poll::Pending if self.spoke.elapsed() >= SILENCE_MAX => {
                    return Some(Ok(RecordBatch::new_empty(self.stream.schema())));
                }
                Poll::Pending => {}
            }
        }
    }
}

impl Iterator for States {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_broken {
            return None;
        }
        let next = catch_unwind(AssertUnwindSafe(|| self.advance()));
        let next = next.unwrap_or_else(|panic| Some(Err(external(of_panic(panic.as_ref())))));
        self.is_broken = !matches!(next, Some(Ok(_)));
        self.spoke = Instant::now();
        next
    }
}

fn external(error: SqlError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

fn stream_of(request: &PartialRequest, part: Part) -> Option<SendableRecordBatchStream> {
    let state = shared()?;
    let sides = side::received(&request.sides)?;
    let rows_at_once = match sides.leaves.is_empty() {
        true => usize::MAX,
        false => JOINED_ROWS_AT_ONCE,
    };
    let rows = Rows {
        schema: Arc::clone(&part.columns),
        scan: Mutex::new(Some(part.rows)),
        rows_at_once,
    };
    let input =
        StreamingTableExec::try_new(part.columns, vec![Arc::new(rows)], None, [], false, None).ok()?;
    let plan = request.over(Arc::new(input), &sides.leaves, Arc::clone(state.config_options()))?;
    let task = state.task_ctx();
    // A join copies rows of its sides before anything counts them.
    let rows_made = match sides.leaves.is_empty() {
        true => task.session_config().batch_size(),
        false => (JOINED_BYTES_MAX / sides.widest_row.max(1)).clamp(1, JOINED_ROWS_AT_ONCE),
    };
    let task = TaskContext::new(
        None,
        task.session_id(),
        task.session_config().clone().with_batch_size(rows_made),
        Default::default(),
        Default::default(),
        Default::default(),
        Default::default(),
        memory::runtime()?,
    );
    plan.execute(0, Arc::new(task)).ok()
}

/// Lets nobody read on for ever: after each batch it has others go first.
fn paced_stream(
    schema: SchemaRef,
    mut next: impl FnMut(&mut Context<'_>) -> Poll<Option<Result<RecordBatch>>> + Send + 'static,
) -> SendableRecordBatchStream {
    let mut has_read = false;
    let batches = poll_fn(move |context| {
        if has_read {
            has_read = false;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let batch = next(context);
        has_read = batch.is_ready();
        batch
    });
    Box::pin(RecordBatchStreamAdapter::new(schema, batches))
}

/// A join may make many rows of few, or none for long: it pauses like the scan below it.
pub(super) fn paced(plan: Arc<dyn ExecutionPlan>) -> Option<Arc<dyn ExecutionPlan>> {
    let schema = plan.schema();
    let partition = Arc::new(Paced {
        schema: Arc::clone(&schema),
        plan,
    });
    let paced = StreamingTableExec::try_new(schema, vec![partition], None, [], false, None);
    Some(Arc::new(paced.ok()?))
}

#[derive(Debug)]
struct Paced {
    schema: SchemaRef,
    plan: Arc<dyn ExecutionPlan>,
}

impl PartitionStream for Paced {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let mut rows = self.plan.execute(0, context).map_err(Some);
        let next = move |context: &mut Context<'_>| match &mut rows {
            Ok(rows) => rows.poll_next_unpin(context),
            Err(error) => Poll::Ready(error.take().map(Err)),
        };
        paced_stream(Arc::clone(&self.schema), next)
    }
}

/// The rows of a scan, read once.
struct Rows {
    schema: SchemaRef,
    scan: Mutex<Option<Scan>>,
    rows_at_once: usize,
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rows")
            .field("schema", &self.schema)
            .finish_non_exhaustive()
    }
}

impl PartitionStream for Rows {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let mut scan = self.scan.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut rest: Option<RecordBatch> = None;
        let rows_at_once = self.rows_at_once;
        paced_stream(Arc::clone(&self.schema), move |_| {
            let read = match rest.take() {
                Some(rest) => Some(Ok(rest)),
                None => scan.as_mut().and_then(Scan::read),
            };
            let first = read.map(|read| {
                read.map(|rows| {
                    let taken = rows.num_rows().min(rows_at_once);
                    let left = rows.num_rows() - taken;
                    rest = (left > 0).then(|| rows.slice(taken, left));
                    rows.slice(0, taken)
                })
            });
            Poll::Ready(first)
        })
    }
}
