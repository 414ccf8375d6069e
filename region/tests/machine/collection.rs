//! Tombstones go when everybody has acknowledged them, not before, and nobody who lacks them goes on.

use arrow::array::AsArray;
use tributary_region::{Input, RegionConfig, Rejected, look_into};
use tributary_replication::rows::has_seen;
use tributary_replication::{Epoch, RowVersion};
use tributary_storage::Record;

use super::cluster::{Cluster, TICK_MS, rows};

/// Three regions with a GLOBAL table of three rows, a REGIONAL one and a view over both.
fn three() -> Cluster {
    let mut cluster = Cluster::new(&["us", "eu", "ap"]);
    cluster.with_view("us");
    cluster
        .insert("us", "g", &[(1, 10), (2, 20), (3, 30)])
        .expect("in");
    cluster.insert("eu", "t", &[(1, 1), (2, 2), (3, 3)]).expect("in");
    cluster.run(400);
    cluster
}

fn tombstones(cluster: &Cluster, at: &str) -> (usize, usize) {
    let dataflow = cluster.dataflow(at);
    (dataflow.row_tombstones(), dataflow.slot_tombstones())
}

#[test]
fn an_idle_cluster_keeps_no_tombstones_and_goes_silent() {
    let mut cluster = three();
    cluster.delete("us", "g", &[1, 2]).expect("gone");
    cluster.run(200);
    for name in ["us", "eu", "ap"] {
        assert_eq!(
            tombstones(&cluster, name),
            (2, 2),
            "{name}: rows, and groups of eu"
        );
    }
    cluster.run(3_000);
    for name in ["us", "eu", "ap"] {
        assert_eq!(tombstones(&cluster, name), (0, 0), "{name}");
        assert_eq!(cluster.view(name, "m"), rows(&[[30, 1]]), "{name}");
        let table = cluster.table(name, "g");
        let held = cluster.snapshot(name).tables[&table].rows.scan(100);
        assert_eq!(
            held.map(|delta| delta.len()).sum::<usize>(),
            1,
            "{name}: what a checkpoint takes"
        );
    }
    let before = cluster.snapshot("us").position;
    cluster.run(3_000);
    assert_eq!(cluster.snapshot("us").position, before, "there is nothing to say");

    // The log says the same again, and the keys are as if they had never been used.
    let log = cluster.stop("eu");
    cluster.start("eu", &["us", "ap"], log, |_| {});
    cluster.run(600);
    assert_eq!(tombstones(&cluster, "eu"), (0, 0));
    cluster.insert("eu", "g", &[(1, 11)]).expect("in");
    cluster.run(400);
    for name in ["us", "eu", "ap"] {
        assert_eq!(cluster.view(name, "m"), rows(&[[11, 1], [30, 1]]), "{name}");
    }
}

#[test]
fn a_member_that_is_away_keeps_them_and_is_named_at_the_cap() {
    let mut cluster = Cluster::new(&[]);
    for (name, peers) in [("us", ["eu", "ap"]), ("eu", ["us", "ap"]), ("ap", ["us", "eu"])] {
        cluster.start(name, &peers, Vec::new(), |config| {
            config.tombstones_max = 2;
            if name == "us" {
                config.found = Some(tributary_region::Founding { cluster: [7; 16] });
            }
        });
    }
    cluster.run(400);
    cluster.with_view("us");
    cluster
        .insert("us", "g", &[(1, 10), (2, 20), (3, 30)])
        .expect("in");
    cluster.run(400);
    cluster.cut("ap", "us");
    cluster.cut("ap", "eu");
    cluster.delete("us", "g", &[1]).expect("gone");
    cluster.delete("eu", "g", &[2]).expect("gone");
    cluster.run(3_000);
    let table = cluster.table("us", "g");
    assert_eq!(tombstones(&cluster, "us").0, 2, "ap has not heard of them");
    assert_eq!(cluster.snapshot("eu").tombstones_kept_by(table), ["ap"]);
    let refused = cluster.delete("us", "g", &[3]);
    let expected = Rejected::Tombstones {
        table,
        tombstones_max: 2,
        kept_by: vec!["ap".to_owned()],
    };
    assert_eq!(refused, Err(expected));
    cluster
        .ddl("us", "ALTER TABLE g SET (tombstones_max = 3)")
        .expect("set");
    cluster.insert("us", "g", &[(5, 50)]).expect("in");
    cluster
        .delete("us", "g", &[5])
        .expect("the table's own limit counts");
    cluster.insert("us", "g", &[(4, 40)]).expect("other writes go on");
    // It deletes as well, and hears of all at once: what arrives is always applied.
    cluster.delete("ap", "g", &[3]).expect("gone");
    cluster.mend("ap", "us");
    cluster.mend("ap", "eu");
    cluster.run(4_000);
    for name in ["us", "eu", "ap"] {
        assert_eq!(tombstones(&cluster, name).0, 0, "{name}");
        assert!(cluster.snapshot(name).tombstones_kept_by(table).is_empty());
    }
    cluster.delete("us", "g", &[4]).expect("there is room again");
}

