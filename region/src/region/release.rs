//! What leaves the region once its records are durable: answers, snapshots, bundles, checkpoints.
//!
//! Invariant: a bundle leaves after the snapshot that it was cut from is published.

use std::sync::Arc;

use tributary_planner::catalog::RegionDef;
use tributary_replication::{Epoch, LinkState};
use tributary_storage::RegionId;

use super::{Region, view};
use crate::effect::Effect;
use crate::snapshot::{RegionStatus, Snapshot};

impl Region {
    /// Lets out what no longer waits for the disk.
    pub(super) fn release(&mut self, now_ms: u64, out: &mut Vec<Effect>) {
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

    pub(super) fn publish_status(&mut self, now_ms: u64, out: &mut Vec<Effect>) {
        let snapshot = (*self.published).clone();
        self.publish(snapshot, now_ms, out);
    }

    fn publish(&mut self, mut snapshot: Snapshot, now_ms: u64, out: &mut Vec<Effect>) {
        snapshot.links = self.links.status();
        snapshot.counts.chunks_dropped = self.stages.dropped();
        snapshot.settled = is_settled(&snapshot);
        snapshot.regions = regions(&snapshot, now_ms);
        snapshot.held = self.dataflow.held_stages();
        snapshot.rows_to_merge = self.dataflow.rows_to_merge();
        self.status_ms = now_ms;
        self.published = Arc::new(snapshot);
        out.push(Effect::Publish(self.published.clone()));
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
