//! A proxy for each ordered pair of regions, on loopback.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use super::proxy::Proxy;
use super::{LaneState, Place, new_lanes};
use crate::error::Result;
use crate::regions::Region;

/// Ports from which [`free_ports`] draws: below those that the system gives to outgoing connections, one of which
/// could take a port again before the region binds it.
const PORTS: std::ops::Range<u16> = 10_000..32_000;

/// All proxies.
pub struct Proxies {
    places: BTreeMap<Region, Place>,
    lanes: BTreeMap<(Region, Region), Arc<LaneState>>,
    /// `(who dials, who is dialled)`.
    proxies: BTreeMap<(Region, Region), Proxy>,
}

impl Proxies {
    /// Starts them, for regions at addresses that are free now.
    pub async fn start(seed: u64) -> Result<Proxies> {
        let ports = free_ports(Region::ALL.len() * 3)?;
        let places: BTreeMap<Region, Place> = Region::ALL
            .into_iter()
            .zip(ports.chunks(3))
            .map(|(region, ports)| {
                let place = Place {
                    sql: ports[0],
                    peer: ports[1],
                    http: ports[2],
                    namespace: None,
                };
                (region, place)
            })
            .collect();
        let lanes = new_lanes(seed);
        let mut proxies = BTreeMap::new();
        for (&(from, to), forth) in &lanes {
            let back = lanes[&(to, from)].clone();
            let proxy = Proxy::start(places[&to].peer, forth.clone(), back).await?;
            proxies.insert((from, to), proxy);
        }
        Ok(Proxies {
            places,
            lanes,
            proxies,
        })
    }

    /// Where a region listens.
    pub fn place(&self, region: Region) -> Place {
        self.places[&region].clone()
    }

    /// The proxy by which `from` dials `to`.
    pub fn dialled(&self, from: Region, to: Region) -> SocketAddr {
        self.proxies[&(from, to)].address()
    }

    /// Closes and refuses both ways, or heals that.
    pub fn set_cut(&self, one: Region, other: Region, cut: bool) {
        self.proxies[&(one, other)].set_cut(cut);
        self.proxies[&(other, one)].set_cut(cut);
    }

    /// Resets what is open between two regions.
    pub fn reset(&self, one: Region, other: Region) {
        self.proxies[&(one, other)].reset();
        self.proxies[&(other, one)].reset();
    }

    /// What each direction does.
    pub fn lanes(&self) -> &BTreeMap<(Region, Region), Arc<LaneState>> {
        &self.lanes
    }
}

/// Loopback addresses that were free a moment ago.
fn free_ports(count: usize) -> std::io::Result<Vec<SocketAddr>> {
    let mut listeners = Vec::new();
    let first = std::process::id().wrapping_mul(97) % PORTS.len() as u32;
    for offset in 0..PORTS.len() as u32 {
        if listeners.len() == count {
            break;
        }
        let port = PORTS.start + ((first + offset) % PORTS.len() as u32) as u16;
        listeners.extend(TcpListener::bind(("127.0.0.1", port)));
    }
    if listeners.len() < count {
        return Err(std::io::ErrorKind::AddrInUse.into());
    }
    listeners.iter().map(TcpListener::local_addr).collect()
}
