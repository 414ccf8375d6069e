//! Queries that are answered without a plan give what planned ones give.

use datafusion::arrow::array::RecordBatch;
use datafusion::sql::sqlparser::ast;
use futures::TryStreamExt;
use tributary_planner::parse::{Statement, parse};

use super::client::{Server, rows, run, state};
use crate::query::lookup::Lookup;
use crate::query::reader::Writes;
use crate::query::relation::Exposed;
use crate::query::schema::PublicSchema;
use crate::session::backend::Backend;

const SCHEMA: &str = "CREATE TABLE t (id int, kind text, n smallint, big bigint, flag boolean, \"Odd\" text, \
    at timestamp, PRIMARY KEY (id, kind)); \
    CREATE TABLE u (id bigint PRIMARY KEY, name varchar(10)) LOCALITY GLOBAL; \
    CREATE MATERIALIZED VIEW v AS SELECT kind, n, flag, count(*) AS rows, max(id) AS id FROM t GROUP BY kind, n, flag; \
    CREATE MATERIALIZED VIEW bag AS SELECT kind, n FROM t; \
    CREATE VIEW plain AS SELECT * FROM u";

async fn filled() -> Server {
    let server = Server::start().await;
    let client = server.connect().await;
    run(&client, SCHEMA).await;
    let values = (0..300).map(|n| {
        let flag = ["true", "false", "NULL"][n % 3];
        let kind = ["a", "b''c", "", "ä"][n % 4];
        let small = n as i64 % 7 - 3;
        format!("({n}, '{kind}', {small}, {n}0000000000, {flag}, 'x', NULL)")
    });
    let values: Vec<String> = values.collect();
    run(&client, &format!("INSERT INTO t VALUES {}", values.join(", "))).await;
    run(
        &client,
        "INSERT INTO u VALUES (1, 'one'), (-5, 'five'), (9007199254740993, NULL)",
    )
    .await;
    server
}

