//! How long commits of one row take in a region that catches up, and in the one that it catches up with.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio_postgres::Client;

use super::{cluster, execute, failed, ms, percentile, wait_for};
use crate::Result;

/// Rows of a commit that fills the tables.
const PORTION: u64 = 10_000;
/// For how long commits are measured while nobody catches up.
const QUIET: Duration = Duration::from_secs(3);

pub async fn run(binary: &Path, rows: u64) -> Result<()> {
    println!(
        "commits of one row, ms: beside a region that catches up with {rows} GLOBAL rows and as many groups of a view"
    );
    println!("region | commits | p50 | p99 | most");
    let (cluster, clients) = cluster(binary, &["us", "eu"]).await?;
    let (us, eu) = (&clients[0], &clients[1]);
    execute(
        us,
        "CREATE TABLE g (id bigint PRIMARY KEY, v bigint) LOCALITY GLOBAL",
    )
    .await?;
    execute(us, "CREATE TABLE t (id bigint PRIMARY KEY, v bigint)").await?;
    execute(us, "CREATE TABLE own (id bigint PRIMARY KEY, v bigint)").await?;
    execute(
        us,
        "CREATE MATERIALIZED VIEW m AS SELECT id, sum(v) AS s FROM t GROUP BY id",
    )
    .await?;
    wait_for(eu, "SELECT count(*) FROM m", "0").await?;
    wait_for(eu, "SELECT count(*) FROM own", "0").await?;

    let quiet = Writer::start(cluster.connect("eu").await.map_err(failed)?, 0);
    tokio::time::sleep(QUIET).await;
    print("nobody catches up", quiet.stop().await?);

    cluster.set_cut("eu", true);
    for table in ["g", "t"] {
        for from in (0..rows).step_by(PORTION as usize) {
            let to = (from + PORTION).min(rows) - 1;
            let fill = format!("INSERT INTO {table} SELECT i, i FROM generate_series({from}, {to}) AS s(i)");
            execute(us, &fill).await?;
        }
    }
    // Keys are those of one region each: the view and the tables of eu have no more to wait for than what us sends.
    let sends = Writer::start(cluster.connect("us").await.map_err(failed)?, 1 << 40);
    let takes_in = Writer::start(cluster.connect("eu").await.map_err(failed)?, 2 << 40);
    let healed = Instant::now();
    cluster.set_cut("eu", false);
    wait_for(eu, "SELECT count(*) FROM m", &rows.to_string()).await?;
    wait_for(eu, "SELECT count(*) FROM g", &rows.to_string()).await?;
    let took = healed.elapsed();
    print("the one that sends", sends.stop().await?);
    print("the one that takes in", takes_in.stop().await?);
    println!("it has caught up after {:.2} s", took.as_secs_f64());
    cluster.stop().await.map_err(failed)
}

fn print(whose: &str, mut times: Vec<Duration>) {
    times.sort();
    println!(
        "{whose} | {} | {:.1} | {:.1} | {:.1}",
        times.len(),
        ms(percentile(&times, 50)),
        ms(percentile(&times, 99)),
        ms(times.last().copied().unwrap_or_default())
    );
}

/// A client that inserts one row after the other.
struct Writer {
    stops: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Result<Vec<Duration>>>,
}

impl Writer {
    fn start(client: Client, first: i64) -> Self {
        let stops = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stops);
        let task = tokio::spawn(async move {
            let insert = client.prepare("INSERT INTO own (id, v) VALUES ($1, $2)").await;
            let insert = insert.map_err(|error| error.to_string())?;
            let mut times = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let id = first + times.len() as i64;
                let started = Instant::now();
                let done = client.execute(&insert, &[&id, &id]).await;
                done.map_err(|error| error.to_string())?;
                times.push(started.elapsed());
            }
            Ok(times)
        });
        Self { stops, task }
    }

    async fn stop(self) -> Result<Vec<Duration>> {
        self.stops.store(true, Ordering::Relaxed);
        self.task.await.map_err(|error| error.to_string())?
    }
}
