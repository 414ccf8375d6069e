//! One sink, step by step: from the snapshot it has written to the newest one.

use std::sync::Arc;

use tributary_region::{Snapshot, ViewSnapshot};
use tributary_storage::{Delta, ObjectId, Position, RowsSnapshot};

use super::files::Directory;
use super::progress::{Pending, Progress};
use super::segment::Content;
use super::state::{Running, SinkState};

/// Rows of a batch of a snapshot.
const BATCH_ROWS: usize = 16_384;

/// Where changes go.
#[derive(Debug)]
pub enum Target {
    /// Nowhere: they are counted.
    Blackhole,
    /// Into files.
    Files(Directory),
}

/// What a step has written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Rows.
    pub rows: u64,
    /// Bytes.
    pub bytes: u64,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Carrier {
    sink: ObjectId,
    view: ObjectId,
    target: Target,
    progress: Progress,
    /// Whether the first step, which finds out where to go on, has been taken.
    begun: bool,
    /// The rows at `progress.settled`; without them the next segment is a snapshot.
    base: Option<Arc<RowsSnapshot>>,
    /// The rows at the end of `progress.pending`.
    pending_base: Option<Arc<RowsSnapshot>>,
    /// The position up to which a restart knows that there is nothing more to write.
    durable: u64,
}

impl Carrier {
    /// A sink that goes on from its record, if there is one.
    pub fn new(sink: ObjectId, view: ObjectId, target: Target, state: &SinkState) -> Carrier {
        let progress = state.progress(sink).unwrap_or_default();
        Carrier {
            sink,
            view,
            target,
            durable: progress.settled,
            progress,
            begun: false,
            base: None,
            pending_base: None,
        }
    }

    /// The position up to which a restart knows that there is nothing more to write. A sink that keeps no record has
    /// no such position and is never waited for.
    pub fn settled(&self) -> Position {
        match self.target {
            Target::Blackhole => Position(u64::MAX),
            Target::Files(_) => Position(self.durable),
        }
    }

    /// Writes what has changed up to a snapshot. `wanted` is the position up to which a checkpoint waits.
    pub fn step(
        &mut self,
        state: &SinkState,
        snapshot: &Snapshot,
        wanted: Position,
    ) -> Result<Written, String> {
        let position = snapshot.position.0;
        let (Some(origin), Some(view)) = (snapshot.origin, snapshot.views.get(&self.view)) else {
            state.note(self.sink, Running::Waiting);
            return Ok(Written::default());
        };
        if !is_readable(view) {
            state.note(self.sink, Running::Waiting);
            return Ok(Written::default());
        }
        if !self.begun {
            self.begin(state, origin.incarnation, position)?;
        }
        self.resolve(state)?;
        if position < self.progress.settled {
            return Ok(Written::default());
        }
        let changes = match &self.base {
            Some(_) if position == self.progress.settled => Some(Vec::new()),
            Some(base) => Some(view.rows.changes_since(base)),
            None => None,
        };
        let content = match &changes {
            Some(_) => Content::ChangesFrom(self.progress.written),
            None => Content::Snapshot,
        };
        let written = match changes {
            Some(changes) if changes.is_empty() => {
                self.pass(state, position, wanted)?;
                Written::default()
            }
            Some(changes) => self.carry(
                state,
                origin.incarnation,
                content,
                view,
                position,
                changes.into_iter(),
            )?,
            None => {
                let rows = view.rows.scan(BATCH_ROWS);
                self.carry(state, origin.incarnation, content, view, position, rows)?
            }
        };
        self.base = Some(view.rows.clone());
        state.note(self.sink, Running::Running);
        Ok(written)
    }

    /// Takes up what the replay has kept for this sink.
    fn begin(&mut self, state: &SinkState, incarnation: u32, position: u64) -> Result<(), String> {
        if let Target::Files(directory) = &self.target {
            directory.tidy(incarnation, position, self.progress.pending.as_ref())?;
            if self.progress.segments > 0 {
                self.base = state.kept(self.progress.settled, self.view);
            }
            let pending = self.progress.pending.as_ref();
            self.pending_base = pending.and_then(|pending| state.kept(pending.to, self.view));
        }
        state.begun(self.sink);
        self.begun = true;
        Ok(())
    }

    /// Finds out whether a segment that was about to get its name has got it.
    fn resolve(&mut self, state: &SinkState) -> Result<(), String> {
        let (Target::Files(directory), Some(pending)) = (&self.target, &self.progress.pending) else {
            return Ok(());
        };
        if directory.was_published(pending)? {
            self.progress = self.progress.after(pending);
            self.base = self.pending_base.take();
            state.records().save(self.sink, &self.progress)?;
        } else {
            let pending = pending.clone();
            self.progress.pending = None;
            self.pending_base = None;
            // In this order: a pending segment of which nothing is there counts as published.
            state.records().save(self.sink, &self.progress)?;
            directory.discard(&pending);
        }
        self.durable = self.progress.settled;
        state.advance(
            self.sink,
            &self.progress,
            self.progress.settled,
            self.base.is_some(),
        );
        Ok(())
    }

    /// Nothing has changed up to a position. That is noted on the disk only when a checkpoint waits for it.
    fn pass(&mut self, state: &SinkState, position: u64, wanted: Position) -> Result<(), String> {
        self.progress.settled = position;
        let is_file = matches!(self.target, Target::Files(_));
        if is_file && wanted.0 > self.durable {
            state.records().save(self.sink, &self.progress)?;
            self.durable = self.progress.settled;
        }
        let durable = Progress {
            settled: self.durable,
            ..self.progress.clone()
        };
        state.advance(self.sink, &durable, self.progress.settled, is_file);
        Ok(())
    }

    /// Writes one segment.
    fn carry(
        &mut self,
        state: &SinkState,
        incarnation: u32,
        content: Content,
        view: &ViewSnapshot,
        to: u64,
        changes: impl Iterator<Item = Delta>,
    ) -> Result<Written, String> {
        let segment = match &self.target {
            Target::Blackhole => counted(to, changes),
            Target::Files(directory) => {
                let segment = directory.write(incarnation, content, to, view.rows.schema(), changes)?;
                let about_to = Progress {
                    pending: Some(segment.clone()),
                    ..self.progress.clone()
                };
                if let Err(reason) = state.records().save(self.sink, &about_to) {
                    directory.discard(&segment);
                    return Err(reason);
                }
                // Until it has its name, and that is durable, the next step looks what became of it.
                self.progress = about_to;
                self.pending_base = Some(view.rows.clone());
                directory.publish(&segment)?;
                state.records().save(self.sink, &self.progress.after(&segment))?;
                segment
            }
        };
        self.progress = self.progress.after(&segment);
        self.pending_base = None;
        self.durable = to;
        let is_file = matches!(self.target, Target::Files(_));
        state.advance(self.sink, &self.progress, to, is_file);
        Ok(Written {
            rows: segment.rows,
            bytes: segment.bytes,
        })
    }
}

/// What a sink without a target does with a segment. Its bytes are those in memory.
fn counted(to: u64, changes: impl Iterator<Item = Delta>) -> Pending {
    let mut segment = Pending {
        to,
        name: String::new(),
        rows: 0,
        bytes: 0,
    };
    for delta in changes {
        let times = |row| delta.weight(row).unsigned_abs();
        segment.rows += (0..delta.len()).map(times).sum::<u64>();
        segment.bytes += delta.rows().get_array_memory_size() as u64;
    }
    segment
}

fn is_readable(view: &ViewSnapshot) -> bool {
    view.missing.is_empty() && view.failure.is_none() && view.backfill.0 >= view.backfill.1
}
