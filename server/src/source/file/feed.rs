//! One file source in one region, from where it stopped.
//!
//! ```text
//!   thread: list, decode ──(up to BATCHES_AHEAD)──▶ task: pace, number, submit ──▶ region
//!                                                      ◀── answers, once durable (up to IN_FLIGHT_MAX open)
//! ```
//! With a target for latency, the size of what is submitted follows when it is seen (see `latency`).
//! Decoding, logging and computing overlap. The region takes rows only in order, so when one answer is a refusal
//! all later ones are too: the feed then starts again from what the region says it has consumed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tributary_planner::catalog::SourceDef;
use tributary_region::{Committed, Rejected, Snapshot, SourceAppend};
use tributary_storage::ObjectId;

use super::again::changed;
use super::{Piece, Rows, Settings};
use crate::node::Node;
use crate::source::latency::Batching;
use crate::source::pace::{GATHER, Pace};
use crate::source::state::Running;

/// Batches that are decoded and wait to be submitted.
const BATCHES_AHEAD: usize = 3;
/// Records whose answer is awaited.
const IN_FLIGHT_MAX: usize = 4;
/// How often new files are looked for.
const FOLLOW: Duration = Duration::from_millis(500);
const RETRY: Duration = Duration::from_millis(200);
/// A batch that is not seen by then is not waited for any longer.
const SEEN_MAX: Duration = Duration::from_secs(10);

/// How one attempt ended.
enum Ended {
    /// All rows are consumed.
    Finished(u64),
    /// Something is to be tried again.
    Interrupted,
}

/// What became of a record.
struct Answer {
    outcome: Result<Committed, Rejected>,
    /// How long after it was submitted its rows were seen, where that matters.
    seen_after: Option<Duration>,
}

/// A record whose answer is awaited.
struct Submitted {
    rows: usize,
    answer: oneshot::Receiver<Answer>,
}

/// Feeds until all files are consumed, or the source is in error.
pub async fn feed(node: Arc<Node>, id: ObjectId, name: String, def: SourceDef) {
    loop {
        match attempt(&node, id, &name, &def).await {
            Ok(Ended::Interrupted) => tokio::time::sleep(RETRY).await,
            Ok(Ended::Finished(rows)) => {
                node.sources().note(id, Running::Finished);
                tracing::info!(source = name, rows, "the source has come to its end");
                return;
            }
            Err(reason) => {
                tracing::error!(source = name, reason, "the source stops");
                node.sources().fail(id, reason);
                return;
            }
        }
    }
}

async fn attempt(node: &Arc<Node>, id: ObjectId, name: &str, def: &SourceDef) -> Result<Ended, String> {
    let snapshot = node.replayed().await.ok_or("the node is stopping")?;
    let consumed = snapshot.sources.get(&id).copied().unwrap_or(0);
    let mark = snapshot.source_marks.get(&id).copied();
    let settings = Settings::of(def, node.name())?;
    let gather = settings.latency.map_or(GATHER, |latency| GATHER.min(latency / 4));
    let mut pace = settings.rate.map(|rate| Pace::start(rate, gather));
    let batching = Batching::new(settings.latency, settings.batch_rows);
    let mut pieces = decode(name, settings, consumed, mark)?;
    node.sources().note(id, Running::Reading);
    tracing::info!(source = name, consumed, "the source starts");
    let counter = metrics::counter!("tributary_source_events_total", "source" => name.to_owned());
    let mut feed = Feed {
        node,
        id,
        next: consumed,
        batching,
        in_flight: VecDeque::new(),
    };
    loop {
        // The next rows may be long in coming: what was refused meanwhile is tried again without them.
        let piece = tokio::select! {
            piece = pieces.recv() => piece,
            answer = feed.answer(), if !feed.in_flight.is_empty() => {
                match feed.take(&answer)? {
                    true => continue,
                    false => return Ok(Ended::Interrupted),
                }
            }
        };
        let Some(piece) = piece else { break };
        let piece = match piece {
            Ok(piece) => piece,
            Err(reason) => {
                // What was read before the error is good.
                feed.settle(0).await?;
                return Err(reason);
            }
        };
        node.sources().file(id, &piece.file);
        let mut rest = piece.rows.clone();
        while rest.num_rows() > 0 {
            let rows_max = rest.num_rows().min(feed.batching.rows());
            let count = match &mut pace {
                None => rows_max,
                Some(pace) => usize::try_from(pace.due(rows_max as u64).await).unwrap_or(rows_max),
            };
            let rows = rest.slice(0, count);
            rest = rest.slice(count, rest.num_rows() - count);
            if !feed.settle(IN_FLIGHT_MAX - 1).await? {
                return Ok(Ended::Interrupted);
            }
            feed.submit(rows, piece.mark).await;
            counter.increment(count as u64);
        }
    }
    match feed.settle(0).await? {
        true => Ok(Ended::Finished(feed.next)),
        false => Ok(Ended::Interrupted),
    }
}

