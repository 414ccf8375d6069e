//! What regions owe to each other: how soon a write is seen elsewhere, how soon regions agree after a cut, and how much
//! several regions take in.
//!
//! ```text
//!   visibility   acknowledged in us ──one-way delay──▶ in a view of eu             what remains beside the delay
//!   cuts         eu cut off ── keys change in us ── healed ──▶ equal views         by time and by changed keys
//!   throughput   clients in each of 1, 3, 10 regions ──▶ rows per second, and until all agree
//! ```
//! Regions are processes on this machine with a proxy for each way between two of them, which can be cut and delayed.

mod cuts;
mod throughput;
mod visibility;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use tokio_postgres::{Client, SimpleQueryMessage};
use tributary_server::demo::{Cluster, DemoError};

use crate::Result;
use crate::prepare::binary_or;

const AGREE_MAX: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_millis(2);

#[derive(Args)]
pub struct Links {
    /// What to measure: visibility, cuts, throughput.
    #[arg(long, value_delimiter = ',', default_value = "visibility,cuts,throughput")]
    what: Vec<String>,
    /// One-way delays, in milliseconds.
    #[arg(long, value_delimiter = ',', default_value = "0,20,80")]
    delay_ms: Vec<u64>,
    /// How long cuts last, in seconds.
    #[arg(long, value_delimiter = ',', default_value = "10")]
    cut_seconds: Vec<u64>,
    /// How many days go by on all clocks during each of these cuts, half-way through what changes. Takes libfaketime in
    /// LD_PRELOAD, with the file that FAKETIME_TIMESTAMP_FILE names.
    #[arg(long, default_value_t = 0)]
    days: u64,
    /// How many keys change during a cut.
    #[arg(long, value_delimiter = ',', default_value = "1000,30000,300000")]
    changed: Vec<u64>,
    /// Numbers of regions.
    #[arg(long, value_delimiter = ',', default_value = "1,3,10")]
    regions: Vec<usize>,
    /// For how long throughput is measured, in seconds.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// The server's binary; the one beside this by default.
    #[arg(long)]
    tributary: Option<PathBuf>,
}

/// Measures; false when regions did not agree.
pub async fn run(links: &Links) -> Result<bool> {
    let binary = binary_or(links.tributary.as_deref())?;
    for what in &links.what {
        match what.as_str() {
            "visibility" => visibility::run(&binary, &links.delay_ms).await?,
            "cuts" => cuts::run(&binary, &links.cut_seconds, links.days, &links.changed).await?,
            "throughput" => throughput::run(&binary, &links.regions, links.seconds).await?,
            unknown => return Err(format!("there is no \"{unknown}\" to measure")),
        }
    }
    Ok(true)
}

fn failed(error: DemoError) -> String {
    error.to_string()
}

async fn execute(client: &Client, sql: &str) -> Result<()> {
    let done = client.batch_execute(sql).await;
    done.map_err(|error| crate::session::describe(sql, &error))
}

/// The first row of a query, columns separated by `|`; `None` when there is none, or it cannot be read yet.
async fn first(client: &Client, sql: &str) -> Option<String> {
    let messages = client.simple_query(sql).await.ok()?;
    messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(
            (0..row.len())
                .map(|column| row.get(column).unwrap_or("NULL"))
                .collect::<Vec<_>>()
                .join("|"),
        ),
        _ => None,
    })
}

/// Waits until a query gives this row; returns how long that took.
async fn wait_for(client: &Client, sql: &str, expected: &str) -> Result<Duration> {
    let started = Instant::now();
    loop {
        let seen = first(client, sql).await;
        if seen.as_deref() == Some(expected) {
            return Ok(started.elapsed());
        }
        if started.elapsed() > AGREE_MAX {
            return Err(format!("{sql}: {seen:?} instead of {expected}"));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// A cluster with these regions, ready, and a session with each.
async fn cluster(binary: &std::path::Path, names: &[&str]) -> Result<(Cluster, Vec<Client>)> {
    let mut cluster = Cluster::spawn(binary, names).await.map_err(failed)?;
    cluster.wait_ready().await.map_err(failed)?;
    let mut clients = Vec::new();
    for name in names {
        clients.push(cluster.connect(name).await.map_err(failed)?);
    }
    Ok((cluster, clients))
}

/// The middle of a hundred parts, of sorted times.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted
        .get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or_default()
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}
