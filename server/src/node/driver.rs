//! The region's thread: requests in, steps, effects out.
//!
//! ```text
//!   requests ─▶ drain a bounded batch ─▶ step each ─▶ carry out effects (appends go to the log thread)
//!                                              └─▶ Work ─▶ carry out effects      ← the sync runs meanwhile
//!   log thread ── persisted ──▶ Persisted ─▶ replies, snapshots, messages leave
//! ```
//! Invariants: only this thread touches the region, so the order of inputs is the order of the queue; it
//! never waits for a peer or a client (outboxes that are full close their connection, replies are oneshots).
//! It stops taking requests while the log's backlog is above its bound, and that is all the backpressure there
//! is: clients and links wait on the queue.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tributary_region::{Effect, Input, Region, Snapshot, Submission};
use tributary_storage::{Position, Record};

use super::checkpoints::{Checkpoints, Outcome};
use super::clock::Clock;
use super::log_writer::{BACKLOG_BYTES_MAX, LogStatus, LogWriter};
use super::request::{LinkEvent, LinkNews, Outbox, Reply, Request};
use crate::far::window::Versions;

const BATCH_REQUESTS_MAX: usize = 256;
/// Without requests for this long the timer slows down.
const IDLE_AFTER: Duration = Duration::from_millis(500);
const IDLE_TICK: Duration = Duration::from_millis(100);
const WORK_PAUSE: Duration = Duration::from_millis(1);
/// A stop that cannot get its checkpoint within this time ends without one; the log has everything.
const STOP_CHECKPOINT_MAX: Duration = Duration::from_secs(60);

/// Why the thread ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to.
    Stopped,
    /// The region, its log or its disk cannot go on.
    Failed(String),
}

/// Everything the thread owns.
pub struct Driver {
    pub(super) region: Region,
    pub(super) clock: Clock,
    pub(super) tick: Duration,
    pub(super) requests: mpsc::Receiver<Request>,
    pub(super) log: LogWriter,
    pub(super) log_status: watch::Receiver<LogStatus>,
    pub(super) checkpoints: Checkpoints,
    /// At most one outcome is under way, so this queue needs no bound.
    pub(super) checkpoint_outcomes: mpsc::UnboundedReceiver<Outcome>,
    pub(super) snapshots: watch::Sender<Arc<Snapshot>>,
    pub(super) versions: Arc<Versions>,
    pub(super) links: BTreeMap<String, (u64, Outbox)>,
    pub(super) replies: BTreeMap<u64, Reply>,
    pub(super) next_token: u64,
    pub(super) appended: Position,
    pub(super) persisted: Position,
    pub(super) disk_full: bool,
}

/// Where the thread is in its life.
enum Phase {
    Running,
    /// Asked to stop: no more requests; waiting for the log, then for a checkpoint.
    Stopping {
        deadline: Instant,
    },
}

impl Driver {
    /// Runs until the region stops. `effects` are those of opening it.
    pub fn run(mut self, runtime: &Handle, mut effects: Vec<Effect>) -> Ended {
        match self.run_inner(runtime, &mut effects) {
            Ok(()) => Ended::Stopped,
            Err(reason) => {
                tracing::error!(reason, "the node stops");
                Ended::Failed(reason)
            }
        }
    }

    fn run_inner(&mut self, runtime: &Handle, effects: &mut Vec<Effect>) -> Result<(), String> {
        self.carry_out(effects)?;
        let mut phase = Phase::Running;
        let mut batch = Vec::with_capacity(BATCH_REQUESTS_MAX);
        let mut next_timer = Instant::now();
        let mut last_busy = Instant::now();
        loop {
            // A backfill goes on between requests, without starving the log's news.
            let wake = if self.region.has_work() || self.region.has_checkpoint_work() {
                Instant::now() + WORK_PAUSE
            } else {
                next_timer
            };
            self.wait(runtime, &mut batch, wake.min(next_timer));
            if !batch.is_empty() {
                last_busy = Instant::now();
            }
            self.take_log_status(effects)?;
            while let Ok(outcome) = self.checkpoint_outcomes.try_recv() {
                self.take_checkpoint_outcome(outcome, effects)?;
            }
            let mut commits = Vec::new();
            for request in batch.drain(..) {
                if let Request::Commit { writes, reply } = request {
                    let token = self.expect_reply(reply);
                    commits.push(Submission { token, writes });
                    continue;
                }
                self.commit(&mut commits, effects);
                if matches!(request, Request::Stop) {
                    self.requests.close();
                    phase = Phase::Stopping {
                        deadline: Instant::now() + STOP_CHECKPOINT_MAX,
                    };
                    continue;
                }
                self.take_request(request, effects);
            }
            self.commit(&mut commits, effects);
            let now = Instant::now();
            if now >= next_timer {
                self.step(Input::Timer, effects);
                let idle = now.duration_since(last_busy) > IDLE_AFTER;
                next_timer = now + if idle { IDLE_TICK } else { self.tick };
            }
            if matches!(phase, Phase::Running) && self.checkpoints.ask_if_due(now) {
                self.step(Input::CheckpointDue, effects);
            }
            self.carry_out(effects)?;
            self.step(Input::Work, effects);
            self.carry_out(effects)?;
            self.gather(effects)?;
            if self.is_finished(&phase, effects)? {
                return Ok(());
            }
        }
    }

