//! The extended protocol: parameters, binary values, portals, errors before Sync.

use futures::TryStreamExt;
use tokio_postgres::types::{ToSql, Type};

use super::client::{Server, rows, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parameters_and_results_are_binary_and_typed() {
    let server = Server::start().await;
    let client = server.connect().await;
    run(
        &client,
        "CREATE TABLE t (id bigint PRIMARY KEY, name text, f float8, b bool, d bytea, n smallint)",
    )
    .await;
    let insert = client
        .prepare("INSERT INTO t VALUES ($1, $2, $3, $4, $5, $6)")
        .await
        .expect("it is prepared");
    assert_eq!(
        insert.params(),
        [
            Type::INT8,
            Type::TEXT,
            Type::FLOAT8,
            Type::BOOL,
            Type::BYTEA,
            Type::INT2
        ]
    );
    let values: [&(dyn ToSql + Sync); 6] = [&7i64, &"it's", &0.1f64, &true, &vec![0u8, 255], &-3i16];
    assert_eq!(client.execute(&insert, &values).await.expect("it is inserted"), 1);
    let select = client
        .prepare("SELECT * FROM t WHERE id = $1 AND name = $2")
        .await
        .expect("it is prepared");
    assert_eq!(select.params(), [Type::INT8, Type::TEXT]);
    let row = client
        .query_one(&select, &[&7i64, &"it's"])
        .await
        .expect("one row");
    assert_eq!(row.get::<_, i64>(0), 7);
    assert_eq!(row.get::<_, &str>(1), "it's");
    assert_eq!(row.get::<_, f64>(2), 0.1);
    assert!(row.get::<_, bool>(3));
    assert_eq!(row.get::<_, Vec<u8>>(4), vec![0, 255]);
    assert_eq!(row.get::<_, i16>(5), -3);
    let nulls = client
        .query_one("SELECT $1::int, $2::text", &[&None::<i32>, &None::<&str>])
        .await
        .expect("one row");
    assert_eq!(
        (nulls.get::<_, Option<i32>>(0), nulls.get::<_, Option<&str>>(1)),
        (None, None)
    );
    let limited = client
        .query("SELECT * FROM t LIMIT $1", &[&1i64])
        .await
        .expect("rows");
    assert_eq!(limited.len(), 1);
    let updated = client
        .execute("UPDATE t SET n = $1 WHERE id = $2", &[&5i16, &7i64])
        .await
        .expect("updated");
    assert_eq!(updated, 1);
    let returned = client
        .query_one("DELETE FROM t WHERE id = $1 RETURNING n", &[&7i64])
        .await
        .expect("one row");
    assert_eq!(returned.get::<_, i16>(0), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_is_followed_by_the_next_statement() {
    let server = Server::start().await;
    let client = server.connect().await;
    let error = client
        .query("SELECT 1 / $1::int", &[&0i32])
        .await
        .expect_err("division by zero");
    assert_eq!(error.code().map(|code| code.code()), Some("22012"));
    let error = client
        .prepare("SELECT * FROM nope")
        .await
        .expect_err("no such table");
    assert_eq!(error.code().map(|code| code.code()), Some("42P01"));
    let row = client
        .query_one("SELECT 1 / $1::int", &[&1i32])
        .await
        .expect("the connection goes on");
    assert_eq!(row.get::<_, i32>(0), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn portals_give_rows_in_portions() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    run(&client, "CREATE TABLE t (id int PRIMARY KEY)").await;
    run(
        &client,
        "INSERT INTO t SELECT x FROM generate_series(1, 20000) AS g(x)",
    )
    .await;
    assert_eq!(rows(&client, "SELECT count(*) FROM t").await, ["20000"]);
    let transaction = client.transaction().await.expect("begun");
    let portal = transaction
        .bind("SELECT id FROM t ORDER BY id", &[])
        .await
        .expect("bound");
    let mut seen = 0;
    loop {
        let rows: Vec<_> = transaction
            .query_portal_raw(&portal, 7000)
            .await
            .expect("rows")
            .try_collect()
            .await
            .expect("rows");
        if rows.is_empty() {
            break;
        }
        for row in &rows {
            seen += 1;
            assert_eq!(row.get::<_, i32>(0), seen);
        }
    }
    assert_eq!(seen, 20_000);
    transaction.commit().await.expect("committed");
}
