//! Aggregates over rows of other regions: the owners send states of groups, and the answer is that of the rows.

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tributary_server::demo::Cluster;

use crate::running::{regions, rows, run, wait_for_rows};

const REGIONS: [&str; 3] = ["ap", "eu", "us"];
const ROWS: usize = 20_000;
/// No aggregate is pushed below a limit: over this the gateway reads rows.
const OVER_ROWS: &str = "(SELECT id, kind, x, d, f, tributary_region FROM m LIMIT 100000000) m";

/// Three regions with [`ROWS`] rows of `m` each.
async fn with_rows() -> (Cluster, [Client; 3]) {
    let (cluster, clients) = regions(REGIONS).await;
    let table =
        "CREATE TABLE m (id int PRIMARY KEY, kind text, x bigint, d numeric(12,2), f double precision)";
    run(&clients[0], table).await;
    run(
        &clients[0],
        "CREATE MATERIALIZED VIEW n AS SELECT count(*) AS n FROM m",
    )
    .await;
    for (number, client) in clients.iter().enumerate() {
        wait_for_rows(client, "SELECT n FROM n", &[(number * ROWS).to_string()]).await;
        let insert = format!(
            "INSERT INTO m SELECT i, CASE WHEN i % 7 = 0 THEN NULL ELSE 'kind ' || (i % 7) END, \
             i::bigint * {}, i * 0.25, i / 4.0 FROM generate_series(1, {ROWS}) AS s(i)",
            number + 1
        );
        run(client, &insert).await;
    }
    for client in &clients {
        wait_for_rows(client, "SELECT n FROM n", &[(3 * ROWS).to_string()]).await;
    }
    (cluster, clients)
}

/// The plan's lines about other regions.
async fn far_lines(client: &Client, explain: &str) -> Vec<String> {
    let plan = rows(client, explain).await.join("\n");
    let lines = plan.lines().filter(|line| line.contains("FarExec"));
    lines.map(|line| line.trim().to_owned()).collect()
}

