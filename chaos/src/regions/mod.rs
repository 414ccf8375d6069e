//! The three regions: their names, their processes, and how they are watched.

mod cluster;
mod http;
mod monitor;
mod process;

pub use cluster::{Cluster, ClusterConfig};
pub use monitor::{Monitor, Peaks};
pub use process::{Signal, signal};

/// A region of the laboratory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Region {
    /// The primary.
    Us,
    /// The second.
    Eu,
    /// The third; its data may be on a small disk of its own.
    Ap,
}

impl Region {
    /// All of them.
    pub const ALL: [Region; 3] = [Region::Us, Region::Eu, Region::Ap];
    /// The region that serializes DDL.
    pub const PRIMARY: Region = Region::Us;
    /// The region whose disk can be filled.
    pub const ON_SMALL_DISK: Region = Region::Ap;

    /// Its name in the cluster.
    pub fn name(self) -> &'static str {
        match self {
            Region::Us => "us",
            Region::Eu => "eu",
            Region::Ap => "ap",
        }
    }

    /// Its place in [`Region::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// The others.
    pub fn others(self) -> impl Iterator<Item = Region> {
        Region::ALL.into_iter().filter(move |other| *other != self)
    }
}

impl std::fmt::Display for Region {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
