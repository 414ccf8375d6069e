//! `tributary demo`: three regions (or up to ten) on this machine, cut, healed and killed, with every answer checked.
//!
//! ```text
//!             ┌──────── this process ────────┐
//!   us ◀──────┤ proxy us⇄eu, us⇄ap, eu⇄ap     ├──────▶ eu, ap       three child processes of this binary
//!             │ writers, readers, the checks │
//!             └──────────── SQL ─────────────┘
//! ```
//! The regions know each other only through the proxies, which is where a cut happens and where bytes are counted.
//! Everything else goes through SQL, as a user would do it. What is claimed is checked against what this process
//! counted or computed by itself; one failed check makes the exit status 1.

mod child;
mod cluster;
mod oracle;
mod progress;
mod proxy;
mod raw;
mod report;
mod story;
mod writers;

use clap::Args;
use thiserror::Error;

pub use child::free_ports;
pub use cluster::Cluster;
pub use report::Report;

use progress::Progress;

/// Flags of `tributary demo`.
#[derive(Clone, Debug, Args)]
pub struct DemoArgs {
    /// Leave the three regions running at the end, until Ctrl-C.
    #[arg(long)]
    pub keep: bool,
    /// How many regions.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(3..=10))]
    pub regions: u8,
    /// Nexmark events to generate, over the three regions.
    #[arg(long, default_value_t = 300_000)]
    pub events: u64,
}

/// Why the story was not told to its end, or not as promised.
#[derive(Debug, Error)]
pub enum DemoError {
    /// The system refused something.
    #[error("{0}")]
    System(#[from] std::io::Error),
    /// A statement failed that must not.
    #[error("SQL failed: {}", sql_message(.0))]
    Sql(#[from] tokio_postgres::Error),
    /// A region did not start, or ended.
    #[error("region {region}: {problem}\n{log_tail}")]
    Region {
        /// Which.
        region: String,
        /// What happened.
        problem: String,
        /// The end of its log.
        log_tail: String,
    },
    /// Something did not come about in time.
    #[error("after {seconds} s still waiting: {what}")]
    Timeout {
        /// For what.
        what: String,
        /// How long.
        seconds: u64,
    },
    /// The story was told, and some of it was not as promised.
    #[error("{0} check(s) failed")]
    Checks(usize),
    /// An answer of an unexpected form.
    #[error("unexpected answer: {0}")]
    Answer(String),
}

fn sql_message(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => format!("{} ({})", db.message(), db.code().code()),
        None => error.to_string(),
    }
}

/// The regions, the primary first. The story is about the first three.
const NAMES: [&str; 10] = ["us", "eu", "ap", "af", "ca", "in", "jp", "me", "sa", "uk"];

/// Tells the story.
pub async fn run(args: DemoArgs) -> Result<(), DemoError> {
    let progress = Progress::new();
    let mut report = Report::default();
    let mut cluster = Cluster::start(&NAMES[..usize::from(args.regions)], &progress).await?;
    let told = story::tell(&args, &mut cluster, &progress, &mut report).await;
    // A story that broke off still shows what was found until then.
    report.print();
    told?;
    if args.keep {
        cluster.print_addresses();
        println!("the regions run until Ctrl-C");
        tokio::signal::ctrl_c().await?;
    }
    cluster.stop().await?;
    match report.failed() {
        0 => Ok(()),
        failed => Err(DemoError::Checks(failed)),
    }
}
