//! PostgreSQL as the judge of what a query means: the same files, with what it does not know translated away.
//!
//! Materialized views are refreshed before every statement, so they show what an incremental view shows.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tokio_postgres::Client;

use crate::cluster;

/// A private server with an empty database; it ends when it is dropped.
pub struct Server {
    process: Child,
    port: u16,
    folder: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself, and a leftover folder harms nobody.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Server {
    /// Starts the newest installed PostgreSQL.
    pub async fn start() -> Result<Self, String> {
        let programs = programs().ok_or("PostgreSQL's server is not installed")?;
        let port = cluster::free_ports()?[0];
        let folder = std::env::temp_dir().join(format!("tributary-pg-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        let data = folder.join("data");
        // The server refuses to run as root, so a root user hands it to `postgres`.
        let root = Command::new("id")
            .arg("-u")
            .output()
            .is_ok_and(|output| output.stdout.starts_with(b"0"));
        if root {
            run(Command::new("chown").arg("postgres").arg(&folder))?;
        }
        let as_postgres = |program: &str| {
            let program = programs.join(program);
            if root {
                let mut command = Command::new("runuser");
                command.args(["-u", "postgres", "--"]).arg(program);
                command
            } else {
                Command::new(program)
            }
        };
        run(as_postgres("initdb")
            .args([
                "-U",
                "postgres",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--locale=C.UTF-8",
                "-D",
            ])
            .arg(&data))?;
        let process = as_postgres("postgres")
            .arg("-D")
            .arg(&data)
            .args([
                "-p",
                &port.to_string(),
                "-c",
                "listen_addresses=127.0.0.1",
                "-c",
                "timezone=UTC",
            ])
            .arg("-c")
            .arg(format!("unix_socket_directories={}", folder.display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("cannot start postgres: {error}"))?;
        Ok(Self {
            process,
            port,
            folder,
        })
    }

    /// A connection to it.
    pub async fn connect(&self) -> Result<Client, String> {
        cluster::connect(self.port, "postgres").await
    }
}

fn programs() -> Option<PathBuf> {
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    versions.sort();
    versions
        .pop()
        .map(|version| version.join("bin"))
        .filter(|bin| Path::exists(&bin.join("initdb")))
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    ))
}

/// The statement as PostgreSQL understands it; `None` when there is nothing for it to do.
pub fn translate(sql: &str) -> Option<String> {
    let folded = sql.to_lowercase();
    if folded.trim() == "flush" {
        return None;
    }
    match folded.find(" locality ") {
        Some(at) if folded.trim_start().starts_with("create table") => Some(sql[..at].to_owned()),
        _ => Some(sql.to_owned()),
    }
}

/// Keeps the list of materialized views: oldest first, so that views on views are refreshed in order.
pub fn note_materialized(sql: &str, views: &mut Vec<String>) {
    let folded = sql.to_lowercase();
    let words: Vec<&str> = folded
        .split_whitespace()
        .filter(|word| !["if", "not", "exists"].contains(word))
        .collect();
    match words.as_slice() {
        ["create", "materialized", "view", name, ..] => views.push((*name).to_owned()),
        ["drop", "materialized", "view", name, ..] => {
            views.retain(|view| view != name.trim_end_matches(';') && !folded.contains("cascade"));
        }
        _ => {}
    }
}
