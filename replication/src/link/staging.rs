//! The sending half of a stage: a range that is too large for one message, on its way in chunks.
//!
//! ```text
//!   sender ── chunk 0, 1, 2 … of stage S ──▶ receiver    each holds a part of what is stamped in (from, to]
//!          ◀── staged S, so many ──                       they are durable, and outside the frontier
//!          ── sealing chunk: (from, now] ──▶              what changed after `to`, and the frontier
//! ```
//!
//! Whoever walks the range (the region) knows what is in a chunk; here is only how far the peer has it. When the peer
//! has fewer chunks than it had said, it has lost the stage, and everything is sent again under another name.

use std::collections::VecDeque;

use tributary_storage::OriginId;

use crate::bundle::Included;
use crate::frontier::{Epoch, Frontier};

/// Where a stage stands.
#[derive(Debug)]
pub(crate) struct Staging {
    pub(crate) stage: u64,
    /// Per origin what the chunks hold: everything in (from, to].
    pub(crate) ranges: Vec<(OriginId, Epoch, Epoch)>,
    /// The next chunk to send.
    pub(crate) next: u32,
    /// So many are durable at the peer.
    pub(crate) acked: u32,
    /// Chunks that exist so far: the next to be made.
    pub(crate) made: u32,
    /// Whether all of the range is in chunks.
    pub(crate) whole: bool,
    /// Whether the sealing chunk is under way.
    pub(crate) is_sealing: bool,
    /// Whether what follows is too large for one bundle, too: then nothing is cut before the peer has the sealing chunk.
    pub(crate) is_followed: bool,
    /// When each chunk between `acked` and `next` was sent.
    sent_ms: VecDeque<u64>,
    rewound_ms: Option<u64>,
}

impl Staging {
    pub(crate) fn new(stage: u64) -> Self {
        Self {
            stage,
            ranges: Vec::new(),
            next: 0,
            acked: 0,
            made: 0,
            whole: false,
            is_sealing: false,
            is_followed: false,
            sent_ms: VecDeque::new(),
            rewound_ms: None,
        }
    }

    /// What the next chunks hold: more of the same origins, up to where the region is.
    pub(crate) fn extend(&mut self, included: &[Included]) {
        for part in included {
            match self.ranges.iter_mut().find(|(origin, ..)| *origin == part.origin) {
                Some((_, _, to)) => *to = part.to,
                None => self.ranges.push((part.origin, part.from, part.to)),
            }
        }
        self.whole = false;
        self.unseal();
    }

    /// The sealing chunk is on its way.
    pub(crate) fn seal(&mut self) {
        self.is_sealing = true;
    }

    /// The sealing chunk is not under way any more: it is cut again.
    pub(crate) fn unseal(&mut self) {
        (self.is_sealing, self.is_followed) = (false, false);
    }

    /// Whether everything but the sealing chunk is at the peer.
    pub(crate) fn is_ready(&self) -> bool {
        self.whole && self.acked == self.made
    }

    /// Whether the peer, being there, can still use it.
    pub(crate) fn fits(&self, peer: &Frontier) -> bool {
        self.ranges
            .iter()
            .all(|(origin, from, _)| *from <= peer.get(*origin))
    }

    /// Whether the peer knows everything in it.
    pub(crate) fn is_known(&self, peer: &Frontier) -> bool {
        self.ranges.iter().all(|(origin, _, to)| *to <= peer.get(*origin))
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.sent_ms.len()
    }

    pub(crate) fn oldest_sent_ms(&self) -> Option<u64> {
        self.sent_ms.front().copied()
    }

    pub(crate) fn sent(&mut self, now_ms: u64) {
        self.next += 1;
        self.made = self.made.max(self.next);
        self.sent_ms.push_back(now_ms);
    }

    /// The peer has so many chunks. False when it had more before.
    pub(crate) fn learn(&mut self, chunks: u32, now_ms: u64, round_trip_ms: u64) -> bool {
        if chunks < self.acked || chunks > self.made {
            return false;
        }
        if chunks == self.acked {
            // One of those after it seems to be missing there, unless it is still under way.
            let recently =
                |at_ms: Option<u64>| at_ms.is_some_and(|at_ms| now_ms < at_ms + round_trip_ms.max(1));
            if self.in_flight() > 0 && !recently(self.rewound_ms) && !recently(self.oldest_sent_ms()) {
                self.rewind(now_ms);
            }
            return true;
        }
        for _ in self.acked..chunks.min(self.next) {
            self.sent_ms.pop_front();
        }
        self.acked = chunks;
        self.next = self.next.max(chunks);
        true
    }

    /// Sends again what is not known to be at the peer.
    pub(crate) fn rewind(&mut self, now_ms: u64) {
        self.rewound_ms = Some(now_ms);
        self.next = self.acked;
        self.sent_ms.clear();
    }
}
