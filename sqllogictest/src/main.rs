//! Runs the `.slt` suites over the Postgres protocol.
//!
//! ```text
//!   slt/*.slt ─▶ runner ─┬─▶ tributary, one region
//!                        ├─▶ tributary, three regions: statements spread over them
//!                        └─▶ PostgreSQL, where installed: what the same file *means*
//! ```
//!
//! The same files must pass all three. This crate knows nothing of Tributary but its command line and the
//! protocol: it starts the `tributary` binary that lies beside its own.

// The runner waits for real processes.
#![allow(clippy::disallowed_methods)]

mod cluster;
mod engine;
mod postgres;
mod spread;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

/// Command line of the runner.
#[derive(Parser)]
struct Arguments {
    /// The engine: `tributary` or `postgres`.
    #[arg(long, default_value = "tributary")]
    engine: String,
    /// Number of regions (engine `tributary`).
    #[arg(long, default_value_t = 1)]
    regions: usize,
    /// Write the engine's answers into the files instead of comparing.
    #[arg(long)]
    bless: bool,
    /// The folder of suites; by default as seen from the root of the sources.
    #[arg(long, default_value = "sqllogictest/slt")]
    suites: PathBuf,
    /// Files to run; all suites when none is given.
    files: Vec<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let files = if arguments.files.is_empty() {
        suites(&arguments.suites)
    } else {
        arguments.files.clone()
    };
    let (mut passed, mut failed) = (0, 0);
    for file in files {
        match run(&arguments, &file).await {
            Ok(()) => passed += 1,
            Err(message) => {
                failed += 1;
                eprintln!("{}: {message}", file.display());
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    if failed == 0 && passed > 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// The suites in a folder, in the order of their names.
fn suites(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "slt"));
    files.sort();
    files
}

/// Runs one file against a fresh engine.
async fn run(arguments: &Arguments, file: &Path) -> Result<(), String> {
    let label = match arguments.engine.as_str() {
        "postgres" => "postgres",
        "tributary" => "tributary",
        other => return Err(format!("unknown engine {other:?}")),
    };
    // The server must outlive the runner, which holds the connections.
    let (connections, _server) = if label == "postgres" {
        let server = postgres::Server::start().await?;
        (
            vec![("local".to_owned(), server.connect().await?)],
            Engine::Postgres(server),
        )
    } else {
        let cluster = cluster::Cluster::start(arguments.regions).await?;
        (cluster.connect().await?, Engine::Tributary(cluster))
    };
    let spread = std::sync::Arc::new(tokio::sync::Mutex::new(spread::Spread::new(
        connections,
        label,
        file,
    )));
    let make = || {
        let spread = spread.clone();
        async move { Ok::<_, engine::EngineError>(engine::Connection(spread, label)) }
    };
    let mut runner = sqllogictest::Runner::new(make);
    runner.add_label(label);
    runner.with_validator(engine::same_rows);
    if arguments.bless {
        let update = runner.update_test_file(
            file,
            " ",
            engine::same_rows,
            sqllogictest::default_normalizer,
            sqllogictest::default_column_validator,
        );
        return update.await.map_err(|error| error.to_string());
    }
    runner
        .run_file_async(file)
        .await
        .map_err(|error| error.display(false).to_string())
}

/// Keeps the processes of an engine alive until the file is done.
enum Engine {
    Postgres(#[allow(dead_code, reason = "held for its Drop")] postgres::Server),
    Tributary(#[allow(dead_code, reason = "held for its Drop")] cluster::Cluster),
}