/// Three regions, of which `ap` is stopped, and a log of it from before rows 1 and 2 were deleted. Their tombstones are gone.
fn with_old_copy_of_ap() -> (Cluster, Vec<Record>) {
    let mut cluster = three();
    cluster.run(2_000);
    // What it acknowledges from here on it announces nothing of: of itself the others know as much as the copy holds.
    let log = cluster.stop("ap");
    cluster.start("ap", &["us", "eu"], log.clone(), |_| {});
    cluster.run(600);
    cluster.delete("us", "g", &[1, 2]).expect("gone");
    cluster.run(4_000);
    assert_eq!(tombstones(&cluster, "us"), (0, 0));
    cluster.stop("ap");
    (cluster, log)
}

#[test]
fn an_old_copy_that_lacks_tombstones_stops_and_comes_back_without_the_rows() {
    let (mut cluster, log) = with_old_copy_of_ap();
    cluster.start("ap", &["us", "eu"], log, |_| {});
    cluster.run(1_000);
    let reason = cluster.stopped("ap");
    assert!(
        reason.contains("too far behind") && reason.contains("--reincarnate"),
        "{reason}"
    );
    cluster.stop("ap");
    cluster
        .ddl("us", "ALTER DATABASE tributary FENCE REGION ap")
        .expect("fenced");
    cluster.start("ap", &["us", "eu"], Vec::new(), |config| {
        config.reincarnate = true
    });
    cluster.run(2_000);
    assert_eq!(cluster.view("ap", "m"), rows(&[[30, 1]]));
    cluster.run(2_000);
    for name in ["us", "eu", "ap"] {
        assert_eq!(tombstones(&cluster, name), (0, 0), "{name}");
    }
}

#[test]
fn what_an_old_copy_writes_before_it_is_told_is_not_taken_in() {
    let (mut cluster, log) = with_old_copy_of_ap();
    // Its peers hear it before it hears them. It still holds the row, so its write is not known to be concurrent.
    cluster.set_deaf("ap", true);
    cluster.start("ap", &["us", "eu"], log, |_| {});
    cluster.run(TICK_MS);
    let known = cluster.snapshot("us").frontier.clone();
    cluster
        .insert("ap", "g", &[(1, 99)])
        .expect("it does not know better");
    cluster.run(2_000);
    for name in ["us", "eu"] {
        assert_eq!(cluster.snapshot(name).frontier, known, "{name}");
        assert_eq!(cluster.view(name, "m"), rows(&[[30, 1]]), "{name}");
    }
    cluster.set_deaf("ap", false);
    cluster.run(2_000);
    assert!(cluster.stopped("ap").contains("too far behind"));
}

