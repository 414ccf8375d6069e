//! Sinks in real processes: what was written, whatever kills the process or takes the directory away.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tributary_server::demo::Cluster;

use crate::running::{Running, rows, run, wait_for_rows};

/// The names of complete segments, in the order of writing.
fn segments(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).expect("a directory");
    let mut names: Vec<String> = entries
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("a name")
        })
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.sort();
    names
}

fn snapshots(directory: &Path) -> usize {
    let names = segments(directory);
    names.iter().filter(|name| name.contains(".snapshot.")).count()
}

/// The rows that all segments add up to, and how often. Each segment has to begin where the one before ended.
fn added_up(directory: &Path) -> BTreeMap<String, i64> {
    let mut sum: BTreeMap<String, i64> = BTreeMap::new();
    let mut end = String::new();
    for name in segments(directory) {
        let parts: Vec<&str> = name.split('.').collect();
        match parts[4].strip_prefix("changes-from-") {
            Some(from) => assert_eq!(from, end, "{name} goes on from the segment before"),
            None => sum.clear(),
        }
        end = parts[3].to_owned();
        let text = std::fs::read_to_string(directory.join(&name)).expect("a file");
        for line in text.lines() {
            let mut row: BTreeMap<String, Value> = serde_json::from_str(line).expect("an object");
            let op = row.remove("tributary_op").expect("what happened");
            row.remove("tributary_position").expect("where");
            let values: Vec<String> = row.values().map(ToString::to_string).collect();
            let weight = if op == "insert" { 1 } else { -1 };
            let count = sum.entry(values.join("|")).or_default();
            *count += weight;
            assert!(
                (0..=1).contains(count),
                "{name}: {values:?} is there {count} times"
            );
        }
    }
    sum.retain(|_, count| *count != 0);
    sum
}

fn as_sum(rows: Vec<String>) -> BTreeMap<String, i64> {
    rows.into_iter().map(|row| (row, 1)).collect()
}

