//! Two processes with one identity, both alive: the copy is told, its original is not disturbed.

use std::path::{Path, PathBuf};

use tokio_postgres::Client;
use tributary_server::demo::Cluster;

use crate::members::{VIEW, copy, expect, with_view};
use crate::running::{command, connect_at, failed_start_as, rows, run, wait_for_rows, wait_until};

/// Stops `eu`, copies its disk, and starts it again.
async fn copied(cluster: &mut Cluster) -> PathBuf {
    cluster.stop_one("eu").await.expect("it stops cleanly");
    let data = cluster.data("eu").to_owned();
    let twin = data.with_extension("twin");
    copy(&data, &twin);
    cluster.restart("eu").await.expect("it comes back");
    twin
}

/// The command that starts the copy as `eu`, on ports of its own.
fn as_eu(data: &Path, peers: &[(&str, String)]) -> (tokio::process::Command, std::net::SocketAddr) {
    let (mut command, [sql, ..]) = command(data);
    command.args(["--region", "eu", "--primary-region", "us"]);
    for (name, address) in peers {
        command.args(["--peer", &format!("{name}={address}")]);
    }
    (command, sql)
}

/// Starts the copy where it reaches these peers only; its process, and a client of it.
async fn started_as_eu(data: &Path, peers: &[(&str, String)]) -> (tokio::process::Child, Client) {
    let (mut command, sql) = as_eu(data, peers);
    command
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());
    let process = command.spawn().expect("the binary runs");
    (process, connect_at(sql).await)
}

fn peers(cluster: &Cluster) -> [(&'static str, String); 2] {
    ["us", "ap"].map(|name| (name, cluster.peer_address(name).to_string()))
}

/// The original goes on: what it writes arrives, and it is nobody's other incarnation.
async fn goes_on(cluster: &Cluster, eu: &Client, id: u32, sum: u32) {
    run(eu, &format!("INSERT INTO orders VALUES ({id}, 1)")).await;
    expect(cluster, &["us", "eu", "ap"], VIEW, &format!("tea|{sum}")).await;
    let incarnation = "SELECT incarnation, state FROM tributary.regions WHERE name = 'eu'";
    expect(cluster, &["us", "eu", "ap"], incarnation, "1|member").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_beside_its_original_is_told_and_the_original_goes_on() {
    let mut cluster = with_view(&["us", "eu", "ap"]).await;
    let twin = copied(&mut cluster).await;
    let eu = cluster.connect("eu").await.expect("eu answers");
    goes_on(&cluster, &eu, 2, 4).await;
    let told = failed_start_as(as_eu(&twin, &peers(&cluster)).0).await;
    assert!(told.contains("restored from an old copy"), "{told}");
    goes_on(&cluster, &eu, 3, 5).await;
    cluster.stop().await.expect("all stop cleanly");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_that_went_on_alone_is_told_and_nothing_of_it_arrives() {
    let mut cluster = with_view(&["us", "eu", "ap"]).await;
    let twin = copied(&mut cluster).await;
    let eu = cluster.connect("eu").await.expect("eu answers");
    goes_on(&cluster, &eu, 2, 4).await;
    // Nobody is there whom it could ask, so it goes on from where it was, and further than its original.
    let unreachable = [("us", "127.0.0.1:1".to_owned()), ("ap", "127.0.0.1:1".to_owned())];
    let (mut alone, client) = started_as_eu(&twin, &unreachable).await;
    for id in 100..140 {
        run(&client, &format!("INSERT INTO orders VALUES ({id}, 1)")).await;
    }
    let own = "SELECT n FROM sales";
    let shows_them = || async {
        match rows(&client, own).await.as_slice() {
            [n] if n == "43" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    };
    wait_until(shows_them).await;
    goes_on(&cluster, &eu, 3, 5).await;
    alone.kill().await.expect("it can be killed");

    let told = failed_start_as(as_eu(&twin, &peers(&cluster)).0).await;
    assert!(told.contains("has seen another history"), "{told}");
    goes_on(&cluster, &eu, 4, 6).await;
    cluster.stop().await.expect("all stop cleanly");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_fork_told_a_region_that_was_cut_off_goes_when_both_come_back_as_other_incarnations() {
    let mut cluster = with_view(&["us", "eu", "ap"]).await;
    let twin = copied(&mut cluster).await;
    cluster.set_cut("ap", true);
    let eu = cluster.connect("eu").await.expect("eu answers");
    run(&eu, "INSERT INTO orders VALUES (2, 1), (3, 1)").await;
    run(&eu, "INSERT INTO product VALUES (2, 'milk')").await;
    expect(&cluster, &["us"], VIEW, "tea|5").await;

    // The copy reaches the region that is cut off from the others, and is believed there.
    let reachable = [
        ("us", "127.0.0.1:1".to_owned()),
        ("ap", cluster.peer_address("ap").to_string()),
    ];
    let (mut alone, client) = started_as_eu(&twin, &reachable).await;
    run(&client, "INSERT INTO orders VALUES (100, 1)").await;
    run(&client, "INSERT INTO product VALUES (3, 'tee')").await;
    expect(&cluster, &["ap"], VIEW, "tea|4").await;
    expect(&cluster, &["ap"], "SELECT count(*) FROM product", "2").await;
    alone.kill().await.expect("it can be killed");
    let ap = cluster.connect("ap").await.expect("ap answers");
    run(&ap, "INSERT INTO orders VALUES (2, 1)").await;

    // Two histories of one region do not mix: whoever holds one talks to nobody who holds the other.
    cluster.set_cut("ap", false);
    let told = cluster.wait_ended("eu").await.expect("it ends by itself");
    assert!(told.contains("another history of this region"), "{told}");
    let us = cluster.connect("us").await.expect("us answers");
    let reason = "SELECT last_error LIKE '%holds another history of%' FROM tributary.links WHERE peer = 'ap'";
    wait_for_rows(&us, reason, &["t".to_owned()]).await;
    assert_eq!(rows(&us, VIEW).await, ["tea|5"]);

    run(&us, "ALTER DATABASE tributary FENCE REGION eu").await;
    run(&us, "ALTER DATABASE tributary FENCE REGION ap").await;
    let told = cluster.wait_ended("ap").await.expect("it ends by itself");
    assert!(told.contains("was fenced or superseded"), "{told}");
    for region in ["ap", "eu"] {
        let started = cluster.restart_with(region, &["--reincarnate"]).await;
        started.expect("it joins again");
    }
    // Of each its own rows are back, and what the fork had told is nowhere.
    let regions = ["us", "eu", "ap"];
    expect(&cluster, &regions, VIEW, "tea|6").await;
    expect(&cluster, &regions, "SELECT count(*) FROM product", "2").await;
    let incarnations = "SELECT count(*) FROM tributary.regions WHERE incarnation > 1 AND state = 'member'";
    expect(&cluster, &regions, incarnations, "2").await;
    cluster.stop().await.expect("all stop cleanly");
}
