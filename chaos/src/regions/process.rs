//! One region as a child process of this one.
//!
//! A child never outlives its parent: its standard input is a pipe from here, it stops when that ends (which the
//! kernel sees to, however the parent dies), and dropping the handle kills it.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::{Child, Command};

use super::Region;
use crate::error::Result;

const LOG_TAIL_LINES: usize = 20;
const STOP_MAX: Duration = Duration::from_secs(60);

/// How a region is started, again and again.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// The binary.
    pub binary: PathBuf,
    /// Which region.
    pub region: Region,
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
    /// Each peer and where it is dialled.
    pub peers: Vec<(Region, SocketAddr)>,
    /// The network namespace it runs in; none: that of this process.
    pub namespace: Option<String>,
    /// Further flags.
    pub flags: Vec<String>,
}

/// A region that runs.
pub struct RegionProcess {
    child: Child,
    pid: u32,
}

/// What is sent to a process.
#[derive(Clone, Copy, Debug)]
pub enum Signal {
    /// Stops it where it is, without its notice.
    Freeze,
    /// Lets it go on.
    Thaw,
    /// Asks it to end.
    Terminate,
}

impl Invocation {
    /// Starts the process; it is not ready yet.
    pub fn spawn(&self) -> Result<RegionProcess> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = match &self.namespace {
            Some(namespace) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace]).arg(&self.binary);
                command
            }
            None => Command::new(&self.binary),
        };
        command
            .arg("start")
            .args([
                "--region",
                self.region.name(),
                "--primary-region",
                Region::PRIMARY.name(),
            ])
            .arg("--data")
            .arg(&self.data)
            .args(["--listen", &self.sql.to_string()])
            .args(["--peer-listen", &self.peer.to_string()])
            .args(["--http", &self.http.to_string(), "--stop-with-stdin"])
            .args(&self.flags);
        for (peer, address) in &self.peers {
            command.args(["--peer", &format!("{peer}={address}")]);
        }
        // Settings of the person who runs this are not for its regions.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("TRIBUTARY_") && name != "TRIBUTARY_LOG" {
                command.env_remove(name);
            }
        }
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true);
        let child = command.spawn()?;
        let pid = child.id().expect("a child that was not waited for has a pid");
        Ok(RegionProcess { child, pid })
    }
}

impl RegionProcess {
    /// The process id; `ip netns exec` becomes the region, so it is always the region's.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// kill -9: no last words, nothing synced that was not.
    pub async fn kill(mut self) -> Result<()> {
        self.child.kill().await?;
        Ok(())
    }

    /// Ends its standard input and waits for the end; `Err` says how it did not end cleanly.
    pub async fn stop(mut self) -> std::result::Result<(), String> {
        drop(self.child.stdin.take());
        match tokio::time::timeout(STOP_MAX, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(format!("ended with {status} when it was asked to stop")),
            Ok(Err(error)) => Err(format!("cannot be waited for: {error}")),
            Err(_) => Err(format!("did not stop within {} s", STOP_MAX.as_secs())),
        }
    }

    /// The memory it has now, and the most it had, in bytes.
    pub fn memory(&self) -> (u64, u64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kb = line
                .and_then(|rest| rest.split_whitespace().next())
                .and_then(|text| text.parse::<u64>().ok());
            kb.unwrap_or(0) * 1024
        };
        (field("VmRSS:"), field("VmHWM:"))
    }
}

/// Sends a signal to a process that this one started.
#[allow(unsafe_code)]
pub fn signal(pid: u32, signal: Signal) -> Result<()> {
    let number = match signal {
        Signal::Freeze => libc::SIGSTOP,
        Signal::Thaw => libc::SIGCONT,
        Signal::Terminate => libc::SIGTERM,
    };
    let pid = libc::pid_t::try_from(pid).expect("the kernel's pids fit its own type");
    // SAFETY: kill takes no pointers, and the process is a child that was not waited for.
    match unsafe { libc::kill(pid, number) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error().into()),
    }
}

/// The last lines of a region's log.
pub fn log_tail(path: &Path) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
}
