//! How soon regions agree after a cut, by its length and by what changed meanwhile.

use std::path::Path;
use std::time::{Duration, Instant};

use super::{cluster, execute, failed, wait_for};
use crate::Result;

/// Rows of a commit.
const PORTION: u64 = 10_000;
/// Keys of the view's groups: a thousandth of the rows.
const ROWS_PER_GROUP: u64 = 1_000;

pub async fn run(binary: &Path, cut_seconds: &[u64], changed: &[u64]) -> Result<()> {
    println!("time from the end of a cut until both regions show the same, s; bytes over the link");
    println!("cut, s | changed rows | GLOBAL rows | bytes | a view of REGIONAL rows | bytes");
    for &seconds in cut_seconds {
        for &rows in changed {
            let global = once(binary, seconds, rows, true).await?;
            let view = once(binary, seconds, rows, false).await?;
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
async fn once(binary: &Path, seconds: u64, rows: u64, is_global: bool) -> Result<(Duration, u64)> {
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
    for from in (0..rows).step_by(PORTION as usize) {
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
