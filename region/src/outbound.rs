//! What waits for the disk. Nothing that depends on a record leaves before the record is durable.

use std::collections::VecDeque;

use bytes::Bytes;
use tributary_replication::link::CutRequest;
use tributary_replication::{Bundle, Frontier};
use tributary_storage::Position;
use tributary_storage::checkpoint::Checkpoint;

use crate::effect::Committed;
use crate::snapshot::Snapshot;
use crate::staging::HeldStaged;

/// A bundle that was cut and may not be sent yet.
pub struct HeldCut {
    /// The peer it is for.
    pub peer: String,
    /// What was asked for.
    pub request: CutRequest,
    /// The bundle.
    pub bundle: Bundle,
    /// Its encoding.
    pub bytes: Bytes,
}

/// See the module's documentation. Each queue is ordered by the position it waits for.
#[derive(Default)]
pub struct Outbound {
    persisted: Position,
    replies: VecDeque<(Position, u64, Committed)>,
    snapshots: VecDeque<Snapshot>,
    snapshot_position: Position,
    cuts: VecDeque<(Position, HeldCut)>,
    staged: VecDeque<(Position, HeldStaged)>,
    checkpoint: Option<Checkpoint>,
}

/// What may leave now.
#[derive(Default)]
pub struct Released {
    /// Acknowledgements.
    pub replies: Vec<(u64, Committed)>,
    /// The newest snapshot; older ones are skipped.
    pub snapshot: Option<Snapshot>,
    /// Those of the older ones that are shown by a bundle among `cuts`.
    pub kept: Vec<Snapshot>,
    /// Bundles.
    pub cuts: Vec<HeldCut>,
    /// Chunks of peers that are durable.
    pub staged: Vec<HeldStaged>,
    /// A checkpoint to write.
    pub checkpoint: Option<Checkpoint>,
}

impl Outbound {
    /// An outbound side of a log that is durable up to `persisted`.
    pub fn new(persisted: Position) -> Self {
        Self {
            persisted,
            snapshot_position: persisted,
            ..Self::default()
        }
    }

    /// The last durable position.
    pub fn persisted(&self) -> Position {
        self.persisted
    }

    /// Holds an acknowledgement until its record is durable.
    pub fn reply(&mut self, token: u64, committed: Committed) {
        self.replies.push_back((committed.position, token, committed));
    }

    /// The position of the newest snapshot that was held.
    pub fn snapshot_position(&self) -> Position {
        self.snapshot_position
    }

    /// Holds a snapshot until its position is durable.
    pub fn snapshot(&mut self, snapshot: Snapshot) {
        self.snapshot_position = snapshot.position;
        self.snapshots.push_back(snapshot);
    }

    /// Holds a bundle that shows the state at `position`.
    pub fn cut(&mut self, position: Position, cut: HeldCut) {
        self.cuts.push_back((position, cut));
    }

    /// Holds the answer to a chunk until its record is durable.
    pub fn staged(&mut self, position: Position, staged: HeldStaged) {
        self.staged.push_back((position, staged));
    }

    /// Holds a checkpoint until its position is durable; a newer one replaces it.
    pub fn checkpoint(&mut self, checkpoint: Checkpoint) {
        self.checkpoint = Some(checkpoint);
    }

    /// Drops what is held for a peer whose connection is gone.
    pub fn forget_peer(&mut self, peer: &str) {
        self.cuts.retain(|(_, cut)| cut.peer != peer);
    }

    /// Notes that the log is durable up to `position`.
    pub fn persist(&mut self, position: Position) {
        self.persisted = self.persisted.max(position);
    }

    /// Takes what depends on durable records only.
    pub fn release(&mut self) -> Released {
        let mut released = Released::default();
        while self.replies.front().is_some_and(|(at, ..)| *at <= self.persisted) {
            released.replies.extend(
                self.replies
                    .pop_front()
                    .map(|(_, token, committed)| (token, committed)),
            );
        }
        while self
            .snapshots
            .front()
            .is_some_and(|snapshot| snapshot.position <= self.persisted)
        {
            released.kept.extend(released.snapshot.take());
            released.snapshot = self.snapshots.pop_front();
        }
        while self.cuts.front().is_some_and(|(at, _)| *at <= self.persisted) {
            released.cuts.extend(self.cuts.pop_front().map(|(_, cut)| cut));
        }
        while self.staged.front().is_some_and(|(at, _)| *at <= self.persisted) {
            released
                .staged
                .extend(self.staged.pop_front().map(|(_, staged)| staged));
        }
        let cuts = &released.cuts;
        let is_shown = |frontier: &Frontier| cuts.iter().any(|cut| cut.bundle.frontier == *frontier);
        released.kept.retain(|snapshot| is_shown(&snapshot.frontier));
        if self
            .checkpoint
            .as_ref()
            .is_some_and(|checkpoint| checkpoint.position <= self.persisted)
        {
            released.checkpoint = self.checkpoint.take();
        }
        released
    }
}
