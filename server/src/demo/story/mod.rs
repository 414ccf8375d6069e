//! The story: agree, be cut, heal, be killed; rows from afar, a slow link, a region more, and one that is wiped.

mod agree;
mod cut;
mod kill;
mod regions;

use std::time::{Duration, Instant};

use tokio_postgres::Client;

use super::cluster::Cluster;
use super::oracle::{number, query};
use super::progress::Progress;
use super::report::Report;
use super::{DemoArgs, DemoError};

/// Tells it; findings go into the report.
pub(super) async fn tell(
    args: &DemoArgs,
    cluster: &mut Cluster,
    progress: &Progress,
    report: &mut Report,
) -> Result<(), DemoError> {
    agree::tell(args, cluster, progress, report).await?;
    cut::tell(cluster, progress, report).await?;
    kill::tell(cluster, progress, report).await?;
    regions::tell(cluster, progress, report).await
}

/// Waits until every region's `payment_totals` shows this many payments; the time it took.
async fn wait_for_payments(
    cluster: &Cluster,
    payments: u64,
    timeout: Duration,
) -> Result<Duration, DemoError> {
    let started = Instant::now();
    for region in cluster.names() {
        let client = cluster.connect(&region).await?;
        while payment_totals(&client).await?.0 != i128::from(payments) {
            if started.elapsed() > timeout {
                let what = format!("{payments} payments in the view at {region}");
                return Err(DemoError::Timeout {
                    what,
                    seconds: timeout.as_secs(),
                });
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    Ok(started.elapsed())
}

/// Number and sum of all payments, as the view has them; a sum over nothing is zero.
async fn payment_totals(client: &Client) -> Result<(i128, i128), DemoError> {
    let rows = query(client, "SELECT payments, coalesce(total, 0) FROM payment_totals").await?;
    let row = rows
        .first()
        .ok_or_else(|| DemoError::Answer("payment_totals is empty".to_owned()))?;
    Ok((number(row, 0)?, number(row, 1)?))
}

fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

fn millis(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1e3)
}
