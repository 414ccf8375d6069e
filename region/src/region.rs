//! The region: sequencer, dataflow, links and what waits for the disk, behind one `step`.
//!
//! ```text
//!   inputs ─▶ step ─┬─▶ sequencer: records          membership: founding, joining, what all have acknowledged
//!                   ├─▶ arrivals: sets of bundles   work: steps of the dataflow, backfills, cuts
//!                   └─▶ release ─▶ effects, once durable
//! ```

mod arrivals;
mod membership;
mod release;

use std::sync::Arc;

use tributary_executor::Inline;
use tributary_replication::{Epoch, Frontier, Hlc};
use tributary_storage::checkpoint::Loaded;
use tributary_storage::{Position, Record};

use crate::checkpoint::{Gathered, Gathering};
use crate::collection::Collection;
use crate::commits::{self, Decided};
use crate::config::RegionConfig;
use crate::dataflow::{Counts, Dataflow};
use crate::effect::{Committed, Effect, Rejected};
use crate::entry::Entry;
use crate::error::{RegionError, Result};
use crate::input::Input;
use crate::links::{Links, View};
use crate::merges::Merges;
use crate::outbound::{HeldCut, Outbound};
use crate::replay::{KeptResults, replay};
use crate::sequencer::Sequencer;
use crate::snapshot::Snapshot;
use crate::staging::Stages;
use arrivals::reach;

/// How often the state of links and freshness is published while no record changes anything, in milliseconds.
const STATUS_PERIOD_MS: u64 = 100;

/// See the crate's documentation.
pub struct Region {
    pub(crate) config: RegionConfig,
    pub(crate) sequencer: Sequencer,
    pub(crate) dataflow: Dataflow,
    pub(crate) links: Links,
    pub(crate) outbound: Outbound,
    pub(crate) published: Arc<Snapshot>,
    /// Chunks of peers.
    pub(crate) stages: Stages,
    kept: KeptResults,
    status_ms: u64,
    /// The version of the catalog by whose members there are links.
    members_version: u64,
    /// Of a primary that lost its log: since when those that are connected know no more than it does.
    agreed_since_ms: Option<u64>,
    collection: Collection,
    checkpoint_due: bool,
    merges: Merges,
    gathering: Option<Gathering>,
    stopped: bool,
}

impl Region {
    /// Starts a region from its newest checkpoint, if any, and the log records after it.
    ///
    /// All given records are durable. A primary that starts for the first time founds its cluster here.
    ///
    /// # Errors
    /// Anything that makes the stored state unreadable: the node must not start.
    pub fn open(
        mut config: RegionConfig,
        checkpoint: Option<Loaded>,
        tail: Vec<Record>,
        now_ms: u64,
        out: &mut Vec<Effect>,
    ) -> Result<Self> {
        let mut dataflow = match checkpoint {
            Some(loaded) => Dataflow::restore(&config, loaded)?,
            None => Dataflow::new(&config),
        };
        // Their threads are not needed again.
        config.loaders = Arc::new(Inline::new(1));
        let kept = replay(&mut dataflow, tail, &config.keep_results_at)?;
        dataflow.announce_recovered();
        let last = dataflow.position();
        let sequencer = Sequencer::new(
            last,
            dataflow.chain,
            dataflow.hlc,
            dataflow.catalog().clone(),
            dataflow.frontier().clone(),
            dataflow.sources.clone(),
            dataflow.tokens.clone(),
        );
        let stages = Stages::of(&dataflow);
        let published = Arc::new(dataflow.snapshot());
        let collection = Collection::new(dataflow.collected().clone());
        let mut region = Self {
            links: Links::new(&config),
            outbound: Outbound::new(last),
            sequencer,
            dataflow,
            published,
            stages,
            kept,
            status_ms: 0,
            members_version: 0,
            agreed_since_ms: None,
            collection,
            checkpoint_due: false,
            merges: Merges::default(),
            gathering: None,
            stopped: false,
            config,
        };
        if region.dataflow.catalog().cluster.is_none() && region.config.found.is_some() {
            region.found(now_ms, out);
        }
        region.heed_catalog(out)?;
        region.publish_status(now_ms, out);
        Ok(region)
    }

