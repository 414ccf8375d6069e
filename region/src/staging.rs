//! Chunks of stages on their way into the log, and out of it: the region's part beside the links.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tributary_planner::catalog::Catalog;
use tributary_replication::{Bundle, Epoch, Frontier};
use tributary_storage::{OriginId, Position};

use crate::bundles;
use crate::dataflow::{Dataflow, is_stage_over};
use crate::effect::Effect;
use crate::entry::Entry;
use crate::region::{Region, append};

/// A stage that has not grown for so long is not waited for.
const GROWS_MS: u64 = 2_000;

/// Chunks that are sealed and may not be stepped yet.
pub(crate) struct SealedStage {
    id: u64,
    chunks: u32,
    bytes: u64,
    catalog: Option<Arc<Catalog>>,
    ranges: BTreeMap<OriginId, Epoch>,
    /// Of the state at which its first chunk was read.
    read_at: Frontier,
    /// When its last chunk came.
    grown_ms: u64,
}

/// The stages as of everything sealed, and how much of each is durable.
#[derive(Default)]
pub(crate) struct Stages {
    sealed: BTreeMap<OriginId, SealedStage>,
    durable: BTreeMap<OriginId, (u64, u32)>,
}

/// A chunk that is sealed, to be acknowledged once it is durable.
#[derive(Clone, Debug)]
pub struct HeldStaged {
    /// Who sent it.
    pub peer: String,
    /// As whom.
    pub sender: OriginId,
    /// The stage.
    pub stage: u64,
    /// Chunks of it so far.
    pub chunks: u32,
}

impl Stages {
    /// Those that a restart finds: all of them durable.
    pub(crate) fn of(dataflow: &Dataflow) -> Self {
        let mut stages = Self::default();
        for (sender, stage) in &dataflow.stages {
            stages.durable.insert(*sender, (stage.id, stage.chunks));
            let sealed = SealedStage {
                id: stage.id,
                chunks: stage.chunks,
                bytes: stage.bytes,
                catalog: stage.catalog.clone(),
                ranges: stage.ranges.clone(),
                read_at: stage.read_at.clone(),
                grown_ms: 0,
            };
            stages.sealed.insert(*sender, sealed);
        }
        stages
    }

    pub(crate) fn is_durable(&mut self, held: &HeldStaged) {
        self.durable.insert(held.sender, (held.stage, held.chunks));
    }

    /// The sealing bundle, or one that makes the stage needless, is sealed.
    pub(crate) fn applied(&mut self, sender: OriginId) {
        self.sealed.remove(&sender);
        self.durable.remove(&sender);
    }

    /// Whether a stage with changes of this origin has grown lately: then nobody else needs to pass them on.
    pub(crate) fn covers(&self, origin: OriginId, now_ms: u64) -> bool {
        let grows = |stage: &&SealedStage| now_ms.saturating_sub(stage.grown_ms) < GROWS_MS;
        let mut growing = self.sealed.values().filter(grows);
        growing.any(|stage| stage.ranges.contains_key(&origin))
    }

    fn bytes(&self) -> u64 {
        self.sealed.values().map(|stage| stage.bytes).sum()
    }

    fn durable_chunks(&self, sender: OriginId, stage: u64) -> u32 {
        let durable = self.durable.get(&sender).filter(|(id, _)| *id == stage);
        durable.map_or(0, |(_, chunks)| *chunks)
    }

    fn prune(&mut self, frontier: &Frontier, catalog: &Catalog) {
        self.sealed
            .retain(|sender, stage| !is_stage_over(*sender, &stage.ranges, frontier, catalog));
        let sealed = &self.sealed;
        self.durable
            .retain(|sender, (id, _)| sealed.get(sender).is_some_and(|stage| stage.id == *id));
    }

    /// Whether all chunks of a sender's stage are stepped.
    fn is_level(&self, dataflow: &Dataflow) -> bool {
        self.sealed.iter().all(|(sender, stage)| {
            let stepped = dataflow.stage(*sender);
            stepped.is_some_and(|stepped| (stepped.id, stepped.chunks) == (stage.id, stage.chunks))
        })
    }
}

