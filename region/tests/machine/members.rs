//! Regions that come, go, and come back with nothing.

use tributary_region::{Effect, Input, Rejected};
use tributary_replication::Message;

use super::cluster::{Cluster, TICK_MS, rows};

#[test]
fn a_region_that_is_added_serves_what_the_others_have_and_contributes() {
    let mut cluster = Cluster::new(&["us", "eu"]);
    cluster.with_view("us");
    cluster.insert("us", "g", &[(1, 10), (2, 20)]).expect("in");
    cluster.insert("us", "t", &[(1, 1), (2, 2)]).expect("in");
    cluster.insert("eu", "t", &[(1, 1)]).expect("in");
    cluster.run(400);

    cluster.start("ap", &["us", "eu"], Vec::new(), |_| {});
    cluster.run(600);
    assert!(
        cluster.snapshot("ap").catalog.cluster.is_none(),
        "nobody talks to a stranger"
    );
    cluster
        .ddl("us", "ALTER DATABASE tributary ADD REGION ap")
        .expect("added");
    // A view that can be read can be read all the time.
    for _ in 0..60 {
        cluster.run(TICK_MS);
        for name in ["us", "eu"] {
            assert_eq!(cluster.view(name, "m"), rows(&[[10, 2], [20, 1]]), "{name}");
        }
    }
    assert_eq!(cluster.view("ap", "m"), rows(&[[10, 2], [20, 1]]));
    cluster.insert("ap", "t", &[(1, 2)]).expect("it takes writes");
    cluster.run(400);
    for name in ["us", "eu", "ap"] {
        assert_eq!(cluster.view(name, "m"), rows(&[[10, 2], [20, 2]]), "{name}");
        assert!(cluster.snapshot(name).settled, "{name}");
    }
}

#[test]
fn a_region_that_joins_takes_no_writes_before_its_views_are_complete() {
    let mut cluster = Cluster::new(&["us", "eu"]);
    cluster.with_view("us");
    let many: Vec<(i32, i32)> = (0..500).map(|id| (id, id)).collect();
    cluster.insert("us", "g", &many).expect("in");
    cluster.run(200);
    cluster
        .ddl("us", "ALTER DATABASE tributary ADD REGION ap")
        .expect("added");
    cluster.start("ap", &["us", "eu"], Vec::new(), |config| {
        config.backfill_rows_max = 3
    });
    let mut refused = 0;
    for id in 0..100 {
        cluster.run(TICK_MS);
        if cluster.snapshot("ap").catalog.object("t").is_none() {
            continue;
        }
        match cluster.insert("ap", "t", &[(id, 7)]) {
            Ok(_) => break,
            Err(rejected) => assert_eq!(rejected, Rejected::Joining),
        }
        refused += 1;
        assert_eq!(cluster.view("us", "m"), Some(Vec::new()));
    }
    assert!(refused > 0, "it joined at once");
    cluster.run(400);
    for name in ["us", "eu", "ap"] {
        assert_eq!(cluster.view(name, "m"), rows(&[[7, 1]]), "{name}");
    }
}

#[test]
fn a_region_that_was_alone_gets_company() {
    let mut cluster = Cluster::new(&["us"]);
    cluster.with_view("us");
    cluster.insert("us", "g", &[(1, 10)]).expect("in");
    cluster.insert("us", "t", &[(1, 1), (2, 1)]).expect("in");
    cluster.run(100);
    assert_eq!(cluster.view("us", "m"), rows(&[[10, 2]]));
    cluster
        .ddl("us", "ALTER DATABASE tributary ADD REGION eu")
        .expect("added");
    cluster.start("eu", &["us"], Vec::new(), |_| {});
    cluster.run(800);
    cluster.insert("eu", "t", &[(1, 1)]).expect("in");
    cluster.run(400);
    for name in ["us", "eu"] {
        assert_eq!(cluster.view(name, "m"), rows(&[[10, 3]]), "{name}");
    }
    // Its log is replayed over the moment at which its views changed their kind.
    let log = cluster.stop("us");
    cluster.start("us", &["eu"], log, |_| {});
    cluster.run(400);
    assert_eq!(cluster.view("us", "m"), rows(&[[10, 3]]));
}

