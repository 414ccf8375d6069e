//! COPY into a table that lives in another region: carried out there, once.

use bytes::Bytes;
use futures::SinkExt;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error};
use tributary_server::demo::Cluster;
use tributary_server::far::forward::{CopyRequest, Errand, ForwardReply, ForwardRequest};
use tributary_server::links::PeerClient;

use crate::running::{regions, rows, run, wait_for_rows};

async fn with_ledger() -> (Cluster, Client, Client) {
    let (cluster, [us, eu]) = regions(["us", "eu"]).await;
    let table = "CREATE TABLE ledger (id int PRIMARY KEY, note text DEFAULT 'none', at timestamptz) \
                 LOCALITY REGIONAL BY TABLE IN \"eu\"";
    run(&us, table).await;
    wait_for_rows(
        &eu,
        "SELECT count(*) FROM tributary.tables WHERE name = 'ledger'",
        &["1".to_owned()],
    )
    .await;
    (cluster, us, eu)
}

async fn copy(client: &Client, sql: &str, data: &str) -> Result<u64, Error> {
    let mut sink = Box::pin(client.copy_in(sql).await?);
    sink.send(Bytes::from(data.to_owned())).await?;
    sink.as_mut().finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_goes_to_the_region_where_the_table_lives() {
    let (cluster, us, eu) = with_ledger().await;
    run(&us, "SET TimeZone = 'Asia/Tokyo'").await;
    let data = "1\tone\t2024-01-01 09:00:00\n2\t\\N\t\\N\n";
    assert_eq!(
        copy(&us, "COPY ledger FROM STDIN", data)
            .await
            .expect("eu writes"),
        2
    );
    let csv = "COPY ledger (id) FROM STDIN WITH (FORMAT csv, HEADER)";
    assert_eq!(copy(&us, csv, "id\n3\n4\n").await.expect("eu writes"), 2);
    assert_eq!(copy(&us, csv, "id\n").await.expect("there is nothing to do"), 0);
    let expected = ["1|one|t", "2|NULL|NULL", "3|none|NULL", "4|none|NULL"];
    let read = "SELECT id, note, at = '2024-01-01 00:00:00+00' FROM ledger ORDER BY id";
    assert_eq!(rows(&us, read).await, expected, "who wrote reads it");
    wait_for_rows(&eu, read, &expected.map(str::to_owned)).await;

    let code = |outcome: Result<u64, Error>| outcome.expect_err("it is refused").code().cloned();
    let twice = copy(&us, "COPY ledger FROM STDIN", "9\ta\t\\N\n1\tb\t\\N\n").await;
    assert_eq!(code(twice), Some(SqlState::UNIQUE_VIOLATION));
    let broken = copy(&us, "COPY ledger FROM STDIN", "nine\ta\t\\N\n").await;
    assert_eq!(code(broken), Some(SqlState::INVALID_TEXT_REPRESENTATION));
    run(&us, "BEGIN").await;
    let within = us.simple_query("COPY ledger FROM STDIN").await.map(|_| 0);
    assert_eq!(code(within), Some(SqlState::FEATURE_NOT_SUPPORTED));
    run(&us, "ROLLBACK").await;
    let beside = "INSERT INTO notes VALUES (1); COPY ledger FROM STDIN";
    run(&us, "CREATE TABLE notes (id int PRIMARY KEY)").await;
    let beside = us.simple_query(beside).await.map(|_| 0);
    assert_eq!(
        code(beside),
        Some(SqlState::FEATURE_NOT_SUPPORTED),
        "before the data are sent"
    );
    assert_eq!(rows(&us, "SELECT count(*) FROM notes").await, ["0"]);
    assert_eq!(rows(&us, read).await, expected, "all rows of a COPY or none");
    cluster.stop().await.expect("all stop cleanly");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_comes_again_is_answered_as_before_also_over_a_kill() {
    let (mut cluster, us, _eu) = with_ledger().await;
    let address = cluster.peer_address("eu").to_string();
    let to_eu = PeerClient::new("eu", &address, None).expect("an address");
    let copy_of = |sql: &str, token: u8| {
        Errand::Copy(CopyRequest {
            statement: ForwardRequest {
                from: "us".to_owned(),
                user: "postgres".to_owned(),
                sql: sql.to_owned(),
                settings: Vec::new(),
                catalog_version: 0,
                seen: Vec::new(),
                token: [token; 16],
            },
            input: b"1\tone\n2\ttwo\n".to_vec(),
        })
    };
    let request = copy_of("COPY ledger (id, note) FROM STDIN", 9);
    let (first, again) = tokio::join!(to_eu.forward(&request), to_eu.forward(&request));
    let (first, again) = (first.expect("eu answers"), again.expect("eu answers"));
    assert_eq!(first, again);
    assert!(
        matches!(&first, ForwardReply::Done(done) if done.count == 2),
        "{first:?}"
    );
    let other = copy_of("DELETE FROM ledger", 10);
    let refused = to_eu.forward(&other).await.expect("eu answers");
    assert!(matches!(refused, ForwardReply::Refused(_)), "{refused:?}");

    cluster.kill("eu").await.expect("it can be killed");
    cluster.restart("eu").await.expect("it comes back");
    cluster.wait_ready().await.expect("it is ready");
    assert_eq!(to_eu.forward(&request).await.expect("eu answers"), first);
    let expected = ["1|one", "2|two"].map(str::to_owned);
    wait_for_rows(&us, "SELECT id, note FROM ledger ORDER BY id", &expected).await;
    cluster.stop().await.expect("all stop cleanly");
}
