//! Updates and deletes at speed: Nexmark only inserts.
//!
//! ```text
//!   bids (seeded) ─COPY─▶ table ─▶ one view        insert: all bids
//!                 UPDATE … WHERE id BETWEEN        update: the price of each bid
//!                 DELETE … WHERE id BETWEEN        delete: every second portion of them
//! ```
//! The clock of a phase runs from its first statement until a FLUSH after its last, that is until the view shows all of it.
//! A portion is a commit. After each phase the view's rows are compared with those of its query, run once.

use std::fmt::Write;
use std::path::Path;
use std::pin::pin;
use std::time::Instant;

use clap::Args;
use futures::SinkExt;

use crate::prepare::{binary_or, touch_memory};
use crate::process::Server;
use crate::report::{Measured, Sample, append_to, heading};
use crate::session::Session;
use crate::{Result, TableSetting};

const TABLES: &str = "CREATE TABLE auction (id BIGINT PRIMARY KEY, category INT NOT NULL) LOCALITY GLOBAL; \
    CREATE TABLE bid (id BIGINT PRIMARY KEY, auction BIGINT NOT NULL, bidder BIGINT NOT NULL, price BIGINT NOT NULL)";

/// A view, by its name, and its query.
const VIEWS: [(&str, &str); 5] = [
    (
        "groups",
        "SELECT auction, count(*) AS bids, sum(price) AS total FROM bid GROUP BY auction",
    ),
    (
        "extremes",
        "SELECT auction, min(price) AS least, max(price) AS most FROM bid GROUP BY auction",
    ),
    (
        "distinct",
        "SELECT auction, count(DISTINCT bidder) AS bidders FROM bid GROUP BY auction",
    ),
    (
        "joined",
        "SELECT a.category, count(*) AS bids, sum(b.price) AS total \
         FROM bid b JOIN auction a ON b.auction = a.id GROUP BY a.category",
    ),
    (
        "top",
        "SELECT auction, id, price, place FROM (SELECT auction, id, price, row_number() OVER \
         (PARTITION BY auction ORDER BY price DESC, id) AS place FROM bid) AS ranked WHERE place <= 3",
    ),
];

/// Bids of one commit.
const PORTION: u64 = 10_000;
/// Bids of an auction, on average.
const BIDS_PER_AUCTION: u64 = 15;

#[derive(Args)]
pub struct Changes {
    /// How many bids.
    #[arg(long, default_value_t = 500_000)]
    events: u64,
    /// Views, as groups,joined; or all.
    #[arg(long, default_value = "all")]
    queries: String,
    #[command(flatten)]
    setting: TableSetting,
}

#[derive(Clone, Copy)]
enum Phase {
    Insert,
    Update,
    Delete,
}

impl Phase {
    const ALL: [Phase; 3] = [Phase::Insert, Phase::Update, Phase::Delete];

    fn name(self) -> &'static str {
        match self {
            Phase::Insert => "insert",
            Phase::Update => "update",
            Phase::Delete => "delete",
        }
    }
}

/// Measures every view that was asked for; false when one failed.
pub async fn run(changes: &Changes) -> Result<bool> {
    let binary = binary_or(changes.setting.tributary.as_deref())?;
    let wanted: Vec<&str> = changes.queries.split(',').map(str::trim).collect();
    let is_wanted = |name: &str| wanted == ["all"] || wanted.contains(&name);
    if let Some(unknown) = wanted
        .iter()
        .find(|name| **name != "all" && !VIEWS.iter().any(|(view, _)| view == *name))
    {
        return Err(format!("there is no view \"{unknown}\""));
    }
    touch_memory(changes.setting.touch_gib);
    println!("{}", heading());
    let mut all_done = true;
    for (name, query) in VIEWS.into_iter().filter(|(name, _)| is_wanted(name)) {
        for &cores in &changes.setting.cores {
            match samples(changes, &binary, name, query, cores).await {
                Ok(measured) => {
                    for measured in measured {
                        println!("{}", measured.line());
                        append_to(changes.setting.out.as_deref(), &measured.json())?;
                    }
                }
                Err(reason) => {
                    println!("{name}: {reason}");
                    all_done = false;
                }
            }
        }
    }
    Ok(all_done)
}

