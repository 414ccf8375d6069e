//! Regions with certificates: their files, their ports, and what they say.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use tokio::process::Command;
use tributary_server::certs::{Authority, Issued, Validity};
use tributary_server::demo::free_ports;

use crate::running::{self, BINARY, Running, wait_until};

/// From some days ago or ahead to others.
pub fn days(from: i64, until: i64) -> Validity {
    let day = |days: i64| {
        let distance = Duration::from_secs(days.unsigned_abs() * 24 * 3600);
        let now = SystemTime::now();
        if days < 0 { now - distance } else { now + distance }
    };
    day(from)..day(until)
}

/// A new CA.
pub fn authority() -> Authority {
    Authority::create(days(-1, 30)).expect("an authority")
}

/// A certificate that is good today.
pub fn issue(authority: &Authority, region: &str) -> Issued {
    authority.issue(region, days(-1, 30)).expect("a certificate")
}

/// Regions that know each other; the first is the primary.
pub struct Secured {
    directory: tempfile::TempDir,
    primary: String,
    ports: BTreeMap<String, Vec<SocketAddr>>,
}

impl Secured {
    /// Ports and directories; no files, no processes.
    pub fn new(names: &[&str]) -> Secured {
        let ports = free_ports(names.len() * 3).expect("free ports");
        let names_with_ports = names.iter().zip(ports.chunks(3));
        Secured {
            directory: tempfile::tempdir().expect("a temporary directory"),
            primary: names[0].to_owned(),
            ports: names_with_ports
                .map(|(name, ports)| ((*name).to_owned(), ports.to_vec()))
                .collect(),
        }
    }

    /// The address for peers of a region.
    pub fn peer_address(&self, name: &str) -> SocketAddr {
        self.ports[name][1]
    }

    /// Where the three files of a region are.
    pub fn file(&self, name: &str, file: &str) -> PathBuf {
        self.directory.path().join(format!("{name}-{file}"))
    }

    /// Gives a region its files.
    pub fn install(&self, name: &str, authority: &Authority, own: &Issued) {
        self.write(name, "ca.pem", &authority.own().cert);
        self.write(name, "key.pem", &own.key);
        self.write(name, "cert.pem", &own.cert);
    }

    /// Writes one of the files.
    pub fn write(&self, name: &str, file: &str, text: &str) {
        std::fs::write(self.file(name, file), text).expect("a file");
    }

    /// How a region is started with its files.
    pub fn command(&self, name: &str) -> Command {
        let ca = self.file(name, "ca.pem");
        self.command_with(
            name,
            &self.file(name, "cert.pem"),
            &self.file(name, "key.pem"),
            &ca,
        )
    }

    /// How a region is started with other files.
    pub fn command_with(&self, name: &str, cert: &Path, key: &Path, ca: &Path) -> Command {
        let ports = &self.ports[name];
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.log_path(name))
            .expect("a log");
        let mut command = Command::new(BINARY);
        command
            .arg("start")
            .args(["--region", name, "--primary-region", &self.primary])
            .arg("--data")
            .arg(self.directory.path().join(format!("{name}-data")))
            .args([
                "--listen",
                &ports[0].to_string(),
                "--peer-listen",
                &ports[1].to_string(),
            ])
            .args(["--http", &ports[2].to_string()])
            .arg("--peer-cert")
            .arg(cert)
            .arg("--peer-key")
            .arg(key)
            .arg("--peer-ca")
            .arg(ca)
            .kill_on_drop(true)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        for (peer, ports) in self.ports.iter().filter(|(peer, _)| *peer != name) {
            command.args(["--peer", &format!("{peer}={}", ports[1])]);
        }
        command
    }

    /// Starts a region, and waits until it answers SQL.
    pub async fn start(&self, name: &str) -> Running {
        let command = self.command(name);
        self.start_by(name, command).await
    }

    /// The same by another command.
    pub async fn start_by(&self, name: &str, mut command: Command) -> Running {
        let ports = &self.ports[name];
        let running = Running {
            child: command.spawn().expect("the binary runs"),
            sql: ports[0],
            peer: ports[1],
            http: ports[2],
        };
        running.connect().await;
        running
    }

    fn log_path(&self, name: &str) -> PathBuf {
        self.directory.path().join(format!("{name}.log"))
    }

    /// Waits until a region has said something.
    pub async fn wait_for_log(&self, name: &str, said: &str) {
        let ask = || async {
            let log = std::fs::read_to_string(self.log_path(name)).expect("a log");
            let log = log.replace("\\\"", "\"");
            match log.contains(said) {
                true => Ok(()),
                false => Err(format!("{name} did not say {said:?}:\n{log}")),
            }
        };
        wait_until(ask).await
    }
}

/// A counter in a region's metrics.
pub async fn counted(running: &Running, name: &str) -> u64 {
    running::counted(running.http, name).await
}

/// Waits until a counter has this value, and no other.
pub async fn wait_for_count(running: &Running, name: &str, expected: u64) {
    let ask = || async {
        let seen = counted(running, name).await;
        assert!(seen <= expected, "{name} is {seen} instead of {expected}");
        match seen == expected {
            true => Ok(()),
            false => Err(format!("{name} is {seen} instead of {expected}")),
        }
    };
    wait_until(ask).await
}

/// SIGHUP.
pub async fn hang_up(running: &Running) {
    let pid = running.child.id().expect("it runs").to_string();
    let sent = Command::new("kill").args(["-HUP", &pid]).status().await;
    assert!(sent.expect("kill runs").success());
}