/// A figure of EXPLAIN ANALYZE, such as `bytes_received=1.25 K`.
fn figure(line: &str, name: &str) -> f64 {
    let (_, rest) = line
        .split_once(&format!("{name}="))
        .unwrap_or_else(|| panic!("no {name}: {line}"));
    let text = rest.split([',', ']']).next().expect("something follows");
    let mut parts = text.split_whitespace();
    let number: f64 = parts
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("{text}"));
    match parts.next() {
        None | Some("B") => number,
        Some("K" | "KB") => number * 1e3,
        Some("M" | "MB") => number * 1e6,
        Some(other) => panic!("what is {other}?"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn owners_send_states_of_groups_and_the_answer_is_that_of_their_rows() {
    let (cluster, clients) = with_rows().await;
    for query in [
        "SELECT count(*), sum(x), avg(d), min(kind), max(f) FROM",
        "SELECT tributary_region, count(*), sum(x) FROM m GROUP BY 1 ORDER BY 1",
        "SELECT kind, count(*), sum(d), avg(x), min(f), max(id) FROM m WHERE x > 10 GROUP BY kind ORDER BY kind",
        "SELECT kind, count(*) FROM m WHERE id < 5 GROUP BY kind HAVING count(*) > 1 ORDER BY 2, 1",
        "SELECT id % 3, upper(kind), sum(f) FROM m WHERE kind LIKE '%3' OR kind IS NULL GROUP BY 1, 2 ORDER BY 1, 2",
        "SELECT count(*), sum(x) FROM m WHERE id < 0",
        "SELECT k.kind, k.n FROM (SELECT kind, count(*) AS n FROM m GROUP BY kind) k ORDER BY 1 LIMIT 2",
        "SELECT count(*), max(x) FROM m WHERE tributary_region = 'eu'",
    ] {
        let pushed = match query.ends_with("FROM") {
            true => format!("{query} m"),
            false => query.to_owned(),
        };
        let over_rows = pushed.replacen("FROM m", &format!("FROM {OVER_ROWS}"), 1);
        let mut answers = Vec::new();
        for client in &clients {
            let far = far_lines(client, &format!("EXPLAIN {pushed}")).await;
            let is_local = pushed.contains("'eu'") && std::ptr::eq(client, &clients[1]);
            let shown = far
                .iter()
                .all(|line| line.contains("partial aggregation by the owners"));
            assert!(is_local || (shown && !far.is_empty()), "{pushed}: {far:?}");
            let far = far_lines(client, &format!("EXPLAIN {over_rows}")).await;
            assert!(
                far.iter().all(|line| line.contains("columns=")),
                "{over_rows}: {far:?}"
            );
            answers.push(rows(client, &pushed).await);
            answers.push(rows(client, &over_rows).await);
        }
        assert!(
            answers.iter().all(|answer| answer == &answers[0]),
            "{pushed}: {answers:?}"
        );
    }
    let answer = rows(&clients[0], "SELECT count(*), sum(x) FROM m").await;
    assert_eq!(answer, [format!("{}|{}", 3 * ROWS, 6 * ROWS * (ROWS + 1) / 2)]);
    cluster.stop().await.expect("all stop cleanly");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_travels_is_states_and_errors_are_the_statement_s() {
    let (cluster, clients) = with_rows().await;
    let ap = &clients[0];
    let query = "SELECT tributary_region, count(*), sum(x) FROM m GROUP BY 1";
    let pushed = far_lines(ap, &format!("EXPLAIN ANALYZE {query}")).await;
    let over_rows = query.replacen("FROM m", &format!("FROM {OVER_ROWS}"), 1);
    let read = far_lines(ap, &format!("EXPLAIN ANALYZE {over_rows}")).await;
    let ([pushed], [read]) = (&pushed[..], &read[..]) else {
        panic!("one scan each: {pushed:?}, {read:?}");
    };
    assert_eq!(figure(pushed, "output_rows"), 2.0, "{pushed}");
    assert_eq!(figure(read, "output_rows"), 2.0 * ROWS as f64, "{read}");
    let (states, bytes) = (figure(pushed, "bytes_received"), figure(read, "bytes_received"));
    assert!(
        states > 0.0 && states * 20.0 < bytes,
        "{states} and {bytes} bytes"
    );

    let failed = ap
        .simple_query("SELECT sum(100 / (id - 7)) FROM m WHERE tributary_region = 'us'")
        .await;
    let failed = failed.expect_err("it divides by zero there");
    assert_eq!(failed.code(), Some(&SqlState::DIVISION_BY_ZERO));
    cluster.set_cut("eu", true);
    let failed = ap
        .simple_query("SELECT count(*) FROM m")
        .await
        .expect_err("eu is cut off");
    assert_eq!(failed.code(), Some(&SqlState::CANNOT_CONNECT_NOW));
    cluster.set_cut("eu", false);
    cluster.stop().await.expect("all stop cleanly");
}

/// Rows to be joined with `m`, and a view over them.
async fn with_kinds(clients: &[Client; 3]) {
    run(
        &clients[0],
        "CREATE TABLE kinds (kind text PRIMARY KEY, name text, weight int) LOCALITY GLOBAL",
    )
    .await;
    run(
        &clients[0],
        "CREATE VIEW heavy AS SELECT kind FROM kinds WHERE weight > 3",
    )
    .await;
    let insert =
        "INSERT INTO kinds SELECT 'kind ' || i, 'name ' || (i / 2), i FROM generate_series(2, 9) AS s(i)";
    run(&clients[0], insert).await;
    for client in clients {
        wait_for_rows(client, "SELECT count(*) FROM heavy", &["6".to_owned()]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn owners_join_their_rows_with_what_is_sent_there() {
    let (cluster, clients) = with_rows().await;
    with_kinds(&clients).await;
    for query in [
        "SELECT k.name, count(*), sum(x), avg(d * k.weight) FROM m JOIN kinds k ON m.kind = k.kind GROUP BY 1 ORDER BY 1",
        "SELECT k.name, count(*), max(f) FROM m LEFT JOIN kinds k ON m.kind = k.kind AND k.weight < m.id GROUP BY 1 ORDER BY 1",
        "SELECT kind, count(*) FROM m WHERE kind IN (SELECT kind FROM heavy) GROUP BY 1 ORDER BY 1",
        "SELECT tributary_region, count(*) FROM m WHERE NOT EXISTS (SELECT FROM heavy h WHERE h.kind = m.kind) GROUP BY 1 ORDER BY 1",
        "SELECT v.n, sum(x) FROM m JOIN (VALUES ('kind 1', 1), ('kind 2', 2)) AS v (kind, n) ON v.kind = m.kind GROUP BY 1 ORDER BY 1",
    ] {
        let over_rows = query.replacen("FROM m", &format!("FROM {OVER_ROWS}"), 1);
        let mut answers = Vec::new();
        for client in &clients {
            let far = far_lines(client, &format!("EXPLAIN {query}")).await;
            let is_sent = |line: &String| line.contains("with rows sent there");
            assert!(!far.is_empty() && far.iter().all(is_sent), "{query}: {far:?}");
            answers.push(rows(client, query).await);
            answers.push(rows(client, &over_rows).await);
        }
        assert!(answers[0].len() > 1, "{query}");
        assert!(
            answers.iter().all(|answer| answer == &answers[0]),
            "{query}: {answers:?}"
        );
    }

    // What owners join is of the statement's snapshot, with the transaction's own writes.
    let [ap, eu, us] = &clients;
    let named = "SELECT k.name, count(*) FROM m JOIN kinds k ON m.kind = k.kind GROUP BY 1 ORDER BY 1";
    let before = rows(ap, named).await;
    run(ap, "BEGIN").await;
    assert_eq!(rows(ap, named).await, before);
    run(us, "UPDATE kinds SET name = 'other'").await;
    wait_for_rows(eu, "SELECT DISTINCT name FROM kinds", &["other".to_owned()]).await;
    assert_eq!(
        rows(ap, named).await,
        before,
        "although it is another thing there"
    );
    run(ap, "UPDATE kinds SET name = 'mine' WHERE weight > 3").await;
    let mine = rows(ap, named).await;
    assert_eq!(mine.last().map(String::as_str), Some("name 1|17142"));
    assert_eq!(mine[0], "mine|25713");
    run(ap, "ROLLBACK").await;
    wait_for_rows(ap, named, &["other|42855".to_owned()]).await;

    let query = "SELECT k.name, sum(x) FROM m JOIN kinds k ON m.kind = k.kind GROUP BY 1";
    let pushed = far_lines(ap, &format!("EXPLAIN ANALYZE {query}")).await;
    let over_rows = query.replacen("FROM m", &format!("FROM {OVER_ROWS}"), 1);
    let read = far_lines(ap, &format!("EXPLAIN ANALYZE {over_rows}")).await;
    let ([pushed], [read]) = (&pushed[..], &read[..]) else {
        panic!("one scan each: {pushed:?}, {read:?}");
    };
    let travels = figure(pushed, "bytes_sent") + figure(pushed, "bytes_received");
    assert!(
        travels * 20.0 < figure(read, "bytes_received"),
        "{pushed} and {read}"
    );
    cluster.stop().await.expect("all stop cleanly");
}
