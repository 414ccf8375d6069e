//! A pinned process, and what Linux says of it.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::Result;

/// A server with a data directory of its own; both end with the value.
pub struct Server {
    child: Child,
    command: Command,
    directory: PathBuf,
    /// The port for SQL.
    pub port: u16,
    /// The port for metrics.
    pub http_port: u16,
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
        let (port, http_port) = (free_port()?, free_port()?);
        let address = |port: u16| format!("127.0.0.1:{port}");
        let log = fs::File::create(directory.join("log")).map_err(|error| error.to_string())?;
        let mut command = Command::new("taskset");
        command
            .arg("-c")
            .arg(cpu_list(cores))
            .arg(binary)
            .arg("start")
            .arg("--data")
            .arg(directory.join("data"))
            .args(["--listen", &address(port)])
            .args(["--peer-listen", &address(peer_port)])
            .args(["--http", &address(http_port)])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let child = command
            .spawn()
            .map_err(|error| format!("{}: {error}", binary.display()))?;
        Ok(Server {
            child,
            command,
            directory,
            port,
            http_port,
        })
    }

    /// Ends the process and waits until it is gone: gently by SIGTERM, otherwise at once.
    pub fn stop(&mut self, gently: bool) -> Result<()> {
        match gently {
            true => terminate(self.child.id())?,
            false => self.child.kill().map_err(|error| error.to_string())?,
        }
        let status = self.child.wait().map_err(|error| error.to_string())?;
        match gently && !status.success() {
            true => Err(format!("the server ended with {status}")),
            false => Ok(()),
        }
    }

    /// Starts it again over the same directory.
    pub fn start_again(&mut self) -> Result<()> {
        self.child = self.command.spawn().map_err(|error| error.to_string())?;
        Ok(())
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
fn terminate(pid: u32) -> Result<()> {
    let pid = libc::pid_t::try_from(pid).map_err(|error| error.to_string())?;
    // SAFETY: kill takes no pointers, and the process is a child that was not waited for.
    match unsafe { libc::kill(pid, libc::SIGTERM) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error().to_string()),
    }
}

#[allow(unsafe_code)]
fn ticks_per_second() -> f64 {
    // SAFETY: sysconf reads a constant of the system and takes no pointers.
    (unsafe { libc::sysconf(libc::_SC_CLK_TCK) }) as f64
}
