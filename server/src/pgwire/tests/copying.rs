//! COPY: all rows or none, and errors that say where.

use bytes::Bytes;
use futures::SinkExt;

use super::client::{Server, rows, run};

async fn copy(
    client: &tokio_postgres::Client,
    sql: &str,
    data: &'static str,
) -> Result<u64, tokio_postgres::Error> {
    let sink = client.copy_in(sql).await?;
    let mut sink = std::pin::pin!(sink);
    // In two pieces, so that lines do not end where messages do.
    let (first, second) = data.split_at(data.len() / 2);
    sink.send(Bytes::from_static(first.as_bytes())).await?;
    sink.send(Bytes::from_static(second.as_bytes())).await?;
    sink.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn text_and_csv_are_loaded() {
    let server = Server::start().await;
    let client = server.connect().await;
    run(
        &client,
        "CREATE TABLE t (id int PRIMARY KEY, name text, at date DEFAULT '2024-01-01')",
    )
    .await;
    assert_eq!(
        copy(
            &client,
            "COPY t FROM STDIN",
            "1\ta\\tb\t2020-02-02\n2\t\\N\t\\N\n"
        )
        .await
        .expect("loaded"),
        2
    );
    let csv = "COPY t (name, id) FROM STDIN WITH (FORMAT csv, HEADER, DELIMITER ';')";
    assert_eq!(
        copy(&client, csv, "name;id\n\"x;\"\"y\"\"\";3\n;4\n")
            .await
            .expect("loaded"),
        2
    );
    let all = rows(&client, "SELECT * FROM t ORDER BY id").await;
    assert_eq!(
        all,
        [
            "1|a\tb|2020-02-02",
            "2|NULL|NULL",
            "3|x;\"y\"|2024-01-01",
            "4|NULL|2024-01-01"
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_row_loads_nothing_and_is_named() {
    let server = Server::start().await;
    let client = server.connect().await;
    run(&client, "CREATE TABLE t (id int PRIMARY KEY, n int)").await;
    for (data, state, place) in [
        ("1\t1\n2\tx\n", "22P02", "COPY t, line 2, column n"),
        ("1\t1\n2\n", "22P04", "COPY t, line 2"),
        ("1\t1\t1\n", "22P04", "COPY t, line 1"),
        ("1\t99999999999\n", "22003", "COPY t, line 1, column n"),
    ] {
        let error = copy(&client, "COPY t FROM STDIN", data).await.expect_err(data);
        let error = error.as_db_error().expect("of the server");
        assert_eq!(
            (error.code().code(), error.where_()),
            (state, Some(place)),
            "{data:?}"
        );
    }
    let error = copy(&client, "COPY t FROM STDIN", "1\t1\n1\t2\n")
        .await
        .expect_err("one key twice");
    assert_eq!(error.code().map(|code| code.code()), Some("23505"));
    assert!(rows(&client, "SELECT * FROM t").await.is_empty());
}
