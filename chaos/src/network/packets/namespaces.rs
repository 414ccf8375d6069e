//! Namespaces, wires and addresses, by the tool `ip`.
//!
//! A removed namespace lives on, with its interfaces, while a connection in it still waits for a peer, so wires are removed
//! by themselves. A run that was killed leaves both; the next one removes those whose process no longer lives.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use super::tun::Tun;
use crate::error::{Result, run_tool};
use crate::regions::Region;

const PREFIX: &str = "tributary-chaos-";
const WIRE_PREFIX: &str = "tcw";

/// Counts what [`Namespaces::make`] has made.
static MADE: AtomicU32 = AtomicU32::new(0);

/// The namespaces of this run.
pub struct Namespaces {
    pid: u32,
    /// Of this process: what was removed may live on for some time.
    number: u32,
}

impl Namespaces {
    /// Makes a namespace for each region, with a wire for clients and an interface for peers.
    pub async fn make() -> Result<(Namespaces, BTreeMap<Region, Tun>)> {
        let namespaces = Namespaces {
            pid: std::process::id(),
            number: MADE.fetch_add(1, Ordering::Relaxed),
        };
        let mut tuns = BTreeMap::new();
        for region in Region::ALL {
            tuns.insert(region, namespaces.make_one(region).await?);
        }
        Ok((namespaces, tuns))
    }

    async fn make_one(&self, region: Region) -> Result<Tun> {
        let name = self.name(region);
        let wire = self.wire(region);
        let peers = format!("tcp{}", self.unique(region));
        let near = format!("{}/30", self.wire_ip(region, 1));
        let far = format!("{}/30", self.wire_ip(region, 2));
        let peer_ip = format!("{}/24", Namespaces::peer_ip(region));
        ip(&["netns", "add", &name]).await?;
        ip(&["-n", &name, "link", "set", "lo", "up"]).await?;
        ip(&[
            "link", "add", &wire, "type", "veth", "peer", "name", "clients", "netns", &name,
        ])
        .await?;
        ip(&["addr", "add", &near, "dev", &wire]).await?;
        ip(&["link", "set", &wire, "up"]).await?;
        ip(&["-n", &name, "addr", "add", &far, "dev", "clients"]).await?;
        ip(&["-n", &name, "link", "set", "clients", "up"]).await?;
        let tun = Tun::make(&peers)?;
        ip(&["link", "set", &peers, "netns", &name]).await?;
        ip(&["-n", &name, "addr", "add", &peer_ip, "dev", &peers]).await?;
        ip(&["-n", &name, "link", "set", &peers, "up"]).await?;
        Ok(tun)
    }

    /// The namespace of a region.
    pub fn name(&self, region: Region) -> String {
        format!("{PREFIX}{}-{}-{region}", self.pid, self.number)
    }

    /// The near end of the wire by which clients reach a region.
    fn wire(&self, region: Region) -> String {
        format!("{WIRE_PREFIX}{}", self.unique(region))
    }

    /// Short enough for the name of an interface.
    fn unique(&self, region: Region) -> String {
        format!("{}-{}{}", self.pid, self.number % 100, region.index())
    }

    /// Where clients reach a region.
    pub fn client_ip(&self, region: Region) -> Ipv4Addr {
        self.wire_ip(region, 2)
    }

    /// Addresses for benchmarks of networks (RFC 2544), which no real network has; others for each run.
    fn wire_ip(&self, region: Region, end: u8) -> Ipv4Addr {
        let own = self.pid.wrapping_add(self.number * 83) % 250;
        Ipv4Addr::new(198, 18, own as u8, region.index() as u8 * 4 + end)
    }

    /// Where peers reach a region. Each namespace has the network to itself, so all runs have the same.
    pub fn peer_ip(region: Region) -> Ipv4Addr {
        Ipv4Addr::new(198, 19, 0, region.index() as u8 + 1)
    }

    /// The region that an IP packet is for.
    pub fn destination(packet: &[u8]) -> Option<Region> {
        let is_ipv4 = packet.first()? >> 4 == 4;
        let address: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
        let mut regions = Region::ALL.into_iter();
        regions.find(|region| is_ipv4 && Namespaces::peer_ip(*region).octets() == address)
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for region in Region::ALL {
            remove(&["link", "del", &self.wire(region)]);
            remove(&["netns", "del", &self.name(region)]);
        }
    }
}

/// Removes the wires and namespaces of runs whose process no longer lives.
pub fn remove_leftovers() {
    let left_in = |directory: &str, prefix: &str| {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let is_left = |name: &String| {
            let pid = name.strip_prefix(prefix).and_then(|rest| rest.split_once('-'));
            pid.is_some_and(|(pid, _)| pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists())
        };
        names.filter(is_left).collect::<Vec<String>>()
    };
    for wire in left_in("/sys/class/net", WIRE_PREFIX) {
        remove(&["link", "del", &wire]);
    }
    for namespace in left_in("/var/run/netns", PREFIX) {
        remove(&["netns", "del", &namespace]);
    }
}

fn remove(arguments: &[&str]) {
    // What cannot be removed (it was never made) is not worth a word at the end of a run.
    let _ = std::process::Command::new("ip")
        .args(arguments)
        .stderr(std::process::Stdio::null())
        .status();
}

async fn ip(arguments: &[&str]) -> Result<()> {
    run_tool("ip", arguments).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_destination_of_a_packet_is_a_region_or_nobody() {
        let mut packet = [0_u8; 40];
        packet[0] = 0x45;
        packet[16..20].copy_from_slice(&Namespaces::peer_ip(Region::Eu).octets());
        assert_eq!(Namespaces::destination(&packet), Some(Region::Eu));
        packet[19] = 77;
        assert_eq!(Namespaces::destination(&packet), None);
        assert_eq!(Namespaces::destination(&[0x60; 40]), None, "IPv6");
        assert_eq!(Namespaces::destination(&[0x45; 10]), None, "cut off");
    }
}
