//! The receiving half of a link: what must be acknowledged, and what must be asked for.

use std::collections::BTreeMap;

use tributary_storage::OriginId;

use crate::bundle::{Included, ORIGINS_MAX};
use crate::frontier::{Epoch, Frontier};
use crate::link::{LinkConfig, Local};

/// How often, at most, the delay between two requests doubles.
const DOUBLINGS_MAX: u32 = 6;

/// So often in a row must an origin be passed on in vain before the peer is told to stop.
const VAIN_MIN: u32 = 3;

/// What came from the peer and what did not.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    /// The newest epochs that were handed on and are not acknowledged. Bounded by the origins of a bundle.
    unacked: BTreeMap<OriginId, Epoch>,
    /// The epoch of each of these origins at the last acknowledgement.
    acked: Frontier,
    /// How often in a row an origin was passed on to us that we had heard of otherwise.
    vain: BTreeMap<OriginId, u32>,
    lacking: Option<Lacking>,
}

#[derive(Debug)]
struct Lacking {
    need: BTreeMap<OriginId, Epoch>,
    since_ms: u64,
    asked_ms: Option<u64>,
    asked: u32,
}

impl Incoming {
    /// A new session.
    pub(crate) fn restart(&mut self) {
        *self = Self::default();
    }

    /// Whether a bundle has nothing new for `frontier`.
    pub(crate) fn is_known(&self, included: &[Included], frontier: &Frontier) -> bool {
        included
            .iter()
            .all(|included| included.to <= frontier.get(included.origin))
    }

    /// A bundle came: which of the origins that it passes on were known already?
    pub(crate) fn relayed(&mut self, included: &[Included], peer: Option<OriginId>, frontier: &Frontier) {
        for included in included.iter().filter(|included| Some(included.origin) != peer) {
            if included.to > frontier.get(included.origin) {
                self.vain.remove(&included.origin);
            } else if self.vain.len() < ORIGINS_MAX {
                *self.vain.entry(included.origin).or_default() += 1;
            }
        }
    }

    /// Origins that need not be passed on to us any more.
    pub(crate) fn relayed_in_vain(&self) -> impl Iterator<Item = OriginId> + '_ {
        self.vain
            .iter()
            .filter(|(_, times)| **times >= VAIN_MIN)
            .map(|(origin, _)| *origin)
    }

    /// A bundle was handed on.
    pub(crate) fn delivered(&mut self, included: &[Included]) {
        for included in included {
            if self.unacked.len() >= ORIGINS_MAX && !self.unacked.contains_key(&included.origin) {
                continue;
            }
            let newest = self.unacked.entry(included.origin).or_default();
            *newest = (*newest).max(included.to);
        }
    }

    /// Whether `frontier` holds more of what came from this peer than the last acknowledgement said. The
    /// caller acknowledges then.
    pub(crate) fn owes_ack(&mut self, frontier: &Frontier) -> bool {
        let mut owes = false;
        for origin in self.unacked.keys() {
            owes |= self.acked.advance(*origin, frontier.get(*origin));
        }
        self.unacked
            .retain(|origin, epoch| *epoch > frontier.get(*origin));
        owes
    }

    /// What waiting bundles need, as of now.
    pub(crate) fn lack(&mut self, need: Vec<(OriginId, Epoch)>, local: &Local<'_>) {
        let mut newest: BTreeMap<OriginId, Epoch> = BTreeMap::new();
        for (origin, epoch) in need {
            let place = newest.entry(origin).or_default();
            *place = (*place).max(epoch);
            self.vain.remove(&origin);
        }
        match &mut self.lacking {
            _ if newest.is_empty() => self.lacking = None,
            // As long as the same origins are missing it is one and the same wait.
            Some(lacking) if lacking.need.keys().eq(newest.keys()) => lacking.need = newest,
            _ => {
                let since_ms = local.now_ms;
                self.lacking = Some(Lacking {
                    need: newest,
                    since_ms,
                    asked_ms: None,
                    asked: 0,
                });
            }
        }
    }

    /// No waiting bundle needs anything.
    pub(crate) fn lacks_nothing(&mut self) {
        self.lacking = None;
    }

    /// What to ask the peer for now.
    pub(crate) fn due_lack(
        &mut self,
        local: &Local<'_>,
        peer_origin: Option<OriginId>,
        config: &LinkConfig,
    ) -> Option<Vec<(OriginId, Epoch)>> {
        let lacking = self.lacking.as_mut()?;
        lacking
            .need
            .retain(|origin, epoch| *epoch > local.frontier.get(*origin));
        if lacking.need.is_empty() {
            self.lacking = None;
            return None;
        }
        // The peer's own gap only it can close; another origin's bundle is probably under way.
        let is_gap = lacking.need.keys().any(|origin| Some(*origin) == peer_origin);
        let patience_ms = if is_gap { config.gap_ms } else { config.relay_ms };
        let due_ms = match lacking.asked_ms {
            None => lacking.since_ms + patience_ms,
            Some(asked_ms) => {
                asked_ms + (patience_ms << lacking.asked.min(DOUBLINGS_MAX)).min(config.lack_ms_max)
            }
        };
        if local.now_ms < due_ms {
            return None;
        }
        lacking.asked_ms = Some(local.now_ms);
        lacking.asked += 1;
        Some(
            lacking
                .need
                .iter()
                .map(|(origin, epoch)| (*origin, *epoch))
                .collect(),
        )
    }
}
