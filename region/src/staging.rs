//! Chunks of stages on their way into the log, and out of it: the region's part beside the links.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use tributary_planner::catalog::Catalog;
use tributary_replication::{Bundle, Frontier};
use tributary_storage::{OriginId, Position};

use crate::bundles;
use crate::dataflow::{Dataflow, StageHead, is_stage_over};
use crate::effect::Effect;
use crate::entry::Entry;
use crate::region::{Region, append};

/// A stage that has not grown for so long is not waited for.
const GROWS_MS: u64 = 2_000;

/// Chunks that came and cannot be taken yet, of all peers; what is beyond comes again.
const WAITING_CHUNKS_MAX: usize = 16;

/// About the most bytes of them.
const WAITING_BYTES_MAX: usize = 64 << 20;

/// A stage with the chunks that are sealed and may not be stepped yet.
struct Sealed {
    head: StageHead,
    /// When its last chunk came.
    grown_ms: u64,
}

/// The stages as of everything sealed, and how much of each is durable.
#[derive(Default)]
pub(crate) struct Stages {
    sealed: BTreeMap<OriginId, Sealed>,
    durable: BTreeMap<OriginId, (u64, u32)>,
    /// Of each sender the stage whose sealing bundle was sealed last, and its chunks.
    taken: BTreeMap<OriginId, (u64, u32)>,
    /// Chunks that wait, by the peer that sent them.
    waiting: VecDeque<(String, Bytes)>,
    dropped: u64,
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
            let head = stage.head.clone();
            stages.durable.insert(*sender, (head.id, head.chunks));
            stages.sealed.insert(*sender, Sealed { head, grown_ms: 0 });
        }
        stages
    }

    pub(crate) fn is_durable(&mut self, held: &HeldStaged) {
        self.durable.insert(held.sender, (held.stage, held.chunks));
    }

    /// The bundle that seals a stage is sealed.
    pub(crate) fn applied(&mut self, seal: &Bundle) {
        let (sender, stage) = (seal.sender, seal.chunk.stage);
        self.taken.insert(sender, (stage, seal.chunk.number));
        if self
            .sealed
            .get(&sender)
            .is_some_and(|sealed| sealed.head.id == stage)
        {
            self.forget(sender);
        }
    }

    fn forget(&mut self, sender: OriginId) {
        self.sealed.remove(&sender);
        self.durable.remove(&sender);
    }

    /// Whether a stage with changes of this origin has grown lately: then nobody else needs to pass them on.
    pub(crate) fn covers(&self, origin: OriginId, now_ms: u64) -> bool {
        let grows = |stage: &&Sealed| now_ms.saturating_sub(stage.grown_ms) < GROWS_MS;
        let mut growing = self.sealed.values().filter(grows);
        growing.any(|stage| stage.head.ranges.contains_key(&origin))
    }

    /// Chunks of peers that had no room to wait.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// The connection to a peer is gone: what waits of it comes again.
    pub(crate) fn forget_peer(&mut self, peer: &str) {
        self.waiting.retain(|(from, _)| from != peer);
    }

    fn wait(&mut self, peer: String, chunk: Bytes) {
        if self
            .waiting
            .iter()
            .any(|(from, held)| *from == peer && *held == chunk)
        {
            // It was sent again meanwhile.
            return;
        }
        let held: usize = self.waiting.iter().map(|(_, chunk)| chunk.len()).sum();
        // One that is larger than all that may wait is taken, too.
        let has_room = held == 0 || held + chunk.len() <= WAITING_BYTES_MAX;
        match self.waiting.len() < WAITING_CHUNKS_MAX && has_room {
            true => self.waiting.push_back((peer, chunk)),
            false => self.dropped += 1,
        }
    }

    fn bytes(&self) -> u64 {
        self.sealed.values().map(|stage| stage.head.bytes).sum()
    }

    fn durable_chunks(&self, sender: OriginId, stage: u64) -> u32 {
        let durable = self.durable.get(&sender).filter(|(id, _)| *id == stage);
        durable.map_or(0, |(_, chunks)| *chunks)
    }

    fn prune(&mut self, frontier: &Frontier, catalog: &Catalog) {
        self.sealed
            .retain(|sender, stage| !is_stage_over(*sender, &stage.head.ranges, frontier, catalog));
        let sealed = &self.sealed;
        self.durable
            .retain(|sender, (id, _)| sealed.get(sender).is_some_and(|stage| stage.head.id == *id));
    }

    /// Whether all chunks of a sender's stage are stepped.
    fn is_level(&self, dataflow: &Dataflow) -> bool {
        self.sealed.iter().all(|(sender, stage)| {
            let stepped = dataflow.stage(*sender);
            let place = |head: &StageHead| (head.id, head.chunks);
            stepped.is_some_and(|stepped| place(&stepped.head) == place(&stage.head))
        })
    }
}

impl Region {
    /// Takes the oldest of the chunks that have come, unless something is being merged or is about to be, or too much waits:
    /// own commits behind it would wait, too. What is left has its turn after the next step.
    pub(crate) fn take_chunk_in_turn(&mut self, now_ms: u64, out: &mut Vec<Effect>) {
        for (peer, bytes) in self.links.take_arrived() {
            self.stages.wait(peer, bytes);
        }
        if !self.dataflow.is_applying()
            && !self.sequencer.has_bundles()
            && !self.sequencer.is_crowded(&self.config)
            && let Some((peer, bytes)) = self.stages.waiting.pop_front()
        {
            self.take_chunk(&peer, bytes, now_ms, out);
        }
    }

