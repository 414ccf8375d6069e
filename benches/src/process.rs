//! A pinned process, and what Linux says of it.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::Result;

/// A server with a data directory of its own; both end with the value.
pub struct Server {
    child: Child,
    directory: PathBuf,
    /// The port for SQL.
    pub port: u16,
}

/// A region of a cluster: its name, where its peers find it, and where it finds them.
#[derive(Clone, Debug)]
pub struct Member {
    /// The region's name.
    pub region: String,
    /// The port for peers.
    pub peer_port: u16,
    /// `NAME=HOST:PORT` of each other region.
    pub peers: Vec<String>,
    /// The primary region's name.
    pub primary: String,
}

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Processor time of all threads.
    pub cpu_seconds: f64,
    /// The most memory it ever had.
    pub peak_rss_bytes: u64,
}

/// The processors of a run: the first ones.
pub fn cpu_list(cores: usize) -> String {
    match cores {
        0 | 1 => "0".to_owned(),
        more => format!("0-{}", more - 1),
    }
}

/// A port of this machine that was free a moment ago.
pub fn free_port() -> Result<u16> {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|error| error.to_string())
}

impl Server {
    /// Starts the binary on so many cores, as a cluster of its own.
    pub fn start(binary: &Path, cores: usize) -> Result<Server> {
        let peer_port = free_port()?;
        Server::spawn(binary, cores, peer_port, &[])
    }

    /// Starts the binary on so many cores, as a region of a cluster.
    pub fn join(binary: &Path, cores: usize, member: &Member) -> Result<Server> {
        let mut arguments = vec!["--region", &member.region, "--primary-region", &member.primary];
        for peer in &member.peers {
            arguments.extend(["--peer", peer]);
        }
        Server::spawn(binary, cores, member.peer_port, &arguments)
    }

    fn spawn(binary: &Path, cores: usize, peer_port: u16, arguments: &[&str]) -> Result<Server> {
        let directory =
            std::env::temp_dir().join(format!("tributary-bench-{}-{}", std::process::id(), free_port()?));
        fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
        let port = free_port()?;
        let address = |port: u16| format!("127.0.0.1:{port}");
        let log = fs::File::create(directory.join("log")).map_err(|error| error.to_string())?;
        let child = Command::new("taskset")
            .arg("-c")
            .arg(cpu_list(cores))
            .arg(binary)
            .arg("start")
            .arg("--data")
            .arg(directory.join("data"))
            .args(["--listen", &address(port)])
            .args(["--peer-listen", &address(peer_port)])
            .args(["--http", &address(free_port()?)])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| format!("{}: {error}", binary.display()))?;
        Ok(Server {
            child,
            directory,
            port,
        })
    }

    /// What it has used so far.
    pub fn usage(&self) -> Result<Usage> {
        usage(self.child.id())
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(8)..].join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// What a process has used so far.
fn usage(pid: u32) -> Result<Usage> {
    let read = |name: &str| {
        fs::read_to_string(format!("/proc/{pid}/{name}")).map_err(|error| format!("process {pid}: {error}"))
    };
    let stat = read("stat")?;
    // The command's name stands between parentheses and may have spaces.
    let fields: Vec<&str> = stat
        .rsplit(") ")
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let ticks = |at: usize| -> f64 { fields.get(at).and_then(|text| text.parse().ok()).unwrap_or(0.0) };
    let peak_kb: u64 = read("status")?
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0);
    Ok(Usage {
        // utime and stime are fields 14 and 15; the state is field 3.
        cpu_seconds: (ticks(11) + ticks(12)) / ticks_per_second(),
        peak_rss_bytes: peak_kb * 1024,
    })
}

#[allow(unsafe_code)]
fn ticks_per_second() -> f64 {
    // SAFETY: sysconf reads a constant of the system and takes no pointers.
    (unsafe { libc::sysconf(libc::_SC_CLK_TCK) }) as f64
}
