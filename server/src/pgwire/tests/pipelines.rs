//! Pipelined prepared INSERTs: run at once, answered as if they ran one by one.

use futures::future::join_all;
use tokio_postgres::Client;

use super::client::{Server, rows, run};

/// Sends all rows before the first answer; the SQLSTATE of each, or none.
async fn insert_all(client: &Client, values: &[(i32, &str)]) -> Vec<Option<String>> {
    let statement = client
        .prepare("INSERT INTO t (name, id) VALUES ($2, $1)")
        .await
        .expect("it is prepared");
    let inserted = values.iter().map(|(id, name)| {
        let statement = &statement;
        async move { client.execute(statement, &[id, name]).await }
    });
    let state = |result: Result<u64, tokio_postgres::Error>| match result {
        Ok(count) => {
            assert_eq!(count, 1);
            None
        }
        Err(error) => error.code().map(|code| code.code().to_owned()),
    };
    join_all(inserted).await.into_iter().map(state).collect()
}

fn refused(state: &str) -> Option<String> {
    Some(state.to_owned())
}

async fn server_with_table() -> (Server, Client) {
    let server = Server::start().await;
    let client = server.connect().await;
    run(
        &client,
        "CREATE TABLE t (id int PRIMARY KEY, name varchar(3) NOT NULL, kind text DEFAULT 'k')",
    )
    .await;
    (server, client)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_go_in_together_and_defaults_are_filled_in() {
    let (_server, client) = server_with_table().await;
    let values: Vec<(i32, &str)> = (0..1000).map(|id| (id, "abc")).collect();
    assert!(insert_all(&client, &values).await.iter().all(Option::is_none));
    assert_eq!(
        rows(&client, "SELECT count(*), sum(id), min(name), max(kind) FROM t").await,
        ["1000|499500|abc|k"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_one_is_refused_alone() {
    let (_server, client) = server_with_table().await;
    let values = [(1, "a"), (2, "b"), (1, "c"), (3, "long"), (4, "d")];
    assert_eq!(
        insert_all(&client, &values).await,
        [None, None, refused("23505"), refused("22001"), None]
    );
    assert_eq!(
        rows(&client, "SELECT id, name FROM t ORDER BY id").await,
        ["1|a", "2|b", "4|d"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_transaction_the_wrong_one_fails_it_and_those_behind() {
    let (_server, client) = server_with_table().await;
    run(&client, "BEGIN").await;
    let values = [(1, "a"), (2, "b"), (2, "c"), (3, "d")];
    assert_eq!(
        insert_all(&client, &values).await,
        [None, None, refused("23505"), refused("25P02")]
    );
    run(&client, "ROLLBACK").await;
    assert!(rows(&client, "SELECT * FROM t").await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_sees_what_was_pipelined_and_deletes_it() {
    let (_server, client) = server_with_table().await;
    run(&client, "BEGIN").await;
    let none = [None, None];
    assert_eq!(insert_all(&client, &[(2, "b"), (1, "a")]).await, none);
    run(
        &client,
        "UPDATE t SET name = 'x' WHERE id = 1; DELETE FROM t WHERE id = 2",
    )
    .await;
    assert_eq!(insert_all(&client, &[(2, "y"), (3, "z")]).await, none);
    let expected = ["1|x", "2|y", "3|z"];
    assert_eq!(
        rows(&client, "SELECT id, name FROM t ORDER BY id").await,
        expected
    );
    run(&client, "COMMIT").await;
    assert_eq!(
        rows(&client, "SELECT id, name FROM t ORDER BY id").await,
        expected
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_changed_behind_a_prepared_statement_is_noticed() {
    let (_server, client) = server_with_table().await;
    let statement = client
        .prepare("INSERT INTO t VALUES ($1, $2)")
        .await
        .expect("it is prepared");
    run(
        &client,
        "DROP TABLE t; CREATE TABLE t (id bigint PRIMARY KEY, name text)",
    )
    .await;
    assert_eq!(
        client
            .execute(&statement, &[&1i32, &"longer"])
            .await
            .expect("cast"),
        1
    );
    run(&client, "DROP TABLE t").await;
    let error = client
        .execute(&statement, &[&1i32, &"a"])
        .await
        .expect_err("gone");
    assert_eq!(error.code().map(|code| code.code()), Some("42P01"));
    run(&client, "CREATE TABLE t (id int PRIMARY KEY, name text)").await;
    run(&client, "SET default_transaction_read_only = on").await;
    let error = client
        .execute(&statement, &[&1i32, &"a"])
        .await
        .expect_err("read only");
    assert_eq!(error.code().map(|code| code.code()), Some("25006"));
}
