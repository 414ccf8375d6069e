//! A file source in a real process: what kill -9 and changed files do to it.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use crate::running::{Running, failed_start, rows, run, wait_for_rows};

const FILES: i64 = 4;
const ROWS_PER_FILE: i64 = 5_000;
const COUNTED: &str = "SELECT n, total FROM counted";

fn write_file(directory: &Path, number: i64) {
    let mut text = String::from("id,amount\n");
    for id in number * ROWS_PER_FILE..(number + 1) * ROWS_PER_FILE {
        text.push_str(&format!("{id},{}\n", id % 10));
    }
    // A file counts as complete once it has its name.
    let unfinished = directory.join("unfinished");
    let mut file = File::create(&unfinished).expect("a file");
    file.write_all(text.as_bytes()).expect("written");
    std::fs::rename(unfinished, directory.join(format!("part-{number}.csv"))).expect("renamed");
}

async fn define(running: &Running, files: &Path) {
    let client = running.connect().await;
    run(
        &client,
        &format!(
            "CREATE SOURCE payments (id bigint, amount bigint) WITH (connector = 'file', \
             path = '{}/part-*.csv', format = 'csv', header = 'true', order_by = 'id', rate = '20000', \
             batch_rows = '200', follow = 'true')",
            files.display()
        ),
    )
    .await;
    let view = "CREATE MATERIALIZED VIEW counted AS \
                SELECT count(*) AS n, sum(amount) AS total FROM payments";
    run(&client, view).await;
}

#[tokio::test]
async fn kill_9_neither_repeats_nor_skips_a_row() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let files = tempfile::tempdir().expect("a temporary directory");
    (0..FILES - 1).for_each(|number| write_file(files.path(), number));
    let mut running = Running::start(data.path()).await;
    define(&running, files.path()).await;
    for round in 1..4 {
        let client = running.connect().await;
        let enough = format!("SELECT events > {} FROM tributary.sources", round * 3_000);
        wait_for_rows(&client, &enough, &["t".to_owned()]).await;
        let seen = rows(&client, "SELECT n = events FROM counted, tributary.sources").await;
        assert_eq!(seen, ["t"], "the view shows what was consumed");
        running.kill().await;
        running = Running::start(data.path()).await;
    }
    write_file(files.path(), FILES - 1);
    let client = running.connect().await;
    let total = FILES * ROWS_PER_FILE;
    let expected = [format!("{total}|{}", total / 10 * 45)];
    wait_for_rows(&client, COUNTED, &expected).await;
    // A view that comes later reads everything again.
    run(
        &client,
        "CREATE MATERIALIZED VIEW again AS SELECT count(*) AS n FROM payments",
    )
    .await;
    wait_for_rows(&client, "SELECT n FROM again", &[total.to_string()]).await;
    assert_eq!(running.terminate().await, Some(0));
}

#[tokio::test]
async fn a_pause_stops_the_source_and_queries_of_it_are_refused() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let files = tempfile::tempdir().expect("a temporary directory");
    write_file(files.path(), 0);
    let running = Running::start(data.path()).await;
    let client = running.connect().await;
    run(
        &client,
        &format!(
            "CREATE SOURCE payments (id bigint, amount bigint) WITH (connector = 'file', \
             path = '{}/part-*.csv', format = 'csv', header = 'true', paused = 'true')",
            files.path().display()
        ),
    )
    .await;
    run(
        &client,
        "CREATE MATERIALIZED VIEW counted AS SELECT count(*) AS n, sum(amount) AS total FROM payments",
    )
    .await;
    let state = "SELECT state, events FROM tributary.sources";
    assert_eq!(rows(&client, state).await, ["paused|0"]);
    let refused = client
        .simple_query("SELECT * FROM payments")
        .await
        .expect_err("its rows are not stored");
    assert_eq!(refused.code().map(|code| code.code()), Some("0A000"));
    run(&client, "ALTER SOURCE payments RESUME").await;
    wait_for_rows(&client, state, &[format!("finished|{ROWS_PER_FILE}")]).await;
    assert_eq!(running.terminate().await, Some(0));
}

#[tokio::test]
async fn a_file_that_changed_is_named_at_the_next_start() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let files = tempfile::tempdir().expect("a temporary directory");
    write_file(files.path(), 0);
    let running = Running::start(data.path()).await;
    define(&running, files.path()).await;
    let client = running.connect().await;
    let consumed = "SELECT events FROM tributary.sources";
    wait_for_rows(&client, consumed, &[ROWS_PER_FILE.to_string()]).await;
    running.kill().await;
    std::fs::write(files.path().join("part-0.csv"), "id,amount\n1,1\n").expect("rewritten");
    let output = failed_start(data.path()).await;
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        message.contains("of source \"payments\" cannot be read again"),
        "{message}"
    );
}