#[test]
fn a_region_that_lost_its_log_stops_and_comes_back_as_another_incarnation() {
    let mut cluster = Cluster::new(&["us", "eu"]);
    cluster.with_view("us");
    cluster.insert("eu", "g", &[(1, 10)]).expect("in");
    cluster.insert("eu", "t", &[(1, 1), (2, 1)]).expect("in");
    cluster.insert("us", "t", &[(1, 1)]).expect("in");
    cluster.run(400);
    assert_eq!(cluster.view("us", "m"), rows(&[[10, 3]]));

    cluster.stop("eu");
    cluster.start("eu", &["us"], Vec::new(), |_| {});
    cluster.run(800);
    assert!(
        cluster.stopped("eu").contains("--reincarnate"),
        "{}",
        cluster.stopped("eu")
    );
    assert_eq!(
        cluster.view("us", "m"),
        rows(&[[10, 3]]),
        "nothing is undone by that"
    );

    let log = cluster.stop("eu");
    let again = cluster.try_start("eu", &["us"], log, |_| {});
    assert!(again.is_err_and(|reason| reason.contains("lost its log")));

    cluster
        .ddl("us", "ALTER DATABASE tributary FENCE REGION eu")
        .expect("another incarnation");
    cluster.start("eu", &["us"], Vec::new(), |config| config.reincarnate = true);
    for _ in 0..60 {
        cluster.run(TICK_MS);
        let now = cluster.view("us", "m");
        let whole = [rows(&[[10, 3]]), rows(&[[10, 1]])];
        assert!(
            whole.contains(&now),
            "all of the old incarnation or nothing of it: {now:?}"
        );
    }
    cluster.insert("eu", "t", &[(1, 1)]).expect("in");
    cluster.run(400);
    for name in ["us", "eu"] {
        assert_eq!(
            cluster.view(name, "m"),
            rows(&[[10, 2]]),
            "{name}: the GLOBAL row of eu.1 is still there"
        );
        assert!(cluster.snapshot(name).settled, "{name}");
    }
}

#[test]
fn a_fenced_region_stops_when_it_hears_of_it() {
    let mut cluster = Cluster::new(&["us", "eu", "ap"]);
    cluster.with_view("us");
    cluster.run(200);
    let log = cluster.stop("eu");
    cluster
        .ddl("us", "ALTER DATABASE tributary FENCE REGION eu")
        .expect("fenced");
    cluster.start("eu", &["us", "ap"], log, |_| {});
    cluster
        .insert("eu", "t", &[(9, 9)])
        .expect("it does not know yet");
    cluster.run(600);
    assert!(
        cluster.stopped("eu").contains("fenced"),
        "{}",
        cluster.stopped("eu")
    );
    let eu = cluster
        .snapshot("us")
        .catalog
        .region_named("eu")
        .expect("still a member");
    assert_eq!(
        cluster.snapshot("us").known_as(eu).map(|known| known.incarnation),
        Some(1)
    );
}

#[test]
fn a_primary_that_lost_its_log_finds_its_cluster_and_goes_on() {
    let mut cluster = Cluster::new(&["us", "eu", "ap"]);
    cluster.with_view("us");
    cluster.insert("us", "g", &[(1, 10)]).expect("in");
    cluster.insert("us", "t", &[(1, 1)]).expect("in");
    cluster.insert("eu", "t", &[(1, 1)]).expect("in");
    cluster.run(400);
    cluster.stop("us");
    // The shell does not found a cluster when its peers have one.
    cluster.start("us", &["eu", "ap"], Vec::new(), |config| {
        config.reincarnate = true
    });
    cluster.run(1_500);
    for name in ["us", "eu", "ap"] {
        assert_eq!(cluster.view(name, "m"), rows(&[[10, 1]]), "{name}");
    }
    cluster
        .ddl("us", "CREATE TABLE later (id INT PRIMARY KEY, v INT)")
        .expect("it still is the primary");
    cluster.run(400);
    for name in ["us", "eu", "ap"] {
        let snapshot = cluster.snapshot(name);
        let us = snapshot.catalog.region_named("us").expect("a member");
        assert_eq!(snapshot.catalog.regions[&us].incarnation, 2, "{name}");
        assert!(snapshot.catalog.object("later").is_some(), "{name}");
        assert!(snapshot.settled, "{name}");
    }
}

