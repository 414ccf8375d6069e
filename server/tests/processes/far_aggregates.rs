//! Aggregates over rows of other regions: the owners send states of groups, and the answer is that of the rows.

use std::path::Path;

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tributary_server::demo::Cluster;

use crate::running::{BINARY, rows, run, wait_for_rows};

const REGIONS: [&str; 3] = ["ap", "eu", "us"];
const ROWS: usize = 20_000;
/// No aggregate is pushed below a limit: over this the gateway reads rows.
const OVER_ROWS: &str = "(SELECT id, kind, x, d, f, tributary_region FROM m LIMIT 100000000) m";

/// Three regions with [`ROWS`] rows of `m` each.
async fn with_rows() -> (Cluster, Vec<Client>) {
    let mut cluster = Cluster::spawn(Path::new(BINARY), &REGIONS)
        .await
        .expect("three processes");
    cluster.wait_ready().await.expect("they find each other");
    let mut clients = Vec::new();
    for region in REGIONS {
        clients.push(cluster.connect(region).await.expect("the region answers"));
    }
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
