//! Bundles that have become applicable: judged as a set, and sealed as one record or refused.
//!
//! Invariants: nothing of a set is taken in when a part of it is refused; a region that lacks what others have dropped the
//! tombstones of takes in nothing and stops (RFC 0010); a bundle that seals a stage waits for the stage (RFC 0009).

use tributary_replication::{Epoch, Frontier, ReceivedBundle};
use tributary_storage::OriginId;

use super::{Region, append};
use crate::bundles;
use crate::dataflow::Dataflow;
use crate::effect::Effect;
use crate::error::{RegionError, Result};
use crate::sequencer::Sequencer;

impl Region {
    /// Seals the bundles that have become applicable.
    ///
    /// # Errors
    /// When tombstones are gone that this region has never heard of.
    pub(super) fn take_bundles(&mut self, now_ms: u64, out: &mut Vec<Effect>) -> Result<()> {
        if !self.takes_bundles() {
            return Ok(());
        }
        let reach = reach(&self.sequencer, &self.dataflow);
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
                    self.stages.applied(bundle);
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
}

/// What is sealed of others, and stepped of this region's own.
pub(super) fn reach(sequencer: &Sequencer, dataflow: &Dataflow) -> Frontier {
    let mut reach = sequencer.frontier().clone();
    if let Some(origin) = dataflow.origin() {
        reach.advance(origin, dataflow.frontier().get(origin));
    }
    reach
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tributary_replication::{Bundle, Chunk, ClusterId, Tick};
    use tributary_storage::RegionId;

    use super::*;
    use crate::dataflow::StageHead;

    fn origin(region: u16) -> OriginId {
        OriginId::first(RegionId(region))
    }

    fn frontier(epochs: &[(u16, u64)]) -> Frontier {
        epochs
            .iter()
            .map(|(region, epoch)| (origin(*region), Epoch(*epoch)))
            .collect()
    }

    /// A bundle or chunk, cut at a frontier by who has dropped tombstones up to another.
    fn bundle(sender: u16, at: &[(u16, u64)], dropped: &[(u16, u64)], chunk: Chunk) -> Bundle {
        Bundle {
            sender: origin(sender),
            cluster: ClusterId([7; 16]),
            tick: Tick(1),
            frontier: frontier(at),
            collected: frontier(dropped),
            included: Vec::new(),
            chunk,
            sections: Vec::new(),
        }
    }

    fn received(peer: &str, bundle: &Bundle) -> ReceivedBundle {
        ReceivedBundle {
            peer: peer.to_owned(),
            bytes: Bytes::new(),
            bundle: bundle.clone(),
        }
    }

    #[test]
    fn a_stage_into_an_empty_region_is_judged_by_its_first_chunk() {
        let chunk = |number, last| Chunk {
            stage: 9,
            number,
            last,
        };
        // It was begun before us had seen 2:5, in which eu deletes a row; the later ones are read afterwards.
        let first = bundle(1, &[(1, 3), (2, 4)], &[], chunk(0, false));
        let second = bundle(1, &[(1, 4), (2, 5)], &[], chunk(1, false));
        let seal = bundle(1, &[(1, 4), (2, 5)], &[], chunk(2, true));
        let of_eu = bundle(2, &[(1, 4), (2, 6)], &[(2, 5)], Chunk::ONLY);
        let mut stage = StageHead::before(&first);
        stage.grow(&first, 10);
        stage.grow(&second, 10);
        assert_eq!((stage.chunks, stage.bytes), (2, 20));
        let set = [received("us", &seal), received("eu", &of_eu)];
        let nothing = Frontier::new();
        let judged = |read_at: &Frontier| lacking(&set, &[read_at, &of_eu.frontier], &nothing);
        assert_eq!(
            judged(&stage.read_at),
            Some(("eu".to_owned(), origin(2), Epoch(5))),
            "the row may be in the first chunk, and nobody has its tombstone"
        );
        // Begun anew, it is right.
        let anew = StageHead::before(&second);
        assert_eq!(judged(&anew.read_at), None);
        // One who holds something is told what it lacks, whatever the stage was read at.
        let behind = lacking(&set, &[&stage.read_at, &of_eu.frontier], &frontier(&[(2, 4)]));
        assert_eq!(behind, Some(("eu".to_owned(), origin(2), Epoch(5))));
        let level = lacking(&set, &[&stage.read_at, &of_eu.frontier], &frontier(&[(2, 5)]));
        assert_eq!(level, None);
    }
}
