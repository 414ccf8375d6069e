//! First part: events in three regions, views over all of them, and a recomputation that has to agree.

use std::time::{Duration, Instant};

use super::super::cluster::Cluster;
use super::super::oracle::{Rows, VIEWS, number, query, read_view};
use super::super::progress::Progress;
use super::super::report::{Report, human_bytes};
use super::super::{DemoArgs, DemoError, raw};
use super::seconds;
use crate::source::nexmark::BATCH_EVENTS_MAX;

const CATEGORIES: [(u32, &str); 5] = [
    (10, "art"),
    (11, "books"),
    (12, "cars"),
    (13, "music"),
    (14, "wine"),
];
/// Events per second of the whole source; what the machine makes of them is measured.
const SOURCE_RATE: u64 = 100_000;
const LOAD_MAX: Duration = Duration::from_secs(600);
const SETTLE_MAX: Duration = Duration::from_secs(60);

pub(super) async fn tell(
    args: &DemoArgs,
    cluster: &Cluster,
    progress: &Progress,
    report: &mut Report,
) -> Result<(), DemoError> {
    let step = progress.step("creating tables");
    define_tables(cluster).await?;
    step.done("done");

    let (bids, auctions) = expected_events(args.events);
    // From here on: the source starts to fill its tables as soon as it exists, before the views do.
    let before = cluster.wire_bytes();
    let started = Instant::now();
    define_source_and_views(args, cluster).await?;
    load(args, cluster, progress, started, bids, auctions).await?;
    let loading = started.elapsed();
    let shipped = cluster.wire_bytes() - before;
    report.figure("Nexmark events, over three regions", args.events.to_string());
    report.figure(
        "time from CREATE SOURCE until every region shows all of them",
        seconds(loading),
    );
    let rate = args.events as f64 / loading.as_secs_f64();
    report.figure(
        "events per second",
        format!("{rate:.0} (the source makes {SOURCE_RATE} at most)"),
    );

    compare(cluster, progress, report, bids + auctions).await?;
    bytes(args, progress, report, shipped).await
}

async fn define_tables(cluster: &Cluster) -> Result<(), DemoError> {
    let us = cluster.connect("us").await?;
    us.batch_execute("CREATE TABLE category (id bigint PRIMARY KEY, name text NOT NULL) LOCALITY GLOBAL")
        .await?;
    for (id, name) in CATEGORIES {
        us.batch_execute(&format!("INSERT INTO category VALUES ({id}, '{name}')"))
            .await?;
    }
    us.batch_execute(
        "CREATE TABLE payment (id bigint PRIMARY KEY, account bigint NOT NULL, amount bigint NOT NULL)",
    )
    .await?;
    us.batch_execute(
        "CREATE MATERIALIZED VIEW payment_totals AS SELECT count(*) AS payments, sum(amount) AS total FROM payment",
    )
    .await?;
    us.batch_execute(
        "CREATE MATERIALIZED VIEW balances AS SELECT account, count(*) AS payments, sum(amount) AS total \
         FROM payment GROUP BY account",
    )
    .await?;
    Ok(())
}

async fn define_source_and_views(args: &DemoArgs, cluster: &Cluster) -> Result<(), DemoError> {
    let us = cluster.connect("us").await?;
    us.batch_execute(&format!(
        "CREATE SOURCE nexmark WITH (connector = 'nexmark', events = {}, rate = {SOURCE_RATE})",
        args.events
    ))
    .await?;
    for view in VIEWS {
        us.batch_execute(&format!("CREATE MATERIALIZED VIEW {} AS {}", view.name, view.sql))
            .await?;
    }
    Ok(())
}

/// Bids and auctions among the first `events`: of every fifty, one is a person and three are auctions.
fn expected_events(events: u64) -> (u64, u64) {
    let (rounds, rest) = (events / 50, events % 50);
    (
        rounds * 46 + rest.saturating_sub(4),
        rounds * 3 + rest.saturating_sub(1).min(3),
    )
}

