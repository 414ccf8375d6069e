//! `tributary-chaos`: three regions as real processes, under faults of processes, disks and networks, with every answer
//! checked.
//!
//! ```text
//!             ┌───────────── this process ─────────────┐
//!   us ◀──────┤ links (proxies, or packets of          ├──────▶ eu, ap     three child processes, `tributary start`
//!             │ namespaces), faults, clients, checks   │
//!             └────────────────── SQL ─────────────────┘
//! ```
//! It knows nothing of the product's code: it speaks the Postgres protocol, asks for metrics over HTTP, and starts the
//! binary. What it claims it counted by itself. The seed decides which faults come, where and when; what the processes
//! make of them is as it happens, so a seed repeats a story and not a trace.
//!
//! Left out: faults of clocks, several regions on different machines, a disk that lies. The simulator has the first.

// Time, threads and unordered maps are forbidden in the pure crates only.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod agreement;
mod control;
mod error;
mod faults;
mod finish;
mod journal;
mod lab;
mod ledger;
mod network;
mod regions;
mod report;
mod workload;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use control::Control;
use error::{ChaosError, Result};
use faults::Kind;
use lab::{Networks, Options};
use workload::Load;

/// Three regions as real processes, under faults, with every answer checked.
#[derive(Debug, Parser)]
#[command(name = "tributary-chaos", version, about)]
struct Arguments {
    /// How long faults are done.
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// Of the schedule of faults; by default one that nobody has seen.
    #[arg(long)]
    seed: Option<u64>,
    /// What carries bytes between the regions.
    #[arg(long, value_enum, default_value = "both")]
    network: Networks,
    /// These kinds of faults only, separated by commas.
    #[arg(long, value_delimiter = ',')]
    faults: Vec<String>,
    /// Rows that are inserted, a second and region.
    #[arg(long, default_value_t = 120)]
    rate: u64,
    /// Seconds within which regions that can reach each other have to agree.
    #[arg(long, default_value_t = 30)]
    agree_s: u64,
    /// The product's binary; by default the one beside this.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Where data, logs and the journal go; by default a new directory of the system's temporary ones.
    #[arg(long)]
    directory: Option<PathBuf>,
    /// Where the report goes, beside the standard output.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Leave data and logs although nothing was wrong.
    #[arg(long)]
    keep: bool,
    /// Only the report on the standard output.
    #[arg(long)]
    quiet: bool,
    /// A defect of the laboratory's own, which the run has to find: its exit status is then 1.
    #[arg(long, value_enum)]
    control: Option<Control>,
    /// A further flag of `tributary start`, as `--flag=--memory-budget=64M` (repeatable).
    #[arg(long = "flag", allow_hyphen_values = true)]
    flags: Vec<String>,
}

/// Some promise was not kept.
const VIOLATED: u8 = 1;
/// The laboratory could not do its work.
const BROKEN: u8 = 2;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = tokio::select! {
        outcome = run(arguments) => outcome,
        () = interrupted() => Err(ChaosError::Arguments("interrupted".to_owned())),
    };
    match outcome {
        Ok(status) => status,
        Err(error) => {
            eprintln!("tributary-chaos: {error}");
            ExitCode::from(BROKEN)
        }
    }
}

/// Ctrl-C, or SIGTERM: either way, processes, mounts and namespaces of the run go with it.
async fn interrupted() {
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        },
        Err(_) => drop(tokio::signal::ctrl_c().await),
    }
}

async fn run(arguments: Arguments) -> Result<ExitCode> {
    let (out, keep) = (arguments.out.clone(), arguments.keep);
    let options = options(arguments)?;
    let directory = options.directory.clone();
    let report = lab::run(options).await?;
    let text = report.render();
    println!("\n{text}");
    if let Some(out) = out {
        std::fs::write(out, &text)?;
    }
    if keep || !report.is_clean() {
        println!("Data, logs and the journal are kept in {}", directory.display());
    } else {
        std::fs::remove_dir_all(&directory)?;
    }
    Ok(match (report.is_clean(), report.violated.is_empty()) {
        (true, _) => ExitCode::SUCCESS,
        (_, true) => ExitCode::from(BROKEN),
        _ => ExitCode::from(VIOLATED),
    })
}

fn options(arguments: Arguments) -> Result<Options> {
    let wrong = |text: String| Err(ChaosError::Arguments(text));
    let mut kinds = Vec::new();
    for name in &arguments.faults {
        match Kind::named(name) {
            Some(kind) => kinds.push(kind),
            None => {
                let names = Kind::ALL.map(Kind::name).join(", ");
                return wrong(format!("there is no fault {name:?}; there are {names}"));
            }
        }
    }
    let binary = match arguments.binary {
        Some(binary) => binary,
        None => std::env::current_exe()?.with_file_name("tributary"),
    };
    if !binary.exists() {
        return wrong(format!("{} has not been built", binary.display()));
    }
    if !(arguments.minutes > 0.0 && arguments.minutes < 1e5) {
        return wrong(format!("{} minutes are no time", arguments.minutes));
    }
    let seed = arguments.seed.unwrap_or_else(|| rand::random_range(0..1_000_000));
    let directory = match arguments.directory {
        Some(directory) => directory,
        None => std::env::temp_dir().join(format!("tributary-chaos-{}-{seed}", std::process::id())),
    };
    Ok(Options {
        binary,
        directory,
        seed,
        time: Duration::from_secs_f64(arguments.minutes * 60.0),
        networks: arguments.network,
        kinds,
        load: Load {
            rows_per_s: arguments.rate,
        },
        control: arguments.control,
        agree_max: Duration::from_secs(arguments.agree_s),
        flags: arguments.flags,
        quiet: arguments.quiet,
    })
}