/// What was submitted.
struct Feed<'a> {
    node: &'a Arc<Node>,
    id: ObjectId,
    next: u64,
    batching: Batching,
    in_flight: VecDeque<Submitted>,
}

impl Feed<'_> {
    async fn submit(&mut self, rows: arrow::array::RecordBatch, mark: u64) {
        let append = SourceAppend {
            source: self.id,
            from: self.next,
            mark,
            rows: vec![rows],
        };
        let (rows, submitted) = ((append.to() - self.next) as usize, Instant::now());
        self.next = append.to();
        let outcome = self.node.submit_source(append).await;
        let watch = self.batching.is_measured().then(|| Arc::clone(self.node));
        let (sender, answer) = oneshot::channel();
        tokio::spawn(async move {
            // Without an outcome the node ends, and so does the feed.
            let Ok(outcome) = outcome.await else { return };
            let mut seen_after = None;
            if let (Some(node), Ok(committed)) = (watch, &outcome) {
                let is_seen = |snapshot: &Snapshot| snapshot.position >= committed.position;
                let _ = node.wait_until(SEEN_MAX, is_seen).await;
                seen_after = Some(submitted.elapsed());
            }
            let _ = sender.send(Answer { outcome, seen_after });
        });
        self.in_flight.push_back(Submitted { rows, answer });
    }

    /// The next answer; given up half-way, it is the next one again.
    async fn answer(&mut self) -> Answer {
        if let Some(submitted) = self.in_flight.front_mut()
            && let Ok(answer) = (&mut submitted.answer).await
        {
            return answer;
        }
        // The node ends, with the outcome unknown.
        std::future::pending().await
    }

    /// Takes in the next answer; false when it is a refusal and can be tried again.
    fn take(&mut self, answer: &Answer) -> Result<bool, String> {
        let submitted = self.in_flight.pop_front();
        match &answer.outcome {
            Ok(_) => {
                if let (Some(Submitted { rows, .. }), Some(after)) = (submitted, answer.seen_after) {
                    self.batching.seen(rows, after);
                }
                Ok(true)
            }
            Err(
                Rejected::Overloaded
                | Rejected::DiskFull
                | Rejected::Joining
                | Rejected::CatalogChanged
                | Rejected::SourceMoved { .. },
            ) => Ok(false),
            Err(rejected) => Err(rejected.to_string()),
        }
    }

    /// Waits until no more than so many answers are open; false when something was refused and can be tried
    /// again.
    async fn settle(&mut self, open_max: usize) -> Result<bool, String> {
        while self.in_flight.len() > open_max {
            let answer = self.answer().await;
            if !self.take(&answer)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Decodes ahead on a thread of its own, which ends when nobody listens any more.
fn decode(
    name: &str,
    settings: Settings,
    consumed: u64,
    mark: Option<u64>,
) -> Result<mpsc::Receiver<Result<Piece, String>>, String> {
    let (pieces, queue) = mpsc::channel(BATCHES_AHEAD);
    std::thread::Builder::new()
        .name(format!("source {name}"))
        .spawn(move || {
            if let Err(reason) = decode_all(settings, consumed, mark, &pieces) {
                let _ = pieces.blocking_send(Err(reason));
            }
        })
        .map_err(|error| format!("a thread could not be started: {error}"))?;
    Ok(queue)
}

fn decode_all(
    settings: Settings,
    consumed: u64,
    mark: Option<u64>,
    pieces: &mpsc::Sender<Result<Piece, String>>,
) -> Result<(), String> {
    let follow = settings.follow;
    let pattern = settings.pattern.clone();
    let mut rows = Rows::open(settings, consumed)?;
    if consumed > 0 && mark.is_some_and(|mark| mark != rows.mark()) {
        return Err(changed(&pattern));
    }
    loop {
        while let Some(piece) = rows.next_piece(usize::MAX)? {
            if pieces.blocking_send(Ok(piece)).is_err() {
                return Ok(());
            }
        }
        if !follow {
            return Ok(());
        }
        while !rows.look_again()? {
            if pieces.is_closed() {
                return Ok(());
            }
            std::thread::sleep(FOLLOW);
        }
    }
}
