//! The region: sequencer, dataflow, links and what waits for the disk, behind one `step`.

use std::sync::Arc;

use tributary_executor::Inline;
use tributary_planner::catalog::{CatalogChange, MemberChange, RegionDef};
use tributary_replication::{Epoch, Frontier, Hlc, LinkState, ReceivedBundle};
use tributary_storage::checkpoint::Loaded;
use tributary_storage::{ObjectId, OriginId, Position, Record, RegionId};

use crate::bundles;
use crate::checkpoint::{Gathered, Gathering};
use crate::collection::{Collection, standings};
use crate::commits::{self, Decided};
use crate::config::RegionConfig;
use crate::dataflow::{Counts, Dataflow, ViewState};
use crate::effect::{Committed, Effect, Rejected};
use crate::entry::Entry;
use crate::error::{RegionError, Result};
use crate::input::Input;
use crate::links::{Agreement, Links, View};
use crate::outbound::{HeldCut, Outbound};
use crate::replay::{KeptResults, replay};
use crate::sequencer::Sequencer;
use crate::snapshot::{RegionStatus, Snapshot};
use crate::staging::Stages;

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
        let backfilling = self
            .dataflow
            .views
            .values()
            .any(|view| matches!(view, ViewState::Backfilling(job) if job.failure().is_none()));
        !self.sequencer.is_level()
            || self.dataflow.is_applying()
            || (backfilling && self.dataflow.origin().is_some())
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
        self.dataflow.counts()
    }

    /// The state behind the snapshots, for tests and checks.
    pub fn dataflow(&self) -> &Dataflow {
        &self.dataflow
    }

    fn try_step(&mut self, now_ms: u64, input: Input, out: &mut Vec<Effect>) -> Result<()> {
        match input {
            Input::Commits(submissions) => {
                let slowest = self.links.slowest(now_ms);
                let mut decided = Vec::new();
                for group in commits::groups(submissions) {
                    decided.push(
                        self.sequencer
                            .commit(now_ms, group, slowest, &self.config, &self.dataflow),
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
            }
            Input::Message { peer, message } => {
                let view = view(&self.dataflow, &self.published.frontier, now_ms);
                self.links.receive(&peer, message, &view, out);
                for (peer, bytes) in self.links.take_arrived() {
                    self.take_chunk(&peer, bytes, now_ms, out);
                }
                self.take_bundles(now_ms, out)?;
                self.send_chunks(out);
            }
            Input::Persisted { position } => self.outbound.persist(position),
            Input::Timer => {
                let view = view(&self.dataflow, &self.published.frontier, now_ms);
                let (stages, backlog) = (&self.stages, self.sequencer.backlog(&self.config));
                self.links
                    .poll(&view, backlog, |origin| stages.covers(origin, now_ms), out);
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

    /// The primary's first record: the cluster, its members, itself as primary.
    fn found(&mut self, now_ms: u64, out: &mut Vec<Effect>) {
        let founding = self.config.found.clone().expect("checked by the caller");
        let mut names: Vec<String> = self.config.peers.clone();
        names.sort();
        names.insert(0, self.config.name.clone());
        let number = |index: usize| RegionId(u16::try_from(index + 1).expect("fewer than 65,535 regions"));
        let regions = names
            .into_iter()
            .enumerate()
            .map(|(index, name)| (number(index), name))
            .collect();
        let change = CatalogChange::Found {
            cluster: founding.cluster,
            regions,
            primary: number(0),
        };
        let (record, _) = self.sequencer.seal_catalog(now_ms, vec![change]);
        out.push(append(record));
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

    /// Seals the bundles that have become applicable.
    ///
    /// # Errors
    /// When tombstones are gone that this region has never heard of.
    fn take_bundles(&mut self, now_ms: u64, out: &mut Vec<Effect>) -> Result<()> {
        if !self.takes_bundles() {
            return Ok(());
        }
        let mut reach = self.sequencer.frontier().clone();
        if let Some(origin) = self.dataflow.origin() {
            reach.advance(origin, self.dataflow.frontier().get(origin));
        }
        // Whoever sends this will hear from our bundles what it lacks: the connection stays.
        for peer in self.links.inbox().drop_behind(&reach, self.collection.dropped()) {
            let reason =
                "it has not seen all deletions that are forgotten here, and may hold rows that were deleted"
                    .into();
            out.push(Effect::Refused { peer, reason });
        }
        let mut set = self.links.inbox().take_applicable(&reach);
        // What came before its stage was lost here comes again, as chunks.
        let complete = set.len();
        set.retain(|received| {
            !received.bundle.chunk.is_sealing() || self.has_stage(&received.peer, &received.bundle, out)
        });
        if set.is_empty() {
            return Ok(());
        }
        if set.len() < complete {
            let inbox = self.links.inbox();
            set.iter()
                .for_each(|received| inbox.ask_again(&received.peer, &received.bundle));
            return Ok(());
        }
        let read_at: Vec<&Frontier> = set
            .iter()
            .map(|received| self.read_at(&received.bundle))
            .collect();
        match lacking(&set, &read_at, &reach) {
            Some(_) if reach.is_empty() => {
                // Nothing is here yet. Those who had seen a tombstone have dropped it, another had not seen it when it cut
                // its bundle, or began to read its stage: by now it has.
                for received in &set {
                    self.links.inbox().ask_again(&received.peer, &received.bundle);
                    self.drop_stage_of(&received.peer, &received.bundle, now_ms, out);
                }
                return Ok(());
            }
            Some((peer, origin, epoch)) => {
                return Err(RegionError::TooFarBehind {
                    peer,
                    lacks: format!("{origin}:{epoch}"),
                    joined: self.dataflow.has_joined(),
                });
            }
            None => {}
        }
        let peers: Vec<String> = set.iter().map(|received| received.peer.clone()).collect();
        match bundles::validate(set, self.sequencer.catalog(), &self.dataflow, self.config.tick_ms) {
            Ok(valid) if self.is_too_old(&valid) => {
                let reason = format!(
                    "it knows only an earlier incarnation of this region than {}, and nothing of it",
                    self.config.incarnation_min
                );
                for peer in peers {
                    let reason = reason.clone();
                    out.push(Effect::Close { peer, reason });
                }
            }
            Ok(valid) => {
                let bundles = valid.bundles.iter();
                bundles.for_each(|bundle| self.collection.drops(&bundle.collected));
                for bundle in valid.bundles.iter().filter(|bundle| bundle.chunk.is_sealing()) {
                    self.stages.applied(bundle.sender);
                }
                let record = self
                    .sequencer
                    .bundles(now_ms, valid, |table| self.dataflow.key_encoder(table));
                out.push(append(record));
            }
            Err((peer, reason)) => {
                out.push(Effect::Refused {
                    peer: peer.clone(),
                    reason: reason.clone(),
                });
                out.push(Effect::Close { peer, reason });
            }
        }
        Ok(())
    }

    /// Whether a region that joins would take an incarnation that was given out before, since those who sent this have
    /// heard neither of that one nor of the next.
    fn is_too_old(&self, set: &bundles::ValidSet) -> bool {
        if self.dataflow.origin().is_some() {
            return false;
        }
        let catalog = set.catalog.as_ref().unwrap_or(self.sequencer.catalog());
        let region = catalog.region_named(&self.config.name);
        let Some(named) = region.and_then(|region| catalog.origin_of(region)) else {
            return false;
        };
        let mut known = set.advances.iter().map(|(origin, _)| *origin);
        let is_heard_of =
            known.any(|origin| origin == named) || self.sequencer.frontier().get(named) > Epoch(0);
        named.incarnation < self.config.incarnation_min && !is_heard_of
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
            if !self.dataflow.is_applying() {
                self.sequencer.stepped(position);
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
        self.poll_backfills(now_ms, out);
        self.join(now_ms, out);
        self.hold_snapshot();
        // A bundle that waited for one that has just been sealed by an earlier call.
        self.take_bundles(now_ms, out)?;
        self.cut_if_level(now_ms, out)
    }

    /// Has links to the members that the catalog names.
    ///
    /// # Errors
    /// When the catalog, or what peers have seen of this region, says that this log must not be continued.
    fn heed_catalog(&mut self, out: &mut Vec<Effect>) -> Result<()> {
        if let Some(reason) = self.dataflow.verdict(self.config.reincarnate) {
            return Err(RegionError::Superseded(reason));
        }
        let catalog = self.dataflow.catalog();
        if catalog.version != self.members_version {
            self.members_version = catalog.version;
            self.links.keep_to_members(&self.config.name, catalog, out);
        }
        Ok(())
    }

    /// Has tombstones dropped that everybody has acknowledged, from time to time.
    fn collect(&mut self, now_ms: u64, out: &mut Vec<Effect>) {
        let Some(own) = self.dataflow.writes_as() else {
            return;
        };
        let is_due = self.collection.is_due(now_ms, self.config.collect_every_ms);
        if self.config.keeps_tombstones
            || !is_due
            || !self.sequencer.is_level()
            || self.sequencer.is_disk_full()
        {
            return;
        }
        let links = self.links.status();
        let durable = &self.published.frontier;
        let stable = match self.config.defects.collect_early {
            true => Some(durable.clone()),
            false => {
                let standings = standings(own, self.dataflow.catalog(), &links);
                self.collection.look(now_ms, durable, &standings)
            }
        };
        let at = self.sequencer.time(now_ms);
        if let Some(stable) = stable.filter(|stable| self.dataflow.has_stable(stable, at)) {
            // What still waits from a log that is continued no more was not asked for above.
            let catalog = self.dataflow.catalog().clone();
            self.links.inbox().keep_senders(|sender| {
                let region = catalog.regions.get(&sender.region);
                region.is_some_and(|def| def.is_member() && def.incarnation == sender.incarnation)
            });
            if !self.config.defects.collect_early {
                self.collection.drops(&stable);
            }
            let (record, _) = self.sequencer.seal(now_ms, Entry::Collect { stable });
            out.push(append(record));
        }
    }

    /// Takes part once everything that a peer had when it spoke is here and every view is computed from it.
    fn join(&mut self, now_ms: u64, out: &mut Vec<Effect>) {
        if self.dataflow.has_joined() || !self.sequencer.is_level() {
            return;
        }
        let record = match self.dataflow.origin() {
            Some(_) if self.dataflow.is_caught_up() => self.sequencer.seal(now_ms, Entry::Joined).0,
            Some(_) => return,
            None => {
                let Some((region, incarnation)) = self.dataflow.next_of_primary() else {
                    return;
                };
                let before = OriginId {
                    region,
                    incarnation: incarnation - 1,
                };
                if !self.all_agree_on(before, now_ms) {
                    return;
                }
                let change = MemberChange::Reincarnate { incarnation };
                let change = CatalogChange::Member { region, change };
                self.sequencer.seal_catalog(now_ms, vec![change]).0
            }
        };
        out.push(append(record));
    }

    /// Whether every member knows no more of an origin; members that are away are waited for, but not for ever.
    fn all_agree_on(&mut self, origin: OriginId, now_ms: u64) -> bool {
        let (name, catalog) = (&self.config.name, self.dataflow.catalog());
        match self
            .links
            .agree_on(origin, &self.published.frontier, name, catalog)
        {
            Agreement::All => true,
            Agreement::Connected => {
                let since_ms = *self.agreed_since_ms.get_or_insert(now_ms);
                now_ms.saturating_sub(since_ms) >= self.config.members_wait_ms
            }
            Agreement::None => {
                self.agreed_since_ms = None;
                false
            }
        }
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

    fn poll_backfills(&mut self, now_ms: u64, out: &mut Vec<Effect>) {
        if self.dataflow.origin().is_none() {
            return;
        }
        let mut ready: Vec<ObjectId> = Vec::new();
        for (&id, state) in &mut self.dataflow.views {
            if let ViewState::Backfilling(backfill) = state
                && backfill.poll(self.config.backfill_rows_max)
                && backfill.is_ready_to_seal()
            {
                ready.push(id);
            }
        }
        for id in ready {
            let (record, _) = self.sequencer.seal(now_ms, Entry::Attach(id));
            out.push(append(record));
        }
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
            let (earlier, bytes_max) = (self.links.chunks_of(&peer), self.config.link.bundle_bytes_max);
            let bytes_max = earlier.map_or(bytes_max, |earlier| earlier.bundle_bytes_max(bytes_max));
            if self.dataflow.is_too_large(&request, bytes_max) {
                if !self.links.may_stage(&peer) {
                    self.links.abandon(&peer, request);
                    continue;
                }
                let chunks = self.dataflow.chunks(&request, tick, earlier)?;
                self.links.stage(&peer, &request, chunks);
                continue;
            }
            let bundle = match self.dataflow.bundle(&request, tick) {
                Err(RegionError::Withheld(reason)) => {
                    self.links.withhold(peer, reason, out);
                    continue;
                }
                bundle => bundle?,
            };
            let bytes = bundle.encode();
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

    /// Lets out what no longer waits for the disk.
    fn release(&mut self, now_ms: u64, out: &mut Vec<Effect>) {
        if self.config.defects.ack_before_sync {
            self.outbound.persist(self.sequencer.last());
        }
        let released = self.outbound.release();
        for (token, committed) in released.replies {
            out.push(Effect::Reply {
                token,
                outcome: Ok(committed),
            });
        }
        for kept in released.kept {
            out.push(Effect::Keep(Arc::new(kept)));
        }
        if let Some(snapshot) = released.snapshot {
            self.publish(snapshot, now_ms, out);
            let view = view(&self.dataflow, &self.published.frontier, now_ms);
            self.links.applied(&view, out);
        }
        for held in released.staged {
            self.stages.is_durable(&held);
            self.links.staged(&held.peer, held.stage, held.chunks, false, out);
        }
        let mut cuts = released.cuts.iter();
        if cuts.any(|cut| cut.bundle.frontier == self.published.frontier) {
            out.push(Effect::Keep(self.published.clone()));
        }
        for cut in released.cuts {
            assert!(
                self.published.frontier.covers(&cut.bundle.frontier),
                "a bundle at {} leaves before its snapshot, which is at {}",
                cut.bundle.frontier,
                self.published.frontier
            );
            self.links.cut_made(cut, out);
        }
        out.extend(released.checkpoint.map(Effect::Checkpoint));
    }

    fn publish_status(&mut self, now_ms: u64, out: &mut Vec<Effect>) {
        let snapshot = (*self.published).clone();
        self.publish(snapshot, now_ms, out);
    }

    fn publish(&mut self, mut snapshot: Snapshot, now_ms: u64, out: &mut Vec<Effect>) {
        snapshot.links = self.links.status();
        snapshot.settled = is_settled(&snapshot);
        snapshot.regions = regions(&snapshot, now_ms);
        self.status_ms = now_ms;
        self.published = Arc::new(snapshot);
        out.push(Effect::Publish(self.published.clone()));
    }
}

/// What a region at `reach` would have to know to take in a set of bundles: up to where one of the senders has dropped
/// tombstones. A region that holds nothing at all holds nothing that was deleted; then all parts of the set must have been
/// read, each `read_at` its frontier, by regions that had seen what others of them have dropped.
fn lacking(
    set: &[ReceivedBundle],
    read_at: &[&Frontier],
    reach: &Frontier,
) -> Option<(String, OriginId, Epoch)> {
    set.iter().find_map(|received| {
        let mut collected = received.bundle.collected.iter();
        let is_lacking = |(origin, epoch): &(OriginId, Epoch)| match reach.is_empty() {
            true => read_at.iter().any(|read_at| read_at.get(*origin) < *epoch),
            false => reach.get(*origin) < *epoch,
        };
        let (origin, epoch) = collected.find(is_lacking)?;
        Some((received.peer.clone(), origin, epoch))
    })
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

/// Whether every other member has said, as who it is known here, that it had processed this whole frontier without
/// announcing more.
fn is_settled(snapshot: &Snapshot) -> bool {
    let Some(own) = snapshot.origin else { return false };
    let mut others = snapshot
        .catalog
        .members()
        .filter(|(region, _)| *region != own.region);
    others.all(|(region, def)| {
        let Some(origin) = snapshot.known_as(region) else {
            // Nothing of it is shown.
            return true;
        };
        let mut links = snapshot.links.iter();
        let status = links
            .find(|(peer, _)| *peer == def.name)
            .map(|(_, status)| status);
        let status = status.filter(|status| status.peer.and_then(|peer| peer.origin) == Some(origin));
        let processed = status.map(|status| &status.peer_processed);
        processed.is_some_and(|processed| {
            processed.covers(&snapshot.frontier) && processed.get(origin) == snapshot.frontier.get(origin)
        })
    })
}

fn regions(snapshot: &Snapshot, now_ms: u64) -> Vec<RegionStatus> {
    let own = snapshot.origin.map(|origin| origin.region);
    let status = |(id, def): (RegionId, &RegionDef)| {
        let link = snapshot
            .links
            .iter()
            .find(|(peer, _)| *peer == def.name)
            .map(|(_, status)| status);
        let as_of_ms = if own == Some(id) {
            Some(now_ms)
        } else {
            link.and_then(|status| status.as_of_ms)
        };
        RegionStatus {
            id,
            name: def.name.clone(),
            epoch: snapshot
                .known_as(id)
                .map_or(Epoch(0), |origin| snapshot.frontier.get(origin)),
            as_of_ms,
            lag_ms: as_of_ms.map(|as_of| now_ms.saturating_sub(as_of)),
            connected: own == Some(id) || link.is_some_and(|status| status.state == LinkState::Up),
        }
    };
    snapshot.catalog.members().map(status).collect()
}