    /// Seals a chunk that a peer sent, if it is the next of its stage, and answers what is held of it.
    fn take_chunk(&mut self, peer: &str, bytes: Bytes, now_ms: u64, out: &mut Vec<Effect>) {
        let bundle = match Bundle::decode(&bytes) {
            Ok(bundle) => bundle,
            Err(error) => return self.refuse_peer(peer, error.to_string(), out),
        };
        let (sender, chunk) = (bundle.sender, bundle.chunk);
        self.stages
            .prune(self.sequencer.frontier(), self.sequencer.catalog());
        let of_sender = self.stages.sealed.get(&sender).map(|stage| &stage.head);
        let others = self.stages.bytes() - of_sender.map_or(0, |head| head.bytes);
        let known = of_sender.filter(|head| head.id == chunk.stage).cloned();
        let next = known.as_ref().map_or(0, |head| head.chunks);
        let torn = self.config.defects.replication.torn_stages;
        if chunk.number != next && !(torn && chunk.number > next) {
            let chunks = self.stages.durable_chunks(sender, chunk.stage);
            return self.links.staged(peer, chunk.stage, chunks, false, out);
        }
        let mut head = known.unwrap_or_else(|| StageHead::before(&bundle));
        if others + head.bytes + bytes.len() as u64 > self.config.link.stage_bytes_max {
            return self.refuse_stage(peer, &bundle, now_ms, out);
        }
        let catalog = head.catalog.take();
        match bundles::validate_chunk(&bundle, catalog, self.sequencer.catalog(), &self.dataflow) {
            Ok(catalog) => head.catalog = catalog,
            Err(reason) => return self.refuse_peer(peer, reason, out),
        }
        head.grow(&bundle, bytes.len());
        let held = HeldStaged {
            peer: peer.to_owned(),
            sender,
            stage: head.id,
            chunks: head.chunks,
        };
        let grown_ms = now_ms;
        self.stages.sealed.insert(sender, Sealed { head, grown_ms });
        let record = self.sequencer.chunk(now_ms, bytes, bundle);
        self.outbound.staged(record.position, held);
        out.push(append(record));
    }

    /// There is no room for a chunk: its stage is dropped, and its sender told.
    fn refuse_stage(&mut self, peer: &str, chunk: &Bundle, now_ms: u64, out: &mut Vec<Effect>) {
        let reason = format!(
            "a stage that is beyond the {} bytes for all",
            self.config.link.stage_bytes_max
        );
        out.push(Effect::Refused {
            peer: peer.to_owned(),
            reason,
        });
        self.unstage(chunk.sender, now_ms, out);
        self.links.staged(peer, chunk.chunk.stage, 0, true, out);
    }

    /// Whether the stage that a bundle seals is all here. If not, its sender is told what is. When it was taken in already,
    /// the bundle was cut again since the acknowledgement was late: like any other it brings what came after the stage.
    pub(crate) fn has_stage(&mut self, peer: &str, bundle: &Bundle, out: &mut Vec<Effect>) -> bool {
        let (sender, chunk) = (bundle.sender, bundle.chunk);
        let stage = self.stages.sealed.get(&sender);
        let whole =
            stage.is_some_and(|stage| (stage.head.id, stage.head.chunks) == (chunk.stage, chunk.number));
        let whole = whole || self.stages.taken.get(&sender) == Some(&(chunk.stage, chunk.number));
        let whole = whole || self.config.defects.replication.torn_stages;
        if !whole {
            let chunks = self.stages.durable_chunks(sender, chunk.stage);
            self.links.staged(peer, chunk.stage, chunks, false, out);
        }
        whole
    }

    /// The frontier of the oldest state of which a bundle, with the stage that it seals, brings something.
    pub(crate) fn read_at<'a>(&'a self, bundle: &'a Bundle) -> &'a Frontier {
        let head = self.stages.sealed.get(&bundle.sender).map(|stage| &stage.head);
        let head = head.filter(|head| bundle.chunk.is_sealing() && head.id == bundle.chunk.stage);
        head.map_or(&bundle.frontier, |head| &head.read_at)
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
            self.stages.forget(sender);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_there_once_and_bounded_in_number_and_bytes() {
        let mut stages = Stages::default();
        let chunk = |number: usize| Bytes::from(number.to_le_bytes().to_vec());
        for number in 0..WAITING_CHUNKS_MAX {
            stages.wait("eu".to_owned(), chunk(number));
            stages.wait("eu".to_owned(), chunk(number));
        }
        assert_eq!((stages.waiting.len(), stages.dropped()), (WAITING_CHUNKS_MAX, 0));
        stages.wait("us".to_owned(), chunk(0));
        assert_eq!(stages.dropped(), 1);
        stages.forget_peer("eu");
        assert!(stages.waiting.is_empty());
        stages.wait("us".to_owned(), Bytes::from(vec![0; WAITING_BYTES_MAX + 1]));
        stages.wait("eu".to_owned(), chunk(0));
        assert_eq!((stages.waiting.len(), stages.dropped()), (1, 2));
    }
}