/// Waits until the sink has written the view as it is.
async fn wait_until_written(running: &Running, directory: &Path, sql: &str) {
    let client = running.connect().await;
    let started = std::time::Instant::now();
    loop {
        let wanted = as_sum(rows(&client, sql).await);
        let written = added_up(directory);
        if written == wanted {
            return;
        }
        assert!(
            started.elapsed() < Duration::from_secs(30),
            "{} rows are written, {} are there; {:?}",
            written.len(),
            wanted.len(),
            rows(&client, "SELECT status, error FROM tributary.sinks").await
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until the segments of a directory add up to these rows.
async fn wait_until_added_up(directory: &Path, expected: &[String]) {
    let started = std::time::Instant::now();
    while added_up(directory) != as_sum(expected.to_vec()) {
        assert!(
            started.elapsed() < Duration::from_secs(30),
            "{}",
            directory.display()
        );
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

const VIEW: &str = "CREATE MATERIALIZED VIEW per_k AS SELECT k, sum(v) AS total FROM t GROUP BY k";
const READ: &str = "SELECT k, total FROM per_k";

fn create(directory: &Path) -> String {
    format!(
        "CREATE SINK changes FROM per_k WITH (connector = 'file', path = '{}', format = 'ndjson', \
         interval_ms = '20')",
        directory.display()
    )
}

#[tokio::test]
async fn kill_9_neither_repeats_nor_skips_a_change() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let out = tempfile::tempdir().expect("a temporary directory");
    let mut running = Running::start(data.path()).await;
    let client = running.connect().await;
    run(
        &client,
        "CREATE TABLE t (id BIGINT PRIMARY KEY, k BIGINT, v BIGINT)",
    )
    .await;
    run(&client, "INSERT INTO t VALUES (-1, 1, 1), (-2, 2, 5)").await;
    run(&client, VIEW).await;
    run(&client, &create(out.path())).await;
    wait_until_written(&running, out.path(), READ).await;
    for round in 0_i64..4 {
        let client = running.connect().await;
        for id in round * 200..(round + 1) * 200 {
            let insert = format!("INSERT INTO t VALUES ({id}, {}, {id})", id % 37);
            run(&client, &insert).await;
        }
        run(&client, &format!("DELETE FROM t WHERE id % 5 = {round}")).await;
        // Whatever it is doing right now.
        running.kill().await;
        running = Running::start(data.path()).await;
        wait_until_written(&running, out.path(), READ).await;
    }
    assert_eq!(snapshots(out.path()), 1, "it went on from what it had written");
    assert_eq!(running.terminate().await, Some(0));
    // A clean stop has a checkpoint behind what was written, or at it.
    let running = Running::start(data.path()).await;
    let client = running.connect().await;
    run(&client, "INSERT INTO t VALUES (5000, 5000, 1)").await;
    wait_until_written(&running, out.path(), READ).await;
    assert_eq!(snapshots(out.path()), 1, "it went on after a clean stop too");
    // Segments that were read may go.
    for name in segments(out.path()) {
        std::fs::remove_file(out.path().join(name)).expect("removed");
    }
    running.kill().await;
    let running = Running::start(data.path()).await;
    let client = running.connect().await;
    run(&client, "INSERT INTO t VALUES (6000, 6000, 1)").await;
    let written = "SELECT status, error FROM tributary.sinks";
    wait_for_rows(&client, written, &["running|NULL".to_owned()]).await;
    while segments(out.path()).is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(snapshots(out.path()), 0);
    let text = std::fs::read_to_string(out.path().join(&segments(out.path())[0])).expect("a file");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert_eq!(running.terminate().await, Some(0));
}

#[tokio::test]
async fn a_directory_that_vanishes_fails_the_sink_and_nothing_else() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let out = tempfile::tempdir().expect("a temporary directory");
    let directory = out.path().join("changes");
    std::fs::create_dir(&directory).expect("made");
    let running = Running::start(data.path()).await;
    let client = running.connect().await;
    run(
        &client,
        "CREATE TABLE t (id BIGINT PRIMARY KEY, k BIGINT, v BIGINT)",
    )
    .await;
    run(&client, VIEW).await;
    run(&client, &create(&directory)).await;
    run(&client, "INSERT INTO t VALUES (1, 1, 1)").await;
    wait_until_written(&running, &directory, READ).await;
    let elsewhere = out.path().join("elsewhere");
    std::fs::rename(&directory, &elsewhere).expect("renamed");
    run(&client, "INSERT INTO t VALUES (2, 2, 2)").await;
    let status = "SELECT status, error LIKE '%the directory has to exist%' FROM tributary.sinks";
    wait_for_rows(&client, status, &["failed|t".to_owned()]).await;
    assert_eq!(rows(&client, "SELECT total FROM per_k WHERE k = 2").await, ["2"]);
    // It goes on by itself, without a second snapshot.
    std::fs::rename(&elsewhere, &directory).expect("renamed");
    wait_until_written(&running, &directory, READ).await;
    assert_eq!(snapshots(&directory), 1);
    wait_for_rows(&client, status, &["running|NULL".to_owned()]).await;
    let refused = client.simple_query("DROP MATERIALIZED VIEW per_k").await;
    let refused = refused.expect_err("a sink writes it");
    assert_eq!(refused.code().map(|code| code.code()), Some("2BP01"));
    run(&client, "DROP SINK changes").await;
    assert_eq!(rows(&client, "SELECT name FROM tributary.sinks").await, [""; 0]);
    run(&client, "DROP MATERIALIZED VIEW per_k").await;
    assert_eq!(running.terminate().await, Some(0));
}

#[tokio::test]
async fn each_region_of_a_cluster_writes_what_all_of_them_did() {
    let out = tempfile::tempdir().expect("a temporary directory");
    for name in ["us", "eu"] {
        std::fs::create_dir(out.path().join(name)).expect("made");
    }
    let binary = Path::new(crate::running::BINARY);
    let mut cluster = Cluster::spawn(binary, &["us", "eu"]).await.expect("two regions");
    cluster.wait_ready().await.expect("they are ready");
    let (us, eu) = (
        cluster.connect("us").await.expect("a session"),
        cluster.connect("eu").await.expect("a session"),
    );
    run(
        &us,
        "CREATE TABLE t (id BIGINT PRIMARY KEY, k BIGINT, v BIGINT) LOCALITY REGIONAL BY ROW",
    )
    .await;
    run(&us, VIEW).await;
    run(&us, &create(&out.path().join("{region}"))).await;
    run(
        &us,
        "CREATE SINK counted FROM per_k WITH (connector = 'blackhole', region = 'eu')",
    )
    .await;
    run(&us, "INSERT INTO t VALUES (1, 1, 1), (2, 2, 2)").await;
    wait_for_rows(&eu, "SELECT count(*) FROM per_k", &["2".to_owned()]).await;
    run(&eu, "INSERT INTO t VALUES (3, 1, 10), (4, 4, 4)").await;
    let expected = ["1|11".to_owned(), "2|2".to_owned(), "4|4".to_owned()];
    for (name, client) in [("us", &us), ("eu", &eu)] {
        wait_for_rows(client, "SELECT k, total FROM per_k ORDER BY k", &expected).await;
        wait_until_added_up(&out.path().join(name), &expected).await;
    }
    // A region that was killed goes on from where it was, with what the other did meanwhile.
    cluster.kill("eu").await.expect("it can be killed");
    run(&us, "INSERT INTO t VALUES (5, 1, 100), (6, 6, 6)").await;
    cluster.restart("eu").await.expect("it comes back");
    let eu = cluster.connect("eu").await.expect("a session");
    run(&eu, "DELETE FROM t WHERE id = 4").await;
    let expected = ["1|111".to_owned(), "2|2".to_owned(), "6|6".to_owned()];
    for (name, client) in [("us", &us), ("eu", &eu)] {
        wait_for_rows(client, "SELECT k, total FROM per_k ORDER BY k", &expected).await;
        let directory = out.path().join(name);
        wait_until_added_up(&directory, &expected).await;
        assert_eq!(snapshots(&directory), 1, "{name}");
    }
    let status = "SELECT name, status FROM tributary.sinks ORDER BY name";
    let of = |counted: &str| ["changes|running".to_owned(), format!("counted|{counted}")];
    wait_for_rows(&us, status, &of("elsewhere")).await;
    wait_for_rows(&eu, status, &of("running")).await;
    cluster.stop().await.expect("they stop");
}
