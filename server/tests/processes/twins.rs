//! Two processes with one identity, both alive: the copy is told, its original is not disturbed.

use std::path::{Path, PathBuf};

use tokio_postgres::Client;
use tributary_server::demo::Cluster;

use crate::members::{VIEW, copy, expect, with_view};
use crate::running::{command, connect_at, failed_start_as, rows, run, wait_until};

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
    let (mut command, sql) = as_eu(&twin, &unreachable);
    command
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());
    let mut alone = command.spawn().expect("the binary runs");
    let client = connect_at(sql).await;
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
