//! Nexmark against the server's binary: files are made once, each query is measured in a fresh process. And rows over
//! the wire into a table of it (`ingest`).
//!
//! ```text
//!   generate ─▶ events-*.parquet ─┬─▶ tributary start (pinned) ─▶ events/s, CPU, memory, state
//!                                 ├─▶ DuckDB ─▶ the rows expected
//!                                 └─▶ other engines, where asked for (`peers`)
//! ```
//! Only the server's public face is used: its command line, SQL, and what Linux says of its process.

// Time, threads and unordered maps are forbidden in the pure crates only.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod changes;
mod events;
mod generate;
mod ingest;
mod links;
mod peers;
mod prepare;
mod process;
mod recovery;
mod regions;
mod report;
mod run;
mod serve;
mod session;
mod sink;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// What can go wrong, as a text for people.
type Result<T> = std::result::Result<T, String>;

#[derive(Parser)]
#[command(about = "Nexmark and ingest against the server's binary")]
struct Command {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Write events as files.
    Generate(Generate),
    /// Measure queries on one region.
    Run(Run),
    /// Measure queries on three regions, against one with all the events.
    Regions(Regions),
    /// Measure reading while a source runs: queries a second, their times, and how fresh they are.
    Serve(Serve),
    /// Measure checkpoints while a source runs, and restarts with the state that came of it.
    Recovery(recovery::Recovery),
    /// Measure updates and deletes of rows that views read.
    Changes(changes::Changes),
    /// Measure regions with delays and cuts between them: visibility, agreement, throughput.
    Links(links::Links),
    /// Measure ingest over the wire.
    Ingest(ingest::Ingest),
}

#[derive(Args)]
struct Generate {
    /// How many events.
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
    /// The directory; made if it does not exist.
    #[arg(long)]
    out: PathBuf,
    /// parquet or arrow.
    #[arg(long, default_value = "parquet")]
    format: String,
}

#[derive(Args)]
struct Run {
    /// How many events; generated into the cache when they are not there yet.
    #[arg(long, default_value_t = 5_000_000)]
    events: u64,
    /// Numbers of cores.
    #[arg(long, value_delimiter = ',', default_value = "1")]
    cores: Vec<usize>,
    /// Runs of each; the median counts.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Compare each view with DuckDB at a million events first.
    #[arg(long)]
    check: bool,
    /// Other engines to measure: duckdb, flink, dbsp, postgres.
    #[arg(long, value_delimiter = ',')]
    peers: Vec<String>,
    /// Write the view's changes too, and wait until all are written: blackhole, ndjson, csv or parquet.
    #[arg(long)]
    sink: Option<String>,
    #[command(flatten)]
    setting: Setting,
}

#[derive(Args)]
struct Regions {
    /// How many events over all regions; generated into the cache when they are not there yet.
    #[arg(long, default_value_t = 3_000_000)]
    events: u64,
    /// The processors that all regions share, as many as the one region alone has.
    #[arg(long, default_value_t = 2)]
    cores: usize,
    /// Runs of each; the median counts.
    #[arg(long, default_value_t = 1)]
    runs: usize,
    /// Compare the rows of all regions' views with each other and with DuckDB's, at a tenth of a million events a
    /// region, first.
    #[arg(long)]
    check: bool,
    /// Leave out the region alone, and with it the ratio.
    #[arg(long)]
    only_three: bool,
    #[command(flatten)]
    setting: Setting,
}

#[derive(Args)]
struct Serve {
    /// Events a second.
    #[arg(long, default_value_t = 100_000)]
    rate: u64,
    /// The latency that the source is to keep, in milliseconds.
    #[arg(long)]
    latency_ms: Option<u64>,
    /// How long events come.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Seconds at the beginning that are not counted.
    #[arg(long, default_value_t = 3)]
    warm_up_seconds: u64,
    /// Clients, each with one statement at a time.
    #[arg(long, default_value_t = 4)]
    clients: u64,
    /// Every so many statements of a client one is an aggregate instead of a lookup.
    #[arg(long, default_value_t = 10)]
    aggregate_every: u64,
    /// The server's processors.
    #[arg(long, default_value_t = 2)]
    cores: usize,
    #[command(flatten)]
    setting: Setting,
}

/// What measurements of tables need, which read no files.
#[derive(Args)]
struct TableSetting {
    /// Numbers of cores of the server.
    #[arg(long, value_delimiter = ',', default_value = "1")]
    cores: Vec<usize>,
    /// Runs of each; the median counts.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Where the results go, one JSON object per line.
    #[arg(long)]
    out: Option<PathBuf>,
    /// The server's binary; otherwise the one beside this.
    #[arg(long)]
    tributary: Option<PathBuf>,
    /// Memory that is touched before anything is measured, in GiB.
    #[arg(long, default_value_t = 2)]
    touch_gib: usize,
}

/// What all measurements of files need.
#[derive(Args)]
struct Setting {
    /// Queries, as q0,q1; or all.
    #[arg(long, default_value = "all")]
    queries: String,
    /// Where the results go, one JSON object per line.
    #[arg(long)]
    out: Option<PathBuf>,
    /// parquet or arrow.
    #[arg(long, default_value = "parquet")]
    format: String,
    /// The directory of queries; by default as seen from the root of the sources.
    #[arg(long, default_value = "benches/nexmark")]
    nexmark: PathBuf,
    /// The server's binary; otherwise the one beside this.
    #[arg(long)]
    tributary: Option<PathBuf>,
    /// A Python with DuckDB.
    #[arg(long, default_value = "python3", env = "TRIBUTARY_BENCH_PYTHON")]
    python: PathBuf,
    /// Where generated files are kept.
    #[arg(long, env = "TRIBUTARY_BENCH_CACHE")]
    cache: Option<PathBuf>,
    /// Memory that is touched before anything is measured, in GiB.
    #[arg(long, default_value_t = 8)]
    touch_gib: usize,
    /// Seconds after which a run counts as stuck.
    #[arg(long, default_value_t = 600)]
    timeout_seconds: u64,
}

fn main() -> ExitCode {
    let command = Command::parse();
    let outcome = match &command.verb {
        Verb::Generate(generate) => {
            let stream = generate::Stream::whole(&generate.format);
            stream.write(generate.events, &generate.out).map(|()| true)
        }
        Verb::Run(run) => block_on(run::run(run)),
        Verb::Serve(serve) => block_on(serve::run(serve)),
        Verb::Regions(regions) => block_on(regions::run(regions)),
        Verb::Recovery(recovery) => block_on(recovery::run(recovery)),
        Verb::Changes(changes) => block_on(changes::run(changes)),
        Verb::Links(links) => block_on(links::run(links)),
        Verb::Ingest(ingest) => block_on(ingest::run(ingest)),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(reason) => {
            eprintln!("tributary-bench: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn block_on(measuring: impl Future<Output = Result<bool>>) -> Result<bool> {
    tokio::runtime::Runtime::new()
        .map_err(|error| error.to_string())?
        .block_on(measuring)
}
