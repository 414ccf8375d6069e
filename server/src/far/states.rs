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

/// Batches that are read at a stretch.
const BATCHES_AT_ONCE: u32 = 16;
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
    let rows = Rows {
        schema: Arc::clone(&part.columns),
        scan: Mutex::new(Some(part.rows)),
    };
    let input =
        StreamingTableExec::try_new(part.columns, vec![Arc::new(rows)], None, [], false, None).ok()?;
    let sides = side::received(&request.sides)?;
    let plan = request.over(Arc::new(input), &sides, Arc::clone(state.config_options()))?;
    let task = state.task_ctx();
    let task = TaskContext::new(
        None,
        task.session_id(),
        task.session_config().clone(),
        Default::default(),
        Default::default(),
        Default::default(),
        Default::default(),
        memory::runtime()?,
    );
    plan.execute(0, Arc::new(task)).ok()
}

/// Lets nobody read on for ever: after some batches it has others go first.
fn paced_stream(
    schema: SchemaRef,
    mut next: impl FnMut(&mut Context<'_>) -> Poll<Option<Result<RecordBatch>>> + Send + 'static,
) -> SendableRecordBatchStream {
    let mut read = 0;
    let batches = poll_fn(move |context| {
        if read == BATCHES_AT_ONCE {
            read = 0;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        read += 1;
        next(context)
    });
    Box::pin(RecordBatchStreamAdapter::new(schema, batches))
}

/// A join may make many rows of few: it pauses like the scan below it.
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
        paced_stream(Arc::clone(&self.schema), move |_| {
            Poll::Ready(scan.as_mut().and_then(Scan::read))
        })
    }
}
