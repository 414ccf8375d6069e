//! A network namespace for each region, and packets between them that pass through this process.
//!
//! ```text
//!   namespace us                      this process                      namespace eu
//!   tributary ── TCP ── tun ──▶ read ─▶ router (lane us→eu) ─▶ due ─▶ write ──▶ tun ── TCP ── tributary
//!       └─ SQL, HTTP ── veth ── clients
//! ```
//! The kernels' TCP runs from end to end, so that losses, doubled and overtaken packets, black holes and connections
//! that are half open are met by the product and its sockets as they are, with retransmissions and timeouts. Clients
//! reach a region by a wire of their own, which is always good.

mod namespaces;
mod router;
mod tun;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tokio::task::JoinHandle;

use super::{LaneState, Place, new_lanes};
use crate::error::Result;
use crate::regions::Region;

use namespaces::Namespaces;
pub use namespaces::remove_leftovers;
use router::{Fate, Router};
use tun::Tun;

const SQL_PORT: u16 = 5450;
const PEER_PORT: u16 = 5460;
const HTTP_PORT: u16 = 8450;
const PACKET_BYTES_MAX: usize = 2048;
/// Packets that are read before others are delivered again.
const READ_MAX: usize = 64;

/// The namespaces and what carries packets between them.
pub struct Packets {
    places: BTreeMap<Region, Place>,
    lanes: BTreeMap<(Region, Region), Arc<LaneState>>,
    mishaps: Arc<Mishaps>,
    tasks: Vec<JoinHandle<()>>,
    _namespaces: Namespaces,
}

/// What was done to packets.
#[derive(Default)]
struct Mishaps {
    lost: AtomicU64,
    doubled: AtomicU64,
    overtaken: AtomicU64,
}

impl Packets {
    /// Makes the namespaces and carries packets between them. It needs the rights of root.
    pub async fn start(seed: u64) -> Result<Packets> {
        let (namespaces, tuns) = Namespaces::make().await?;
        let tuns: Arc<BTreeMap<Region, Tun>> = Arc::new(tuns);
        let lanes = new_lanes(seed);
        let mishaps = Arc::new(Mishaps::default());
        let mut tasks = Vec::new();
        for from in Region::ALL {
            let own = from.others().map(|to| {
                let lane = lanes[&(from, to)].clone();
                let router = Router::new(seed ^ (from.index() * 8 + to.index()) as u64);
                (to, (lane, router))
            });
            let carrier = Carrier {
                from,
                tuns: tuns.clone(),
                lanes: own.collect(),
                mishaps: mishaps.clone(),
                pending: BTreeMap::new(),
                sequence: 0,
            };
            tasks.push(tokio::spawn(carrier.run()));
        }
        let places = Region::ALL.map(|region| {
            let address = |ip: Ipv4Addr, port| SocketAddr::from((ip, port));
            let place = Place {
                sql: address(namespaces.client_ip(region), SQL_PORT),
                peer: address(Namespaces::peer_ip(region), PEER_PORT),
                http: address(namespaces.client_ip(region), HTTP_PORT),
                namespace: Some(namespaces.name(region)),
            };
            (region, place)
        });
        Ok(Packets {
            places: places.into_iter().collect(),
            lanes,
            mishaps,
            tasks,
            _namespaces: namespaces,
        })
    }

    /// Where a region listens.
    pub fn place(&self, region: Region) -> Place {
        self.places[&region].clone()
    }

    /// What each direction does.
    pub fn lanes(&self) -> &BTreeMap<(Region, Region), Arc<LaneState>> {
        &self.lanes
    }

    /// Packets lost, doubled, overtaken.
    pub fn mishaps(&self) -> [u64; 3] {
        let Mishaps {
            lost,
            doubled,
            overtaken,
        } = &*self.mishaps;
        [lost, doubled, overtaken].map(|count| count.load(Ordering::Relaxed))
    }
}