#[test]
fn who_compares_an_earlier_log_keeps_tombstones_until_that_is_done() {
    let mut cluster = Cluster::new(&["us"]);
    cluster.with_view("us");
    cluster.insert("us", "g", &[(1, 10)]).expect("in");
    let log = cluster.stop("us");
    cluster.start("us", &[], log, |config| config.keeps_tombstones = true);
    cluster.delete("us", "g", &[1]).expect("gone");
    cluster.run(3_000);
    assert_eq!(tombstones(&cluster, "us").0, 1);
    cluster.step("us", Input::TakenOver);
    cluster.run(3_000);
    assert_eq!(tombstones(&cluster, "us").0, 0);
}

#[test]
fn a_concurrent_deletion_is_told_by_who_compares_though_all_others_forgot_it() {
    let mut cluster = Cluster::new(&["us", "eu"]);
    cluster.with_view("us");
    cluster.cut("eu", "us");
    // Nobody hears of this, and meanwhile the key is used and given up.
    cluster.insert("eu", "g", &[(1, 99)]).expect("in");
    cluster.insert("us", "g", &[(1, 10)]).expect("in");
    cluster.delete("us", "g", &[1]).expect("gone");
    cluster
        .ddl("us", "ALTER DATABASE tributary FENCE REGION eu")
        .expect("fenced");
    let log = cluster.stop("eu");
    let past = look_into(&RegionConfig::new("eu", vec!["us".into()]), None, log).expect("it is whole");
    cluster.mend("eu", "us");
    cluster.start("eu", &["us"], Vec::new(), |config| {
        config.reincarnate = true;
        config.keeps_tombstones = true;
    });
    cluster.run(4_000);
    assert_eq!(tombstones(&cluster, "us").0, 0, "eu has acknowledged it");
    assert_eq!(tombstones(&cluster, "eu").0, 1);

    // What eu finds when it compares its row.
    let table = cluster.table("eu", "g");
    let old = past.tables[&table].rows.scan(10).next().expect("a row");
    let held_at = |cluster: &Cluster, name: &str| {
        let table = &cluster.snapshot(name).tables[&table];
        let found = table.rows.lookup(&old.rows().columns()[..1], old.len());
        let is_there = found.weights.values().iter().any(|weight| *weight > 0);
        is_there.then(|| found.rows.column(2 + 3).as_boolean().value(0))
    };
    assert_eq!(
        held_at(&cluster, "eu"),
        Some(true),
        "it was deleted by who had not seen eu's row"
    );
    assert_eq!(
        held_at(&cluster, "us"),
        None,
        "to be told from a key that was never used"
    );
    let context = old.rows().column(2 + 4).as_binary::<i32>().value(0);
    assert!(
        has_seen(context, None),
        "without the tombstone the row would be written again"
    );
    let origin = cluster.snapshot("us").origin.expect("it has joined");
    let tombstone = RowVersion {
        origin,
        stamp: Epoch(1),
        deleted: true,
    };
    assert!(!has_seen(context, Some(tombstone)));

    cluster.step("eu", Input::TakenOver);
    cluster.run(3_000);
    assert_eq!(tombstones(&cluster, "eu").0, 0);
}

#[test]
fn a_copy_that_went_another_way_is_found_out_though_it_is_further() {
    let mut cluster = three();
    let log = cluster.stop("ap");
    cluster.start("ap", &["us", "eu"], log.clone(), |_| {});
    cluster.run(600);
    cluster.insert("ap", "t", &[(7, 1)]).expect("in");
    cluster.run(400);
    cluster.stop("ap");
    let known = cluster.snapshot("us").frontier.clone();
    // The copy runs alone for a while, and has more records by then than the others have seen of its twin.
    cluster.cut("ap", "us");
    cluster.cut("ap", "eu");
    cluster.start("ap", &["us", "eu"], log, |_| {});
    for key in 0..10 {
        cluster.insert("ap", "t", &[(20 + key, 1)]).expect("in");
    }
    cluster.mend("ap", "us");
    cluster.mend("ap", "eu");
    cluster.run(600);
    let reason = cluster.stopped("ap");
    assert!(reason.contains("another history"), "{reason}");
    for name in ["us", "eu"] {
        assert_eq!(cluster.snapshot(name).frontier, known, "{name}");
    }
}
