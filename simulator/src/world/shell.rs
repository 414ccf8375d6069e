//! What a shell does: carries inputs to its region and carries out the effects.
//!
//! As in the server, but on one thread and at random: the log is synced some time after an append and the
//! dataflow works whenever it gets its turn, before or after that sync.

use std::sync::Arc;

use tributary_region::entry::{Entry, Timed};
use tributary_region::{Effect, Input};
use tributary_replication::Message;
use tributary_storage::checkpoint::{self, Checkpoint};
use tributary_storage::{Log, Position, Record, StorageError};

use super::World;
use super::event::Event;
use super::node::name;
use crate::checks::{self, residency};
use crate::failure::{Checked, Violation};
use crate::model::Submission;

/// How long a region waits between two timers, in milliseconds.
const TIMER_MS: u64 = 20;

impl World {
    /// Gives a region one input and carries out what it asks for. Nothing when it does not run.
    pub(super) fn step(&mut self, node: usize, input: Input) -> Checked {
        let now_ms = self.nodes[node].clock.read(self.now_ms);
        let brings_work = !matches!(input, Input::Persisted { .. } | Input::Checkpointed { .. });
        let Some(process) = &mut self.nodes[node].process else {
            return Ok(());
        };
        let mut effects = Vec::new();
        process.region.step(now_ms, input, &mut effects);
        self.report.steps += 1;
        let has_work = brings_work && (process.region.has_work() || process.region.has_checkpoint_work());
        self.carry_out(node, effects)?;
        if has_work {
            self.plan_work(node);
        }
        Ok(())
    }

    /// Carries out effects in their order.
    pub(super) fn carry_out(&mut self, node: usize, effects: Vec<Effect>) -> Checked {
        for effect in effects {
            if self.nodes[node].process.is_none() {
                return Ok(());
            }
            self.carry_out_one(node, effect)?;
        }
        Ok(())
    }

    fn carry_out_one(&mut self, node: usize, effect: Effect) -> Checked {
        let now = self.now_ms;
        match effect {
            Effect::Append { record, tokens } => {
                let what = describe_record(&record);
                self.trace.add(
                    now,
                    node,
                    format_args!("append {}{what}", record.position.0),
                    &record.chain.0,
                );
                self.append(node, &record, &tokens)?;
            }
            Effect::Send { peer, message } => {
                if self.options.enforced {
                    residency::check(&name(node), &peer, &message)?;
                }
                let bytes = message.encode();
                self.report.bundles_sent += u64::from(matches!(message, Message::Bundle(_)));
                self.trace.add(
                    now,
                    node,
                    format_args!("send to {peer}: {}", describe(&message)),
                    &bytes,
                );
                self.send(node, &peer, bytes);
            }
            Effect::Reply { token, outcome } => {
                self.trace
                    .add(now, node, format_args!("reply to {token}: {outcome:?}"), &[]);
                let durable = self.model.durable(self.nodes[node].log());
                self.ledger
                    .reply(self.nodes[node].log(), token, &outcome, durable)?;
            }
            Effect::Publish(snapshot) => {
                let (position, frontier) = (snapshot.position.0, &snapshot.frontier);
                let settled = if snapshot.settled { " settled" } else { "" };
                self.trace.add(
                    now,
                    node,
                    format_args!("publish {position} at {frontier}{settled}"),
                    &[],
                );
                self.published(node, snapshot)?;
            }
            Effect::Keep(snapshot) => {
                let at = snapshot.position.0;
                self.trace.add(now, node, format_args!("keep {at}"), &[]);
            }
            Effect::Checkpoint(checkpoint) => {
                self.trace.add(
                    now,
                    node,
                    format_args!("checkpoint {}", checkpoint.position.0),
                    &[],
                );
                let boot = self.nodes[node].boot;
                let at = now + self.rng.between(0, 100);
                let checkpoint = Arc::new(checkpoint);
                self.queue.plan(
                    at,
                    Event::WriteCheckpoint {
                        node,
                        boot,
                        checkpoint,
                    },
                );
            }
            Effect::Truncate(position) => {
                self.trace
                    .add(now, node, format_args!("truncate before {}", position.0), &[]);
                let Some(process) = &mut self.nodes[node].process else {
                    return Ok(());
                };
                let result = process.log.truncate_before(position);
                // On a full disk the records stay until the next checkpoint.
                if !matches!(result, Err(StorageError::Full { .. })) {
                    self.disk_result(node, result)?;
                }
            }
            Effect::Close { peer, reason } => {
                self.trace
                    .add(now, node, format_args!("close {peer}: {reason}"), &[]);
                if let Some(peer) = self.number(&peer) {
                    self.hang_up(node, peer);
                }
            }
            Effect::Refused { peer, reason } => {
                self.trace
                    .add(now, node, format_args!("refuse {peer}: {reason}"), &[]);
                self.report.refused += 1;
            }
            Effect::Withheld { peer, reason } => {
                self.trace
                    .add(now, node, format_args!("withhold from {peer}: {reason}"), &[]);
                self.report.withheld += 1;
            }
            Effect::Stop { reason } => self.stopped(node, &reason)?,
        }
        Ok(())
    }