    /// Waits for requests, news of the log, or the timer.
    fn wait(&mut self, runtime: &Handle, batch: &mut Vec<Request>, wake: Instant) {
        let intake = self.log.backlog_bytes() < BACKLOG_BYTES_MAX;
        let (requests, log_status) = (&mut self.requests, &mut self.log_status);
        runtime.block_on(async {
            tokio::select! {
                biased;
                // An error means that the log thread ended; its last status says why, or we are stopping.
                changed = log_status.changed() => {
                    if changed.is_err() {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                }
                received = requests.recv_many(batch, BATCH_REQUESTS_MAX), if intake => {
                    if received == 0 {
                        // Closed: we are stopping, or every handle is gone. Do not spin.
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                }
                () = tokio::time::sleep_until(wake.into()) => {}
            }
        });
    }

    fn take_log_status(&mut self, effects: &mut Vec<Effect>) -> Result<(), String> {
        let status = self.log_status.borrow_and_update().clone();
        if let Some(failed) = status.failed {
            return Err(failed);
        }
        if status.full != self.disk_full {
            self.disk_full = status.full;
            self.step(Input::DiskFull(status.full), effects);
        }
        if status.persisted > self.persisted {
            self.persisted = status.persisted;
            self.step(
                Input::Persisted {
                    position: status.persisted,
                },
                effects,
            );
        }
        Ok(())
    }

    fn take_checkpoint_outcome(&mut self, outcome: Outcome, effects: &mut Vec<Effect>) -> Result<(), String> {
        self.checkpoints.finished(&outcome);
        match outcome {
            Outcome::Written(position) => self.step(Input::Checkpointed { position }, effects),
            Outcome::NoSpace => {}
            Outcome::Failed(error) => return Err(error),
        }
        Ok(())
    }

    fn take_request(&mut self, request: Request, effects: &mut Vec<Effect>) {
        match request {
            Request::Source { append, reply } => {
                let token = self.expect_reply(reply);
                self.step(Input::Source { token, append }, effects);
            }
            Request::Lost { conflicts, reply } => {
                let token = self.expect_reply(reply);
                self.step(Input::Lost { token, conflicts }, effects);
            }
            Request::Forget { conflicts, reply } => {
                let token = self.expect_reply(reply);
                self.step(Input::Forget { token, conflicts }, effects);
            }
            Request::Ddl {
                changes,
                base_version,
                reply,
            } => {
                let token = self.expect_reply(reply);
                self.step(
                    Input::Ddl {
                        token,
                        changes,
                        base_version,
                    },
                    effects,
                );
            }
            Request::Find { id, reply } => {
                let token = self.expect_reply(reply);
                self.step(Input::Find { token, id }, effects);
            }
            Request::TakenOver => self.step(Input::TakenOver, effects),
            Request::Link(event) => self.take_link_event(event, effects),
            // Commits are handed over together, and a stop is a matter of the loop.
            Request::Commit { .. } | Request::Stop => {}
        }
    }

    /// Hands over the commits that came one after the other.
    fn commit(&mut self, commits: &mut Vec<Submission>, effects: &mut Vec<Effect>) {
        if !commits.is_empty() {
            self.step(Input::Commits(std::mem::take(commits)), effects);
        }
    }

    fn expect_reply(&mut self, reply: Reply) -> u64 {
        let token = self.next_token;
        self.next_token += 1;
        self.replies.insert(token, reply);
        token
    }

    fn take_link_event(&mut self, event: LinkEvent, effects: &mut Vec<Effect>) {
        let LinkEvent {
            peer,
            generation,
            news,
        } = event;
        let current = self.links.get(&peer).map(|(generation, _)| *generation);
        match news {
            LinkNews::Up(outbox) => {
                if current.is_some() {
                    self.close_link(&peer, effects);
                }
                self.links.insert(peer.clone(), (generation, outbox));
                self.step(Input::Connected { peer }, effects);
            }
            LinkNews::Down if current == Some(generation) => self.close_link(&peer, effects),
            LinkNews::Message { message, permit } if current == Some(generation) => {
                self.step(Input::Message { peer, message }, effects);
                drop(permit);
            }
            LinkNews::Down | LinkNews::Message { .. } => {}
        }
    }

    fn close_link(&mut self, peer: &str, effects: &mut Vec<Effect>) {
        if self.links.remove(peer).is_some() {
            self.step(
                Input::Disconnected {
                    peer: peer.to_owned(),
                },
                effects,
            );
        }
    }

    fn step(&mut self, input: Input, effects: &mut Vec<Effect>) {
        self.region.step(self.clock.now_ms(), input, effects);
    }

    /// A portion of the checkpoint that is due, if there is one.
    fn gather(&mut self, effects: &mut Vec<Effect>) -> Result<(), String> {
        if !self.region.has_checkpoint_work() {
            return Ok(());
        }
        let started = Instant::now();
        let rows_max = self.checkpoints.portion_rows();
        self.step(Input::Gather { rows_max }, effects);
        self.checkpoints.gathered(started.elapsed());
        self.carry_out(effects)
    }

    /// Carries out effects in order, and those that follow from them, until none are left.
    fn carry_out(&mut self, effects: &mut Vec<Effect>) -> Result<(), String> {
        let mut records: Vec<Record> = Vec::new();
        while !effects.is_empty() {
            for effect in std::mem::take(effects) {
                match effect {
                    Effect::Append { record, .. } => {
                        self.checkpoints.logged(record.position, record.payload.len());
                        self.appended = record.position;
                        records.push(record);
                    }
                    Effect::Send { peer, message } => {
                        let sent = self
                            .links
                            .get(&peer)
                            .is_none_or(|(_, outbox)| outbox.send(message));
                        if !sent {
                            tracing::info!(peer, "the connection does not keep up or is gone; it is dropped");
                            self.close_link(&peer, effects);
                        }
                    }
                    Effect::Reply { token, outcome } => {
                        if let Some(reply) = self.replies.remove(&token) {
                            count_outcome(&outcome);
                            // A client that went away does not wait for it.
                            let _ = reply.send(outcome);
                        }
                    }
                    Effect::Keep(snapshot) => self.versions.keep(&snapshot),
                    Effect::Publish(snapshot) => {
                        self.versions.publish(&snapshot, Instant::now());
                        self.snapshots.send_replace(snapshot);
                    }
                    Effect::Checkpoint(checkpoint) => self.checkpoints.write(checkpoint),
                    Effect::Truncate(position) => self.log.truncate_before(position),
                    Effect::Close { peer, reason } => {
                        tracing::warn!(peer, reason, "connection closed");
                        self.close_link(&peer, effects);
                    }
                    Effect::Refused { peer, reason } => {
                        tracing::warn!(peer, reason, "refused");
                        metrics::counter!("tributary_peer_refused_total", "peer" => peer).increment(1);
                    }
                    Effect::Withheld { peer, reason } => {
                        tracing::error!(peer, reason, "withheld");
                        metrics::counter!("tributary_withheld_total", "peer" => peer).increment(1);
                    }
                    Effect::Stop { reason } => return Err(reason),
                }
            }
        }
        if !records.is_empty() {
            self.log.append(records);
        }
        Ok(())
    }

    /// In `Stopping`: first the log, then a checkpoint, then the end.
    fn is_finished(&mut self, phase: &Phase, effects: &mut Vec<Effect>) -> Result<bool, String> {
        let Phase::Stopping { deadline } = phase else {
            return Ok(false);
        };
        if Instant::now() >= *deadline || self.disk_full {
            tracing::warn!("stopping without a checkpoint; the log has everything that was acknowledged");
            return Ok(true);
        }
        let durable = self.persisted >= self.appended;
        let is_checkpointing = self.region.has_checkpoint_work() || self.checkpoints.in_flight();
        if !durable || !self.requests.is_empty() || is_checkpointing {
            return Ok(false);
        }
        if !self.checkpoints.is_dirty() || self.checkpoints.lacks_space() {
            return Ok(true);
        }
        // Again, if the region has sealed something of its own since the last one was asked for.
        self.step(Input::CheckpointDue, effects);
        self.carry_out(effects)?;
        Ok(false)
    }
}

fn count_outcome<T, E>(outcome: &Result<T, E>) {
    let outcome = if outcome.is_ok() { "committed" } else { "rejected" };
    metrics::counter!("tributary_commits_total", "outcome" => outcome).increment(1);
}
