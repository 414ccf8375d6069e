//! What may be said of a region between two of its incarnations. Found by the simulator.

use tributary_storage::OriginId;

use super::cluster::{Cluster, TICK_MS, rows};

#[test]
fn a_primary_that_waits_for_members_before_it_joins_anew_shows_no_view() {
    let mut cluster = Cluster::new(&["us", "eu", "ap"]);
    cluster.with_view("us");
    cluster.insert("eu", "g", &[(1, 10)]).expect("in");
    cluster.insert("eu", "t", &[(1, 1), (2, 1)]).expect("in");
    cluster.run(400);
    let view = rows(&[[10, 2]]);
    assert_eq!(cluster.view("us", "m"), view);
    cluster.stop("ap");
    cluster.stop("us");
    cluster.start("us", &["eu", "ap"], Vec::new(), |config| {
        config.reincarnate = true;
        config.members_wait_ms = 2_000;
    });
    let mut waited = 0;
    for _ in 0..250 {
        cluster.run(TICK_MS);
        match cluster.view("us", "m") {
            None => waited += usize::from(cluster.snapshot("us").catalog.object("m").is_some()),
            shown => assert_eq!(shown, view, "after {waited} ticks"),
        }
    }
    assert!(waited as u64 * TICK_MS > 1_500, "{waited} ticks");
    assert_eq!(cluster.view("us", "m"), view);
}

#[test]
fn a_region_that_joins_anew_does_not_settle_what_its_earlier_log_contributed() {
    let mut cluster = Cluster::new(&["us", "eu"]);
    cluster.with_view("us");
    // So many that the view takes longer than a heartbeat.
    let many: Vec<(i32, i32)> = (100..400_100).map(|id| (id, 7)).collect();
    cluster.insert("us", "g", &many).expect("in");
    cluster.insert("us", "g", &[(1, 10)]).expect("in");
    cluster.insert("eu", "t", &[(1, 1), (2, 2)]).expect("in");
    // eu merges them in portions, one a tick.
    cluster.run(1_000);
    assert!(cluster.snapshot("us").settled);
    cluster.stop("eu");
    cluster
        .ddl("us", "ALTER DATABASE tributary FENCE REGION eu")
        .expect("another incarnation");
    // The share of eu.1 is no longer what its rows and this one would make.
    cluster.insert("us", "g", &[(2, 20)]).expect("in");
    cluster.start("eu", &["us"], Vec::new(), |config| {
        config.reincarnate = true;
        config.backfill_rows_max = 3;
    });
    let mut waited = 0;
    for _ in 0..200 {
        cluster.run(TICK_MS);
        let snapshot = cluster.snapshot("us");
        let eu = snapshot.catalog.region_named("eu").expect("a member");
        let first = OriginId::first(eu);
        if snapshot.known_as(eu) == Some(first) {
            waited += 1;
            let is_sql = cluster.view("us", "m") == rows(&[[10, 1], [20, 1]]);
            assert!(!snapshot.settled || is_sql, "settled, after {waited} ticks");
        }
    }
    assert!(cluster.snapshot("us").settled);
    assert_eq!(cluster.view("us", "m"), Some(Vec::new()));
}

#[test]
fn the_last_words_of_a_region_that_was_dropped_reach_everybody_though_all_are_silent() {
    let mut cluster = Cluster::new(&["us", "eu", "ap"]);
    cluster.with_view("us");
    let view = "CREATE MATERIALIZED VIEW h AS SELECT w, count(*) AS n FROM g GROUP BY w";
    cluster.ddl("us", view).expect("made");
    cluster.run(400);
    cluster.cut("ap", "us");
    cluster.insert("ap", "g", &[(5, 50)]).expect("in");
    cluster.run(200);
    cluster.cut("ap", "eu");
    assert_eq!(cluster.view("eu", "h"), rows(&[[50, 1]]));
    assert_eq!(cluster.view("us", "h"), Some(Vec::new()));
    cluster
        .ddl("us", "ALTER DATABASE tributary DROP REGION ap FORCE")
        .expect("dropped");
    cluster.run(3_000);
    for name in ["us", "eu"] {
        assert_eq!(cluster.view(name, "h"), rows(&[[50, 1]]), "{name}");
    }
}

#[test]
fn a_fenced_region_is_told_by_whoever_knows_though_all_are_silent() {
    let mut cluster = Cluster::new(&["us", "eu", "ap"]);
    cluster.with_view("us");
    cluster.run(400);
    cluster.cut("eu", "us");
    cluster
        .ddl("us", "ALTER DATABASE tributary FENCE REGION eu")
        .expect("fenced");
    cluster.run(400);
    assert!(
        cluster.stopped("eu").contains("fenced"),
        "{}",
        cluster.stopped("eu")
    );
}

#[test]
fn a_region_takes_no_incarnation_that_was_given_out_though_its_first_peer_has_not_heard_of_it() {
    let mut cluster = Cluster::new(&["us", "eu", "ap"]);
    cluster.with_view("us");
    cluster.stop("eu");
    cluster
        .ddl("us", "ALTER DATABASE tributary FENCE REGION eu")
        .expect("the second");
    cluster.run(400);
    // ap knows that there may be an eu.2, and hears nothing of it.
    cluster.cut("ap", "us");
    cluster.cut("ap", "eu");
    cluster.start("eu", &["us", "ap"], Vec::new(), |config| {
        config.reincarnate = true
    });
    cluster.run(2_000);
    cluster.insert("eu", "t", &[(1, 1)]).expect("in");
    cluster.run(200);
    cluster.stop("eu");
    cluster
        .ddl("us", "ALTER DATABASE tributary FENCE REGION eu")
        .expect("the third");
    cluster.cut("eu", "us");
    cluster.mend("ap", "eu");
    cluster.start("eu", &["us", "ap"], Vec::new(), |config| {
        config.reincarnate = true;
        config.incarnation_min = 3;
    });
    cluster.run(800);
    assert_eq!(cluster.snapshot("eu").origin, None);
    cluster.mend("eu", "us");
    cluster.mend("ap", "us");
    cluster.run(2_000);
    let origin = cluster.snapshot("eu").origin.expect("it has joined");
    assert_eq!(origin.incarnation, 3);
    for name in ["us", "eu", "ap"] {
        assert!(cluster.snapshot(name).settled, "{name}");
    }
}