impl Region {
    /// Seals a chunk that a peer sent, if it is the next of its stage, and answers what is held of it.
    pub(crate) fn take_chunk(&mut self, peer: &str, bytes: Bytes, now_ms: u64, out: &mut Vec<Effect>) {
        if self.dataflow.is_applying() || self.sequencer.is_crowded(&self.config) {
            // It comes again.
            return;
        }
        let bundle = match Bundle::decode(&bytes) {
            Ok(bundle) => bundle,
            Err(error) => return self.refuse_peer(peer, error.to_string(), out),
        };
        let (sender, chunk) = (bundle.sender, bundle.chunk);
        self.stages
            .prune(self.sequencer.frontier(), self.sequencer.catalog());
        let known = self
            .stages
            .sealed
            .get(&sender)
            .filter(|stage| stage.id == chunk.stage);
        let next = known.map_or(0, |stage| stage.chunks);
        let torn = self.config.defects.replication.torn_stages;
        if chunk.number != next && !(torn && chunk.number > next) {
            let chunks = self.stages.durable_chunks(sender, chunk.stage);
            return self.links.staged(peer, chunk.stage, chunks, false, out);
        }
        let catalog = known.and_then(|stage| stage.catalog.clone());
        let held = known.map_or(0, |stage| stage.bytes);
        let others = self.stages.bytes() - self.stages.sealed.get(&sender).map_or(0, |stage| stage.bytes);
        if others + held + bytes.len() as u64 > self.config.link.stage_bytes_max {
            let reason = format!(
                "a stage that is beyond the {} bytes for all",
                self.config.link.stage_bytes_max
            );
            out.push(Effect::Refused {
                peer: peer.to_owned(),
                reason,
            });
            self.unstage(sender, now_ms, out);
            return self.links.staged(peer, chunk.stage, 0, true, out);
        }
        let catalog =
            match bundles::validate_chunk(&bundle, catalog, self.sequencer.catalog(), &self.dataflow) {
                Ok(catalog) => catalog,
                Err(reason) => return self.refuse_peer(peer, reason, out),
            };
        let mut ranges = known.map_or(BTreeMap::new(), |stage| stage.ranges.clone());
        ranges.extend(bundle.included.iter().map(|part| (part.origin, part.to)));
        let read_at = known.map_or(&bundle.frontier, |stage| &stage.read_at).clone();
        let sealed = SealedStage {
            id: chunk.stage,
            chunks: chunk.number + 1,
            bytes: held + bytes.len() as u64,
            catalog,
            ranges,
            read_at,
            grown_ms: now_ms,
        };
        self.stages.sealed.insert(sender, sealed);
        let (record, _) = self.sequencer.seal(now_ms, Entry::Chunk(bytes));
        let held = HeldStaged {
            peer: peer.to_owned(),
            sender,
            stage: chunk.stage,
            chunks: chunk.number + 1,
        };
        self.outbound.staged(record.position, held);
        out.push(append(record));
    }

    /// Whether the stage that a bundle seals is all here. If not, its sender is told what is.
    pub(crate) fn has_stage(&mut self, peer: &str, bundle: &Bundle, out: &mut Vec<Effect>) -> bool {
        let (sender, chunk) = (bundle.sender, bundle.chunk);
        let stage = self.stages.sealed.get(&sender);
        let whole = stage.is_some_and(|stage| (stage.id, stage.chunks) == (chunk.stage, chunk.number));
        let whole = whole || self.config.defects.replication.torn_stages;
        if !whole {
            let chunks = self.stages.durable_chunks(sender, chunk.stage);
            self.links.staged(peer, chunk.stage, chunks, false, out);
        }
        whole
    }

    /// The frontier of the oldest state of which a bundle, with the stage that it seals, brings something.
    pub(crate) fn read_at<'a>(&'a self, bundle: &'a Bundle) -> &'a Frontier {
        let stage = self.stages.sealed.get(&bundle.sender);
        let stage = stage.filter(|stage| bundle.chunk.is_sealing() && stage.id == bundle.chunk.stage);
        stage.map_or(&bundle.frontier, |stage| &stage.read_at)
    }

    /// Drops the stage that a bundle seals: its sender begins anew.
    pub(crate) fn drop_stage_of(&mut self, peer: &str, bundle: &Bundle, now_ms: u64, out: &mut Vec<Effect>) {
        if bundle.chunk.is_sealing() {
            self.unstage(bundle.sender, now_ms, out);
            self.links.staged(peer, bundle.chunk.stage, 0, false, out);
        }
    }

    fn unstage(&mut self, sender: OriginId, now_ms: u64, out: &mut Vec<Effect>) {
        if self.stages.sealed.contains_key(&sender) {
            self.stages.applied(sender);
            out.push(append(self.sequencer.seal(now_ms, Entry::Unstage(sender)).0));
        }
    }

    /// Whether bundles can be sealed now: the set before is merged, and a stage that one of them may seal is stepped. So
    /// between two sets own commits have their turn; what comes meanwhile becomes one set.
    pub(crate) fn takes_bundles(&mut self) -> bool {
        self.stages
            .prune(self.sequencer.frontier(), self.sequencer.catalog());
        let torn = self.config.defects.replication.torn_stages;
        !self.dataflow.is_applying()
            && !self.sequencer.has_bundles()
            && (torn || self.stages.is_level(&self.dataflow))
    }

    /// Sends the chunks that are due: one to each peer.
    pub(crate) fn send_chunks(&mut self, out: &mut Vec<Effect>) {
        if self.dataflow.is_applying() {
            return;
        }
        let persisted: Position = self.outbound.persisted();
        self.links
            .send_chunks(&self.dataflow, persisted, &self.published.frontier, out);
    }

    fn refuse_peer(&mut self, peer: &str, reason: String, out: &mut Vec<Effect>) {
        let peer = peer.to_owned();
        out.push(Effect::Refused {
            peer: peer.clone(),
            reason: reason.clone(),
        });
        out.push(Effect::Close { peer, reason });
    }
}
