//! INSERT, UPDATE, DELETE: keys, constraints, defaults, ON CONFLICT, RETURNING.

use super::client::{Server, rows, run, state};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_and_constraints_hold() {
    let server = Server::start().await;
    let client = server.connect().await;
    run(
        &client,
        "CREATE TABLE t (id int PRIMARY KEY, code varchar(3), n smallint NOT NULL DEFAULT 7)",
    )
    .await;
    run(&client, "INSERT INTO t (id, code) VALUES (1, 'abc')").await;
    for (sql, expected) in [
        ("INSERT INTO t VALUES (1, 'x', 1)", "23505"),
        ("INSERT INTO t VALUES (2, 'x', 1), (2, 'y', 1)", "23505"),
        ("INSERT INTO t VALUES (2, 'abcd', 1)", "22001"),
        ("INSERT INTO t VALUES (2, 'x', NULL)", "23502"),
        ("INSERT INTO t VALUES (2, 'x', 40000)", "22003"),
        ("INSERT INTO t VALUES (2, 'x', 'y')", "22P02"),
        ("INSERT INTO t VALUES (2, 'x', 1, 5)", "42601"),
        ("INSERT INTO t (id, nope) VALUES (2, 1)", "42703"),
        ("UPDATE t SET n = NULL", "23502"),
        ("INSERT INTO nope VALUES (1)", "42P01"),
    ] {
        assert_eq!(state(&client, sql).await, expected, "{sql}");
    }
    assert_eq!(rows(&client, "SELECT * FROM t").await, ["1|abc|7"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conflicts_are_skipped_or_merged() {
    let server = Server::start().await;
    let client = server.connect().await;
    run(&client, "CREATE TABLE t (id int PRIMARY KEY, n int)").await;
    run(&client, "INSERT INTO t VALUES (1, 10)").await;
    let skipped = rows(
        &client,
        "INSERT INTO t VALUES (1, 0), (2, 20) ON CONFLICT DO NOTHING RETURNING id",
    )
    .await;
    assert_eq!(skipped, ["2"]);
    let upsert = "INSERT INTO t VALUES (1, 5), (3, 30) ON CONFLICT (id) DO UPDATE SET n = t.n + excluded.n RETURNING *";
    let mut merged = rows(&client, upsert).await;
    merged.sort();
    assert_eq!(merged, ["1|15", "3|30"]);
    let twice = "INSERT INTO t VALUES (1, 5), (1, 6) ON CONFLICT (id) DO UPDATE SET n = excluded.n";
    assert_eq!(state(&client, twice).await, "21000");
    assert_eq!(
        rows(&client, "SELECT * FROM t ORDER BY id").await,
        ["1|15", "2|20", "3|30"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_move_and_rows_go() {
    let server = Server::start().await;
    let client = server.connect().await;
    run(&client, "CREATE TABLE t (id int PRIMARY KEY, name text)").await;
    run(&client, "INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c')").await;
    run(&client, "UPDATE t SET id = id + 1").await;
    assert_eq!(
        rows(&client, "SELECT * FROM t ORDER BY id").await,
        ["2|a", "3|b", "4|c"]
    );
    assert_eq!(state(&client, "UPDATE t SET id = 4 WHERE id = 2").await, "23505");
    assert_eq!(
        rows(&client, "DELETE FROM t WHERE name > 'a' RETURNING id")
            .await
            .len(),
        2
    );
    assert_eq!(rows(&client, "SELECT * FROM t").await, ["2|a"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_without_a_key_keep_equal_rows() {
    let server = Server::start().await;
    let client = server.connect().await;
    run(
        &client,
        "CREATE TABLE t (n int, at timestamptz DEFAULT now(), id uuid DEFAULT gen_random_uuid())",
    )
    .await;
    run(&client, "INSERT INTO t (n) VALUES (1), (1)").await;
    run(&client, "INSERT INTO t (n) SELECT n FROM t").await;
    assert_eq!(
        rows(&client, "SELECT count(*), count(DISTINCT id), count(at) FROM t").await,
        ["4|4|4"]
    );
    assert_eq!(
        rows(&client, "SELECT * FROM t LIMIT 1").await[0]
            .split('|')
            .count(),
        3,
        "hidden columns are hidden"
    );
}
