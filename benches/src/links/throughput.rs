//! Rows per second that one and several regions take in together, on the same processors.

use std::path::Path;
use std::time::{Duration, Instant};

use tokio_postgres::Client;

use super::{cluster, execute, failed, wait_for};
use crate::Result;

const NAMES: [&str; 10] = ["us", "eu", "ap", "r4", "r5", "r6", "r7", "r8", "r9", "r10"];
/// Rows of an INSERT.
const ROWS: u64 = 1_000;
/// Groups of the view.
const GROUPS: u64 = 1_000;
const VIEW: &str = "CREATE MATERIALIZED VIEW m AS SELECT g, count(*) AS n, sum(v) AS s FROM t GROUP BY g";

pub async fn run(binary: &Path, regions: &[usize], seconds: u64) -> Result<()> {
    println!(
        "rows a second over {seconds} s, one client in each region, {ROWS} rows a commit, a view of {GROUPS} groups"
    );
    println!("regions | rows/s | all agree after, s");
    for &count in regions {
        let names = NAMES.get(..count).ok_or("at most ten regions")?;
        let (cluster, clients) = cluster(binary, names).await?;
        execute(
            &clients[0],
            "CREATE TABLE t (id bigint PRIMARY KEY, g bigint, v bigint)",
        )
        .await?;
        execute(&clients[0], VIEW).await?;
        for client in &clients {
            wait_for(client, "SELECT count(*) FROM m", "0").await?;
        }
        let started = Instant::now();
        let until = started + Duration::from_secs(seconds);
        let written =
            futures::future::try_join_all(clients.iter().map(|client| write(client, until))).await?;
        let took = started.elapsed();
        let total: u64 = written.iter().sum();
        let ended = Instant::now();
        for client in &clients {
            wait_for(client, "SELECT sum(n) FROM m", &total.to_string()).await?;
        }
        println!(
            "{count:>7} | {:>6.0} | {:>18.2}",
            total as f64 / took.as_secs_f64(),
            ended.elapsed().as_secs_f64()
        );
        cluster.stop().await.map_err(failed)?;
    }
    Ok(())
}

async fn write(client: &Client, until: Instant) -> Result<u64> {
    let mut written = 0;
    while Instant::now() < until {
        let to = written + ROWS - 1;
        let insert =
            format!("INSERT INTO t SELECT i, i % {GROUPS}, i FROM generate_series({written}, {to}) AS s(i)");
        execute(client, &insert).await?;
        written += ROWS;
    }
    Ok(written)
}
