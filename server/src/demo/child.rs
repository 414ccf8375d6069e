//! One region as a child process of this one.
//!
//! A child never outlives its parent: its standard input is a pipe from here, it stops when that ends (which the
//! kernel sees to, however the parent dies), and dropping the handle kills it.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::process::{Child, Command};

use super::DemoError;

const LOG_TAIL_LINES: usize = 15;
const STOP_MAX: Duration = Duration::from_secs(30);

/// How a region is started, again and again.
#[derive(Clone, Debug)]
pub struct ChildConfig {
    /// The binary.
    pub binary: PathBuf,
    /// The region's name.
    pub region: String,
    /// Its data directory.
    pub data: PathBuf,
    /// Where its stderr goes; appended to.
    pub log: PathBuf,
    /// SQL address.
    pub sql: SocketAddr,
    /// Address for peers.
    pub peer: SocketAddr,
    /// Address for health and metrics.
    pub http: SocketAddr,
    /// `NAME=HOST:PORT` of each peer.
    pub peers: Vec<String>,
    /// The primary region.
    pub primary: String,
}

/// A region that runs.
pub struct RegionProcess {
    config: ChildConfig,
    child: Child,
}

impl ChildConfig {
    /// Starts the process, with further flags; it is not ready yet.
    pub fn spawn(&self, flags: &[&str]) -> Result<RegionProcess, DemoError> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = self.command();
        command
            .args(flags)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true);
        Ok(RegionProcess {
            config: self.clone(),
            child: command.spawn()?,
        })
    }

    /// The command by which it is started.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .arg("start")
            .args(["--region", &self.region, "--primary-region", &self.primary])
            .arg("--data")
            .arg(&self.data)
            .args([
                "--listen",
                &self.sql.to_string(),
                "--peer-listen",
                &self.peer.to_string(),
            ])
            .args(["--http", &self.http.to_string(), "--stop-with-stdin"]);
        for peer in &self.peers {
            command.args(["--peer", peer]);
        }
        // Settings of the person who runs the demo are not for its regions.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("TRIBUTARY_") && name != "TRIBUTARY_LOG" {
                command.env_remove(name);
            }
        }
        command
    }

    /// The last lines of the region's log, for an error message.
    pub fn log_tail(&self) -> String {
        tail(&self.log)
    }
}

impl RegionProcess {
    /// An error if the process has ended.
    pub fn check_alive(&mut self) -> Result<(), DemoError> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(self.problem(format!("ended with {status}"))),
        }
    }

    /// kill -9: no last words, nothing synced that was not.
    pub async fn kill(mut self) -> Result<(), DemoError> {
        self.child.kill().await?;
        Ok(())
    }

    /// Ends its standard input and waits for a clean end.
    pub async fn stop(mut self) -> Result<(), DemoError> {
        drop(self.child.stdin.take());
        match tokio::time::timeout(STOP_MAX, self.child.wait()).await {
            Ok(status) if status.as_ref().is_ok_and(|status| status.success()) => Ok(()),
            Ok(status) => Err(self.problem(format!("did not stop cleanly: {status:?}"))),
            Err(_) => Err(self.problem("did not stop in time".to_owned())),
        }
    }

    /// Waits until the process ends by itself, as one that must not go on does.
    pub async fn wait_failed(mut self) -> Result<(), DemoError> {
        // Its end would be taken for a request to stop.
        let _stdin = self.child.stdin.take();
        match tokio::time::timeout(STOP_MAX, self.child.wait()).await {
            Ok(Ok(status)) if !status.success() => Ok(()),
            Ok(status) => Err(self.problem(format!("ended with {status:?}"))),
            Err(_) => Err(self.problem("did not end by itself".to_owned())),
        }
    }

    fn problem(&self, problem: String) -> DemoError {
        let log_tail = self.config.log_tail();
        DemoError::Region {
            region: self.config.region.clone(),
            problem,
            log_tail,
        }
    }
}

fn tail(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
}

/// Ports from which [`free_ports`] draws: below those that the system gives to outgoing connections, one of which
/// could take a port again before the child binds it.
const PORTS: std::ops::Range<u16> = 10_000..32_000;

/// Loopback addresses that were free a moment ago.
pub fn free_ports(count: usize) -> std::io::Result<Vec<SocketAddr>> {
    static DRAWN: AtomicU32 = AtomicU32::new(0);
    let mut listeners = Vec::new();
    for _ in PORTS {
        if listeners.len() == count {
            break;
        }
        let draw = std::process::id()
            .wrapping_mul(97)
            .wrapping_add(DRAWN.fetch_add(1, Ordering::Relaxed));
        let port = PORTS.start + (draw % PORTS.len() as u32) as u16;
        listeners.extend(TcpListener::bind(("127.0.0.1", port)));
    }
    if listeners.len() < count {
        return Err(std::io::ErrorKind::AddrInUse.into());
    }
    listeners.iter().map(TcpListener::local_addr).collect()
}
