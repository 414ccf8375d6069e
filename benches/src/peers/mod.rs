//! Other engines over the same events in the same run.
//!
//! ```text
//!   events-*.parquet ─┬─▶ DuckDB: check.py                          decodes within its time
//!                     ├─▶ peer.py NAME: a circuit of dbsp           decodes within its time
//!                     ├─▶ events.rows ─▶ peer.py NAME: Flink        decodes within its time
//!                     └─▶ COPY ─▶ peer.py NAME: PostgreSQL          has the rows decoded and loaded beforehand
//! ```
//! Each is a program of its own with the face that `benches/peers/peer.py` tells. One that cannot be installed is
//! reported as absent, with the reason.

pub mod duckdb;
mod row_file;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::report::{Sample, append};
use crate::{Result, Setting};

/// All there are.
const NAMES: [&str; 4] = ["duckdb", "flink", "dbsp", "postgres"];
/// Runs that a peer may need for one figure, at most: dbsp tries three sizes of batches.
const RUNS_PER_FIGURE: u64 = 3;

/// One engine that is there.
pub struct Peer {
    /// Its name, as in `PEERS=`.
    pub name: &'static str,
    /// The queries it can do; DuckDB's are told by its files.
    queries: Vec<String>,
}

/// The engines of one bench.
pub struct Peers {
    /// Those that are there.
    pub list: Vec<Peer>,
    /// A directory for what they keep between runs, such as loaded rows.
    scratch: PathBuf,
}

/// What a run of a peer was like.
pub struct Outcome {
    /// Its figures.
    pub sample: Sample,
    /// Its settings, for people.
    pub setting: String,
}

impl Peers {
    /// Installs what was asked for, and reports what could not be installed.
    pub fn prepare(setting: &Setting, names: &[String]) -> Result<Peers> {
        let scratch = std::env::temp_dir().join(format!("tributary-bench-peers-{}", std::process::id()));
        fs::create_dir_all(&scratch).map_err(|error| format!("{}: {error}", scratch.display()))?;
        let mut peers = Peers {
            list: Vec::new(),
            scratch,
        };
        if !names.is_empty() && setting.format != "parquet" {
            return Err("peers read Parquet only".to_owned());
        }
        for name in names {
            let known = NAMES.into_iter().find(|known| known == name);
            let known = known.ok_or_else(|| format!("{name} is no peer: there are {}", NAMES.join(", ")))?;
            match peers.install(setting, known) {
                Ok(queries) => peers.list.push(Peer { name: known, queries }),
                Err(reason) => {
                    println!("{known} is absent: {reason}");
                    append(setting, &json!({ "engine": known, "absent": reason }))?;
                }
            }
        }
        Ok(peers)
    }

    /// The queries of a peer, which is there afterwards.
    fn install(&self, setting: &Setting, name: &str) -> Result<Vec<String>> {
        if name == "duckdb" {
            return Ok(Vec::new());
        }
        self.call(setting, name, &["setup".as_ref()])?;
        let queries = self.call(setting, name, &["queries".as_ref()])?;
        Ok(queries.split_whitespace().map(str::to_owned).collect())
    }

    fn call(&self, setting: &Setting, name: &str, arguments: &[&std::ffi::OsStr]) -> Result<String> {
        let mut command = Command::new(&setting.python);
        if arguments[0] != "setup" {
            let limit = setting.timeout_seconds * RUNS_PER_FIGURE;
            command = Command::new("timeout");
            command.arg(limit.to_string()).arg(&setting.python);
        }
        let output = command
            .arg(setting.nexmark.with_file_name("peers").join("peer.py"))
            .arg(name)
            .args(arguments)
            .env("TRIBUTARY_PEERS_SCRATCH", &self.scratch)
            .output()
            .map_err(|error| format!("{}: {error}", setting.python.display()))?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(format!(
                "{}: {}",
                output.status,
                String::from_utf8_lossy(&output.stderr).trim()
            )),
        }
    }

    /// Whether an engine can do a query.
    pub fn can(&self, setting: &Setting, peer: &Peer, query: &str) -> bool {
        match peer.name {
            "duckdb" => duckdb::has(setting, query),
            _ => peer.queries.iter().any(|known| known == query),
        }
    }

    /// Compares the rows an engine gives with DuckDB's.
    pub fn check(
        &self,
        setting: &Setting,
        peer: &Peer,
        query: &str,
        files: &Path,
        events: u64,
    ) -> Result<()> {
        if peer.name == "duckdb" || !duckdb::has(setting, query) {
            return Ok(());
        }
        row_file::beside(files)?;
        let rows = self.scratch.join(format!("{}-{query}.csv", peer.name));
        let events = events.to_string();
        let arguments = [
            "check".as_ref(),
            query.as_ref(),
            files.as_os_str(),
            events.as_ref(),
            rows.as_os_str(),
        ];
        self.call(setting, peer.name, &arguments)?;
        let compared = duckdb::compare(setting, query, files, &rows);
        let _ = fs::remove_file(&rows);
        compared
    }

    /// One run of an engine.
    pub fn measure(
        &self,
        setting: &Setting,
        peer: &Peer,
        query: &str,
        files: &Path,
        events: u64,
        cores: usize,
    ) -> Result<Outcome> {
        if peer.name == "duckdb" {
            let setting_told = format!("recomputed anew from Parquet, {cores} threads");
            return duckdb::measure(setting, query, files, cores).map(|sample| Outcome {
                sample,
                setting: setting_told,
            });
        }
        row_file::beside(files)?;
        let (events_text, cores) = (events.to_string(), cores.to_string());
        let arguments = [
            "time".as_ref(),
            query.as_ref(),
            files.as_os_str(),
            events_text.as_ref(),
            cores.as_ref(),
        ];
        let output = self.call(setting, peer.name, &arguments)?;
        let result: Value =
            serde_json::from_str(&output).map_err(|error| format!("{}: {error}", peer.name))?;
        match result["events"].as_u64() {
            Some(read) if read != events => Err(format!("{} read {read} events of {events}", peer.name)),
            _ => Ok(outcome(&result)),
        }
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.scratch);
    }
}

fn outcome(result: &Value) -> Outcome {
    let number = |name: &str| result[name].as_f64().unwrap_or(0.0);
    Outcome {
        sample: Sample {
            elapsed_seconds: number("elapsed_seconds"),
            cpu_seconds: number("cpu_seconds"),
            peak_rss_bytes: number("peak_rss_bytes") as u64,
            view_rows: result["rows"].as_u64(),
            ..Sample::default()
        },
        setting: result["setting"].as_str().unwrap_or_default().to_owned(),
    }
}
