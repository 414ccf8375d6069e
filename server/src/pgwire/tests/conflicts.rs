//! What is kept of deleted rows and of writes that lost, as clients see it.

use tributary_region::dataflow::conflicts::{Conflict, Reason};
use tributary_replication::{Epoch, Hlc};
use tributary_storage::{ObjectId, OriginId, RegionId};

use super::client::{Server, rows, run, state};
use crate::pgwire::ServeOptions;
use crate::session::memory_backend::MemoryBackend;

fn lost(key: i64) -> Conflict {
    Conflict {
        table: ObjectId(7),
        table_name: "t".to_owned(),
        key: format!(r#"{{"id":{key}}}"#),
        row: format!(r#"{{"id":{key}}}"#),
        origin: OriginId::first(RegionId(1)),
        epoch: Epoch(3),
        hlc: Hlc::from_ms(5),
        winner: None,
        reason: Reason::NotBroughtBack,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conflicts_are_listed_until_they_are_deleted() {
    let server = Server::start().await;
    let client = server.connect().await;
    server
        .backend
        .record((1..=5).map(lost).collect())
        .expect("recorded");
    let listed = "SELECT number, key FROM tributary.conflicts ORDER BY number";
    assert_eq!(rows(&client, listed).await.len(), 5);
    for (sql, expected) in [
        ("DELETE FROM tributary.errors", "42809"),
        ("UPDATE tributary.conflicts SET key = 'x'", "42809"),
        ("DELETE FROM tributary.conflicts WHERE nope = 1", "42703"),
        ("DELETE FROM tributary.conflicts RETURNING key", "0A000"),
        ("BEGIN; DELETE FROM tributary.conflicts", "25001"),
        ("ROLLBACK; DELETE FROM tributary.conflicts; SELECT 1", "25001"),
    ] {
        assert_eq!(state(&client, sql).await, expected, "{sql}");
    }
    assert_eq!(rows(&client, listed).await.len(), 5);
    run(
        &client,
        "DELETE FROM tributary.conflicts AS c WHERE c.key LIKE '%1%' AND c.region = 'here' OR number IN (SELECT 3)",
    )
    .await;
    assert_eq!(
        rows(&client, listed).await,
        [r#"1|{"id":2}"#, r#"2|{"id":3}"#, r#"4|{"id":5}"#]
    );
    let by_key = client
        .execute(
            "DELETE FROM tributary.conflicts WHERE key = $1",
            &[&r#"{"id":3}"#],
        )
        .await;
    assert_eq!(by_key.expect("it is there"), 1);
    run(&client, "SET default_transaction_read_only = on").await;
    assert_eq!(state(&client, "DELETE FROM tributary.conflicts").await, "25006");
    run(&client, "RESET default_transaction_read_only").await;
    run(&client, "DELETE FROM tributary.conflicts").await;
    assert!(rows(&client, listed).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_tombstones_name_who_keeps_them() {
    let backend = MemoryBackend::with("here", &["there"], |config| config.tombstones_max = 3);
    let server = Server::over(backend, ServeOptions::default()).await;
    let client = server.connect().await;
    run(&client, "CREATE TABLE g (id int PRIMARY KEY) LOCALITY GLOBAL").await;
    run(&client, "CREATE TABLE r (id int PRIMARY KEY)").await;
    for table in ["g", "r"] {
        let fill = format!("INSERT INTO {table} VALUES (1), (2), (3), (4), (5)");
        run(&client, &fill).await;
    }
    run(&client, "DELETE FROM r").await;
    run(&client, "DELETE FROM g WHERE id <= 2").await;
    let kept = "SELECT tombstones, tombstones_kept_by FROM tributary.tables WHERE name = 'g'";
    assert_eq!(rows(&client, kept).await, ["2|there"]);
    let refused = client.batch_execute("DELETE FROM g WHERE id <= 4").await;
    let refused = refused.expect_err("there is room for one");
    let refused = refused.as_db_error().expect("an answer of the server");
    assert_eq!(refused.code().code(), "53100");
    assert!(
        refused
            .hint()
            .is_some_and(|hint| hint.contains("region \"there\"")),
        "{refused:?}"
    );
    run(&client, "DELETE FROM g WHERE id = 3").await;
    assert_eq!(state(&client, "DELETE FROM g WHERE id = 4").await, "53100");
    // A row in the place of a deleted one makes room.
    run(&client, "INSERT INTO g VALUES (3)").await;
    run(&client, "DELETE FROM g WHERE id = 4").await;
    assert_eq!(rows(&client, "SELECT id FROM g ORDER BY id").await, ["3", "5"]);
}
