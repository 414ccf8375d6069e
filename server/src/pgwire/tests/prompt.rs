//! The connection itself: limits, cancel, broken messages, the queries psql sends for its `\d` commands.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::client::{Server, rows, run, state};
use crate::pgwire::ServeOptions;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_too_many_is_told() {
    let options = ServeOptions {
        connections_max: 1,
        ..ServeOptions::default()
    };
    let server = Server::with(&[], options).await;
    let client = server.connect().await;
    let config = format!("host=127.0.0.1 port={} user=ada", server.port);
    let error = tokio_postgres::connect(&config, tokio_postgres::NoTls)
        .await
        .err()
        .expect("refused");
    assert_eq!(error.code().map(|code| code.code()), Some("53300"));
    assert_eq!(rows(&client, "SELECT 1").await, ["1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_client_is_let_go() {
    let options = ServeOptions {
        pre_auth_timeout: Duration::from_millis(50),
        ..ServeOptions::default()
    };
    let server = Server::with(&[], options).await;
    let mut socket = server.socket().await;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.expect("an end");
    assert_eq!(answer.first(), Some(&b'E'));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_messages_end_their_connection_only() {
    let server = Server::start().await;
    let startup = b"\0\0\0\x12\0\x03\0\0user\0ada\0\0";
    for garbage in [
        &b"Q\xff\xff\xff\xff"[..],
        b"\x01\x02\x03\x04\x05\x06",
        b"B\0\0\0\x05\0S\0\0\0\x04X\0\0\0\x04",
        b"Q\0\0\0\x06\xff\0X\0\0\0\x04",
    ] {
        let mut socket = server.socket().await;
        socket.write_all(startup).await.expect("sent");
        socket.write_all(garbage).await.expect("sent");
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).await.expect("an end");
        assert!(
            answer.windows(5).any(|bytes| bytes.starts_with(b"E\0\0\0")),
            "{garbage:?} is answered with an error"
        );
    }
    assert_eq!(rows(&server.connect().await, "SELECT 1").await, ["1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_is_canceled_by_key_and_by_time() {
    let server = Server::start().await;
    let client = server.connect().await;
    let endless = "SELECT sum(x % 7) FROM generate_series(1, 10000000000) AS a(x)";
    let token = client.cancel_token();
    let cancel = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(200)).await;
        token.cancel_query(tokio_postgres::NoTls).await
    });
    assert_eq!(state(&client, endless).await, "57014");
    cancel.await.expect("it ran").expect("it was sent");
    run(&client, "SET statement_timeout = '100ms'").await;
    assert_eq!(state(&client, endless).await, "57014");
    assert_eq!(state(&client, "SELECT pg_sleep(60)").await, "57014");
    run(&client, "RESET statement_timeout").await;
    assert_eq!(rows(&client, "SELECT 1").await, ["1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_catalogs_describe_tables() {
    let server = Server::start().await;
    let client = server.connect().await;
    run(
        &client,
        "CREATE TABLE t (id int PRIMARY KEY, name varchar(10) NOT NULL DEFAULT 'x')",
    )
    .await;
    run(
        &client,
        "CREATE MATERIALIZED VIEW m AS SELECT name, count(*) AS n FROM t GROUP BY name",
    )
    .await;
    let list = "SELECT c.relname, c.relkind FROM pg_catalog.pg_class c \
                LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                WHERE n.nspname = 'public' AND pg_catalog.pg_table_is_visible(c.oid) ORDER BY 1";
    assert_eq!(rows(&client, list).await, ["m|m", "t|r", "t_pkey|i"]);
    let columns = "SELECT a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnotnull \
                   FROM pg_catalog.pg_attribute a WHERE a.attrelid = 't'::regclass AND a.attnum > 0 ORDER BY a.attnum";
    assert_eq!(
        rows(&client, columns).await,
        ["id|integer|t", "name|character varying(10)|t"]
    );
    let standard =
        "SELECT column_name FROM information_schema.columns WHERE table_name = 't' ORDER BY ordinal_position";
    assert_eq!(rows(&client, standard).await, ["id", "name"]);
}