async fn load(
    args: &DemoArgs,
    cluster: &Cluster,
    progress: &Progress,
    started: Instant,
    bids: u64,
    auctions: u64,
) -> Result<(), DemoError> {
    let step = progress.counted("generating Nexmark events", args.events);
    for region in cluster.names() {
        let client = cluster.connect(&region).await?;
        loop {
            let sql = "SELECT (SELECT coalesce(sum(bids), 0) FROM bids_by_channel), \
                       (SELECT coalesce(sum(auctions), 0) FROM auctions_by_category)";
            match query(&client, sql).await {
                Ok(rows) => {
                    let row = rows
                        .first()
                        .ok_or_else(|| DemoError::Answer("no row".to_owned()))?;
                    let seen = (number(row, 0)?, number(row, 1)?);
                    step.set(u64::try_from(seen.0 * 50 / 46).unwrap_or(0).min(args.events));
                    if seen == (i128::from(bids), i128::from(auctions)) {
                        break;
                    }
                }
                // Not every member is attached yet.
                Err(error) if is_not_ready(&error) => {}
                Err(error) => return Err(error),
            }
            if started.elapsed() > LOAD_MAX {
                let what = format!("all events in the views at {region}");
                return Err(DemoError::Timeout {
                    what,
                    seconds: LOAD_MAX.as_secs(),
                });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    step.done(&format!(
        "all in all regions after {}",
        seconds(started.elapsed())
    ));
    Ok(())
}

fn is_not_ready(error: &DemoError) -> bool {
    use tokio_postgres::error::SqlState;
    let DemoError::Sql(error) = error else {
        return false;
    };
    let states = [
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        SqlState::UNDEFINED_TABLE,
    ];
    error.code().is_some_and(|code| states.contains(code))
}

async fn compare(
    cluster: &Cluster,
    progress: &Progress,
    report: &mut Report,
    events: u64,
) -> Result<(), DemoError> {
    let step = progress.step("recomputing every view from the rows of all regions");
    let mut rows = Rows::default();
    for region in cluster.names() {
        rows.read_region(&cluster.connect(&region).await?).await?;
    }
    rows.read_global(&cluster.connect("us").await?).await?;
    report.check(
        "bids and auctions stored, each in one region",
        rows.len() as u64 == events,
        format!("{} of {events}", rows.len()),
    );
    let mut differing = Vec::new();
    let mut groups = 0;
    for (view, expected) in VIEWS.iter().zip(rows.expected()) {
        groups += expected.len();
        for region in cluster.names() {
            let client = cluster.connect(&region).await?;
            let started = Instant::now();
            // The counts are complete, yet a group's last change may still be on its way.
            while read_view(&client, view.name).await? != expected {
                if started.elapsed() > SETTLE_MAX {
                    differing.push(format!("{} at {region}", view.name));
                    break;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    let figure = match differing.is_empty() {
        true => format!(
            "{} views, {groups} groups, in {} regions",
            VIEWS.len(),
            cluster.names().len()
        ),
        false => format!("differing: {}", differing.join(", ")),
    };
    report.check(
        "views equal to a recomputation from all rows",
        differing.is_empty(),
        figure.clone(),
    );
    step.done(&figure);
    Ok(())
}

async fn bytes(
    args: &DemoArgs,
    progress: &Progress,
    report: &mut Report,
    shipped: u64,
) -> Result<(), DemoError> {
    let step = progress.step("compressing the raw rows for comparison");
    let events = args.events;
    let measured = tokio::task::spawn_blocking(move || raw::measure(events, BATCH_EVENTS_MAX)).await;
    let raw = measured.map_err(|error| DemoError::Answer(error.to_string()))??;
    // Each row would have to go to the two regions that do not own it.
    let (whole, used) = (raw.whole * 2, raw.used * 2);
    let times = |bytes: u64| {
        format!(
            "{} ({:.1} times)",
            human_bytes(bytes),
            bytes as f64 / shipped as f64
        )
    };
    report.figure("bytes between regions for the three views", human_bytes(shipped));
    report.figure("  raw rows instead, Arrow and zstd", times(whole));
    report.figure("  only the columns the views read", times(used));
    let less = shipped > 0 && shipped < whole;
    report.check("aggregates ship less than their raw rows", less, times(whole));
    step.done("measured");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::expected_events;

    #[test]
    fn events_by_kind_add_up() {
        assert_eq!(expected_events(300_000), (276_000, 18_000));
        assert_eq!(expected_events(0), (0, 0));
        assert_eq!(expected_events(1), (0, 0));
        assert_eq!(expected_events(4), (0, 3));
        assert_eq!(expected_events(52), (46, 4));
    }
}
