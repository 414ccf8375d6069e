//! Second part: `eu` is cut off. Everybody goes on; afterwards everybody agrees.

use std::time::{Duration, Instant};

use tokio_postgres::error::SqlState;

use super::super::DemoError;
use super::super::cluster::Cluster;
use super::super::oracle::query;
use super::super::progress::Progress;
use super::super::report::Report;
use super::super::writers::{Load, Written, amount, percentile};
use super::{millis, payment_totals, seconds, wait_for_payments};

const CUT: Duration = Duration::from_secs(6);
/// What is promised.
const AGREE_MAX: Duration = Duration::from_secs(5);
const GIVE_UP: Duration = Duration::from_secs(60);

pub(super) async fn tell(
    cluster: &Cluster,
    progress: &Progress,
    report: &mut Report,
) -> Result<(), DemoError> {
    let step = progress.step("eu is cut off, and clients go on in all three regions");
    cluster.set_cut("eu", true);
    let loads: Vec<(String, Load)> = cluster
        .names()
        .into_iter()
        .zip(1..)
        .map(|(region, number)| {
            let load = Load::start(cluster.sql_address(&region), number, 0);
            (region, load)
        })
        .collect();
    tokio::time::sleep(CUT / 2).await;
    ddl_is_refused_in(cluster, "eu", report).await?;
    tokio::time::sleep(CUT / 2).await;
    let lag = lags(cluster, "us").await?;
    let mut all = Vec::new();
    for (region, load) in loads {
        all.push((region, load.stop().await));
    }
    step.done(&format!("for {}", seconds(CUT)));
    during(&all, &lag, report);
    let sees = payment_totals(&cluster.connect("us").await?).await?.0;
    let acknowledged: u64 = all
        .iter()
        .map(|(_, written)| written.acknowledged.len() as u64)
        .sum();
    report.check(
        "during the cut us did not see what eu wrote",
        sees < i128::from(acknowledged),
        format!("{sees} of {acknowledged} payments"),
    );
    heal(cluster, progress, report, &all, acknowledged).await
}

async fn heal(
    cluster: &Cluster,
    progress: &Progress,
    report: &mut Report,
    all: &[(String, Written)],
    acknowledged: u64,
) -> Result<(), DemoError> {
    let step = progress.step("the network heals");
    let healed = Instant::now();
    cluster.set_cut("eu", false);
    wait_for_payments(cluster, acknowledged, GIVE_UP).await?;
    let took = healed.elapsed();
    report.check(
        "after healing all regions agree within 5 s",
        took < AGREE_MAX,
        seconds(took),
    );
    let sum: u64 = all
        .iter()
        .flat_map(|(_, written)| &written.acknowledged)
        .map(|id| amount(*id))
        .sum();
    let mut sums = Vec::new();
    for region in cluster.names() {
        sums.push(payment_totals(&cluster.connect(&region).await?).await?.1);
    }
    let right = sums.iter().all(|seen| *seen == i128::from(sum));
    report.check(
        "their sums are those of the acknowledged writes",
        right,
        format!("{sum} expected, {sums:?}"),
    );
    step.done(&format!("all agree after {}", seconds(took)));
    Ok(())
}

fn during(all: &[(String, Written)], lag: &str, report: &mut Report) {
    for (region, written) in all {
        let (writes, reads) = (written.acknowledged.len(), written.read_times.len());
        report.check(
            &format!("during the cut {region} accepts writes and answers reads"),
            writes > 0 && reads > 0 && written.failures == 0,
            format!(
                "{writes} writes (p50 {}, p99 {}), {reads} reads (p99 {}), {} failures",
                millis(percentile(&written.write_times, 50)),
                millis(percentile(&written.write_times, 99)),
                millis(percentile(&written.read_times, 99)),
                written.failures
            ),
        );
    }
    report.figure("lag at the end of the cut, seen from us", lag);
}

/// The lag of each region as one region sees it, from its system table.
async fn lags(cluster: &Cluster, region: &str) -> Result<String, DemoError> {
    let client = cluster.connect(region).await?;
    let mut lags = Vec::new();
    for row in query(
        &client,
        "SELECT origin, lag_ms FROM tributary.frontier ORDER BY origin",
    )
    .await?
    {
        lags.push(format!(
            "{} {} ms",
            row.get(0).unwrap_or("?"),
            row.get(1).unwrap_or("?")
        ));
    }
    Ok(lags.join(", "))
}

/// DDL needs the primary region; without it there is a clear refusal and nothing else suffers.
async fn ddl_is_refused_in(cluster: &Cluster, region: &str, report: &mut Report) -> Result<(), DemoError> {
    let client = cluster.connect(region).await?;
    let refused = client
        .batch_execute("CREATE TABLE too_early (id bigint PRIMARY KEY)")
        .await;
    let code = refused.err().and_then(|error| error.code().cloned());
    report.check(
        "during the cut DDL in eu is refused with 57P03",
        code == Some(SqlState::CANNOT_CONNECT_NOW),
        code.map_or_else(|| "no error".to_owned(), |code| code.code().to_owned()),
    );
    Ok(())
}
