//! A session whose own writes are not shown yet: INSERTs of values go on, everything else waits, and nobody gets another answer.

use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Client;

use super::client::{Server, rows, run, state};

/// Long for a statement, and shorter than a session waits for its own writes.
const AT_ONCE: Duration = Duration::from_secs(10);
/// How long a statement is watched that must not end.
const A_WHILE: Duration = Duration::from_millis(200);

async fn server_with_table() -> (Server, Arc<Client>) {
    let server = Server::start().await;
    let client = Arc::new(server.connect().await);
    run(&client, "CREATE TABLE t (id int PRIMARY KEY, n int)").await;
    (server, client)
}

async fn at_once<T>(what: &str, work: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(AT_ONCE, work).await;
    done.unwrap_or_else(|_| panic!("{what} waits for a snapshot"))
}

/// Runs a statement that has to wait until snapshots are shown again; its SQLSTATE, or none.
async fn after_a_wait(server: &Server, client: &Arc<Client>, sql: &str) -> Option<String> {
    let (asked, owned) = (Arc::clone(client), sql.to_owned());
    let mut running = tokio::spawn(async move { asked.batch_execute(&owned).await });
    let early = tokio::time::timeout(A_WHILE, &mut running).await;
    assert!(early.is_err(), "{sql} does not wait: {early:?}");
    server.backend.hold_snapshots(false);
    let outcome = at_once(sql, running).await.expect("it does not panic");
    outcome.err().map(|error| {
        error
            .code()
            .map_or(error.to_string(), |code| code.code().to_owned())
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inserts_of_values_do_not_wait_for_what_the_session_wrote() {
    let (server, client) = server_with_table().await;
    let insert = client.prepare("INSERT INTO t (id, n) VALUES ($1, $2)").await;
    let insert = insert.expect("it is prepared");
    server.backend.hold_snapshots(true);
    at_once("an INSERT", async {
        run(&client, "INSERT INTO t VALUES (1, 1)").await;
        run(&client, "INSERT INTO t VALUES (2, 2), (3, 1 + 2)").await;
        let id = rows(&client, "INSERT INTO t VALUES (4, 4) RETURNING id").await;
        assert_eq!(id, ["4"]);
    })
    .await;
    at_once("a prepared INSERT", async {
        for id in [5, 6] {
            client
                .execute(&insert, &[&id, &id])
                .await
                .expect("nothing stands against it");
        }
        let text = client.execute("INSERT INTO t VALUES ($1, $2 * 2)", &[&7, &7i64]);
        text.await.expect("nothing stands against it");
    })
    .await;
    at_once("a COPY", async {
        let sink = client
            .copy_in::<_, bytes::Bytes>("COPY t FROM STDIN")
            .await
            .expect("it begins");
        let mut sink = std::pin::pin!(sink);
        use futures::SinkExt;
        sink.send("8\t8\n".into()).await.expect("it is taken");
        assert_eq!(sink.finish().await.expect("it is in"), 1);
    })
    .await;
    assert_eq!(after_a_wait(&server, &client, "SELECT * FROM t").await, None);
    assert_eq!(
        rows(&client, "SELECT count(*), sum(id), sum(n) FROM t").await,
        ["8|36|43"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_the_session_inserted_or_deleted_is_taken_or_free() {
    let (server, client) = server_with_table().await;
    let refused = Some("23505".to_owned());
    server.backend.hold_snapshots(true);
    run(&client, "INSERT INTO t VALUES (1, 1)").await;
    let again = after_a_wait(&server, &client, "INSERT INTO t VALUES (1, 2)").await;
    assert_eq!(again, refused, "it was inserted just now");

    server.backend.hold_snapshots(true);
    run(&client, "DELETE FROM t WHERE id = 1").await;
    let again = after_a_wait(&server, &client, "INSERT INTO t VALUES (1, 3)").await;
    assert_eq!(again, None, "it was deleted just now");
    assert_eq!(rows(&client, "SELECT n FROM t").await, ["3"]);

    // What looks at rows, or may find nothing to write, waits.
    server.backend.hold_snapshots(true);
    run(&client, "INSERT INTO t VALUES (2, 2)").await;
    let sql = "INSERT INTO t VALUES (2, 9) ON CONFLICT DO NOTHING";
    assert_eq!(after_a_wait(&server, &client, sql).await, None);
    server.backend.hold_snapshots(true);
    run(&client, "INSERT INTO t VALUES (4, 2)").await;
    let sql = "INSERT INTO t SELECT 5, count(*) FROM t";
    assert_eq!(after_a_wait(&server, &client, sql).await, None);
    server.backend.hold_snapshots(true);
    run(&client, "INSERT INTO t VALUES (6, 2)").await;
    let sql = "INSERT INTO t VALUES (7, length(tributary_frontier()) * 0)";
    assert_eq!(after_a_wait(&server, &client, sql).await, None);
    assert_eq!(
        rows(&client, "SELECT id, n FROM t ORDER BY id").await,
        ["1|3", "2|2", "4|2", "5|3", "6|2", "7|0"]
    );
    assert_eq!(state(&client, "INSERT INTO t VALUES (5, 5)").await, "23505");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prepared_key_that_the_session_inserted_or_deleted_is_taken_or_free() {
    let (server, client) = server_with_table().await;
    let insert = client.prepare("INSERT INTO t (id, n) VALUES ($1, $2)").await;
    let insert = insert.expect("it is prepared");
    let after_a_wait = async |n: i32| {
        let (client, insert) = (Arc::clone(&client), insert.clone());
        let mut running = tokio::spawn(async move { client.execute(&insert, &[&1, &n]).await });
        let early = tokio::time::timeout(A_WHILE, &mut running).await;
        assert!(early.is_err(), "it does not wait: {early:?}");
        server.backend.hold_snapshots(false);
        let outcome = at_once("an INSERT", running).await.expect("it does not panic");
        outcome.map_err(|error| error.code().map(|code| code.code().to_owned()))
    };
    server.backend.hold_snapshots(true);
    client.execute(&insert, &[&1, &1]).await.expect("the key is free");
    assert_eq!(after_a_wait(2).await, Err(Some("23505".to_owned())));
    server.backend.hold_snapshots(true);
    run(&client, "DELETE FROM t WHERE id = 1").await;
    assert_eq!(after_a_wait(3).await, Ok(1));
    assert_eq!(rows(&client, "SELECT n FROM t").await, ["3"]);
}
