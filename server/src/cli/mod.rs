//! The command line: `tributary start` runs one region, `tributary demo` runs three and tells the story, `tributary gen`
//! makes files that regions are started with.
//!
//! Errors that a person can mend end the process with status 1 and one line on stderr; the logs (tracing)
//! go to stderr too, so that stdout holds only what was asked for: the psql line, the report.

mod config;
mod gen_certs;
mod run;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

pub use config::{ConfigError, NodeConfig, StartArgs};
pub use gen_certs::{GenCertsArgs, GenCertsError, GenCommand, gen_certs};
pub use run::{RunError, run};

use crate::demo::DemoArgs;

/// A distributed SQL database whose views are kept up to date in every region.
#[derive(Debug, Parser)]
#[command(name = "tributary", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start one region. With no flags: region `local`, data in ./tributary-data.
    Start(Box<StartArgs>),
    /// Start three regions on this machine, cut, kill, slow and wipe them, add one, and check every answer.
    Demo(DemoArgs),
    /// Make files that regions are started with.
    #[command(subcommand)]
    Gen(GenCommand),
}

/// Parses the arguments of the process and runs the command to its end.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let default_level = match cli.command {
        Command::Start(_) => "info",
        Command::Demo(_) | Command::Gen(_) => "warn",
    };
    start_logging(default_level);
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_stack_size(WORKER_STACK_BYTES)
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("the runtime cannot be started: {error}")),
    };
    let outcome = match cli.command {
        Command::Start(args) => runtime.block_on(start(*args)),
        Command::Demo(args) => runtime
            .block_on(crate::demo::run(args))
            .map_err(|error| error.to_string()),
        Command::Gen(GenCommand::Certs(args)) => {
            gen_certs(&args, &mut std::io::stdout().lock()).map_err(|error| error.to_string())
        }
    };
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => fail(&message),
    }
}

/// Planning recurses over user expressions; the parser's limits are set for stacks of this size.
const WORKER_STACK_BYTES: usize = 8 << 20;

async fn start(args: StartArgs) -> Result<(), String> {
    let until_stdin_ends = args.stop_with_stdin;
    let config = NodeConfig::from_args(args).map_err(|error| error.to_string())?;
    run(config, until_stdin_ends)
        .await
        .map_err(|error| error.to_string())
}

fn start_logging(default_level: &str) {
    let filter = std::env::var("TRIBUTARY_LOG")
        .or_else(|_| std::env::var("RUST_LOG"))
        .unwrap_or_else(|_| default_level.to_owned());
    let filter = EnvFilter::try_new(&filter).unwrap_or_else(|_| EnvFilter::new(default_level));
    // A second call (tests that start several commands in one process) keeps the first subscriber.
    let colours = std::io::stderr().is_terminal();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colours);
    let _ = subscriber.with_writer(std::io::stderr).try_init();
}

fn fail(message: &str) -> ExitCode {
    eprintln!("tributary: {message}");
    ExitCode::FAILURE
}
