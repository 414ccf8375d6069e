//! Fourth part: rows of other regions, a slow link, a region that is added, and one that is wiped.

use std::time::{Duration, Instant};

use super::super::DemoError;
use super::super::cluster::Cluster;
use super::super::oracle::{number, query};
use super::super::progress::Progress;
use super::super::report::Report;
use super::super::writers::Load;
use super::{payment_totals, seconds, wait_for_payments};

const GIVE_UP: Duration = Duration::from_secs(60);
/// 1 Mbit/s.
const SLOW_BYTES_PER_SECOND: u64 = 125_000;
const SLOW: Duration = Duration::from_secs(5);
/// How far behind a region may be whose links are that slow.
const SLOW_LAG_MAX_MS: i128 = 2_000;
/// The region that comes later.
const ADDED: &str = "br";

pub(super) async fn tell(
    cluster: &mut Cluster,
    progress: &Progress,
    report: &mut Report,
) -> Result<(), DemoError> {
    far_rows(cluster, progress, report).await?;
    slow_link(cluster, progress, report).await?;
    added(cluster, progress, report).await?;
    wiped(cluster, progress, report).await
}

/// Every region reads the rows of all regions, as of the moment that its views show.
async fn far_rows(cluster: &Cluster, progress: &Progress, report: &mut Report) -> Result<(), DemoError> {
    let step = progress.step("each region reads the rows of all regions");
    let mut times = Vec::new();
    let mut right = true;
    let mut rows = 0;
    for region in cluster.names() {
        let client = cluster.connect(&region).await?;
        client.batch_execute("BEGIN").await?;
        let view = payment_totals(&client).await?;
        let started = Instant::now();
        let read = query(&client, "SELECT count(*), coalesce(sum(amount), 0) FROM payment").await?;
        times.push(started.elapsed());
        client.batch_execute("COMMIT").await?;
        let read = read
            .first()
            .ok_or_else(|| DemoError::Answer("no count".to_owned()))?;
        rows = number(read, 0)?;
        right &= (rows, number(read, 1)?) == view;
    }
    let slowest = times.into_iter().max().unwrap_or_default();
    let figure = format!(
        "{rows} rows of {} regions, at most {}",
        cluster.names().len(),
        seconds(slowest)
    );
    report.check(
        "rows of all regions and their view are of one moment",
        right,
        figure.clone(),
    );
    step.done(&figure);
    Ok(())
}

/// With links of 1 Mbit/s a region stays close behind, since a key that changes often is sent once.
async fn slow_link(cluster: &Cluster, progress: &Progress, report: &mut Report) -> Result<(), DemoError> {
    let step = progress.step("the links of ap carry 1 Mbit/s, under load");
    let (before, _) = payment_totals(&cluster.connect("us").await?).await?;
    cluster.set_rate("ap", Some(SLOW_BYTES_PER_SECOND));
    let bytes = cluster.wire_bytes_of("ap");
    let loads: Vec<Load> = cluster
        .names()
        .into_iter()
        .zip(1..)
        .map(|(region, number)| Load::start(cluster.sql_address(&region), number, 2))
        .collect();
    tokio::time::sleep(SLOW).await;
    let client = cluster.connect("ap").await?;
    let lags = "SELECT max(lag_ms) FROM tributary.frontier";
    let lag = number(
        query(&client, lags)
            .await?
            .first()
            .ok_or_else(|| DemoError::Answer("no lag".to_owned()))?,
        0,
    )?;
    let mut written = 0;
    for load in loads {
        written += load.stop().await.acknowledged.len() as u64;
    }
    let carried = cluster.wire_bytes_of("ap") - bytes;
    let total = u64::try_from(before).unwrap_or(0) + written;
    let took = wait_for_payments(cluster, total, GIVE_UP).await?;
    cluster.set_rate("ap", None);
    report.check(
        "with links of 1 Mbit/s ap stays less than 2 s behind",
        lag < SLOW_LAG_MAX_MS,
        format!("{lag} ms, all agree {} after the last write", seconds(took)),
    );
    report.figure(
        "bytes over the slow links, per payment",
        format!(
            "{:.0} ({carried} for {written})",
            carried as f64 / written.max(1) as f64
        ),
    );
    step.done(&format!("{lag} ms behind"));
    Ok(())
}

/// A region more: it copies what the others have, and takes part.
async fn added(cluster: &mut Cluster, progress: &Progress, report: &mut Report) -> Result<(), DemoError> {
    let step = progress.step("a region is added");
    let (payments, sum) = payment_totals(&cluster.connect("us").await?).await?;
    let address = cluster.add(ADDED).await?;
    let started = Instant::now();
    let us = cluster.connect("us").await?;
    us.batch_execute(&format!(
        "ALTER DATABASE tributary ADD REGION {ADDED} WITH (address = '{address}')"
    ))
    .await?;
    cluster.wait_ready_at(ADDED).await?;
    let took = started.elapsed();
    let client = cluster.connect(ADDED).await?;
    let same = payment_totals(&client).await? == (payments, sum);
    report.check(
        "a region that is added serves what the others have",
        same,
        seconds(took),
    );
    client
        .batch_execute("INSERT INTO payment VALUES (9000000001, 1, 7)")
        .await?;
    wait_for_payments(cluster, u64::try_from(payments).unwrap_or(0) + 1, GIVE_UP).await?;
    let mut right = true;
    for region in cluster.names() {
        right &= payment_totals(&cluster.connect(&region).await?).await? == (payments + 1, sum + 7);
    }
    report.check("and what it writes is counted everywhere", right, "1 payment");
    step.done(&format!("it serves after {}", seconds(took)));
    Ok(())
}

/// A region loses its disk: it is told so, and comes back as another incarnation.
async fn wiped(cluster: &mut Cluster, progress: &Progress, report: &mut Report) -> Result<(), DemoError> {
    let step = progress.step("eu loses its disk");
    let (payments, _) = payment_totals(&cluster.connect("us").await?).await?;
    let eu = cluster.connect("eu").await?;
    let own = query(&eu, "SELECT count(*) FROM payment WHERE tributary_region = 'eu'").await?;
    let own = number(
        own.first()
            .ok_or_else(|| DemoError::Answer("no count".to_owned()))?,
        0,
    )?;
    cluster.kill("eu").await?;
    std::fs::remove_dir_all(cluster.data("eu"))?;
    let served = cluster.restart("eu").await.is_ok();
    let told = cluster.wait_ended("eu").await?;
    report.check(
        "a region that lost its disk is told so and does not serve",
        !served && told.contains("lost its log"),
        "it ends by itself",
    );
    let started = Instant::now();
    cluster.restart_with("eu", &["--reincarnate"]).await?;
    let took = started.elapsed();
    let left = u64::try_from(payments - own).unwrap_or(0);
    wait_for_payments(cluster, left, GIVE_UP).await?;
    let incarnation = query(
        &cluster.connect("us").await?,
        "SELECT incarnation FROM tributary.regions WHERE name = 'eu'",
    )
    .await?;
    let incarnation = incarnation.first().map(|row| number(row, 0)).transpose()?;
    report.check(
        "it comes back as another incarnation, and what only it had is counted nowhere",
        incarnation == Some(2),
        format!("{own} payments gone, {left} left, serves after {}", seconds(took)),
    );
    step.done(&format!("it serves after {}", seconds(took)));
    Ok(())
}