/// What each phase of a view took, over all runs.
async fn samples(
    changes: &Changes,
    binary: &Path,
    name: &str,
    query: &str,
    cores: usize,
) -> Result<Vec<Measured>> {
    let mut all: Vec<Measured> = Vec::new();
    for run in 0..changes.setting.runs.max(1) {
        let server = Server::start(binary, cores)?;
        let measured = phases(&server, query, changes.events).await;
        let measured = measured.map_err(|reason| format!("{reason}\n{}", server.log_tail()))?;
        for (number, (phase, events, sample)) in measured.into_iter().enumerate() {
            if run == 0 {
                all.push(Measured {
                    query: format!("{name}/{}", phase.name()),
                    engine: "tributary",
                    cores,
                    events,
                    sink: None,
                    setting: None,
                    ratio: None,
                    samples: Vec::new(),
                });
            }
            all[number].samples.push(sample);
        }
    }
    Ok(all)
}

async fn phases(server: &Server, query: &str, events: u64) -> Result<Vec<(Phase, u64, Sample)>> {
    let session = Session::connect(server.port).await?;
    session.execute(TABLES).await?;
    let auctions = (events / BIDS_PER_AUCTION).max(1);
    let auction = |id: u64, out: &mut String| writeln!(out, "{id}\t{}", id % 97);
    copy(&session, "auction", 0..auctions, auction).await?;
    session
        .execute(&format!("CREATE MATERIALIZED VIEW changing AS {query}"))
        .await?;
    let mut done = Vec::new();
    for phase in Phase::ALL {
        let (before, started) = (server.usage()?, Instant::now());
        let changed = match phase {
            Phase::Insert => {
                let bid = |id: u64, out: &mut String| {
                    let mixed = mixed(id);
                    let (auction, bidder) = (mixed % auctions, mixed / auctions % 1000);
                    writeln!(out, "{id}\t{auction}\t{bidder}\t{}", mixed >> 40)
                };
                copy(&session, "bid", 0..events, bid).await?;
                events
            }
            Phase::Update => {
                let update = "UPDATE bid SET price = price + 7 * (id % 3) - 5 WHERE id";
                changed(&session, update, events, 1).await?
            }
            Phase::Delete => changed(&session, "DELETE FROM bid WHERE id", events, 2).await?,
        };
        session.execute("FLUSH").await?;
        let spent = Sample::since(server, before, started)?;
        verify(&session, query, phase).await?;
        let of_state = |what: &str| format!("SELECT sum({what})::bigint FROM tributary.operators");
        let sample = Sample {
            state_bytes: session.number(&of_state("bytes")).await?,
            state_rows: session.number(&of_state("rows")).await?,
            view_rows: Some(session.number("SELECT count(*) FROM changing").await?),
            ..spent
        };
        done.push((phase, changed, sample));
    }
    Ok(done)
}

/// Rows by number, portion by portion.
async fn copy(
    session: &Session,
    table: &str,
    numbers: std::ops::Range<u64>,
    row: impl Fn(u64, &mut String) -> std::fmt::Result,
) -> Result<()> {
    let statement = format!("COPY {table} FROM STDIN");
    let said = |error: tokio_postgres::Error| crate::session::describe(&statement, &error);
    for start in numbers.clone().step_by(PORTION as usize) {
        let mut text = String::new();
        for number in start..(start + PORTION).min(numbers.end) {
            row(number, &mut text).map_err(|error| error.to_string())?;
        }
        let sink = session.client().copy_in(&statement).await;
        let mut sink = pin!(sink.map_err(said)?);
        sink.send(bytes::Bytes::from(text)).await.map_err(said)?;
        sink.close().await.map_err(said)?;
    }
    Ok(())
}

/// Runs a statement for every so many portions; the number of rows changed.
async fn changed(session: &Session, statement: &str, events: u64, every: usize) -> Result<u64> {
    let mut changed = 0;
    for start in (0..events).step_by(PORTION as usize * every) {
        let last = (start + PORTION).min(events) - 1;
        session
            .execute(&format!("{statement} BETWEEN {start} AND {last}"))
            .await?;
        changed += last + 1 - start;
    }
    Ok(changed)
}

/// The view's rows are those of its query.
async fn verify(session: &Session, query: &str, phase: Phase) -> Result<()> {
    for (these, those) in [
        ("SELECT * FROM changing", query),
        (query, "SELECT * FROM changing"),
    ] {
        let sql = format!("SELECT count(*) FROM (({these}) EXCEPT ALL ({those})) AS difference");
        let rows = session.value(&sql).await?;
        if rows.as_deref() != Some("0") {
            let phase = phase.name();
            return Err(format!("after {phase}, {rows:?} rows differ ({sql})"));
        }
    }
    Ok(())
}

/// A number as random bits (SplitMix64).
fn mixed(number: u64) -> u64 {
    let mut z = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
