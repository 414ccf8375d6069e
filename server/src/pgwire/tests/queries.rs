//! SELECT: types, functions, errors with their states and positions.

use super::client::{Server, rows, run, state};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_of_every_type_come_out_as_postgres_writes_them() {
    let server = Server::start().await;
    let client = server.connect().await;
    for (sql, expected) in [
        (
            "SELECT 1, 2147483648, 1.50, 'a', true, NULL",
            "1|2147483648|1.50|a|t|NULL",
        ),
        ("SELECT 7 / 2, -7 / 2, 7 % 3", "3|-3|1"),
        (
            "SELECT '2024-02-29'::date, '2024-02-29 12:00'::timestamp",
            "2024-02-29|2024-02-29 12:00:00",
        ),
        (
            "SELECT '00112233-4455-6677-8899-aabbccddeeff'::uuid",
            "00112233-4455-6677-8899-aabbccddeeff",
        ),
        (
            "SELECT '\\x00ff'::bytea, '1 day 2 hours'::interval",
            "\\x00ff|1 day 02:00:00",
        ),
        (
            "SELECT 2.5::int, 3.5::float8::int, true::text, '7'::int + 1",
            "3|4|true|8",
        ),
        (
            "SELECT count(*), sum(x), avg(x), min(x) FROM (VALUES (1), (2)) AS t(x)",
            "2|3|1.5000000000000000|1",
        ),
        (
            "SELECT gateway_region(), current_database(), current_schema(), current_user",
            "here|tributary|public|ada",
        ),
        ("SELECT 'x' WHERE DATE '2024-01-02' > '2024-01-01'", "x"),
    ] {
        assert_eq!(rows(&client, sql).await, [expected], "{sql}");
    }
    run(&client, "SET TimeZone = 'Europe/Berlin'").await;
    assert_eq!(
        rows(&client, "SELECT '2024-07-01 12:00'::timestamptz").await,
        ["2024-07-01 12:00:00+02"]
    );
    let frontier = rows(&client, "SELECT tributary_frontier()").await;
    assert!(frontier[0].starts_with("{here: "), "{frontier:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_have_states_and_the_connection_goes_on() {
    let server = Server::start().await;
    let client = server.connect().await;
    run(&client, "CREATE TABLE t (id int PRIMARY KEY, name text)").await;
    for (sql, expected) in [
        ("SELEC 1", "42601"),
        ("SELECT * FROM nope", "42P01"),
        ("SELECT nope FROM t", "42703"),
        ("SELECT nope(1)", "42883"),
        ("SELECT 1 / 0", "22012"),
        ("SELECT 2147483647 + 1", "22003"),
        ("SELECT 9223372036854775807 * 2", "22003"),
        ("SELECT 'x'::int", "22P02"),
        ("SELECT '99999999999'::int", "22003"),
        ("SELECT 'nonsense'::date", "22007"),
        ("SELECT a.id FROM t a, t b WHERE id = 1", "42702"),
        ("SELECT id, count(*) FROM t", "42803"),
        ("SHOW nope", "42704"),
        ("LISTEN x", "0A000"),
        ("SAVEPOINT s", "0A000"),
        ("SELECT * FROM t FOR UPDATE", "0A000"),
    ] {
        assert_eq!(state(&client, sql).await, expected, "{sql}");
    }
    assert_eq!(rows(&client, "SELECT 1").await, ["1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_column_has_its_position_and_a_hint() {
    let server = Server::start().await;
    let client = server.connect().await;
    run(&client, "CREATE TABLE t (id int PRIMARY KEY, amount int)").await;
    let error = client
        .simple_query("SELECT id, amuont FROM t")
        .await
        .expect_err("no such column");
    let error = error.as_db_error().expect("of the server").clone();
    assert_eq!(
        error.position(),
        Some(&tokio_postgres::error::ErrorPosition::Original(12))
    );
    assert!(
        error.hint().is_some_and(|hint| hint.contains("amount")),
        "{error:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn views_and_system_tables_are_read_like_tables() {
    let server = Server::start().await;
    let client = server.connect().await;
    run(&client, "CREATE TABLE t (id int PRIMARY KEY, grp text, n int)").await;
    run(
        &client,
        "INSERT INTO t VALUES (1, 'a', 10), (2, 'b', 20), (3, 'a', 30)",
    )
    .await;
    run(&client, "CREATE VIEW v AS SELECT grp, n FROM t WHERE n > 10").await;
    run(
        &client,
        "CREATE VIEW w (g, total) AS SELECT grp, sum(n) FROM v GROUP BY grp",
    )
    .await;
    run(
        &client,
        "CREATE MATERIALIZED VIEW m AS SELECT grp, count(*) AS c, sum(n) AS s FROM t GROUP BY grp",
    )
    .await;
    assert_eq!(
        rows(&client, "SELECT * FROM w ORDER BY g").await,
        ["a|30", "b|20"]
    );
    assert_eq!(
        rows(&client, "SELECT * FROM m ORDER BY grp").await,
        ["a|2|40", "b|1|20"]
    );
    assert_eq!(
        rows(&client, "SELECT name, state FROM tributary.materialized_views").await,
        ["m|ready"]
    );
    assert_eq!(
        rows(&client, "SELECT name FROM tributary.regions").await,
        ["here"]
    );
    assert_eq!(rows(&client, "SHOW TABLES").await.len(), 1);
    for table in ["errors", "frontier", "links", "sources", "tables"] {
        rows(&client, &format!("SELECT * FROM tributary.{table}")).await;
    }
    let region = rows(&client, "SELECT *, tributary_region FROM t WHERE id = 1").await;
    assert_eq!(region, ["1|a|10|here"]);
    assert_eq!(rows(&client, "SELECT * FROM t WHERE id = 2").await, ["2|b|20"]);
    assert!(!rows(&client, "EXPLAIN SELECT * FROM t").await.is_empty());
    assert!(!rows(&client, "EXPLAIN MATERIALIZED VIEW m").await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deep_and_long_statements_are_refused() {
    let server = Server::start().await;
    let client = server.connect().await;
    let deep = format!("SELECT {}1{}", "(".repeat(100_000), ")".repeat(100_000));
    assert_eq!(state(&client, &deep).await, "54001");
    let wide = format!("SELECT 1{}", " + 1".repeat(100_000));
    assert!(["54000", "54001"].contains(&state(&client, &wide).await.as_str()));
    assert_eq!(rows(&client, "SELECT 1").await, ["1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_with_subqueries_are_any_number_of_rows_in_their_order() {
    let server = Server::start().await;
    let client = server.connect().await;
    let many: String = (0..20_000).map(|n| format!("({n}),")).collect();
    let sql = format!("VALUES {many} ((SELECT 20000)), (20001), ((SELECT 20002 + 0))");
    let expected: Vec<String> = (0..20_003).map(|n| n.to_string()).collect();
    assert!(rows(&client, &sql).await == expected);
    run(&client, "CREATE TABLE t (id int PRIMARY KEY, name text)").await;
    let inserted = "INSERT INTO t VALUES (3, (SELECT 'c')), (1, 'a'), (2, NULL) RETURNING id, name";
    assert_eq!(rows(&client, inserted).await, ["3|c", "1|a", "2|NULL"]);
    let computed: Vec<String> = (0..251).map(|n| format!("((SELECT {n}))")).collect();
    assert_eq!(
        rows(&client, &format!("VALUES {}", computed[1..].join(",")))
            .await
            .len(),
        250
    );
    assert_eq!(
        state(&client, &format!("VALUES {}", computed.join(","))).await,
        "54001"
    );
    assert_eq!(state(&client, "VALUES (1), ((SELECT 2), 3)").await, "42601");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sample_of_a_table_is_refused() {
    let server = Server::start().await;
    let client = server.connect().await;
    run(&client, "CREATE TABLE t (id int PRIMARY KEY)").await;
    for sql in [
        "SELECT count(*) FROM t TABLESAMPLE SYSTEM (0)",
        "SELECT 1 WHERE EXISTS (SELECT 1 FROM t TABLESAMPLE BERNOULLI (10))",
    ] {
        assert_eq!(state(&client, sql).await, "0A000");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_meets_no_row_of_this_region_of_several_says_so() {
    let server = Server::with(&["there"], Default::default()).await;
    let config = format!("host=127.0.0.1 port={} user=ada", server.port);
    let (client, mut connection) = tokio_postgres::connect(&config, tokio_postgres::NoTls)
        .await
        .expect("let in");
    let (sender, mut notices) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = std::future::poll_fn(|context| connection.poll_message(context)).await {
            if let tokio_postgres::AsyncMessage::Notice(notice) = message {
                let _ = sender.send(notice.message().to_string());
            }
        }
    });
    run(&client, "CREATE TABLE t (id int PRIMARY KEY)").await;
    run(&client, "INSERT INTO t VALUES (1)").await;
    assert_eq!(rows(&client, "SELECT * FROM t").await, ["1"]);
    assert!(notices.try_recv().is_err(), "nothing is to be said of a read");
    run(&client, "DELETE FROM t WHERE id = 2").await;
    let notice = notices.try_recv().expect("a notice");
    assert!(notice.contains("no row of region \"here\" matched"), "{notice}");
}
