//! Nexmark queries as circuits of the dbsp crate, over the bench's Parquet files.
//!
//! ```text
//!   files ─▶ feeder: decodes all columns, keeps those the circuit reads ─▶ a transaction per batch ─▶ the view's changes
//! ```
//! The circuit has one worker for each core but one, and at least one; the feeder is a thread beside them. Changes are
//! taken from the circuit after each transaction and dropped, or, with `--rows`, added up to the view's rows.
//!
//! ```text
//!   tributary-peer-dbsp queries
//!   tributary-peer-dbsp run QUERY PATTERN CORES BATCH [ROWS.csv]     one JSON object on standard output
//! ```

mod events;
mod queries;
mod text;
mod view;

use std::path::{Path, PathBuf};
use std::time::Instant;
use std::{env, fs, process};

use dbsp::Runtime;
use dbsp::mimalloc::MiMalloc;

use crate::view::View;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["queries"] => queries::ALL.iter().for_each(|(name, _)| println!("{name}")),
        ["run", query, pattern, cores, batch, rest @ ..] => {
            let number = |text: &str| text.parse::<usize>().expect("a number");
            run(
                query,
                pattern,
                number(cores),
                number(batch),
                rest.first().map(Path::new),
            );
        }
        _ => {
            eprintln!("queries, or run QUERY PATTERN CORES BATCH [ROWS.csv]");
            process::exit(2);
        }
    }
}

fn run(query: &str, pattern: &str, cores: usize, batch: usize, rows: Option<&Path>) {
    let Some((_, build)) = queries::ALL.iter().find(|(name, _)| *name == query) else {
        eprintln!("there is no circuit for {query}");
        process::exit(2);
    };
    let workers = cores.saturating_sub(1).max(1);
    let (mut circuit, query) =
        Runtime::init_circuit(workers, |circuit| Ok(build(circuit))).expect("a circuit");
    let files = matching(Path::new(pattern));
    let mut view = rows.map(|_| View::default());
    let before = cpu_seconds();
    let started = Instant::now();
    let mut events = 0;
    for (count, push) in events::decode(files, batch, query.prepare) {
        push();
        circuit.transaction().expect("the circuit runs");
        (query.take)(view.as_mut());
        events += count;
    }
    let elapsed_seconds = started.elapsed().as_secs_f64();
    let cpu_seconds = cpu_seconds() - before;
    if let (Some(view), Some(path)) = (&view, rows) {
        view.write(path).expect("the rows can be written");
    }
    let result = serde_json::json!({
        "elapsed_seconds": elapsed_seconds,
        "cpu_seconds": cpu_seconds,
        "peak_rss_bytes": peak_rss_bytes(),
        "events": events,
        "setting": format!("{workers} worker and a feeder, batches of {batch}"),
    });
    println!("{result}");
    // Ending the circuit in order takes as long as its state is large.
    process::exit(0);
}

/// The files of a pattern `DIRECTORY/PREFIX*SUFFIX`, by name.
fn matching(pattern: &Path) -> Vec<PathBuf> {
    let directory = pattern.parent().expect("a directory");
    let name = pattern
        .file_name()
        .and_then(|name| name.to_str())
        .expect("a name");
    let (prefix, suffix) = name.split_once('*').expect("a star");
    let mut files: Vec<PathBuf> = fs::read_dir(directory)
        .expect("the directory is there")
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let name = entry.file_name().into_string().ok()?;
            (name.starts_with(prefix) && name.ends_with(suffix)).then(|| entry.path())
        })
        .collect();
    files.sort();
    files
}

/// Processor time of all threads so far; the kernel counts hundredths of a second.
fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat
        .rsplit(") ")
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

fn peak_rss_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = status.lines().find_map(|line| {
        line.strip_prefix("VmHWM:")?
            .split_whitespace()
            .next()?
            .parse::<u64>()
            .ok()
    });
    kib.unwrap_or(0) * 1024
}