    /// Takes one input; appends what is to be done to `out`. `now_ms` is the wall clock in milliseconds since
    /// 1970 and may jump.
    pub fn step(&mut self, now_ms: u64, input: Input, out: &mut Vec<Effect>) {
        if self.stopped {
            return;
        }
        if let Err(error) = self.try_step(now_ms, input, out) {
            self.stopped = true;
            out.push(Effect::Stop {
                reason: error.to_string(),
            });
        }
        self.stopped |= out.iter().any(|effect| matches!(effect, Effect::Stop { .. }));
    }

    /// The last published snapshot.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.published.clone()
    }

    /// Takes the results that were kept during the replay.
    pub fn take_kept(&mut self) -> KeptResults {
        std::mem::take(&mut self.kept)
    }

    /// Whether `Work` would do something at once.
    pub fn has_work(&self) -> bool {
        !self.sequencer.is_level()
            || self.dataflow.is_applying()
            || (self.dataflow.has_backfill_work() && self.dataflow.origin().is_some())
    }

    /// Whether `Gather` would do something at once.
    pub fn has_checkpoint_work(&self) -> bool {
        self.gathering.is_some() || (self.checkpoint_due && self.is_level())
    }

    /// Whether the dataflow is where the log is.
    fn is_level(&self) -> bool {
        self.sequencer.is_level() && !self.dataflow.is_applying()
    }

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        let chunks_dropped = self.stages.dropped();
        Counts {
            chunks_dropped,
            ..self.dataflow.counts()
        }
    }

    /// The state behind the snapshots, for tests and checks.
    pub fn dataflow(&self) -> &Dataflow {
        &self.dataflow
    }

    fn try_step(&mut self, now_ms: u64, input: Input, out: &mut Vec<Effect>) -> Result<()> {
        match input {
            Input::Commits(submissions) => {
                // Nothing can leave while something is merged: that is no peer's delay.
                let behind = self
                    .links
                    .behind(now_ms, |lag_ms| self.merges.within(lag_ms, now_ms));
                let mut decided = Vec::new();
                for group in commits::groups(submissions) {
                    decided.push(
                        self.sequencer
                            .commit(now_ms, group, &behind, &self.config, &self.dataflow),
                    );
                }
                for decided in decided {
                    self.answer_all(decided, out);
                }
            }
            Input::Source { token, append } => {
                let sealed = self
                    .sequencer
                    .source(now_ms, append, &self.config, &self.dataflow);
                self.answer(token, sealed, out);
            }
            Input::Find { token, id } => {
                let found = self.sequencer.find(token, &id);
                self.answer_all(found, out);
            }
            Input::Lost { token, conflicts } => {
                let entry = Entry::Lost(conflicts);
                let sealed = self
                    .sequencer
                    .conflicts(now_ms, entry, &self.config, &self.dataflow);
                self.answer(token, sealed, out);
            }
            Input::Forget { token, conflicts } => {
                let entry = Entry::Forget(conflicts);
                let sealed = self
                    .sequencer
                    .conflicts(now_ms, entry, &self.config, &self.dataflow);
                self.answer(token, sealed, out);
            }
            Input::Ddl {
                token,
                changes,
                base_version,
            } => {
                let sealed = self.sequencer.ddl(now_ms, changes, base_version, &self.dataflow);
                self.answer(token, sealed, out);
            }
            Input::Connected { peer } => {
                let view = view(&self.dataflow, &self.published.frontier, now_ms);
                self.links.connected(&peer, &view, out);
            }
            Input::Disconnected { peer } => {
                self.links.disconnected(&peer);
                self.links.inbox().drop_peer(&peer);
                self.outbound.forget_peer(&peer);
                self.stages.forget_peer(&peer);
            }
            Input::Message { peer, message } => {
                let view = view(&self.dataflow, &self.published.frontier, now_ms);
                self.links.receive(&peer, message, &view, out);
                self.take_chunk_in_turn(now_ms, out);
                self.take_bundles(now_ms, out)?;
                self.send_chunks(out);
            }
            Input::Persisted { position } => self.outbound.persist(position),
            Input::Timer => {
                let view = view(&self.dataflow, &self.published.frontier, now_ms);
                let (stages, backlog) = (&self.stages, self.sequencer.backlog(&self.config));
                let reach = reach(&self.sequencer, &self.dataflow);
                self.links.poll(
                    &view,
                    &reach,
                    backlog,
                    |origin| stages.covers(origin, now_ms),
                    out,
                );
                self.send_chunks(out);
                self.collect(now_ms, out);
                self.cut_if_level(now_ms, out)?;
                if now_ms.saturating_sub(self.status_ms) >= STATUS_PERIOD_MS || now_ms < self.status_ms {
                    self.publish_status(now_ms, out);
                }
            }
            Input::Work => self.work(now_ms, out)?,
            Input::CheckpointDue => self.checkpoint_due = true,
            Input::Gather { rows_max } => self.gather(rows_max),
            Input::Checkpointed { position } => out.push(Effect::Truncate(Position(position.0 + 1))),
            Input::DiskFull(full) => self.sequencer.set_disk_full(full),
            Input::TakenOver => self.config.keeps_tombstones = false,
        }
        self.release(now_ms, out);
        Ok(())
    }

    fn answer(
        &mut self,
        token: u64,
        sealed: std::result::Result<(Record, Hlc), Rejected>,
        out: &mut Vec<Effect>,
    ) {
        let decided = match sealed {
            Ok((record, hlc)) => Decided {
                sealed: Some((record, hlc, vec![token])),
                ..Decided::default()
            },
            Err(rejected) => Decided {
                refused: vec![(token, rejected)],
                ..Decided::default()
            },
        };
        self.answer_all(decided, out);
    }

    fn answer_all(&mut self, mut decided: Decided, out: &mut Vec<Effect>) {
        for (_, rejected) in &mut decided.refused {
            if let Rejected::Tombstones { table, kept_by, .. } = rejected {
                *kept_by = self.published.tombstones_kept_by(*table);
                // Those that are connected acknowledge them at once.
                kept_by.retain(|name| !self.links.is_up(name));
            }
        }
        let refusals = decided.refused.into_iter();
        out.extend(refusals.map(|(token, rejected)| Effect::Reply {
            token,
            outcome: Err(rejected),
        }));
        for (token, position, rows) in decided.repeated {
            let committed = Committed {
                position,
                hlc: self.dataflow.hlc,
                repeated: Some(rows),
            };
            self.outbound.reply(token, committed);
        }
        if let Some((record, hlc, tokens)) = decided.sealed {
            let position = record.position;
            for token in &tokens {
                let committed = Committed {
                    position,
                    hlc,
                    repeated: None,
                };
                self.outbound.reply(*token, committed);
            }
            out.push(Effect::Append { record, tokens });
        }
    }

    /// Steps over everything sealed, cutting at each tick on the way; then a portion of each backfill.
    fn work(&mut self, now_ms: u64, out: &mut Vec<Effect>) -> Result<()> {
        while !self.dataflow.is_applying() || self.sequencer.is_own_next() {
            let step = self.sequencer.take_step(self.config.tick_ms);
            let Some(first) = step.first() else { break };
            let tick = first.timed.hlc.tick(self.config.tick_ms);
            self.cut(tick, now_ms, out)?;
            let attaches = matches!(first.timed.entry, Entry::Attach(_));
            let stepped = self.dataflow.step(&step)?;
            // A replay would have to repeat the backfill (RFC 0002).
            self.checkpoint_due |= attaches;
            let position = self.dataflow.position();
            match self.dataflow.is_applying() {
                true => self.merges.begin(now_ms),
                false => self.sequencer.stepped(position),
            }
            if stepped.announced {
                self.links.changed(Epoch(position.0), &stepped.changes);
            }
        }
        if self.dataflow.is_applying() {
            let stepped = self.dataflow.apply_portion(self.config.apply_rows_max)?;
            let position = self.dataflow.position();
            if stepped.announced {
                self.links.changed(Epoch(position.0), &stepped.changes);
            }
            if !self.dataflow.is_applying() {
                self.sequencer.stepped(position);
                self.merges.end(now_ms);
            }
            if self.dataflow.is_applying() || !self.sequencer.is_level() {
                // The rest comes with the next turn.
                return Ok(());
            }
        }
        self.heed_catalog(out)?;
        if self.config.defects.join_early {
            self.join(now_ms, out);
        }
        self.poll_backfills(now_ms, out)?;
        self.join(now_ms, out);
        self.hold_snapshot();
        // What waited for what has just been merged.
        self.take_bundles(now_ms, out)?;
        self.take_chunk_in_turn(now_ms, out);
        self.cut_if_level(now_ms, out)
    }

    /// Begins the checkpoint that is due, or gathers a portion of the one that was begun.
    fn gather(&mut self, rows_max: usize) {
        let gathering = match self.gathering.take() {
            Some(gathering) => gathering,
            None if self.checkpoint_due && self.is_level() => {
                self.checkpoint_due = false;
                self.dataflow.begin_checkpoint()
            }
            None => return,
        };
        match self.dataflow.gather(gathering, rows_max) {
            Gathered::Whole(checkpoint) => self.outbound.checkpoint(checkpoint),
            Gathered::Part(gathering) => self.gathering = Some(gathering),
            // What it was to hold is gone.
            Gathered::Lost => self.checkpoint_due = true,
        }
    }

    fn poll_backfills(&mut self, now_ms: u64, out: &mut Vec<Effect>) -> Result<()> {
        if self.dataflow.origin().is_none() {
            return Ok(());
        }
        for id in self.dataflow.poll_backfills(self.config.backfill_rows_max)? {
            let (record, _) = self.sequencer.seal(now_ms, Entry::Attach(id));
            out.push(append(record));
        }
        Ok(())
    }

    /// Cuts at the present tick, unless something sealed has not been stepped: then the next `Work` does.
    fn cut_if_level(&mut self, now_ms: u64, out: &mut Vec<Effect>) -> Result<()> {
        if !self.is_level() {
            return Ok(());
        }
        self.cut(self.sequencer.time(now_ms).tick(self.config.tick_ms), now_ms, out)
    }

    /// Makes the bundles that are due at a tick, from the state of all records before it.
    fn cut(&mut self, tick: tributary_replication::Tick, now_ms: u64, out: &mut Vec<Effect>) -> Result<()> {
        if !self.dataflow.has_joined() || self.dataflow.is_applying() {
            return Ok(());
        }
        let view = view(&self.dataflow, self.dataflow.frontier(), now_ms);
        let due = self.links.cuts_due(tick, &view);
        if !due.is_empty() {
            // A peer must never see an epoch that we would not show ourselves: after a reconnect it would look as
            // if we had lost it.
            self.hold_snapshot();
        }
        for (peer, tick, request) in due {
            let bytes_max = self.config.link.bundle_bytes_max;
            let earlier = self.links.chunks_of(&peer);
            let bytes_max = earlier.map_or(bytes_max, |earlier| earlier.bundle_bytes_max(bytes_max));
            let bundle = match self.dataflow.is_too_large(&request, bytes_max) {
                true => None,
                false => match self.dataflow.bundle(&request, tick) {
                    Err(RegionError::Withheld(reason)) => {
                        self.links.withhold(peer, reason, out);
                        continue;
                    }
                    bundle => Some(bundle?),
                },
            };
            // The size was an estimate: rows that differ much in length can make far more of it.
            let encoded = bundle.map(|bundle| (bundle.encode(), bundle));
            let fits = |bytes: usize| bytes <= self.config.link.message_bytes_max;
            let Some((bytes, bundle)) = encoded.filter(|(bytes, _)| fits(bytes.len())) else {
                if self.links.waits_for_seal(&peer, &request) {
                    continue;
                }
                let chunks = self
                    .dataflow
                    .chunks(&request, tick, self.links.chunks_of(&peer))?;
                self.links.stage(&peer, &request, chunks);
                continue;
            };
            let position = self.dataflow.position();
            self.outbound.cut(
                position,
                HeldCut {
                    peer,
                    request,
                    bundle,
                    bytes,
                },
            );
        }
        Ok(())
    }

    /// Holds a snapshot of the last step, unless it is held already.
    fn hold_snapshot(&mut self) {
        if self.dataflow.position() > self.outbound.snapshot_position() {
            self.outbound.snapshot(self.dataflow.snapshot());
        }
    }
}

/// A record that answers nobody.
pub(crate) fn append(record: Record) -> Effect {
    Effect::Append {
        record,
        tokens: Vec::new(),
    }
}

fn view<'a>(dataflow: &'a Dataflow, frontier: &'a Frontier, now_ms: u64) -> View<'a> {
    View {
        dataflow,
        frontier,
        now_ms,
    }
}
