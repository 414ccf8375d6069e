//! What can happen, and when.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tributary_storage::checkpoint::Checkpoint;

use crate::network::Direction;

/// One event. Those of a process carry its number of starts and are void after a crash.
pub enum Event {
    /// A region's timer is due.
    Timer {
        /// The region.
        node: usize,
        /// Its start.
        boot: u64,
    },
    /// A region's dataflow gets to work.
    Work {
        /// The region.
        node: usize,
        /// Its start.
        boot: u64,
    },
    /// A region's log begins a sync of everything appended so far.
    Sync {
        /// The region.
        node: usize,
        /// Its start.
        boot: u64,
    },
    /// The sync is over.
    Synced {
        /// The region.
        node: usize,
        /// Its start.
        boot: u64,
        /// Up to where the log was written when it began.
        position: u64,
    },
    /// A region should make a checkpoint.
    CheckpointDue {
        /// The region.
        node: usize,
        /// Its start.
        boot: u64,
    },
    /// A region's shell writes a checkpoint.
    WriteCheckpoint {
        /// The region.
        node: usize,
        /// Its start.
        boot: u64,
        /// What to write.
        checkpoint: Arc<Checkpoint>,
    },
    /// Bytes arrive.
    Deliver {
        /// From where, to where.
        direction: Direction,
        /// The connection they were sent on.
        connection: u64,
        /// The bytes.
        bytes: Bytes,
        /// Whether they are not those that were sent.
        damaged: bool,
    },
    /// A region tries to reach another.
    Connect(Direction),
    /// A region learns that its connection to another is gone.
    Hangup {
        /// The region.
        node: usize,
        /// Its start that had the connection.
        boot: u64,
        /// The other.
        peer: usize,
    },
    /// Clients of a region write.
    Write(usize),
    /// Clients of the primary change the catalog.
    Ddl,
    /// It starts again.
    Restart(usize),
    /// A fault of this kind happens, and the next one is planned.
    Fault(Fault),
    /// Days pass, in which nothing happens but that clocks go on.
    Days(u64),
    /// A partition ends.
    Mend(Vec<Direction>),
    /// A full disk has space again.
    DiskSpace(usize),
    /// Trouble ends.
    Heal,
    /// After healing: is everything equal yet?
    Settled,
    /// The operator looks after regions.
    Operate,
}

impl Event {
    /// The region whose process takes part in it, where that can stand still.
    pub fn process(&self) -> Option<usize> {
        match self {
            Event::Timer { node, .. }
            | Event::Work { node, .. }
            | Event::Sync { node, .. }
            | Event::Synced { node, .. }
            | Event::CheckpointDue { node, .. }
            | Event::WriteCheckpoint { node, .. }
            | Event::Hangup { node, .. }
            | Event::Write(node) => Some(*node),
            Event::Deliver {
                direction: (_, to), ..
            } => Some(*to),
            Event::Connect(_)
            | Event::Ddl
            | Event::Operate
            | Event::Restart(_)
            | Event::Fault(_)
            | Event::Days(_)
            | Event::Mend(_)
            | Event::DiskSpace(_)
            | Event::Heal
            | Event::Settled => None,
        }
    }
}

/// Faults that happen again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A region crashes.
    Crash,
    /// Some directions are cut for a while.
    Partition,
    /// A connection is reset.
    Reset,
    /// A clock jumps.
    ClockJump,
    /// A disk is full for a while.
    FullDisk,
    /// A process stands still for a while.
    Pause,
    /// A region is down for days.
    Absence,
    /// A region's disks are lost.
    Wipe,
    /// The primary's disks are lost.
    WipePrimary,
    /// A region's disks are put back to an earlier copy.
    Restore,
    /// A region is fenced.
    Fence,
    /// A region becomes a member.
    AddRegion,
    /// A member leaves, or is dropped as it is.
    DropRegion,
    /// Another region becomes the primary.
    SetPrimary,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 14] = [
        Fault::Crash,
        Fault::Partition,
        Fault::Reset,
        Fault::ClockJump,
        Fault::FullDisk,
        Fault::Pause,
        Fault::Absence,
        Fault::Wipe,
        Fault::WipePrimary,
        Fault::Restore,
        Fault::Fence,
        Fault::AddRegion,
        Fault::DropRegion,
        Fault::SetPrimary,
    ];

    /// Whether it happens to a region as a member of the cluster.
    pub fn is_of_members(self) -> bool {
        !Fault::ALL[..7].contains(&self)
    }
}

/// Events in the order in which they happen: by time, then by when they were planned.
#[derive(Default)]
pub struct Queue {
    events: BTreeMap<(u64, u64), Event>,
    planned: u64,
}

impl Queue {
    /// Plans an event.
    pub fn plan(&mut self, at_ms: u64, event: Event) {
        self.planned += 1;
        self.events.insert((at_ms, self.planned), event);
    }

    /// The next event and its time.
    pub fn next(&mut self) -> Option<(u64, Event)> {
        self.events.pop_first().map(|((at_ms, _), event)| (at_ms, event))
    }
}
