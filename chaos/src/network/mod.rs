//! The network between the regions, in two kinds.
//!
//! ```text
//!   proxies:  us ──TCP──▶ proxy us→eu ──TCP──▶ eu       one proxy for each ordered pair, on loopback
//!   packets:  us ─▶ tun ─▶ this process ─▶ tun ─▶ eu    a network namespace for each region; TCP from end to end
//! ```
//! A *lane* is one direction between two regions, whoever dialled. With proxies the lane us→eu is what the dialler
//! sends through the proxy us→eu and what the dialled one answers through the proxy eu→us. Proxies can close and
//! reset connections and change bytes, which TCP would hide in packets; packets can be lost, doubled and overtaken,
//! which TCP hides from a proxy.

mod bucket;
mod lane;
mod packets;
mod proxies;
mod proxy;

use std::collections::BTreeMap;
use std::net::SocketAddr;

pub use lane::{Lane, LaneState};
pub use packets::{Packets, remove_leftovers};
pub use proxies::Proxies;

use crate::regions::Region;

/// Where a region listens, and the namespace that it does so in.
#[derive(Clone, Debug)]
pub struct Place {
    /// SQL clients.
    pub sql: SocketAddr,
    /// Other regions.
    pub peer: SocketAddr,
    /// Health and metrics.
    pub http: SocketAddr,
    /// None: that of this process.
    pub namespace: Option<String>,
}

/// Bytes carried by each lane.
pub type LaneBytes = BTreeMap<(Region, Region), u64>;

/// The network at present.
pub enum Network {
    /// TCP proxies on loopback.
    Proxies(Proxies),
    /// Packets between namespaces.
    Packets(Packets),
}

impl Network {
    /// Where a region listens.
    pub fn place(&self, region: Region) -> Place {
        match self {
            Network::Proxies(proxies) => proxies.place(region),
            Network::Packets(packets) => packets.place(region),
        }
    }

    /// The address at which `from` dials `to`.
    pub fn dialled(&self, from: Region, to: Region) -> SocketAddr {
        match self {
            Network::Proxies(proxies) => proxies.dialled(from, to),
            Network::Packets(packets) => packets.place(to).peer,
        }
    }

    /// Changes what a lane does.
    pub fn set_lane(&self, from: Region, to: Region, lane: Lane) {
        self.lanes()[&(from, to)].set(lane);
    }

    /// Closes the connections of a pair and refuses new ones, or allows them again. Packets have no connections: there
    /// both lanes lose everything instead.
    pub fn set_cut(&self, one: Region, other: Region, cut: bool) {
        match self {
            Network::Proxies(proxies) => proxies.set_cut(one, other, cut),
            Network::Packets(_) => {
                self.lanes()[&(one, other)].set_cut(cut);
                self.lanes()[&(other, one)].set_cut(cut);
            }
        }
    }

    /// Resets the connections of a pair; does nothing to packets.
    pub fn reset(&self, one: Region, other: Region) {
        if let Network::Proxies(proxies) = self {
            proxies.reset(one, other);
        }
    }

    /// Bytes carried so far.
    pub fn bytes(&self) -> LaneBytes {
        let bytes = self.lanes().iter().map(|(ends, lane)| (*ends, lane.bytes()));
        bytes.collect()
    }

    /// Packets that were lost on purpose, delivered twice, and held back so that others overtook them.
    pub fn mishaps(&self) -> [u64; 3] {
        match self {
            Network::Proxies(_) => [0; 3],
            Network::Packets(packets) => packets.mishaps(),
        }
    }

    fn lanes(&self) -> &BTreeMap<(Region, Region), std::sync::Arc<LaneState>> {
        match self {
            Network::Proxies(proxies) => proxies.lanes(),
            Network::Packets(packets) => packets.lanes(),
        }
    }
}

/// A lane for each ordered pair of regions.
fn new_lanes(seed: u64) -> BTreeMap<(Region, Region), std::sync::Arc<LaneState>> {
    let mut lanes = BTreeMap::new();
    for from in Region::ALL {
        for to in from.others() {
            let lane_seed = seed ^ ((from.index() as u64) << 8 | to.index() as u64) << 32;
            lanes.insert((from, to), std::sync::Arc::new(LaneState::new(lane_seed)));
        }
    }
    lanes
}