impl Drop for Packets {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Carries what one region sends.
struct Carrier {
    from: Region,
    tuns: Arc<BTreeMap<Region, Tun>>,
    lanes: BTreeMap<Region, (Arc<LaneState>, Router)>,
    mishaps: Arc<Mishaps>,
    /// Packets under way, by the time at which they arrive; the number keeps those of one moment apart.
    pending: BTreeMap<(Instant, u64), (Region, Vec<u8>)>,
    sequence: u64,
}

impl Carrier {
    async fn run(mut self) {
        let tuns = self.tuns.clone();
        let own = &tuns[&self.from];
        let mut buffer = [0; PACKET_BYTES_MAX];
        loop {
            let next = self.pending.first_key_value().map(|((due, _), _)| *due);
            let due = async {
                match next {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // An interface that is gone reads nothing any more; the run is at its end then.
                readable = own.readable() => if readable.is_err() { return },
                () = due => {}
            }
            for _ in 0..READ_MAX {
                let Some(count) = own.read(&mut buffer) else { break };
                self.take(&buffer[..count]);
            }
            self.deliver();
        }
    }

    fn take(&mut self, packet: &[u8]) {
        let Some(to) = Namespaces::destination(packet) else {
            return;
        };
        let Some((lane, router)) = self.lanes.get_mut(&to) else {
            return;
        };
        let settings = lane.get();
        let fate = if lane.is_cut() || settings.is_held {
            Fate::LOST
        } else {
            router.route(&settings, packet.len(), Instant::now())
        };
        let count =
            |counter: &AtomicU64, happened: bool| counter.fetch_add(happened.into(), Ordering::Relaxed);
        count(&self.mishaps.lost, fate.arrivals.is_empty());
        count(&self.mishaps.doubled, fate.arrivals.len() > 1);
        count(&self.mishaps.overtaken, fate.is_held_back);
        for due in fate.arrivals {
            self.sequence += 1;
            self.pending.insert((due, self.sequence), (to, packet.to_vec()));
        }
    }

    fn deliver(&mut self) {
        let now = Instant::now();
        while let Some(entry) = self.pending.first_entry() {
            if entry.key().0 > now {
                return;
            }
            let (to, packet) = entry.remove();
            // A full queue loses packets, as queues do.
            if self.tuns[&to].write(&packet) {
                self.lanes[&to].0.carried(packet.len());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::process::Command;

    use super::super::Lane;
    use super::*;

    #[tokio::test]
    async fn tcp_between_namespaces_survives_loss_and_is_silent_when_cut() {
        let packets = match Packets::start(1).await {
            Ok(packets) => packets,
            Err(error) => {
                eprintln!("left out: {error}");
                return;
            }
        };
        let [us, eu] = [Region::Us, Region::Eu].map(|region| packets.place(region));
        for lane in packets.lanes().values() {
            lane.set(Lane {
                lost_percent: 10,
                doubled_percent: 10,
                overtaken_percent: 10,
                delay_ms: 2,
                ..Lane::default()
            });
        }
        let ping = |from: &Place, to: &Place, count: &str| {
            let mut command = Command::new("ip");
            let namespace = from.namespace.clone().expect("a namespace of its own");
            command
                .args(["netns", "exec", &namespace, "bash", "-c"])
                .arg(format!(
                    "exec 3<>/dev/tcp/{}/{}; head -c {count} /dev/zero >&3; head -c {count} <&3 | wc -c",
                    to.peer.ip(),
                    to.peer.port()
                ))
                .kill_on_drop(true);
            command
        };
        let mut server = Command::new("ip");
        let namespace = eu.namespace.clone().expect("a namespace of its own");
        let echo = "import socket,sys\ns=socket.create_server((sys.argv[1],int(sys.argv[2])))\nwhile True:\n c,_=s.accept()\n while d:=c.recv(65536): c.sendall(d)";
        let server = server
            .args(["netns", "exec", &namespace, "python3", "-c", echo])
            .args([eu.peer.ip().to_string(), eu.peer.port().to_string()])
            .kill_on_drop(true)
            .spawn();
        let Ok(_server) = server else {
            eprintln!("left out: no python3");
            return;
        };
        tokio::time::sleep(std::time::Duration::from_millis(700)).await;
        let output = ping(&us, &eu, "100000").output().await.expect("bash runs");
        assert_eq!(
            String::from_utf8_lossy(&output.stdout).trim(),
            "100000",
            "{output:?}"
        );
        let [lost, doubled, overtaken] = packets.mishaps();
        assert!(
            lost > 0 && doubled > 0 && overtaken > 0,
            "{lost} {doubled} {overtaken}"
        );
        packets.lanes()[&(Region::Us, Region::Eu)].set_cut(true);
        let silent =
            tokio::time::timeout(std::time::Duration::from_secs(1), ping(&us, &eu, "4").output()).await;
        assert!(silent.is_err(), "{silent:?}");
    }
}
