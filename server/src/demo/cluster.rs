//! Several regions on this machine, with a cuttable proxy for each way between two of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_postgres::{Client, NoTls};

use super::DemoError;
use super::child::{ChildConfig, RegionProcess, free_ports};
use super::progress::Progress;
use super::proxy::Proxy;

const READY_MAX: Duration = Duration::from_secs(60);

/// Who dials a region at the address in the catalog.
const ANYBODY: &str = "*";

/// The regions and the network between them. The first region is the primary.
pub struct Cluster {
    directory: PathBuf,
    binary: PathBuf,
    primary: String,
    members: BTreeMap<String, Member>,
    /// `(who dials, who is dialled)`.
    proxies: BTreeMap<(String, String), Proxy>,
}

struct Member {
    config: ChildConfig,
    process: Option<RegionProcess>,
}

impl Cluster {
    /// Starts the regions of these names with this process's own binary, and waits until each is ready.
    pub async fn start(names: &[&str], progress: &Progress) -> Result<Cluster, DemoError> {
        let step = progress.step(&format!("starting {} regions", names.len()));
        let started = Instant::now();
        let mut cluster = Cluster::spawn(&std::env::current_exe()?, names).await?;
        cluster.wait_ready().await?;
        step.done(&format!("ready after {:.1} s", started.elapsed().as_secs_f64()));
        Ok(cluster)
    }

