//! A range that is too large for one bundle, over a slow link that is cut, between processes that are killed.

use std::time::Duration;

use tokio_postgres::Client;
use tributary_server::demo::Cluster;

use crate::running::{regions, rows, run, wait_for_rows, wait_until};

/// Rows of 3,200 bytes: 45 MB, where a bundle has at most 32.
const ROWS: u32 = 14_000;
/// Bytes per second of the slow link. On the wire the rows are about 2 % of their size.
const RATE: u64 = 120_000;
const ALL: &str = "SELECT count(*), count(DISTINCT filling) FROM big";
const VIEW: &str = "SELECT n, bytes FROM sizes";

/// Chunks of a stage that `eu` has durably, as `us` knows; `None` without one.
async fn staged(us: &Client) -> Option<u32> {
    let staged = rows(us, "SELECT staged_chunks FROM tributary.links WHERE peer = 'eu'").await;
    staged[0].parse().ok()
}

async fn wait_for_chunks(us: &Client, more_than: u32) -> u32 {
    let grown = || async {
        let chunks = staged(us).await;
        chunks
            .filter(|chunks| *chunks > more_than)
            .ok_or_else(|| format!("{chunks:?} chunks, not more than {more_than}"))
    };
    wait_until(grown).await
}

/// Two regions that have a table, of which `eu` lacks everything that is in it.
async fn apart() -> (Cluster, Client) {
    let (cluster, [us, eu]) = regions(["us", "eu"]).await;
    for statement in [
        "CREATE TABLE big (id int PRIMARY KEY, filling text) LOCALITY GLOBAL",
        "CREATE TABLE own (id int PRIMARY KEY) LOCALITY GLOBAL",
        "CREATE MATERIALIZED VIEW sizes AS SELECT count(*) AS n, sum(length(filling)) AS bytes FROM big",
    ] {
        run(&us, statement).await;
    }
    wait_for_rows(&eu, VIEW, &["0|NULL".to_owned()]).await;
    cluster.set_cut("eu", true);
    for first in (1..ROWS).step_by(2_000) {
        let fill = format!(
            "INSERT INTO big SELECT n, repeat(md5(n::text), 100) FROM generate_series({first}, {}) AS s(n)",
            first + 1_999
        );
        run(&us, &fill).await;
    }
    cluster.set_rate("eu", Some(RATE));
    cluster.set_cut("eu", false);
    (cluster, us)
}

/// What a reader in `eu` sees is nothing of the stage or all of it, and what is written there goes on.
async fn nothing_is_torn(eu: &Client, id: u32) {
    run(eu, &format!("INSERT INTO own VALUES ({id})")).await;
    for (sql, nothing, everything) in [
        (ALL, "0|0", format!("{ROWS}|{ROWS}")),
        (VIEW, "0|NULL", format!("{ROWS}|{}", ROWS * 3_200)),
    ] {
        let seen = rows(eu, sql).await;
        assert!(seen == [nothing] || seen == [everything], "{sql}: {seen:?}");
    }
}

async fn all_arrives(cluster: &Cluster, own: u32) {
    cluster.set_rate("eu", None);
    for region in ["us", "eu"] {
        let client = cluster.connect(region).await.expect("the region answers");
        wait_for_rows(&client, ALL, &[format!("{ROWS}|{ROWS}")]).await;
        wait_for_rows(&client, VIEW, &[format!("{ROWS}|{}", ROWS * 3_200)]).await;
        wait_for_rows(&client, "SELECT count(*) FROM own", &[own.to_string()]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stage_goes_on_where_it_was_after_cuts_and_a_killed_receiver() {
    let (mut cluster, us) = apart().await;
    let mut had = wait_for_chunks(&us, 0).await;
    for round in 0..2 {
        cluster.set_cut("eu", true);
        // What changes meanwhile comes with the chunk that seals.
        run(
            &us,
            &format!("UPDATE big SET filling = filling WHERE id = {}", round + 1),
        )
        .await;
        let eu = cluster.connect("eu").await.expect("eu answers");
        nothing_is_torn(&eu, round).await;
        cluster.set_cut("eu", false);
        let chunks = wait_for_chunks(&us, had).await;
        assert!(chunks > had, "{chunks} after {had}");
        had = chunks;
    }
    for round in 2..4 {
        let before = staged(&us).await.expect("a stage is under way");
        assert!(before >= had, "{before} after {had}");
        cluster.kill("eu").await.expect("it can be killed");
        cluster.restart("eu").await.expect("it comes back");
        let eu = cluster.connect("eu").await.expect("eu answers");
        nothing_is_torn(&eu, round).await;
        had = wait_for_chunks(&us, before).await;
    }
    all_arrives(&cluster, 4).await;
    // The sender learns of it a little later than a reader of the receiver.
    let let_go = || async {
        staged(&us)
            .await
            .map_or(Ok(()), |chunks| Err(format!("{chunks} chunks of a stage")))
    };
    wait_until(let_go).await;
    cluster.stop().await.expect("all stop cleanly");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_is_killed_begins_its_stage_again() {
    let (mut cluster, us) = apart().await;
    wait_for_chunks(&us, 3).await;
    cluster.kill("us").await.expect("it can be killed");
    let eu = cluster.connect("eu").await.expect("eu answers");
    nothing_is_torn(&eu, 1).await;
    cluster.restart("us").await.expect("it comes back");
    let us = cluster.connect("us").await.expect("us answers");
    wait_for_chunks(&us, 0).await;
    nothing_is_torn(&eu, 2).await;
    // And once more, with its receiver.
    cluster.kill("us").await.expect("it can be killed");
    cluster.kill("eu").await.expect("it can be killed");
    tokio::time::sleep(Duration::from_millis(50)).await;
    cluster.restart("eu").await.expect("it comes back");
    cluster.restart("us").await.expect("it comes back");
    all_arrives(&cluster, 2).await;
    cluster.stop().await.expect("all stop cleanly");
}
