//! Regions of one cluster as processes on the same processors, with direct links over loopback.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::Result;
use crate::process::{Member, Server, Usage, free_port};
use crate::session::Session;

const READY_MAX: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// A region that runs.
pub struct Region {
    /// Its name.
    pub name: String,
    /// Its process.
    pub server: Server,
    /// SQL to it.
    pub session: Session,
}

/// All regions. The first is the primary.
pub struct Cluster {
    /// In the order of their names as given.
    pub regions: Vec<Region>,
}

impl Cluster {
    /// Starts regions of these names, and waits until each is connected to all others.
    pub async fn start(binary: &Path, cores: usize, names: &[&str]) -> Result<Cluster> {
        let ports: Vec<u16> = names.iter().map(|_| free_port()).collect::<Result<_>>()?;
        let mut servers = Vec::new();
        for (name, &peer_port) in names.iter().zip(&ports) {
            let peers = names.iter().zip(&ports).filter(|(peer, _)| *peer != name);
            let member = Member {
                region: (*name).to_owned(),
                peer_port,
                peers: peers
                    .map(|(peer, port)| format!("{peer}=127.0.0.1:{port}"))
                    .collect(),
                primary: names.first().map_or_else(String::new, |name| (*name).to_owned()),
            };
            servers.push(((*name).to_owned(), Server::join(binary, cores, &member)?));
        }
        let mut regions = Vec::new();
        for (name, server) in servers {
            let session = Session::connect(server.port)
                .await
                .map_err(|reason| format!("{name}: {reason}\n{}", server.log_tail()))?;
            regions.push(Region {
                name,
                server,
                session,
            });
        }
        let cluster = Cluster { regions };
        let sql = "SELECT count(*) FROM tributary.regions WHERE connected";
        cluster
            .wait_all("connected regions", sql, names.len() as u64)
            .await?;
        Ok(cluster)
    }

    /// The primary region.
    pub fn primary(&self) -> Result<&Region> {
        self.regions
            .first()
            .ok_or_else(|| "a cluster has regions".to_owned())
    }

    /// Waits until a query gives this number in every region.
    pub async fn wait_all(&self, what: &str, sql: &str, wanted: u64) -> Result<()> {
        let started = Instant::now();
        for region in &self.regions {
            loop {
                // A view that still waits for a region refuses to be read.
                let found = region.session.number(sql).await;
                if found == Ok(wanted) {
                    break;
                }
                if started.elapsed() > READY_MAX {
                    return Err(format!(
                        "{what} in {}: {found:?} and not {wanted}\n{}",
                        region.name,
                        region.server.log_tail()
                    ));
                }
                tokio::time::sleep(POLL).await;
            }
        }
        Ok(())
    }

    /// What each process has used so far.
    pub fn usage(&self) -> Result<Vec<Usage>> {
        self.regions.iter().map(|region| region.server.usage()).collect()
    }

    /// Bytes that all regions have sent each other so far.
    pub async fn link_bytes(&self) -> Result<u64> {
        let mut bytes = 0;
        for region in &self.regions {
            bytes += region
                .session
                .number("SELECT sum(bytes_out) FROM tributary.links")
                .await?;
        }
        Ok(bytes)
    }
}