    /// Starts the regions with the given binary, without waiting.
    pub async fn spawn(binary: &Path, names: &[&str]) -> Result<Cluster, DemoError> {
        let directory =
            std::env::temp_dir().join(format!("tributary-demo-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir_all(&directory)?;
        let ports = free_ports(names.len() * 3)?;
        let addresses: BTreeMap<&str, &[SocketAddr]> = names.iter().copied().zip(ports.chunks(3)).collect();
        let mut cluster = Cluster {
            directory,
            binary: binary.to_owned(),
            primary: names[0].to_owned(),
            members: BTreeMap::new(),
            proxies: BTreeMap::new(),
        };
        for from in names {
            for to in names.iter().filter(|to| *to != from) {
                cluster.add_proxy(from, to, addresses[to][1]).await?;
            }
        }
        for name in names {
            cluster.start_member(name, addresses[name])?;
        }
        Ok(cluster)
    }

    async fn add_proxy(&mut self, from: &str, to: &str, address: SocketAddr) -> Result<(), DemoError> {
        let proxy = Proxy::start(address.to_string()).await?;
        self.proxies.insert((from.to_owned(), to.to_owned()), proxy);
        Ok(())
    }

    fn start_member(&mut self, name: &str, addresses: &[SocketAddr]) -> Result<(), DemoError> {
        let peers = self.proxies.iter().filter(|((from, _), _)| from == name);
        let config = ChildConfig {
            binary: self.binary.clone(),
            region: name.to_owned(),
            data: self.directory.join(name),
            log: self.directory.join(format!("{name}.log")),
            sql: addresses[0],
            peer: addresses[1],
            http: addresses[2],
            peers: peers
                .map(|((_, to), proxy)| format!("{to}={}", proxy.address()))
                .collect(),
            primary: self.primary.clone(),
        };
        let process = Some(config.spawn(&[])?);
        self.members.insert(name.to_owned(), Member { config, process });
        Ok(())
    }

    /// Starts one more region, without waiting. It dials the others; returns the address at which they can dial it.
    pub async fn add(&mut self, name: &str) -> Result<String, DemoError> {
        let ports = free_ports(3)?;
        let others: Vec<(String, SocketAddr)> = self
            .members
            .iter()
            .map(|(other, member)| (other.clone(), member.config.peer))
            .collect();
        for (other, address) in others {
            self.add_proxy(name, &other, address).await?;
        }
        self.add_proxy(ANYBODY, name, ports[1]).await?;
        self.start_member(name, &ports)?;
        Ok(self.proxies[&(ANYBODY.to_owned(), name.to_owned())]
            .address()
            .to_string())
    }

    /// Waits until a region says that it is ready.
    pub async fn wait_ready_at(&mut self, name: &str) -> Result<(), DemoError> {
        self.wait_ready_one(name).await
    }

    /// Names of the regions.
    pub fn names(&self) -> Vec<String> {
        self.members.keys().cloned().collect()
    }

    /// Waits until every region that runs says that it is ready.
    pub async fn wait_ready(&mut self) -> Result<(), DemoError> {
        for name in self.names() {
            self.wait_ready_one(&name).await?;
        }
        Ok(())
    }

    async fn wait_ready_one(&mut self, name: &str) -> Result<(), DemoError> {
        let member = self.members.get_mut(name).expect("the name of a member");
        let started = Instant::now();
        while !is_ready(member.config.http).await {
            if let Some(process) = &mut member.process {
                process.check_alive()?;
            }
            if started.elapsed() > READY_MAX {
                let problem = format!("not ready after {} s", READY_MAX.as_secs());
                let log_tail = member.config.log_tail();
                return Err(DemoError::Region {
                    region: name.to_owned(),
                    problem,
                    log_tail,
                });
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        Ok(())
    }

    /// A new SQL session in a region.
    pub async fn connect(&self, region: &str) -> Result<Client, DemoError> {
        connect(self.sql_address(region)).await
    }

    /// Where a region's peers reach it, without a proxy.
    pub fn peer_address(&self, region: &str) -> SocketAddr {
        self.members[region].config.peer
    }

    /// Where a region's SQL is.
    pub fn sql_address(&self, region: &str) -> SocketAddr {
        self.members[region].config.sql
    }

    /// Where a region's metrics and health are.
    pub fn http_address(&self, region: &str) -> SocketAddr {
        self.members[region].config.http
    }

    /// Where a region's data is.
    pub fn data(&self, region: &str) -> &Path {
        &self.members[region].config.data
    }

    /// The command by which a region is started.
    pub fn command(&self, region: &str) -> tokio::process::Command {
        self.members[region].config.command()
    }

    /// Cuts a region off from all others, or heals that.
    pub fn set_cut(&self, region: &str, cut: bool) {
        for proxy in self.proxies_of(region) {
            proxy.set_cut(cut);
        }
    }

    /// Limits each connection with a region to so many bytes per second and direction, or not any more.
    pub fn set_rate(&self, region: &str, bytes_per_second: Option<u64>) {
        for proxy in self.proxies_of(region) {
            proxy.set_rate(bytes_per_second);
        }
    }

    /// Has what regions say to each other be under way for so long.
    pub fn set_delay(&self, one_way: Duration) {
        self.proxies.values().for_each(|proxy| proxy.set_delay(one_way));
    }

    /// Bytes that the proxies of a region carried so far.
    pub fn wire_bytes_of(&self, region: &str) -> u64 {
        self.proxies_of(region).map(Proxy::bytes).sum()
    }

    fn proxies_of<'a>(&'a self, region: &'a str) -> impl Iterator<Item = &'a Proxy> {
        let of_region = move |((from, to), _): &(&(String, String), &Proxy)| from == region || to == region;
        self.proxies.iter().filter(of_region).map(|(_, proxy)| proxy)
    }

    /// Bytes that all proxies carried so far.
    pub fn wire_bytes(&self) -> u64 {
        self.proxies.values().map(Proxy::bytes).sum()
    }

    /// kill -9.
    pub async fn kill(&mut self, region: &str) -> Result<(), DemoError> {
        match self
            .members
            .get_mut(region)
            .and_then(|member| member.process.take())
        {
            Some(process) => process.kill().await,
            None => Ok(()),
        }
    }

    /// Starts a region again on its data, and waits until it is ready.
    pub async fn restart(&mut self, region: &str) -> Result<(), DemoError> {
        self.restart_with(region, &[]).await
    }

    /// The same with further flags.
    pub async fn restart_with(&mut self, region: &str, flags: &[&str]) -> Result<(), DemoError> {
        let member = self.members.get_mut(region).expect("the name of a member");
        member.process = Some(member.config.spawn(flags)?);
        self.wait_ready_one(region).await
    }

    /// Takes a region's process away cleanly; its data stays.
    pub async fn stop_one(&mut self, region: &str) -> Result<(), DemoError> {
        match self
            .members
            .get_mut(region)
            .and_then(|member| member.process.take())
        {
            Some(process) => process.stop().await,
            None => Ok(()),
        }
    }

    /// Waits until a region has ended by itself; the end of its log.
    pub async fn wait_ended(&mut self, region: &str) -> Result<String, DemoError> {
        let member = self.members.get_mut(region).expect("the name of a member");
        if let Some(process) = member.process.take() {
            process.wait_failed().await?;
        }
        Ok(member.config.log_tail())
    }

    /// Stops all regions cleanly and removes their data.
    pub async fn stop(mut self) -> Result<(), DemoError> {
        let processes = self
            .members
            .values_mut()
            .filter_map(|member| member.process.take());
        let stopped = futures::future::join_all(processes.map(RegionProcess::stop)).await;
        stopped.into_iter().collect::<Result<(), _>>()
    }

    /// The lines to copy.
    pub fn print_addresses(&self) {
        for (name, member) in &self.members {
            let sql = member.config.sql;
            println!(
                "{name}: psql -h {} -p {} -U postgres   (log: {})",
                sql.ip(),
                sql.port(),
                member.config.log.display()
            );
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Children first: a region must not find its directory gone while it runs.
        self.members.clear();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// A session at an address.
pub async fn connect(address: SocketAddr) -> Result<Client, DemoError> {
    let config = format!(
        "host={} port={} user=postgres dbname=tributary connect_timeout=5",
        address.ip(),
        address.port()
    );
    let (client, connection) = tokio_postgres::connect(&config, NoTls).await?;
    tokio::spawn(async move {
        // Its end is seen by whoever uses the client.
        let _ = connection.await;
    });
    Ok(client)
}

async fn is_ready(http: SocketAddr) -> bool {
    let asking = async {
        let mut socket = TcpStream::connect(http).await.ok()?;
        socket
            .write_all(b"GET /health/ready HTTP/1.1\r\nhost: demo\r\nconnection: close\r\n\r\n")
            .await
            .ok()?;
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).await.ok()?;
        Some(answer.starts_with(b"HTTP/1.1 200"))
    };
    tokio::time::timeout(Duration::from_secs(2), asking)
        .await
        .ok()
        .flatten()
        .unwrap_or(false)
}
