//! Tables whose residency is enforced: figures over their rows travel, the rows and their values do not.

use std::path::Path;

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tributary_server::demo::Cluster;

use crate::running::{BINARY, rows, run, wait_for_rows};

const REGIONS: [&str; 3] = ["ap", "eu", "us"];

/// The code and the whole text of a statement's error.
async fn refused(client: &Client, sql: &str) -> (SqlState, String) {
    let error = client.batch_execute(sql).await.expect_err(sql);
    let error = error.as_db_error().expect("an answer of the server");
    let text = format!("{} {:?} {:?}", error.message(), error.detail(), error.hint());
    (error.code().clone(), text)
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_of_large_groups_travel_and_rows_do_not() {
    let mut cluster = Cluster::spawn(Path::new(BINARY), &["us", "eu", "ap"])
        .await
        .expect("three processes");
    cluster.wait_ready().await.expect("they find each other");
    let us = cluster.connect("us").await.expect("us answers");
    run(
        &us,
        "CREATE TABLE people (id int PRIMARY KEY, name text, country text, age int) \
         WITH (residency = 'enforced', min_group_size = 3)",
    )
    .await;
    run(
        &us,
        "CREATE MATERIALIZED VIEW figures AS SELECT count(*) AS n, sum(age) AS s FROM people",
    )
    .await;
    run(
        &us,
        "CREATE MATERIALIZED VIEW by_country AS SELECT country, count(*) AS n FROM people GROUP BY country",
    )
    .await;
    let mut clients = Vec::new();
    for region in REGIONS {
        let client = cluster.connect(region).await.expect("the region answers");
        wait_for_rows(&client, "SELECT count(*) FROM by_country", &["0".to_owned()]).await;
        clients.push(client);
    }
    let (ap, eu) = (&clients[0], &clients[1]);
    run(
        eu,
        "INSERT INTO people VALUES (1, 'Secret-Ada', 'uk', 30), (2, 'Secret-Bea', 'uk', 31), \
         (3, 'Secret-Cid', 'uk', 32), (4, 'Secret-Dan', 'fr', 33)",
    )
    .await;
    run(
        ap,
        "INSERT INTO people VALUES (5, 'Secret-Eve', 'fr', 40), (6, 'Secret-Fay', 'fr', 41)",
    )
    .await;

    // Three of France, but nowhere three in one region: its name has not left. Two people are too few for a total, too.
    for client in &clients {
        wait_for_rows(client, "SELECT country, n FROM by_country", &["uk|3".to_owned()]).await;
        wait_for_rows(client, "SELECT n, s FROM figures", &["4|126".to_owned()]).await;
    }
    let held_back = "SELECT name, groups_held_back FROM tributary.materialized_views ORDER BY name";
    assert_eq!(rows(ap, held_back).await, ["by_country|1", "figures|1"]);
    assert_eq!(rows(eu, held_back).await, ["by_country|1", "figures|0"]);
    let incomplete = "SELECT incomplete FROM tributary.materialized_views WHERE name = 'by_country'";
    let why = "groups with fewer than 3 rows of \"people\" in a region are left out";
    assert_eq!(rows(&us, incomplete).await, [why]);

    // A group that has become large shows itself, and one that shrinks is taken back, everywhere.
    run(ap, "INSERT INTO people VALUES (7, 'Secret-Gus', 'fr', 42)").await;
    let (uk, fr) = ("uk|3".to_owned(), "fr|3".to_owned());
    let by_country = "SELECT country, n FROM by_country ORDER BY country";
    for client in &clients {
        wait_for_rows(client, by_country, &[fr.clone(), uk.clone()]).await;
        wait_for_rows(client, "SELECT n, s FROM figures", &["7|249".to_owned()]).await;
    }
    run(eu, "DELETE FROM people WHERE id = 1").await;
    for client in &clients {
        wait_for_rows(client, by_country, std::slice::from_ref(&fr)).await;
    }

    // Rows are read where they are, and nowhere else.
    let names = "SELECT name FROM people ORDER BY name";
    for sql in [
        names,
        "SELECT count(*) FROM people",
        "SELECT name FROM people WHERE tributary_region = 'eu' AND id = 2",
        "UPDATE people SET age = age + 1 WHERE tributary_region = 'eu' RETURNING name",
        "CREATE MATERIALIZED VIEW leak AS SELECT name, age FROM people",
        "CREATE MATERIALIZED VIEW leak AS SELECT max(name) AS name FROM people",
    ] {
        let (state, text) = refused(&us, sql).await;
        assert_eq!(state, SqlState::INSUFFICIENT_PRIVILEGE, "{sql}: {text}");
        assert!(!text.contains("Secret"), "{sql}: {text}");
    }
    run(ap, "SET regional_reads = 'local'").await;
    assert_eq!(rows(ap, names).await, ["Secret-Eve", "Secret-Fay", "Secret-Gus"]);

    // A statement for the owner is carried out; what its error would quote stays there.
    run(
        &us,
        "UPDATE people SET age = age + 1 WHERE tributary_region = 'eu' AND id = 2",
    )
    .await;
    let quotes = "UPDATE people SET age = name::int WHERE tributary_region = 'eu' AND id = 2";
    let (state, text) = refused(&us, quotes).await;
    assert_eq!(state, SqlState::INVALID_TEXT_REPRESENTATION, "{text}");
    assert!(!text.contains("Secret"), "{text}");
    run(eu, "SET regional_reads = 'local'").await;
    assert_eq!(rows(eu, "SELECT age FROM people WHERE id = 2").await, ["32"]);
    assert!(
        refused(eu, "UPDATE people SET age = name::int WHERE id = 2")
            .await
            .1
            .contains("Secret")
    );

    // Nothing was stopped at the door: it never came so far.
    for region in REGIONS {
        let links = "SELECT count(*) FROM tributary.links WHERE last_error LIKE '%nothing is sent%'";
        let client = cluster.connect(region).await.expect("the region answers");
        assert_eq!(rows(&client, links).await, ["0"], "{region}");
    }
    cluster.stop().await.expect("all stop cleanly");
}
