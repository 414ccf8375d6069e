//! Regions that are added, dropped, wiped, and restored from an old copy, as processes.

use std::path::{Path, PathBuf};
use std::process::Command;

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tributary_server::demo::Cluster;

use crate::running::{BINARY, counted, rows, run, wait_for_rows, wait_until};

pub const VIEW: &str = "SELECT name, n FROM sales";

/// A cluster with a view over a REGIONAL and a GLOBAL table, and one order in each region.
pub async fn with_view(names: &[&str]) -> Cluster {
    let mut cluster = Cluster::spawn(Path::new(BINARY), names).await.expect("processes");
    cluster.wait_ready().await.expect("they find each other");
    let us = cluster.connect("us").await.expect("us answers");
    run(
        &us,
        "CREATE TABLE product (id int PRIMARY KEY, name text NOT NULL) LOCALITY GLOBAL",
    )
    .await;
    run(
        &us,
        "CREATE TABLE orders (id int PRIMARY KEY, product int NOT NULL)",
    )
    .await;
    let view = "CREATE MATERIALIZED VIEW sales AS SELECT p.name, count(*) AS n \
                FROM orders o JOIN product p ON o.product = p.id GROUP BY p.name";
    run(&us, view).await;
    run(&us, "INSERT INTO product VALUES (1, 'tea')").await;
    for region in names {
        let client = cluster.connect(region).await.expect("the region answers");
        wait_for_rows(&client, "SELECT name FROM product", &["tea".to_owned()]).await;
        run(&client, "INSERT INTO orders VALUES (1, 1)").await;
    }
    expect(&cluster, names, VIEW, &format!("tea|{}", names.len())).await;
    cluster
}

pub async fn expect(cluster: &Cluster, regions: &[&str], sql: &str, row: &str) {
    for region in regions {
        let client = cluster.connect(region).await.expect("the region answers");
        wait_for_rows(&client, sql, &[row.to_owned()]).await;
    }
}

async fn refused(client: &Client, sql: &str) -> (SqlState, String) {
    let error = client.batch_execute(sql).await.expect_err(sql);
    let error = error.as_db_error().expect("an answer of the server");
    (error.code().clone(), error.message().to_owned())
}

pub fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp")
        .arg("-a")
        .arg(from)
        .arg(to)
        .status()
        .expect("cp runs");
    assert!(copied.success());
}

/// A copy of a region's data, made while it rests.
async fn copied(cluster: &mut Cluster, region: &str) -> PathBuf {
    cluster.stop_one(region).await.expect("it stops cleanly");
    let data = cluster.data(region);
    let old = data.with_extension("old");
    copy(data, &old);
    cluster.restart(region).await.expect("it comes back");
    old
}