    fn append(&mut self, node: usize, record: &Record, tokens: &[u64]) -> Checked {
        let submissions = tokens.iter().map(|token| Submission {
            token: *token,
            writes: self.ledger.writes(*token),
        });
        let log = self.nodes[node].log();
        self.model.append(log, record, submissions.collect())?;
        for origin in self.model.take_unheard() {
            self.slots.forget(origin, 0);
        }
        if self.model.has_joined_at(log, record.position.0) {
            let origin = self.model.origin_of(log);
            self.report.members.reincarnated += u64::from(origin.is_some_and(|o| o.incarnation > 1));
        }
        self.report.shared_records += u64::from(tokens.len() > 1);
        for token in tokens {
            self.ledger.seal(*token, record.position.0)?;
        }
        self.write_record(node, record.clone())
    }

    /// Writes a record, or keeps it until there is space: it is sealed, so it must come next.
    pub(super) fn write_record(&mut self, node: usize, record: Record) -> Checked {
        let Some(process) = &mut self.nodes[node].process else {
            return Ok(());
        };
        if !process.unwritten.is_empty() {
            process.unwritten.push(record);
            return Ok(());
        }
        match process.log.append(std::slice::from_ref(&record)) {
            Err(StorageError::Full { .. }) => {
                process.unwritten.push(record);
                self.report.full_disks += 1;
                Ok(())
            }
            result => {
                if result.is_ok() {
                    process.appended = record.position.0;
                }
                self.disk_result(node, result)?;
                self.plan_sync(node);
                Ok(())
            }
        }
    }

    /// A disk that failed takes its process with it.
    pub(super) fn disk_result<T>(
        &mut self,
        node: usize,
        result: Result<T, StorageError>,
    ) -> Checked<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(StorageError::Io { .. }) => {
                self.crash(node)?;
                Ok(None)
            }
            Err(error) => Err(Violation::new(
                "disks are sound",
                format!("r{}: {error}", node + 1),
            )),
        }
    }

    fn published(&mut self, node: usize, snapshot: Arc<tributary_region::Snapshot>) -> Checked {
        let log = self.nodes[node].log();
        checks::publication(&self.model, &mut self.nodes[node], log, &snapshot)?;
        self.report.publications += 1;
        let moved = self.nodes[node].published != snapshot.position.0;
        self.nodes[node].published = snapshot.position.0;
        if moved {
            if self.rng.percent(self.options.compared) {
                checks::contents(&self.model, log, &snapshot, &mut self.report)?;
                self.check_slots(node)?;
            }
            if self.rng.percent(30)
                && let Some(process) = &mut self.nodes[node].process
            {
                process.hold_snapshot(snapshot);
            }
        }
        Ok(())
    }

    /// Compares a region's slots with what other regions hold under the same stamps.
    pub(super) fn check_slots(&mut self, node: usize) -> Checked {
        let Some(process) = &self.nodes[node].process else {
            return Ok(());
        };
        if self.nodes[node].suspect.is_some() {
            return Ok(());
        }
        self.slots
            .check(&self.model, self.nodes[node].log(), process.region.dataflow())
    }

    pub(super) fn plan_sync(&mut self, node: usize) {
        let at = self.now_ms + self.rng.between(0, self.options.sync_ms / 2);
        let boot = self.nodes[node].boot;
        let Some(process) = &mut self.nodes[node].process else {
            return;
        };
        if !std::mem::replace(&mut process.syncing, true) {
            self.queue.plan(at, Event::Sync { node, boot });
        }
    }

    pub(super) fn plan_work(&mut self, node: usize) {
        let at = self.now_ms + self.rng.between(0, self.options.work_ms);
        let boot = self.nodes[node].boot;
        let Some(process) = &mut self.nodes[node].process else {
            return;
        };
        if !std::mem::replace(&mut process.working, true) {
            self.queue.plan(at, Event::Work { node, boot });
        }
    }

    pub(super) fn timer(&mut self, node: usize) -> Checked {
        let boot = self.nodes[node].boot;
        let at = self.now_ms + self.rng.between(TIMER_MS / 2, TIMER_MS);
        self.queue.plan(at, Event::Timer { node, boot });
        self.step(node, Input::Timer)
    }

    pub(super) fn work(&mut self, node: usize) -> Checked {
        if let Some(process) = &mut self.nodes[node].process {
            process.working = false;
        }
        self.step(node, Input::Work)?;
        let process = self.nodes[node].process.as_ref();
        if process.is_some_and(|process| process.region.has_checkpoint_work()) {
            let rows_max = *self.rng.pick(&[1, 5, 1 << 20]);
            return self.step(node, Input::Gather { rows_max });
        }
        Ok(())
    }

    pub(super) fn begin_sync(&mut self, node: usize) {
        let boot = self.nodes[node].boot;
        let at = self.now_ms + self.rng.between(0, self.options.sync_ms);
        if let Some(process) = &self.nodes[node].process {
            self.queue.plan(
                at,
                Event::Synced {
                    node,
                    boot,
                    position: process.appended,
                },
            );
        }
    }

    /// Ends a sync. It covers at least what was written when it began, and nothing more is claimed.
    pub(super) fn end_sync(&mut self, node: usize, position: u64) -> Checked {
        let Some(process) = &mut self.nodes[node].process else {
            return Ok(());
        };
        process.syncing = false;
        let more = process.appended > position;
        let result = process.log.sync();
        if matches!(result, Err(StorageError::Full { .. })) {
            // Nothing more is durable; it is synced again when there is space.
            return Ok(());
        }
        if self.disk_result(node, result)?.is_none() {
            return Ok(());
        }
        self.model.synced(self.nodes[node].log(), position);
        if more {
            self.plan_sync(node);
        }
        self.step(
            node,
            Input::Persisted {
                position: Position(position),
            },
        )
    }

    pub(super) fn write_checkpoint(&mut self, node: usize, checkpoint: &Checkpoint) -> Checked {
        if checkpoint.position.0 <= self.nodes[node].checkpointed {
            // A newer one overtook it; the log may be truncated up to there.
            return Ok(());
        }
        // Now and then power fails somewhere in the middle.
        if !self.healed && self.rng.percent(10) {
            self.nodes[node]
                .state_disk
                .set_power_fails_after(self.rng.below(8));
        }
        let result = checkpoint::write(&self.nodes[node].state_disk, checkpoint);
        if matches!(result, Err(StorageError::Full { .. })) {
            // The old checkpoint stands; a later one is tried when its time comes.
            self.report.full_disks += 1;
            return Ok(());
        }
        if self.disk_result(node, result)?.is_none() {
            return Ok(());
        }
        self.report.checkpoints += 1;
        self.nodes[node].checkpointed = checkpoint.position.0;
        self.step(
            node,
            Input::Checkpointed {
                position: checkpoint.position,
            },
        )
    }
}

