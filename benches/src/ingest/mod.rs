//! Ingest over the wire: the rows of a client to durable rows of a table, by each way that the protocol has.
//!
//! ```text
//!   rows (seeded) ─▶ encoded beforehand ─▶ COPY text | csv | binary, portions of one commit each ─┐
//!                 └▶ values ─┬─▶ one connection: prepared INSERTs, pipelined, many to a commit  ──┼─▶ tributary start
//!                            └─▶ 64 connections: prepared INSERTs, each a durable commit        ──┘
//! ```
//! The table has seven columns: `bigint` key, `int`, `bigint`, two `text`, `timestamptz`, `double precision`. The
//! clock runs while the client sends and until the last answer; an answer means that the rows are synced. Encoding is
//! not within it. Every run counts the rows and compares sums of their columns afterwards.

mod copy;
mod inserts;
mod rows;

use std::path::Path;

use clap::Args;

use crate::prepare::{binary_or, touch_memory};
use crate::process::Server;
use crate::report::{Measured, Sample, append_to, heading};
use crate::session::Session;
use crate::{Result, TableSetting};
use rows::Row;

const TABLE: &str = "CREATE TABLE ingest (id BIGINT PRIMARY KEY, kind INT, amount BIGINT, name TEXT, note TEXT, \
                     at TIMESTAMPTZ, price DOUBLE PRECISION)";

/// Single statements are measured with this part of the rows: each costs tens of times a row of a COPY.
const STATEMENTS_PART: u64 = 10;

#[derive(Args)]
pub struct Ingest {
    /// How many rows a COPY loads; the ways of single statements take a tenth of them.
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
    /// Ways, as copy_text,copy_binary; or all.
    #[arg(long, default_value = "all")]
    queries: String,
    /// Connections of the way `commits`.
    #[arg(long, default_value_t = 64)]
    clients: usize,
    #[command(flatten)]
    setting: TableSetting,
}

/// The ways into a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    CopyText,
    CopyCsv,
    CopyBinary,
    /// Prepared INSERTs on one connection, pipelined, many to a transaction.
    Inserts,
    /// Prepared INSERTs on one connection, pipelined, each a transaction.
    PipelinedCommits,
    /// Prepared INSERTs on many connections, each a transaction that is awaited.
    Commits,
}

impl Way {
    const ALL: [Way; 6] = [
        Way::CopyText,
        Way::CopyCsv,
        Way::CopyBinary,
        Way::Inserts,
        Way::PipelinedCommits,
        Way::Commits,
    ];

    fn name(self) -> &'static str {
        match self {
            Way::CopyText => "copy_text",
            Way::CopyCsv => "copy_csv",
            Way::CopyBinary => "copy_binary",
            Way::Inserts => "inserts",
            Way::PipelinedCommits => "pipelined_commits",
            Way::Commits => "commits",
        }
    }
}

/// Measures every way that was asked for; false when one failed.
pub async fn run(ingest: &Ingest) -> Result<bool> {
    let binary = binary_or(ingest.setting.tributary.as_deref())?;
    let ways = ways(&ingest.queries)?;
    touch_memory(ingest.setting.touch_gib);
    println!("{}", heading());
    let mut all_done = true;
    for way in ways {
        for &cores in &ingest.setting.cores {
            match samples(ingest, &binary, way, cores).await {
                Ok(measured) => {
                    println!("{}", measured.line());
                    append_to(ingest.setting.out.as_deref(), &measured.json())?;
                }
                Err(reason) => {
                    println!("{}: {reason}", way.name());
                    all_done = false;
                }
            }
        }
    }
    Ok(all_done)
}

fn ways(names: &str) -> Result<Vec<Way>> {
    if names == "all" {
        return Ok(Way::ALL.to_vec());
    }
    let named = |name: &str| {
        let way = Way::ALL.into_iter().find(|way| way.name() == name.trim());
        way.ok_or_else(|| format!("there is no way \"{name}\""))
    };
    names.split(',').map(named).collect()
}

async fn samples(ingest: &Ingest, binary: &Path, way: Way, cores: usize) -> Result<Measured> {
    let events = match way {
        Way::CopyText | Way::CopyCsv | Way::CopyBinary => ingest.events,
        Way::Inserts | Way::PipelinedCommits | Way::Commits => (ingest.events / STATEMENTS_PART).max(1),
    };
    let mut samples = Vec::new();
    for _ in 0..ingest.setting.runs.max(1) {
        let server = Server::start(binary, cores)?;
        let sample = measure(&server, way, events, ingest.clients).await;
        samples.push(sample.map_err(|reason| format!("{reason}\n{}", server.log_tail()))?);
    }
    Ok(Measured {
        query: way.name().to_owned(),
        engine: "tributary",
        cores,
        events,
        sink: None,
        setting: None,
        ratio: None,
        samples,
    })
}

async fn measure(server: &Server, way: Way, events: u64, clients: usize) -> Result<Sample> {
    let session = Session::connect(server.port).await?;
    session.execute(TABLE).await?;
    let spent = match way {
        Way::CopyText => copy::run(server, &session, events, "text", Row::encode_text).await?,
        Way::CopyCsv => copy::run(server, &session, events, "csv", Row::encode_csv).await?,
        Way::CopyBinary => copy::run(server, &session, events, "binary", Row::encode_binary).await?,
        Way::Inserts => inserts::pipelined(server, &session, events, true).await?,
        Way::PipelinedCommits => inserts::pipelined(server, &session, events, false).await?,
        Way::Commits => inserts::from_many(server, events, clients).await?,
    };
    verify(&session, events).await?;
    let stored = |column: &str| format!("SELECT {column} FROM tributary.tables WHERE name = 'ingest'");
    Ok(Sample {
        state_bytes: session.number(&stored("bytes")).await?,
        state_rows: session.number(&stored("rows_max")).await?,
        view_rows: Some(session.number("SELECT count(*) FROM ingest").await?),
        ..spent
    })
}

/// The rows in the table are those that were sent.
async fn verify(session: &Session, events: u64) -> Result<()> {
    let sums = "SELECT count(*), sum(id)::bigint, sum(kind)::bigint, sum(amount)::bigint, sum(length(name))::bigint, \
                sum(length(note))::bigint, \
                sum(extract(epoch FROM date_trunc('second', at)))::bigint, sum(price * 4)::bigint FROM ingest";
    let found = session.rows(sums).await?;
    let found: Vec<String> = found
        .into_iter()
        .flatten()
        .map(|value| value.unwrap_or_default())
        .collect();
    let expected = rows::sums(events);
    match found == expected {
        true => Ok(()),
        false => Err(format!("the table has {found:?}, not {expected:?}")),
    }
}