/// What a region says that is started over an old copy of its data, and ends.
async fn restored(cluster: &mut Cluster, region: &str, old: &Path) -> String {
    cluster.kill(region).await.expect("it can be killed");
    let data = cluster.data(region).to_owned();
    std::fs::remove_dir_all(&data).expect("its data can be removed");
    copy(old, &data);
    let _ = cluster.restart(region).await;
    cluster.wait_ended(region).await.expect("it ends by itself")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_is_added_serves_and_one_that_is_dropped_leaves_its_share() {
    let mut cluster = with_view(&["us", "eu"]).await;
    let eu = cluster.connect("eu").await.expect("eu answers");
    let address = cluster.add("ap").await.expect("a third process");
    let (code, _) = refused(&eu, "ALTER DATABASE tributary ADD REGION eu").await;
    assert_eq!(code, SqlState::DUPLICATE_OBJECT);
    run(
        &eu,
        &format!("ALTER DATABASE tributary ADD REGION ap WITH (address = '{address}')"),
    )
    .await;
    cluster.wait_ready_at("ap").await.expect("it joins");
    expect(&cluster, &["us", "eu", "ap"], VIEW, "tea|2").await;
    let ap = cluster.connect("ap").await.expect("ap answers");
    run(&ap, "INSERT INTO orders VALUES (1, 1), (2, 1)").await;
    expect(&cluster, &["us", "eu", "ap"], VIEW, "tea|4").await;
    let states = "SELECT name, state FROM tributary.regions ORDER BY name";
    assert_eq!(rows(&eu, states).await, ["ap|member", "eu|member", "us|member"]);

    // The primary is handed over, and the old one is dropped.
    run(&eu, "ALTER DATABASE tributary SET PRIMARY REGION ap").await;
    run(&eu, "CREATE TABLE later (id int PRIMARY KEY)").await;
    assert_eq!(
        rows(&ap, "SELECT name FROM tributary.regions WHERE is_primary").await,
        ["ap"]
    );
    run(&eu, "ALTER DATABASE tributary DROP REGION us").await;
    let ended = cluster.wait_ended("us").await.expect("it ends by itself");
    assert!(ended.contains("was dropped"), "{ended}");
    assert_eq!(rows(&eu, states).await, ["ap|member", "eu|member", "us|dropped"]);
    run(&ap, "INSERT INTO orders VALUES (3, 1)").await;
    expect(&cluster, &["eu", "ap"], VIEW, "tea|5").await;
    let (code, message) = refused(&ap, "ALTER DATABASE tributary FENCE REGION us").await;
    assert_eq!(
        (code, message.as_str()),
        (SqlState::UNDEFINED_OBJECT, "region \"us\" was dropped")
    );
    // It comes back, and is told again.
    let _ = cluster.restart("us").await;
    let ended = cluster.wait_ended("us").await.expect("it ends by itself");
    assert!(ended.contains("was dropped"), "{ended}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_cannot_be_drained_is_named_and_dropped_with_force() {
    let mut cluster = with_view(&["us", "eu", "ap"]).await;
    cluster.kill("ap").await.expect("it can be killed");
    let us = cluster.connect("us").await.expect("us answers");
    run(&us, "SET statement_timeout = '3s'").await;
    let cancelled = us.batch_execute("ALTER DATABASE tributary DROP REGION ap").await;
    assert!(cancelled.is_err(), "nobody can know what it has");
    let state = "SELECT state FROM tributary.regions WHERE name = 'ap'";
    assert_eq!(rows(&us, state).await, ["leaving"]);
    run(&us, "ALTER DATABASE tributary DROP REGION ap FORCE").await;
    expect(&cluster, &["us", "eu"], state, "dropped").await;
    expect(&cluster, &["us", "eu"], VIEW, "tea|3").await;
    run(&us, "INSERT INTO orders VALUES (2, 1)").await;
    expect(&cluster, &["us", "eu"], VIEW, "tea|4").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_region_is_told_and_comes_back_as_another_incarnation() {
    let mut cluster = with_view(&["us", "eu", "ap"]).await;
    cluster.kill("eu").await.expect("it can be killed");
    std::fs::remove_dir_all(cluster.data("eu")).expect("its data can be removed");
    assert!(cluster.restart("eu").await.is_err(), "it does not serve");
    let ended = cluster.wait_ended("eu").await.expect("it ends by itself");
    assert!(
        ended.contains("lost its log") && ended.contains("--reincarnate"),
        "{ended}"
    );
    expect(&cluster, &["us", "ap"], VIEW, "tea|3").await;

    cluster
        .restart_with("eu", &["--reincarnate"])
        .await
        .expect("it joins again");
    // What only it had is gone, and nothing of it is counted.
    expect(&cluster, &["us", "eu", "ap"], VIEW, "tea|2").await;
    let eu = cluster.connect("eu").await.expect("eu answers");
    run(&eu, "INSERT INTO orders VALUES (1, 1)").await;
    expect(&cluster, &["us", "eu", "ap"], VIEW, "tea|3").await;
    let incarnation = "SELECT incarnation, state FROM tributary.regions WHERE name = 'eu'";
    expect(&cluster, &["us", "eu", "ap"], incarnation, "2|member").await;
    let superseded =
        "SELECT superseded LIKE 'incarnation 1 up to epoch %' FROM tributary.regions WHERE name = 'eu'";
    expect(&cluster, &["us", "eu", "ap"], superseded, "t").await;

    // The flag may stay.
    cluster.kill("eu").await.expect("it can be killed");
    cluster
        .restart_with("eu", &["--reincarnate"])
        .await
        .expect("it comes back");
    expect(&cluster, &["us", "eu", "ap"], VIEW, "tea|3").await;
    expect(&cluster, &["us", "eu", "ap"], incarnation, "2|member").await;
    cluster.stop().await.expect("all stop cleanly");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_copy_is_told_and_keeps_its_own_rows_as_another_incarnation() {
    let mut cluster = with_view(&["us", "eu", "ap"]).await;
    let old = copied(&mut cluster, "eu").await;
    let eu = cluster.connect("eu").await.expect("eu answers");
    run(&eu, "INSERT INTO orders VALUES (2, 1), (3, 1)").await;
    run(&eu, "INSERT INTO product VALUES (2, 'milk')").await;
    expect(&cluster, &["us", "ap"], VIEW, "tea|5").await;
    expect(&cluster, &["us", "ap"], "SELECT count(*) FROM product", "2").await;
    let ended = restored(&mut cluster, "eu", &old).await;
    assert!(ended.contains("restored from an old copy"), "{ended}");

    cluster
        .restart_with("eu", &["--reincarnate"])
        .await
        .expect("it joins again");
    expect(&cluster, &["us", "eu", "ap"], VIEW, "tea|3").await;
    // A GLOBAL row that had arrived elsewhere is there, although the old copy knows nothing of it.
    expect(&cluster, &["us", "eu", "ap"], "SELECT count(*) FROM product", "2").await;
    let eu = cluster.connect("eu").await.expect("eu answers");
    let own = "SELECT id FROM orders WHERE tributary_region = gateway_region()";
    assert_eq!(rows(&eu, own).await, ["1"]);
    run(&eu, "INSERT INTO orders VALUES (2, 1)").await;
    expect(&cluster, &["us", "eu", "ap"], VIEW, "tea|4").await;
    cluster.stop().await.expect("all stop cleanly");
}

#[tokio::test(flavor = "multi_thread")]
async fn tombstones_go_when_all_have_them_and_who_is_away_keeps_them() {
    let mut cluster = with_view(&["us", "eu", "ap"]).await;
    let us = cluster.connect("us").await.expect("us answers");
    let kept =
        "SELECT tombstones, coalesce(tombstones_kept_by, '') FROM tributary.tables WHERE name = 'product'";
    let count = "SELECT count(*) FROM product";
    let fill = async || {
        run(
            &us,
            "INSERT INTO product SELECT n, 'x' FROM generate_series(10, 19) AS s(n)",
        )
        .await;
        expect(&cluster, &["us", "eu", "ap"], count, "11").await;
    };
    fill().await;
    run(&us, "DELETE FROM product WHERE id >= 10").await;
    expect(&cluster, &["us", "eu", "ap"], kept, "0|").await;

    fill().await;
    cluster.kill("ap").await.expect("it can be killed");
    run(&us, "DELETE FROM product WHERE id >= 10").await;
    expect(&cluster, &["us", "eu"], count, "1").await;
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    expect(&cluster, &["us", "eu"], kept, "10|ap").await;
    cluster.restart("ap").await.expect("it comes back");
    expect(&cluster, &["us", "eu", "ap"], kept, "0|").await;
    expect(&cluster, &["us", "eu", "ap"], count, "1").await;
    cluster.stop().await.expect("all stop cleanly");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_copy_that_lacks_what_was_deleted_is_told_and_brings_no_row_back() {
    let mut cluster = with_view(&["us", "eu", "ap"]).await;
    let us = cluster.connect("us").await.expect("us answers");
    let (count, all) = ("SELECT count(*) FROM product", ["us", "eu", "ap"]);
    run(&us, "INSERT INTO product VALUES (2, 'milk'), (3, 'ale')").await;
    expect(&cluster, &all, count, "3").await;
    let old = copied(&mut cluster, "eu").await;
    // It hears of this and says nothing of its own, so that of itself the others know no more than the copy holds.
    run(&us, "DELETE FROM product WHERE id >= 2").await;
    let kept =
        "SELECT tombstones, coalesce(tombstones_kept_by, '') FROM tributary.tables WHERE name = 'product'";
    expect(&cluster, &all, count, "1").await;
    expect(&cluster, &["us", "ap"], kept, "0|").await;
    let ended = restored(&mut cluster, "eu", &old).await;
    assert!(
        ended.contains("too far behind") && ended.contains("--reincarnate"),
        "{ended}"
    );
    cluster
        .restart_with("eu", &["--reincarnate"])
        .await
        .expect("it joins again");
    // Its order is there again.
    expect(&cluster, &all, VIEW, "tea|3").await;
    expect(&cluster, &all, count, "1").await;
    expect(&cluster, &all, kept, "0|").await;
    cluster.stop().await.expect("all stop cleanly");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_lost_is_listed_and_counted_until_it_is_removed() {
    let cluster = with_view(&["us", "eu"]).await;
    let us = cluster.connect("us").await.expect("us answers");
    let eu = cluster.connect("eu").await.expect("eu answers");
    cluster.set_cut("eu", true);
    run(&eu, "UPDATE product SET name = 'green' WHERE id = 1").await;
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    run(&us, "UPDATE product SET name = 'black' WHERE id = 1").await;
    cluster.set_cut("eu", false);
    let both = ["us", "eu"];
    let listed = "SELECT region, lost_row, won_by, reason FROM tributary.conflicts";
    let lost = r#"eu|{"id":1,"name":"green"}|us|concurrent write"#;
    expect(&cluster, &both, listed, lost).await;
    expect(&cluster, &both, "SELECT name FROM product", "black").await;
    let at = |region: &str| cluster.http_address(region);
    for (region, recorded) in [("us", 0), ("eu", 1)] {
        assert_eq!(counted(at(region), "tributary_conflicts").await, 1);
        let name = "tributary_conflicts_recorded_total";
        assert_eq!(counted(at(region), name).await, recorded, "{region}");
    }
    // Whoever has read it may remove it, in another region, too.
    run(&us, "DELETE FROM tributary.conflicts WHERE region = 'eu'").await;
    for client in [&us, &eu] {
        wait_for_rows(client, listed, &[]).await;
    }
    run(&us, "DELETE FROM product WHERE id = 1").await;
    let dropped = || async {
        match counted(at("us"), "tributary_tombstones_dropped_total").await {
            count @ 0..2 => Err(format!("{count} tombstones were dropped")),
            _ => Ok(()),
        }
    };
    wait_until(dropped).await;
    assert_eq!(
        counted(at("us"), r#"tributary_tombstones{table="product"}"#).await,
        0
    );
    cluster.stop().await.expect("all stop cleanly");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_was_to_leave_stays_when_it_is_added_again() {
    let mut cluster = with_view(&["us", "eu", "ap"]).await;
    let us = cluster.connect("us").await.expect("us answers");
    cluster.kill("ap").await.expect("it can be killed");
    run(&us, "SET statement_timeout = '2s'").await;
    let cancelled = us.batch_execute("ALTER DATABASE tributary DROP REGION ap").await;
    assert!(cancelled.is_err(), "nobody can know what it has");
    run(&us, "SET statement_timeout = 0").await;
    let state = "SELECT state, incarnation FROM tributary.regions WHERE name = 'ap'";
    expect(&cluster, &["us", "eu"], state, "leaving|1").await;
    run(&us, "ALTER DATABASE tributary ADD REGION ap").await;
    expect(&cluster, &["us", "eu"], state, "member|1").await;
    cluster.restart("ap").await.expect("it comes back");
    let ap = cluster.connect("ap").await.expect("ap answers");
    expect(&cluster, &["ap"], state, "member|1").await;
    run(&ap, "INSERT INTO orders VALUES (2, 1)").await;
    expect(&cluster, &["us", "eu", "ap"], VIEW, "tea|4").await;
    cluster.stop().await.expect("all stop cleanly");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_is_reached_at_the_address_that_the_catalog_names_by_then() {
    let mut cluster = with_view(&["us", "eu"]).await;
    let us = cluster.connect("us").await.expect("us answers");
    let address = cluster.add("br").await.expect("a third process");
    // Nobody listens there; it dials the others itself.
    let add = |address: &str| format!("ALTER DATABASE tributary ADD REGION br WITH (address = '{address}')");
    run(&us, &add("127.0.0.1:1")).await;
    cluster.wait_ready_at("br").await.expect("it joins");
    let br = cluster.connect("br").await.expect("br answers");
    run(&br, "INSERT INTO orders VALUES (1, 1)").await;
    expect(&cluster, &["us", "eu", "br"], VIEW, "tea|3").await;
    let change = "DELETE FROM orders WHERE id = 1 AND tributary_region = 'br'";
    let (code, message) = refused(&us, change).await;
    assert_eq!(code, SqlState::CANNOT_CONNECT_NOW, "{message}");
    assert!(message.contains("\"br\""), "{message}");
    assert_eq!(
        rows(&br, "SELECT count(*) FROM orders WHERE tributary_region = 'br'").await,
        ["1"]
    );
    run(&us, &add(&address)).await;
    run(&us, change).await;
    expect(&cluster, &["us", "eu", "br"], VIEW, "tea|2").await;
    cluster.stop().await.expect("all stop cleanly");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fenced_region_comes_back_with_what_it_wrote_meanwhile() {
    let mut cluster = with_view(&["us", "eu", "ap"]).await;
    let eu = cluster.connect("eu").await.expect("eu answers");
    run(&eu, "INSERT INTO product VALUES (2, 'milk'), (3, 'ale')").await;
    expect(&cluster, &["us", "ap"], "SELECT count(*) FROM product", "3").await;
    let us = cluster.connect("us").await.expect("us answers");
    for table in ["emptied", "dropped"] {
        run(&us, &format!("CREATE TABLE {table} (id int PRIMARY KEY)")).await;
        wait_for_rows(&eu, &format!("SELECT count(*) FROM {table}"), &["0".to_owned()]).await;
    }
    cluster.set_cut("eu", true);
    run(&eu, "INSERT INTO orders VALUES (7, 1)").await;
    run(&eu, "INSERT INTO emptied VALUES (1), (2)").await;
    run(&eu, "INSERT INTO dropped VALUES (1), (2)").await;
    run(&eu, "INSERT INTO product VALUES (4, 'gin')").await;
    run(&eu, "UPDATE product SET name = 'oat milk' WHERE id = 2").await;
    run(&eu, "UPDATE product SET name = 'porter' WHERE id = 3").await;
    run(&us, "UPDATE product SET name = 'stout' WHERE id = 3").await;
    run(&us, "TRUNCATE emptied").await;
    run(&us, "DROP TABLE dropped").await;
    run(&us, "ALTER DATABASE tributary FENCE REGION eu").await;
    expect(
        &cluster,
        &["us"],
        "SELECT state FROM tributary.regions WHERE name = 'eu'",
        "fenced",
    )
    .await;
    cluster.set_cut("eu", false);
    let ended = cluster.wait_ended("eu").await.expect("it ends by itself");
    assert!(ended.contains("fenced"), "{ended}");
    cluster
        .restart_with("eu", &["--reincarnate"])
        .await
        .expect("it joins again");
    expect(&cluster, &["us", "eu", "ap"], VIEW, "tea|4").await;
    let names = "SELECT string_agg(name, ',' ORDER BY id) FROM product";
    expect(&cluster, &["us", "eu", "ap"], names, "tea,oat milk,stout,gin").await;
    expect(&cluster, &["us", "eu"], "SELECT count(*) FROM emptied", "0").await;
    // What had been acknowledged and lost to another write is reported, before the last of it is done: as not brought back, or
    // as the earlier log had recorded it, if it heard of the other write before it was told to stop.
    let lost = "SELECT \"table\", lost_by FROM tributary.conflicts WHERE lost_row LIKE '%porter%'";
    expect(&cluster, &["us", "eu", "ap"], lost, "product|eu").await;
    let aside = cluster.data("eu").join("superseded-1");
    let is_taken_over = || async {
        match aside.join("PENDING").exists() {
            true => Err("rows are still taken over".to_owned()),
            false => Ok(()),
        }
    };
    wait_until(is_taken_over).await;
    let report = std::fs::read_to_string(aside.join("REPORT.txt")).unwrap_or_default();
    let reason = "SELECT reason FROM tributary.conflicts WHERE lost_row LIKE '%porter%'";
    let eu = cluster.connect("eu").await.expect("eu answers");
    let is_not_brought_back = rows(&eu, reason).await == ["not brought back"];
    assert_eq!(report.contains("porter"), is_not_brought_back, "{report}");
    cluster.stop().await.expect("all stop cleanly");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_primary_finds_its_cluster_and_goes_on_as_primary() {
    let mut cluster = with_view(&["us", "eu", "ap"]).await;
    cluster.kill("us").await.expect("it can be killed");
    std::fs::remove_dir_all(cluster.data("us")).expect("its data can be removed");
    cluster
        .restart_with("us", &["--reincarnate"])
        .await
        .expect("it joins again");
    expect(&cluster, &["us", "eu", "ap"], VIEW, "tea|2").await;
    let eu = cluster.connect("eu").await.expect("eu answers");
    run(&eu, "CREATE TABLE later (id int PRIMARY KEY)").await;
    expect(&cluster, &["us", "eu", "ap"], "SELECT count(*) FROM later", "0").await;
    cluster.stop().await.expect("all stop cleanly");
}