/// What a record of few is, for the trace.
fn describe_record(record: &Record) -> String {
    match Timed::decode(record.position, &record.payload).map(|timed| timed.entry) {
        Ok(Entry::Attach(view)) => format!(": view {view} attached"),
        Ok(Entry::Joined) => ": joined".to_owned(),
        Ok(Entry::Catalog(_)) => ": catalog".to_owned(),
        Ok(Entry::Chunk(_)) => ": chunk".to_owned(),
        Ok(Entry::Unstage(sender)) => format!(": stage of {sender} dropped"),
        Ok(Entry::Lost(conflicts)) => format!(": {} conflicts", conflicts.len()),
        Ok(Entry::Forget(conflicts)) => format!(": {} conflicts removed", conflicts.len()),
        Ok(Entry::Collect { stable }) => format!(": collect up to {stable}"),
        Ok(Entry::Bundles(bundles)) => format!(": {} bundles", bundles.len()),
        Ok(Entry::Commit { .. } | Entry::Source { .. }) | Err(_) => String::new(),
    }
}

fn describe(message: &Message) -> String {
    match message {
        Message::Hello(_) => "hello".into(),
        Message::Refuse { reason } => format!("refuse: {reason}"),
        Message::Bundle(bytes) => match tributary_replication::Bundle::decode_header(bytes) {
            Ok(header) => {
                let parts = header.included.iter();
                let parts: Vec<String> = parts
                    .map(|part| format!("{} {}..{}", part.origin, part.from, part.to))
                    .collect();
                format!(
                    "bundle {} at {} tick {}",
                    parts.join(" "),
                    header.frontier,
                    header.tick
                )
            }
            Err(error) => format!("bundle that cannot be read: {error}"),
        },
        Message::Ack { frontier } => format!("ack {frontier}"),
        Message::Lack { need, frontier } => {
            let need: Vec<String> = need
                .iter()
                .map(|(origin, epoch)| format!("{origin}:{epoch}"))
                .collect();
            format!("lack {} at {frontier}", need.join(" "))
        }
        Message::Staged {
            stage,
            chunks,
            is_full,
        } => format!("staged {stage}: {chunks} {is_full}"),
        Message::Heartbeat(beat) => format!("heartbeat {} at {}", beat.tick, beat.frontier),
    }
}
