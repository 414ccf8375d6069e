//! Writers that wait, or are told, while a region behind a slow link is too far behind.

use std::time::{Duration, Instant};

use tokio_postgres::error::{DbError, SqlState};
use tokio_postgres::{Client, Error};

use crate::running::{regions, rows, run, wait_for_rows};

/// Bytes per second of the slow link.
const RATE: u64 = 40_000;
/// Bytes of a row, of which compression leaves half.
const ROW_BYTES: usize = 4_000;

/// A row that compresses badly.
fn insert(table: &str, id: u32) -> String {
    let mut state = u64::from(id).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut hex = String::with_capacity(ROW_BYTES + 16);
    while hex.len() < ROW_BYTES {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        hex.push_str(&format!("{state:016x}"));
    }
    format!("INSERT INTO {table} VALUES ({id}, '{hex}')")
}

/// A writer of the table `shed` was told that a region is too far behind.
fn is_told<'a>(error: &'a Error, region: &str) -> &'a DbError {
    let told = error.as_db_error().expect("an answer of the server");
    assert_eq!(told.code(), &SqlState::CONFIGURATION_LIMIT_EXCEEDED, "{told}");
    let names = |name: &str| told.message().contains(&format!("\"{name}\""));
    assert!(names(region) && names("shed"), "{told}");
    told
}

async fn lag_ms(client: &Client) -> u64 {
    let lag = rows(client, "SELECT lag_ms FROM tributary.links WHERE peer = 'eu'").await;
    lag[0].parse().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_wait_or_are_told_while_a_region_is_too_far_behind() {
    let (cluster, [us, eu]) = regions(["us", "eu"]).await;
    for (table, options) in [
        ("shed", "WITH (backpressure = 'shed', lag_max = '400ms')"),
        ("blocks", "WITH (backpressure = 'block', lag_max = '400ms')"),
        ("free", ""),
    ] {
        let create =
            format!("CREATE TABLE {table} (id int PRIMARY KEY, filling text) LOCALITY GLOBAL {options}");
        run(&us, &create).await;
        wait_for_rows(&eu, &format!("SELECT count(*) FROM {table}"), &["0".to_owned()]).await;
    }
    cluster.set_rate("eu", Some(RATE));

    // One is told after some rows.
    let mut told = None;
    let mut written = 0;
    for id in 0..400 {
        match us.batch_execute(&insert("shed", id)).await {
            Ok(()) => written += 1,
            Err(error) => {
                told = Some(error);
                break;
            }
        }
    }
    let told = told.expect("400 rows are 40 s of the link");
    is_told(&told, "eu");
    assert!(written > 0);
    run(&us, "INSERT INTO free VALUES (1, 'it does not ask')").await;

    // The other waits, so that eu stays near; its clients can go away meanwhile.
    let (mut canceled, mut near) = (0, 0);
    for attempt in 0..6 {
        for row in 0..4 {
            run(&us, &insert("free", 100 + attempt * 4 + row)).await;
        }
        run(&us, "SET statement_timeout = '100ms'").await;
        // Whenever it comes, also while the region is asked: nothing was written.
        match us.batch_execute(&insert("blocks", 1_000_000 + attempt)).await {
            Ok(()) => near += 1,
            Err(error) => {
                assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED), "{error:?}");
                canceled += 1;
            }
        }
        run(&us, "SET statement_timeout = 0").await;
    }
    assert!(canceled >= 3, "eu was behind: {canceled}");
    let (mut slowest, mut most_behind) = (Duration::ZERO, 0);
    let started = Instant::now();
    let mut id = 0;
    while started.elapsed() < Duration::from_secs(5) {
        let statement = Instant::now();
        run(&us, &insert("blocks", id)).await;
        slowest = slowest.max(statement.elapsed());
        most_behind = most_behind.max(lag_ms(&us).await);
        id += 1;
    }
    assert!(
        slowest > Duration::from_millis(50),
        "somebody waited: {slowest:?}"
    );
    assert!(most_behind < 3_000, "eu stays near: {most_behind} ms");
    wait_for_rows(&eu, "SELECT count(*) FROM blocks", &[(id + near).to_string()]).await;
    wait_for_rows(&eu, "SELECT count(*) FROM shed", &[written.to_string()]).await;

    // Whoever is cut off stops nobody, once it counts as gone.
    cluster.set_cut("eu", true);
    let gone = "SELECT state FROM tributary.links WHERE peer = 'eu'";
    wait_for_rows(&us, gone, &["disconnected".to_owned()]).await;
    let statement = Instant::now();
    for id in 2_000_000..2_000_020 {
        run(&us, &insert("blocks", id)).await;
    }
    assert!(
        statement.elapsed() < Duration::from_secs(5),
        "{:?}",
        statement.elapsed()
    );
    cluster.set_rate("eu", None);
    cluster.set_cut("eu", false);
    wait_for_rows(
        &eu,
        "SELECT count(*) FROM blocks",
        &[(id + near + 20).to_string()],
    )
    .await;
    cluster.stop().await.expect("all stop cleanly");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_writes_there_from_elsewhere_is_told_or_waits_too() {
    let (cluster, [us, eu, _ap]) = regions(["us", "eu", "ap"]).await;
    let in_eu = "LOCALITY REGIONAL BY TABLE IN \"eu\"";
    for (table, options) in [
        (
            "shed",
            format!("{in_eu} WITH (backpressure = 'shed', lag_max = '400ms')"),
        ),
        (
            "blocks",
            format!("{in_eu} WITH (backpressure = 'block', lag_max = '400ms')"),
        ),
        ("free", "LOCALITY GLOBAL".to_owned()),
    ] {
        run(
            &us,
            &format!("CREATE TABLE {table} (id int PRIMARY KEY, filling text) {options}"),
        )
        .await;
        wait_for_rows(&eu, &format!("SELECT count(*) FROM {table}"), &["0".to_owned()]).await;
    }
    cluster.set_rate("ap", Some(RATE));
    let (mut written, mut told) = (0, None);
    for id in 0..400 {
        run(&eu, &insert("free", id)).await;
        match us
            .batch_execute(&format!("INSERT INTO shed VALUES ({id}, 'x')"))
            .await
        {
            Ok(()) => written += 1,
            Err(error) => {
                told = Some(error);
                break;
            }
        }
    }
    let told = told.expect("400 rows are 20 s of the link");
    let told = is_told(&told, "ap");
    assert_eq!(told.where_(), Some("in region \"eu\""));
    assert_eq!(
        rows(&us, "SELECT count(*) FROM shed").await,
        [written.to_string()]
    );

    for id in 1_000..1_020 {
        run(&eu, &insert("free", id)).await;
    }
    let statement = Instant::now();
    run(&us, "INSERT INTO blocks VALUES (1, 'x')").await;
    assert!(statement.elapsed() > Duration::from_millis(50), "ap was behind");
    assert_eq!(rows(&eu, "SELECT count(*) FROM blocks").await, ["1"]);
    cluster.set_rate("ap", None);
    cluster.stop().await.expect("all stop cleanly");
}
