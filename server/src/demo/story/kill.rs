//! Third part: `us` dies under load by kill -9, and comes back with everything it acknowledged.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::super::DemoError;
use super::super::cluster::Cluster;
use super::super::oracle::{number, query};
use super::super::progress::Progress;
use super::super::report::Report;
use super::super::writers::{Load, Written, amount};
use super::{payment_totals, seconds, wait_for_payments};

const BEFORE: Duration = Duration::from_secs(2);
const DOWN: Duration = Duration::from_secs(1);
const AFTER: Duration = Duration::from_secs(2);
const GIVE_UP: Duration = Duration::from_secs(60);

pub(super) async fn tell(
    cluster: &mut Cluster,
    progress: &Progress,
    report: &mut Report,
) -> Result<(), DemoError> {
    let step = progress.step("us is killed with -9 under load");
    let (before, _) = payment_totals(&cluster.connect("us").await?).await?;
    let loads: Vec<Load> = cluster
        .names()
        .into_iter()
        .zip(1..)
        .map(|(region, number)| Load::start(cluster.sql_address(&region), number, 1))
        .collect();
    tokio::time::sleep(BEFORE).await;
    cluster.kill("us").await?;
    tokio::time::sleep(DOWN).await;
    let restarted = Instant::now();
    cluster.restart("us").await?;
    let recovery = restarted.elapsed();
    tokio::time::sleep(AFTER).await;
    let mut all = Vec::new();
    for load in loads {
        all.push(load.stop().await);
    }
    step.done(&format!("ready again {} after its restart", seconds(recovery)));
    report.figure("us ready after its restart", seconds(recovery));
    check(cluster, progress, report, before, &all).await
}

/// Every acknowledged payment is there, nothing is there that was not sent, and the views count what is there.
async fn check(
    cluster: &Cluster,
    progress: &Progress,
    report: &mut Report,
    before: i128,
    all: &[Written],
) -> Result<(), DemoError> {
    let step = progress.step("looking for every acknowledged write");
    let sent: BTreeSet<u64> = all
        .iter()
        .flat_map(|written| written.sent.iter().copied())
        .collect();
    let acknowledged: BTreeSet<u64> = all
        .iter()
        .flat_map(|written| written.acknowledged.iter().copied())
        .collect();
    let mut present = Vec::new();
    let mut sum = 0;
    for region in cluster.names() {
        let client = cluster.connect(&region).await?;
        let sql = "SELECT id, amount FROM payment WHERE tributary_region = gateway_region()";
        for row in query(&client, sql).await? {
            let id =
                u64::try_from(number(&row, 0)?).map_err(|_| DemoError::Answer("a negative id".to_owned()))?;
            if number(&row, 1)? != i128::from(amount(id)) {
                return Err(DemoError::Answer(format!(
                    "payment {id} has another amount than was written"
                )));
            }
            sum += i128::from(amount(id));
            present.push(id);
        }
    }
    let distinct: BTreeSet<u64> = present.iter().copied().collect();
    let missing = acknowledged.difference(&distinct).count();
    let doubled = present.len() - distinct.len();
    // Those of the part before are known to be all there; they were counted.
    let unexpected = i128::try_from(distinct.difference(&sent).count()).unwrap_or(i128::MAX) - before;
    report.check(
        "no acknowledged write is missing after kill -9",
        missing == 0,
        format!("{missing} missing of {} acknowledged", acknowledged.len()),
    );
    let figure = format!(
        "{doubled} doubled, {unexpected} never sent, {} rows",
        present.len()
    );
    report.check(
        "none is doubled or made up",
        doubled == 0 && unexpected == 0,
        figure,
    );
    let took = wait_for_payments(cluster, present.len() as u64, GIVE_UP).await?;
    let mut right = true;
    for region in cluster.names() {
        let totals = payment_totals(&cluster.connect(&region).await?).await?;
        right &= totals == (i128::try_from(present.len()).unwrap_or(-1), sum);
    }
    let figure = format!("{} payments, sum {sum}, after {}", present.len(), seconds(took));
    report.check(
        "the views of all regions count exactly these",
        right,
        figure.clone(),
    );
    step.done(&figure);
    Ok(())
}