fn query(sql: &str) -> ast::Query {
    match parse(sql).expect("it parses").remove(0).statement {
        Statement::Sql(statement) => match *statement {
            ast::Statement::Query(query) => *query,
            other => panic!("{other}"),
        },
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lookups_are_answered_as_if_they_were_planned() {
    let server = filled().await;
    let client = server.connect().await;
    for (list, from, condition) in [
        ("*", "u", "id = 1"),
        ("*", "u", "id = -5"),
        ("name AS who, id", "public.u AS x", "(x.id = 9007199254740993)"),
        ("id", "u", "7 = id"),
        ("id", "u", "id = 1::smallint"),
        ("t.n, \"Odd\", at", "t", "t.id = 5 AND kind = 'b''c'"),
        ("flag", "t", "kind = '' AND id = 2"),
        ("flag", "t", "kind = 'nothing' AND id = 2"),
        ("*", "v", "kind = 'ä'"),
        ("id, rows AS \"Rows\"", "v", "n = -3 AND flag = true"),
        ("id, rows", "v q", "q.n = 2 AND q.kind = 'a' AND q.flag = false"),
        ("kind", "bag", "n = 3"),
    ] {
        let looked_up = format!("SELECT {list} FROM {from} WHERE {condition}");
        let snapshot = server.backend.snapshot();
        assert!(Lookup::of(&query(&looked_up), &snapshot).is_some(), "{looked_up}");
        let planned = format!("SELECT {list} FROM {from} WHERE ({condition}) AND 1 = 1");
        assert!(Lookup::of(&query(&planned), &snapshot).is_none(), "{planned}");
        let described = |sql: &str| {
            let sql = sql.to_owned();
            let client = &client;
            async move {
                let statement = client.prepare(&sql).await.expect("it can be prepared");
                let columns = statement.columns().iter();
                columns
                    .map(|column| (column.name().to_owned(), column.type_().oid()))
                    .collect::<Vec<_>>()
            }
        };
        assert_eq!(
            described(&looked_up).await,
            described(&planned).await,
            "{looked_up}"
        );
        for _ in 0..3 {
            let (mut found, mut expected) = (rows(&client, &looked_up).await, rows(&client, &planned).await);
            found.sort();
            expected.sort();
            assert_eq!(found, expected, "{looked_up}");
        }
        let some = rows(&client, &format!("{looked_up} LIMIT 2")).await.len();
        assert_eq!(some, rows(&client, &planned).await.len().min(2), "{looked_up}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_asks_for_more_is_no_lookup() {
    let server = filled().await;
    let snapshot = server.backend.snapshot();
    for sql in [
        "SELECT * FROM u",
        "SELECT * FROM u WHERE id > 1",
        "SELECT * FROM u WHERE id = 1 OR id = 2",
        "SELECT * FROM u WHERE id = 1 AND id = 2",
        "SELECT * FROM u WHERE id = '1'",
        "SELECT * FROM u WHERE id = 1.0",
        "SELECT * FROM u WHERE id = 99999999999::int",
        "SELECT * FROM u WHERE id = NULL",
        "SELECT * FROM u WHERE name = 'one'",
        "SELECT * FROM u WHERE y.id = 1",
        "SELECT * FROM u AS x (a) WHERE id = 1",
        "SELECT u.id FROM u AS x WHERE id = 1",
        "SELECT id + 1 FROM u WHERE id = 1",
        "SELECT count(*) FROM u WHERE id = 1",
        "SELECT id, id FROM u WHERE id = 1",
        "SELECT tributary_region FROM u WHERE id = 1",
        "SELECT DISTINCT id FROM u WHERE id = 1",
        "SELECT id FROM u WHERE id = 1 GROUP BY id",
        "SELECT id FROM u WHERE id = 1 ORDER BY id",
        "SELECT id FROM u WHERE id = 1 OFFSET 1",
        "SELECT id FROM u WHERE id = 1 FOR UPDATE",
        "SELECT id FROM u, v WHERE id = 1",
        "WITH u AS (SELECT 2 AS id) SELECT id FROM u WHERE id = 1",
        "SELECT * FROM t WHERE id = 1",
        "SELECT * FROM t WHERE id = 1 AND kind = 'a' AND n = 2",
        "SELECT * FROM t WHERE id = 3000000000 AND kind = 'a'",
        "SELECT * FROM plain WHERE id = 1",
        "SELECT * FROM missing WHERE id = 1",
        "SELECT * FROM v WHERE n = 99999",
        "SELECT * FROM v WHERE missing = 1",
    ] {
        assert!(Lookup::of(&query(sql), &snapshot).is_none(), "{sql}");
    }
    let client = server.connect().await;
    assert_eq!(state(&client, "SELECT * FROM v WHERE missing = 1").await, "42703");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_looks_up_its_own_writes() {
    let server = filled().await;
    let client = server.connect().await;
    let other = server.connect().await;
    run(&client, "BEGIN").await;
    run(&client, "UPDATE u SET name = 'uno' WHERE id = 1").await;
    run(&client, "DELETE FROM u WHERE id = -5").await;
    run(&client, "INSERT INTO u VALUES (7, 'seven')").await;
    let name = |id: i64| format!("SELECT name FROM u WHERE id = {id}");
    assert_eq!(rows(&client, &name(1)).await, ["uno"]);
    assert_eq!(rows(&client, &name(-5)).await, [""; 0]);
    assert_eq!(rows(&client, &name(7)).await, ["seven"]);
    assert_eq!(rows(&other, &name(1)).await, ["one"]);
    run(&client, "ROLLBACK").await;
    assert_eq!(rows(&client, &name(7)).await, [""; 0]);
    let statement = client
        .prepare("SELECT name FROM u WHERE id = $1")
        .await
        .expect("a lookup");
    for (id, expected) in [(1_i64, Some("one")), (-5, Some("five")), (2, None)] {
        let found = client.query_opt(&statement, &[&id]).await.expect("it runs");
        let found: Option<String> = found.and_then(|row| row.get(0));
        assert_eq!(found.as_deref(), expected, "{id}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lookup_stops_at_its_limit() {
    let server = Server::start().await;
    let client = server.connect().await;
    run(&client, "CREATE TABLE many (id bigint PRIMARY KEY, kind bigint)").await;
    run(
        &client,
        "CREATE MATERIALIZED VIEW kinds AS SELECT id, kind FROM many",
    )
    .await;
    let rows = "INSERT INTO many SELECT value, value % 2 FROM generate_series(1, 60000)";
    run(&client, rows).await;
    let snapshot = server.backend.snapshot();
    for (limit, expected) in [
        ("LIMIT 0", 0),
        ("LIMIT 1", 1),
        ("LIMIT 20000", 20_000),
        ("", 30_000),
    ] {
        let sql = format!("SELECT id FROM kinds WHERE kind = 1 {limit}");
        let lookup = Lookup::of(&query(&sql), &snapshot).expect("a lookup");
        let public = PublicSchema::new(snapshot.clone(), Writes::new(), Exposed::default(), "here".into());
        let relation = public.stored(&lookup.object).expect("it is there");
        let batches: Vec<RecordBatch> = lookup.rows(&relation).try_collect().await.expect("rows");
        let found: usize = batches.iter().map(RecordBatch::num_rows).sum();
        assert_eq!(found, expected, "{sql}");
        // A segment's rows come in one batch; after the last row that is wanted none is read.
        let is_full = |batch: &RecordBatch| batch.num_rows() > 0;
        assert!(
            batches.last().is_none_or(is_full),
            "{sql}: {} batches",
            batches.len()
        );
        assert!(
            limit != "LIMIT 1" || batches.len() == 1,
            "{sql}: {} batches",
            batches.len()
        );
    }
}
