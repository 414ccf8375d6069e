//! Three regions, with proxies between them that can be cut.

use std::path::Path;

use tokio_postgres::error::SqlState;
use tributary_server::demo::Cluster;

use crate::running::{BINARY, failed_start_as, rows, run, wait_for_rows};

const VIEW: &str = "SELECT product, orders, units FROM by_product ORDER BY product";

async fn start() -> Cluster {
    let mut cluster = Cluster::spawn(Path::new(BINARY), &["us", "eu", "ap"])
        .await
        .expect("three processes");
    cluster.wait_ready().await.expect("they find each other");
    cluster
}

async fn expect_everywhere(cluster: &Cluster, sql: &str, expected: &[&str]) {
    let expected: Vec<String> = expected.iter().map(|row| (*row).to_owned()).collect();
    for region in cluster.names() {
        let client = cluster.connect(&region).await.expect("the region answers");
        wait_for_rows(&client, sql, &expected).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_region_goes_on_and_everything_is_counted_once_afterwards() {
    let mut cluster = start().await;
    // DDL in a region that is not the primary reaches all.
    let eu = cluster.connect("eu").await.expect("eu answers");
    run(
        &eu,
        "CREATE TABLE product (id bigint PRIMARY KEY, name text NOT NULL) LOCALITY GLOBAL",
    )
    .await;
    run(
        &eu,
        "CREATE TABLE orders (id bigint PRIMARY KEY, product bigint NOT NULL, units bigint NOT NULL)",
    )
    .await;
    run(
        &eu,
        "CREATE MATERIALIZED VIEW by_product AS SELECT p.name AS product, count(*) AS orders, \
         sum(o.units) AS units FROM orders o JOIN product p ON o.product = p.id GROUP BY p.name",
    )
    .await;
    run(&eu, "INSERT INTO product VALUES (1, 'tea'), (2, 'milk')").await;
    expect_everywhere(
        &cluster,
        "SELECT name FROM product ORDER BY name",
        &["milk", "tea"],
    )
    .await;
    for (id, region) in cluster.names().iter().enumerate() {
        let client = cluster.connect(region).await.expect("the region answers");
        run(&client, &format!("INSERT INTO orders VALUES ({id}, 1, 10)")).await;
    }
    expect_everywhere(&cluster, VIEW, &["tea|3|30"]).await;

    cluster.set_cut("eu", true);
    for (id, region) in cluster.names().iter().enumerate() {
        let client = cluster.connect(region).await.expect("the region answers");
        run(
            &client,
            &format!("INSERT INTO orders VALUES ({}, 2, 1)", 100 + id),
        )
        .await;
    }
    let us = cluster.connect("us").await.expect("us answers");
    wait_for_rows(&us, VIEW, &["milk|2|2".to_owned(), "tea|3|30".to_owned()]).await;
    wait_for_rows(&eu, VIEW, &["milk|1|1".to_owned(), "tea|3|30".to_owned()]).await;
    let refused = eu
        .batch_execute("CREATE TABLE later (id bigint PRIMARY KEY)")
        .await;
    let refused = refused.expect_err("the primary cannot be reached");
    assert_eq!(refused.code(), Some(&SqlState::CANNOT_CONNECT_NOW), "{refused:?}");
    run(&us, "CREATE TABLE sooner (id bigint PRIMARY KEY)").await;

    cluster.set_cut("eu", false);
    expect_everywhere(&cluster, VIEW, &["milk|3|3", "tea|3|30"]).await;
    expect_everywhere(&cluster, "SELECT count(*) FROM sooner", &["0"]).await;

    // The primary is killed; it comes back to what it knew, and is told what it missed.
    cluster.kill("us").await.expect("us can be killed");
    run(&eu, "INSERT INTO orders VALUES (200, 1, 5)").await;
    cluster.restart("us").await.expect("us comes back");
    expect_everywhere(&cluster, VIEW, &["milk|3|3", "tea|4|35"]).await;
    cluster.stop().await.expect("all stop cleanly");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_fills_each_region_once_also_over_a_kill() {
    let mut cluster = start().await;
    let us = cluster.connect("us").await.expect("us answers");
    run(
        &us,
        "CREATE SOURCE auctions WITH (connector = 'nexmark', events = 6000, rate = 3000)",
    )
    .await;
    run(
        &us,
        "CREATE MATERIALIZED VIEW bids AS SELECT count(*) AS bids, sum(price) AS total FROM bid",
    )
    .await;
    tokio::time::sleep(std::time::Duration::from_millis(700)).await;
    cluster.kill("us").await.expect("us can be killed");
    cluster.restart("us").await.expect("us comes back");
    expect_everywhere(&cluster, "SELECT bids FROM bids", &["5520"]).await;
    let mut people = 0;
    for region in cluster.names() {
        let client = cluster.connect(&region).await.expect("the region answers");
        let own = "SELECT count(*), count(DISTINCT id) FROM person WHERE tributary_region = gateway_region()";
        let counted = rows(&client, own).await;
        let (all, distinct) = counted[0].split_once('|').expect("two columns");
        assert_eq!(all, distinct, "{region}");
        people += all.parse::<u64>().expect("a number");
    }
    assert_eq!(people, 120);
    cluster.stop().await.expect("all stop cleanly");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_primary_does_not_found_a_second_cluster() {
    let mut cluster = start().await;
    cluster.kill("us").await.expect("us can be killed");
    std::fs::remove_dir_all(cluster.data("us")).expect("its data can be removed");
    let message = failed_start_as(cluster.command("us")).await;
    assert!(message.contains("already belongs to a cluster"), "{message}");
    assert!(message.contains("what to do"), "{message}");
}
