//! Transactions: snapshots, own writes, conflicts, errors within.

use super::client::{Server, rows, run, state};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_reads_one_snapshot_and_its_own_writes() {
    let server = Server::start().await;
    let (one, two) = (server.connect().await, server.connect().await);
    run(&one, "CREATE TABLE t (id int PRIMARY KEY, n int)").await;
    run(&one, "INSERT INTO t VALUES (1, 10)").await;
    run(&two, "BEGIN").await;
    assert_eq!(rows(&two, "SELECT n FROM t").await, ["10"]);
    run(&one, "INSERT INTO t VALUES (2, 20)").await;
    assert_eq!(rows(&two, "SELECT n FROM t").await, ["10"], "the snapshot stays");
    run(
        &two,
        "INSERT INTO t VALUES (3, 30); UPDATE t SET n = 11 WHERE id = 1; DELETE FROM t WHERE id = 3",
    )
    .await;
    assert_eq!(
        rows(&two, "SELECT n FROM t WHERE id = 1").await,
        ["11"],
        "own writes are seen"
    );
    assert_eq!(
        rows(&one, "SELECT n FROM t ORDER BY id").await,
        ["10", "20"],
        "and by nobody else"
    );
    run(&two, "COMMIT").await;
    assert_eq!(rows(&two, "SELECT n FROM t ORDER BY id").await, ["11", "20"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_second_of_two_conflicting_transactions_fails() {
    let server = Server::start().await;
    let (one, two) = (server.connect().await, server.connect().await);
    run(&one, "CREATE TABLE t (id int PRIMARY KEY, n int)").await;
    run(&one, "INSERT INTO t VALUES (1, 10)").await;
    run(&one, "BEGIN; UPDATE t SET n = n + 1").await;
    run(&two, "BEGIN; UPDATE t SET n = n + 1").await;
    run(&one, "COMMIT").await;
    assert_eq!(state(&two, "COMMIT").await, "40001");
    assert_eq!(rows(&two, "SELECT n FROM t").await, ["11"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_alone_run_again_until_nothing_is_lost() {
    let server = Server::start().await;
    let setup = server.connect().await;
    run(&setup, "CREATE TABLE t (id int PRIMARY KEY, n int)").await;
    run(&setup, "INSERT INTO t VALUES (1, 0)").await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        let client = server.connect().await;
        clients.push(tokio::spawn(async move {
            for _ in 0..10 {
                run(&client, "UPDATE t SET n = n + 1 WHERE id = 1").await;
            }
        }));
    }
    for client in clients {
        client.await.expect("no update is refused");
    }
    assert_eq!(rows(&setup, "SELECT n FROM t").await, ["40"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_an_error_only_rollback_helps() {
    let server = Server::start().await;
    let client = server.connect().await;
    run(&client, "CREATE TABLE t (id int PRIMARY KEY)").await;
    run(&client, "BEGIN; INSERT INTO t VALUES (1)").await;
    assert_eq!(state(&client, "SELECT 1 / 0").await, "22012");
    assert_eq!(state(&client, "SELECT 1").await, "25P02");
    run(&client, "COMMIT").await;
    assert!(
        rows(&client, "SELECT * FROM t").await.is_empty(),
        "COMMIT of a failed transaction rolls back"
    );
    assert_eq!(
        state(&client, "INSERT INTO t VALUES (2); SELECT 1 / 0").await,
        "22012"
    );
    assert!(
        rows(&client, "SELECT * FROM t").await.is_empty(),
        "a query string is one transaction"
    );
    assert_eq!(state(&client, "BEGIN; CREATE TABLE u (id int)").await, "0A000");
    run(&client, "ROLLBACK").await;
    run(&client, "BEGIN READ ONLY").await;
    assert_eq!(state(&client, "INSERT INTO t VALUES (3)").await, "25006");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_a_table_that_is_enforced_meanwhile_are_not_copied_out_of_it() {
    let server = Server::start().await;
    let (one, two) = (server.connect().await, server.connect().await);
    for table in ["people", "open"] {
        run(
            &one,
            &format!("CREATE TABLE {table} (id int PRIMARY KEY, name text)"),
        )
        .await;
    }
    run(&one, "INSERT INTO people VALUES (1, 'ada')").await;
    let copy = "INSERT INTO open SELECT id, name FROM people";
    run(&two, &format!("BEGIN; {copy}")).await;
    run(&one, "ALTER TABLE people SET (residency = 'enforced')").await;
    assert_eq!(state(&two, "COMMIT").await, "40001");
    assert_eq!(state(&two, copy).await, "42501", "run again, it knows why");
    assert_eq!(rows(&two, "SELECT count(*) FROM open").await, ["0"]);

    run(&one, "ALTER TABLE people RESET (residency)").await;
    run(&two, &format!("BEGIN; {copy}")).await;
    run(&one, "ALTER TABLE people SET (lag_max = '7s')").await;
    run(&two, "COMMIT").await;
    assert_eq!(
        rows(&two, "SELECT name FROM open").await,
        ["ada"],
        "another option"
    );
}
