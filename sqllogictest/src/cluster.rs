//! A cluster of `tributary` processes with data in a temporary folder.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio_postgres::{Client, NoTls};

/// Names of the regions; the first is the primary.
const NAMES: [&str; 3] = ["us", "eu", "ap"];

/// How long a region may take to accept writes.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Running processes; they end when it is dropped.
pub struct Cluster {
    regions: Vec<Region>,
    _folder: Folder,
}

struct Region {
    name: String,
    port: u16,
    process: Child,
}

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // A leftover in the temporary folder harms nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for region in &mut self.regions {
            // It may have ended by itself.
            let _ = region.process.kill();
            let _ = region.process.wait();
        }
    }
}

impl Cluster {
    /// Starts one region, or up to three that know each other.
    pub async fn start(count: usize) -> Result<Self, String> {
        if count == 0 || count > NAMES.len() {
            return Err(format!(
                "1 to {} regions can be started, not {count}",
                NAMES.len()
            ));
        }
        let folder = temporary_folder()?;
        let ports: Vec<[u16; 3]> = (0..count).map(|_| free_ports()).collect::<Result<_, _>>()?;
        let mut regions = Vec::new();
        for (index, name) in NAMES.iter().take(count).enumerate() {
            let mut command = Command::new(binary()?);
            command
                .arg("start")
                .args(["--region", name, "--primary-region", NAMES[0]])
                .args(["--data", &folder.0.join(name).to_string_lossy()])
                .args(["--listen", &format!("127.0.0.1:{}", ports[index][0])])
                .args(["--peer-listen", &format!("127.0.0.1:{}", ports[index][1])])
                .args(["--http", &format!("127.0.0.1:{}", ports[index][2])])
                .stdout(Stdio::null())
                .stderr(
                    std::fs::File::create(folder.0.join(format!("{name}.log"))).map_err(|e| e.to_string())?,
                );
            for (peer, port) in ports.iter().enumerate().filter(|(peer, _)| *peer != index) {
                command.args(["--peer", &format!("{}=127.0.0.1:{}", NAMES[peer], port[1])]);
            }
            let process = command
                .spawn()
                .map_err(|error| format!("cannot start tributary: {error}"))?;
            regions.push(Region {
                name: (*name).to_owned(),
                port: ports[index][0],
                process,
            });
        }
        Ok(Self {
            regions,
            _folder: folder,
        })
    }

    /// One connection per region, once the region accepts writes.
    pub async fn connect(&self) -> Result<Vec<(String, Client)>, String> {
        let mut clients = Vec::new();
        for region in &self.regions {
            let client = connect(region.port, "postgres").await?;
            let begin = Instant::now();
            loop {
                let members = client.query("SELECT name FROM tributary.regions", &[]).await;
                match members {
                    Ok(rows) if rows.len() == self.regions.len() => break,
                    _ if begin.elapsed() > START_TIMEOUT => {
                        return Err(format!("{} did not join within {START_TIMEOUT:?}", region.name));
                    }
                    _ => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
            clients.push((region.name.clone(), client));
        }
        Ok(clients)
    }
}

/// A connection to a server on this machine, tried until it answers.
pub async fn connect(port: u16, user: &str) -> Result<Client, String> {
    let begin = Instant::now();
    let address = format!("host=127.0.0.1 port={port} user={user} dbname=postgres");
    loop {
        match tokio_postgres::connect(&address, NoTls).await {
            Ok((client, connection)) => {
                // The connection ends with the client or the server; either is noticed at the next statement.
                tokio::spawn(connection);
                return Ok(client);
            }
            Err(error) if begin.elapsed() > START_TIMEOUT => return Err(format!("port {port}: {error}")),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// The `tributary` binary beside this one.
fn binary() -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let binary = own.with_file_name("tributary");
    if binary.exists() {
        Ok(binary)
    } else {
        Err(format!("{} has not been built", binary.display()))
    }
}

fn temporary_folder() -> Result<Folder, String> {
    let nanos = std::time::UNIX_EPOCH
        .elapsed()
        .map_err(|error| error.to_string())?
        .as_nanos();
    let folder = std::env::temp_dir().join(format!("tributary-slt-{}-{nanos}", std::process::id()));
    std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    Ok(Folder(folder))
}

/// Ports from which [`free_ports`] draws: below those that the system gives to outgoing connections, one of which
/// could take a port again before the server binds it.
const PORTS: std::ops::Range<u16> = 10_000..32_000;

/// Ports that were free a moment ago.
pub fn free_ports() -> Result<[u16; 3], String> {
    static DRAWN: AtomicU32 = AtomicU32::new(0);
    let mut listeners = Vec::new();
    for _ in PORTS {
        if listeners.len() == 3 {
            break;
        }
        let draw = std::process::id()
            .wrapping_mul(97)
            .wrapping_add(DRAWN.fetch_add(1, Ordering::Relaxed));
        let port = PORTS.start + (draw % PORTS.len() as u32) as u16;
        listeners.extend(TcpListener::bind(("127.0.0.1", port)));
    }
    let mut ports = [0; 3];
    for (index, port) in ports.iter_mut().enumerate() {
        let listener = listeners
            .get(index)
            .ok_or("no free port on the loopback interface")?;
        *port = listener.local_addr().map_err(|error| error.to_string())?.port();
    }
    Ok(ports)
}