#[test]
fn a_primary_that_lost_its_log_waits_for_members_that_are_away() {
    for is_late in [false, true] {
        let mut cluster = Cluster::new(&["us", "eu", "ap"]);
        cluster.with_view("us");
        cluster.run(400);
        // What only ap hears of.
        let eu = cluster.stop("eu");
        cluster
            .ddl("us", "CREATE TABLE last (id INT PRIMARY KEY, v INT)")
            .expect("made");
        cluster.run(400);
        cluster.stop("us");
        let ap = cluster.stop("ap");
        cluster.start("eu", &["us", "ap"], eu, |_| {});
        cluster.start("us", &["eu", "ap"], Vec::new(), |config| {
            config.reincarnate = true;
            config.members_wait_ms = 2_000;
        });
        cluster.run(1_000);
        let writes_as = |cluster: &Cluster| cluster.snapshot("us").origin;
        assert_eq!(writes_as(&cluster), None, "ap may know more");
        if is_late {
            cluster.run(2_500);
            assert!(writes_as(&cluster).is_some(), "it does not wait for ever");
            continue;
        }
        cluster.start("ap", &["us", "eu"], ap, |_| {});
        cluster.run(1_500);
        for name in ["us", "eu", "ap"] {
            let snapshot = cluster.snapshot(name);
            assert!(snapshot.catalog.object("last").is_some(), "{name}");
            let us = snapshot.catalog.region_named("us").expect("a member");
            assert_eq!(snapshot.catalog.regions[&us].incarnation, 2, "{name}");
        }
    }
}

#[test]
fn the_primary_is_handed_over_and_the_old_one_is_dropped() {
    let mut cluster = Cluster::new(&["us", "eu", "ap"]);
    cluster.with_view("us");
    cluster.insert("us", "g", &[(1, 10)]).expect("in");
    cluster.insert("us", "t", &[(1, 1)]).expect("in");
    cluster
        .ddl("us", "ALTER DATABASE tributary SET PRIMARY REGION eu")
        .expect("handed over");
    cluster.run(400);
    let refused = cluster.ddl("us", "CREATE TABLE x (id INT PRIMARY KEY, v INT)");
    assert_eq!(refused, Err(Rejected::NotPrimary));
    cluster
        .ddl("eu", "CREATE TABLE x (id INT PRIMARY KEY, v INT)")
        .expect("made");
    cluster
        .ddl("eu", "ALTER DATABASE tributary DROP REGION us")
        .expect("drained");
    cluster.run(400);
    assert_eq!(cluster.insert("us", "t", &[(2, 1)]), Err(Rejected::Leaving));
    cluster
        .ddl("eu", "ALTER DATABASE tributary DROP REGION us")
        .expect("dropped");
    cluster.run(400);
    assert!(
        cluster.stopped("us").contains("dropped"),
        "{}",
        cluster.stopped("us")
    );
    cluster.insert("ap", "t", &[(1, 1)]).expect("in");
    cluster.run(400);
    for name in ["eu", "ap"] {
        assert_eq!(
            cluster.view(name, "m"),
            rows(&[[10, 2]]),
            "{name}: the share of us stays"
        );
        assert!(cluster.snapshot(name).settled, "{name}");
    }
    // A view that is new does not wait for it.
    cluster
        .ddl(
            "eu",
            "CREATE MATERIALIZED VIEW n AS SELECT v, count(*) AS n FROM t GROUP BY v",
        )
        .expect("made");
    cluster.run(400);
    assert_eq!(cluster.view("ap", "n"), rows(&[[1, 1]]));
}

#[test]
fn a_stranger_is_told_why_nobody_talks_to_it() {
    let mut cluster = Cluster::new(&["us", "eu"]);
    let peer = "br".to_owned();
    let out = cluster.effects_of("us", Input::Connected { peer });
    let told = out.iter().position(|effect| {
        matches!(effect, Effect::Send { peer, message: Message::Refuse { reason } }
            if peer == "br" && reason.contains("ADD REGION \"br\" first"))
    });
    let closed = out
        .iter()
        .position(|effect| matches!(effect, Effect::Close { peer, .. } if peer == "br"));
    assert!(told.is_some() && told < closed, "it is told, and then left");
}
