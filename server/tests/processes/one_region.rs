//! One region: its life cycle and its disk.

use crate::running::{Running, failed_start, rows, run, wait_for_rows};

const VIEW: &str = "SELECT account, payments, total FROM balances ORDER BY account";

async fn define(running: &Running) {
    let client = running.connect().await;
    run(
        &client,
        "CREATE TABLE payment (id bigint PRIMARY KEY, account text NOT NULL, amount bigint NOT NULL)",
    )
    .await;
    let view = "CREATE MATERIALIZED VIEW balances AS \
                SELECT account, count(*) AS payments, sum(amount) AS total FROM payment GROUP BY account";
    run(&client, view).await;
}

#[tokio::test]
async fn sigterm_checkpoints_and_everything_is_there_after_the_next_start() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let running = Running::start(data.path()).await;
    define(&running).await;
    let client = running.connect().await;
    run(
        &client,
        "INSERT INTO payment VALUES (1, 'ada', 10), (2, 'bob', 5), (3, 'ada', 7)",
    )
    .await;
    run(&client, "UPDATE payment SET amount = 8 WHERE id = 3").await;
    let expected = ["ada|2|18".to_owned(), "bob|1|5".to_owned()];
    wait_for_rows(&client, VIEW, &expected).await;
    drop(client);
    assert_eq!(running.terminate().await, Some(0));

    let running = Running::start(data.path()).await;
    let client = running.connect().await;
    assert_eq!(rows(&client, VIEW).await, expected);
    assert_eq!(
        rows(&client, "SELECT id, amount FROM payment ORDER BY id").await,
        ["1|10", "2|5", "3|8"]
    );
    run(&client, "DELETE FROM payment WHERE id = 2").await;
    wait_for_rows(&client, VIEW, &expected[..1]).await;
    assert_eq!(running.terminate().await, Some(0));
}

#[tokio::test]
async fn kill_9_loses_nothing_that_was_acknowledged() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let mut expected = 0;
    for round in 0..3 {
        let running = Running::start(data.path()).await;
        if round == 0 {
            define(&running).await;
        }
        let client = running.connect().await;
        let counted = rows(&client, "SELECT count(*) FROM payment").await;
        assert_eq!(counted, [expected.to_string()], "round {round}");
        wait_for_rows(
            &client,
            "SELECT coalesce(sum(payments), 0) FROM balances",
            &counted,
        )
        .await;
        for _ in 0..20 {
            run(
                &client,
                &format!("INSERT INTO payment VALUES ({expected}, 'a{}', 1)", expected % 3),
            )
            .await;
            expected += 1;
        }
        running.kill().await;
    }
}

#[tokio::test]
async fn a_second_process_on_the_same_directory_is_refused() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let running = Running::start(data.path()).await;
    let pid = running.child.id().expect("it runs");
    let output = failed_start(data.path()).await;
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        message.contains(&format!("is in use by process {pid}")),
        "{message}"
    );
    assert_eq!(
        rows(&running.connect().await, "SELECT 1").await,
        ["1"],
        "the first one goes on"
    );
    assert_eq!(running.terminate().await, Some(0));
}

#[tokio::test]
async fn a_damaged_log_is_reported_at_start_and_nothing_is_served() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let running = Running::start(data.path()).await;
    define(&running).await;
    let client = running.connect().await;
    for id in 0..50 {
        run(&client, &format!("INSERT INTO payment VALUES ({id}, 'a', 1)")).await;
    }
    running.kill().await;
    // The largest write-ahead file of the log's database holds the records; damage one early on.
    let files = std::fs::read_dir(data.path().join("log")).expect("the log's directory");
    let files = files.map(|file| file.expect("readable").path());
    let wal = files.filter(|path| path.extension().is_some_and(|extension| extension == "log"));
    let wal = wal.max_by_key(|path| path.metadata().map(|metadata| metadata.len()).unwrap_or(0));
    let wal = wal.expect("a write-ahead file");
    let mut bytes = std::fs::read(&wal).expect("readable");
    let middle = bytes.len() / 3;
    bytes[middle] ^= 0x40;
    std::fs::write(&wal, bytes).expect("writable");

    let output = failed_start(data.path()).await;
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(message.contains("corrupt"), "{message}");
    assert!(
        message.contains(&data.path().join("log").display().to_string()),
        "{message}"
    );
    assert!(message.contains("what to do"), "{message}");
}

#[tokio::test]
async fn health_and_metrics_are_served() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let running = Running::start(data.path()).await;
    define(&running).await;
    run(&running.connect().await, "INSERT INTO payment VALUES (1, 'a', 1)").await;
    assert!(running.get("/health/live").await.starts_with("HTTP/1.1 200"));
    assert!(running.get("/health/ready").await.starts_with("HTTP/1.1 200"));
    assert!(running.get("/nothing").await.starts_with("HTTP/1.1 404"));
    let metrics = running.get("/metrics").await;
    let committed = metrics
        .lines()
        .find(|line| line.starts_with("tributary_commits_total{outcome=\"committed\"}"));
    let count = committed
        .and_then(|line| line.rsplit(' ').next())
        .and_then(|count| count.parse::<u64>().ok());
    assert!(count.is_some_and(|count| count >= 3), "{metrics}");
    assert!(metrics.contains("tributary_log_sync_seconds_bucket"), "{metrics}");
    assert!(
        metrics.contains("tributary_view_state_rows{view=\"balances\"}"),
        "{metrics}"
    );
}
