//! How soon regions agree after a cut, by its length and by what changed meanwhile.

use std::path::Path;
use std::time::{Duration, Instant};

use tokio_postgres::Client;

use super::{cluster, execute, failed, first, wait_for};
use crate::Result;

/// Rows of a commit.
const PORTION: u64 = 10_000;
/// Keys of the view's groups: a thousandth of the rows.
const ROWS_PER_GROUP: u64 = 1_000;

/// Names the file in which libfaketime finds by how much clocks are ahead.
const CLOCKS: &str = "FAKETIME_TIMESTAMP_FILE";
/// libfaketime reads that file every ten seconds.
const CLOCKS_READ: Duration = Duration::from_secs(11);

/// Measures each length of a cut with each number of rows; during a cut so many days go by.
pub async fn run(binary: &Path, cut_seconds: &[u64], days: u64, changed: &[u64]) -> Result<()> {
    println!("time from the end of a cut until both regions show the same, s; bytes over the link");
    if days > 0 {
        println!("during each cut all clocks go on by {days} days");
    }
    println!("cut, s | changed rows | GLOBAL rows | bytes | a view of REGIONAL rows | bytes");
    for &seconds in cut_seconds {
        for &rows in changed {
            let global = once(binary, seconds, days, rows, true).await?;
            let view = once(binary, seconds, days, rows, false).await?;
            println!(
                "{seconds:>6} | {rows:>12} | {:>11.2} | {:>9} | {:>23.2} | {:>9}",
                global.0.as_secs_f64(),
                global.1,
                view.0.as_secs_f64(),
                view.1
            );
        }
    }
    Ok(())
}

/// The time, and the bytes over the links since the cut ended.
async fn once(binary: &Path, seconds: u64, days: u64, rows: u64, is_global: bool) -> Result<(Duration, u64)> {
    set_clocks(0)?;
    let (cluster, clients) = cluster(binary, &["us", "eu"]).await?;
    let (us, eu) = (&clients[0], &clients[1]);
    let locality = if is_global { "LOCALITY GLOBAL" } else { "" };
    execute(
        us,
        &format!("CREATE TABLE t (id bigint PRIMARY KEY, g bigint, v bigint) {locality}"),
    )
    .await?;
    execute(
        us,
        "CREATE MATERIALIZED VIEW m AS SELECT g, count(*) AS n, sum(v) AS s FROM t GROUP BY g",
    )
    .await?;
    wait_for(eu, "SELECT count(*) FROM m", "0").await?;
    cluster.set_cut("eu", true);
    let cut = Instant::now();
    let mut passed = days == 0;
    for from in (0..rows).step_by(PORTION as usize) {
        if !passed && from + PORTION >= rows / 2 {
            passed = true;
            pass(us, days).await?;
        }
        let to = (from + PORTION).min(rows) - 1;
        let fill = format!(
            "INSERT INTO t SELECT i, i / {ROWS_PER_GROUP}, i FROM generate_series({from}, {to}) AS s(i)"
        );
        execute(us, &fill).await?;
    }
    let rest = Duration::from_secs(seconds).saturating_sub(cut.elapsed());
    tokio::time::sleep(rest).await;
    let bytes = cluster.wire_bytes();
    let healed = Instant::now();
    cluster.set_cut("eu", false);
    let total = rows * (rows - 1) / 2;
    wait_for(eu, "SELECT sum(n), sum(s) FROM m", &format!("{rows}|{total}")).await?;
    if is_global {
        wait_for(eu, "SELECT count(*) FROM t", &rows.to_string()).await?;
    }
    let took = healed.elapsed();
    let carried = cluster.wire_bytes() - bytes;
    cluster.stop().await.map_err(failed)?;
    Ok((took, carried))
}

/// Has the clocks of all regions go on by so many days, and makes sure that they did.
async fn pass(client: &Client, days: u64) -> Result<()> {
    let clock = "SELECT extract(epoch FROM now())::bigint";
    let read = async || {
        first(client, clock)
            .await
            .and_then(|seconds| seconds.parse::<u64>().ok())
    };
    let before = read().await;
    set_clocks(days)?;
    tokio::time::sleep(CLOCKS_READ).await;
    match (before, read().await) {
        (Some(before), Some(after)) if after >= before + days * 86_400 => Ok(()),
        (before, after) => Err(format!(
            "clocks did not go on by {days} days: {before:?}, {after:?}"
        )),
    }
}

/// Without libfaketime clocks are what they are.
fn set_clocks(days: u64) -> Result<()> {
    match std::env::var_os(CLOCKS) {
        Some(file) => {
            std::fs::write(&file, format!("+{days}d\n")).map_err(|error| format!("{CLOCKS}: {error}"))
        }
        None if days == 0 => Ok(()),
        None => Err(format!(
            "{days} days go by with libfaketime only, and {CLOCKS} is not set"
        )),
    }
}
