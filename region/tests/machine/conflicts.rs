//! An acknowledged write that lost to a concurrent one is told of once, everywhere.

use tributary_region::Input;
use tributary_region::dataflow::conflicts::{
    CONFLICTS, CONFLICTS_MAX, Conflict, Reason, RecordedConflict, conflicts, unheard,
};
use tributary_replication::{Epoch, Hlc};
use tributary_storage::{ObjectId, OriginId, RegionId};

use super::cluster::Cluster;

fn recorded(cluster: &Cluster, at: &str) -> Vec<RecordedConflict> {
    let mut all = conflicts(&cluster.snapshot(at).tables[&CONFLICTS]);
    all.sort_by_key(|recorded| (recorded.region, recorded.number));
    all
}

#[test]
fn the_loser_is_recorded_by_its_region_and_shown_in_all() {
    let mut cluster = Cluster::new(&["us", "eu", "ap"]);
    cluster.with_view("us");
    cluster
        .insert("us", "g", &[(1, 10), (2, 20), (3, 30)])
        .expect("in");
    cluster.run(400);
    for peer in ["us", "ap"] {
        let (a, b) = if peer < "eu" { (peer, "eu") } else { ("eu", peer) };
        cluster.cut(a, b);
    }
    cluster.insert("us", "g", &[(1, 11), (2, 21)]).expect("in");
    cluster.insert("us", "g", &[(1, 12)]).expect("in");
    cluster.run(100);
    let won = cluster.insert("eu", "g", &[(1, 13)]).expect("in");
    cluster.delete("eu", "g", &[2]).expect("gone");
    assert!(recorded(&cluster, "us").is_empty());
    for peer in ["us", "ap"] {
        let (a, b) = if peer < "eu" { (peer, "eu") } else { ("eu", peer) };
        cluster.mend(a, b);
    }
    cluster.run(1_000);
    let all = recorded(&cluster, "us");
    for name in ["eu", "ap"] {
        assert_eq!(recorded(&cluster, name), all, "{name}");
    }
    let shown: Vec<String> = all
        .iter()
        .map(
            |RecordedConflict {
                 region,
                 number,
                 conflict,
                 ..
             }| {
                let deleted = conflict.winner.is_some_and(|winner| winner.deleted);
                format!(
                    "{} {number} {} {} {deleted}",
                    region.0, conflict.table_name, conflict.row
                )
            },
        )
        .collect();
    // What was overwritten by its own region was no loss.
    assert_eq!(
        shown,
        [r#"1 0 g {"id":1,"w":12} false"#, r#"1 1 g {"id":2,"w":21} true"#]
    );
    let first = &all[0].conflict;
    assert_eq!(
        (first.key.as_str(), first.reason),
        (r#"{"id":1}"#, Reason::Concurrent)
    );
    assert_eq!(first.winner.map(|winner| winner.epoch), Some(Epoch(won.0)));

    // The log says the same again, and what was recorded is not recorded twice.
    let log = cluster.stop("us");
    cluster.start("us", &["eu", "ap"], log, |_| {});
    cluster.run(600);
    assert_eq!(recorded(&cluster, "us"), all);
    let again = Conflict {
        reason: Reason::NotBroughtBack,
        ..first.clone()
    };
    let new = Conflict {
        table: ObjectId(77),
        origin: OriginId::first(RegionId(1)),
        hlc: Hlc::from_ms(5),
        winner: None,
        ..again.clone()
    };
    let conflicts = vec![again, new.clone()];
    cluster.step(
        "us",
        Input::Lost {
            token: 900,
            conflicts,
        },
    );
    cluster.run(4_000);
    for name in ["us", "eu", "ap"] {
        let now = recorded(&cluster, name);
        assert_eq!(now[..2], all[..], "{name}");
        assert_eq!(
            (now[2].number, &now[2].conflict, now.len()),
            (2, &new, 3),
            "{name}"
        );
        assert_eq!(cluster.dataflow(name).row_tombstones(), 0, "{name}");
    }
}

fn lost(key: i64) -> Conflict {
    Conflict {
        table: ObjectId(77),
        table_name: "gone".to_owned(),
        key: format!(r#"{{"id":{key}}}"#),
        row: String::new(),
        origin: OriginId::first(RegionId(2)),
        epoch: Epoch(9),
        hlc: Hlc::from_ms(5),
        winner: None,
        reason: Reason::NotBroughtBack,
    }
}

#[test]
fn what_an_earlier_incarnation_recorded_keeps_a_place_however_late_it_comes() {
    let mut cluster = Cluster::new(&["us", "eu", "ap"]);
    let record = |cluster: &mut Cluster, conflicts: &[i64]| {
        let conflicts = conflicts.iter().map(|key| lost(*key)).collect();
        let token = 900;
        cluster.step("eu", Input::Lost { token, conflicts });
        cluster.run(1_000);
    };
    record(&mut cluster, &[1]);
    cluster.cut("ap", "us");
    cluster.cut("eu", "us");
    record(&mut cluster, &[2, 3]);
    // What is taken over when the log is given up: what nobody has heard of. us has missed what ap has.
    let unheard_at = |cluster: &Cluster, at: &str| -> Vec<Conflict> {
        let table = cluster.snapshot("eu").tables[&CONFLICTS].clone();
        unheard(&table, RegionId(3), &cluster.snapshot(at).frontier)
    };
    assert_eq!(unheard_at(&cluster, "us"), [lost(2), lost(3)]);
    assert!(unheard_at(&cluster, "ap").is_empty());
    assert_eq!(
        (recorded(&cluster, "us").len(), recorded(&cluster, "ap").len()),
        (1, 3)
    );
    // What only ap has heard of is not here when eu comes back with nothing.
    cluster.stop("eu");
    cluster.cut("ap", "eu");
    cluster.mend("eu", "us");
    cluster
        .ddl("us", "ALTER DATABASE tributary FENCE REGION eu")
        .expect("fenced");
    cluster.start("eu", &["us", "ap"], Vec::new(), |config| {
        config.reincarnate = true
    });
    cluster.run(1_000);
    assert!(cluster.dataflow("eu").has_joined());
    record(&mut cluster, &[3]);
    cluster.mend("ap", "eu");
    cluster.mend("ap", "us");
    cluster.run(3_000);
    for name in ["us", "eu", "ap"] {
        let all = recorded(&cluster, name);
        let mut keys: Vec<&str> = all
            .iter()
            .map(|recorded| recorded.conflict.key.as_str())
            .collect();
        keys.sort();
        assert_eq!(keys, [r#"{"id":1}"#, r#"{"id":2}"#, r#"{"id":3}"#], "{name}");
    }
}

/// The shell of `eu` has found out that these were lost.
fn lose(cluster: &mut Cluster, keys: impl Iterator<Item = i64>) {
    let conflicts = keys.map(lost).collect();
    let token = 900;
    cluster.step("eu", Input::Lost { token, conflicts });
    cluster.run(1_000);
}

#[test]
fn conflicts_are_removed_everywhere_but_not_those_that_were_not_heard_of() {
    let mut cluster = Cluster::new(&["us", "eu"]);
    let record = |cluster: &mut Cluster, conflicts: &[i64]| {
        lose(cluster, conflicts.iter().copied());
    };
    let forget = |cluster: &mut Cluster, at: &str, which: &RecordedConflict| {
        let conflicts = vec![which.id()];
        cluster.step(
            at,
            Input::Forget {
                token: 901,
                conflicts,
            },
        );
        cluster.run(1_000);
    };
    let keys = |cluster: &Cluster, at: &str| -> Vec<String> {
        let all = recorded(cluster, at).into_iter();
        all.map(|recorded| recorded.conflict.key).collect()
    };
    record(&mut cluster, &[1, 2]);
    let all = recorded(&cluster, "us");
    forget(&mut cluster, "us", &all[0]);
    for name in ["us", "eu"] {
        assert_eq!(keys(&cluster, name), [r#"{"id":2}"#], "{name}");
    }
    // eu gives the number out again, and us removes what it knows under it.
    cluster.cut("eu", "us");
    forget(&mut cluster, "eu", &all[1]);
    record(&mut cluster, &[3, 4]);
    forget(&mut cluster, "us", &all[1]);
    cluster.mend("eu", "us");
    cluster.run(3_000);
    for name in ["us", "eu"] {
        let mut keys = keys(&cluster, name);
        keys.sort();
        assert_eq!(keys, [r#"{"id":3}"#, r#"{"id":4}"#], "{name}");
        assert_eq!(cluster.dataflow(name).row_tombstones(), 0, "{name}");
    }
    // The log says the same again.
    let before = recorded(&cluster, "eu");
    let log = cluster.stop("eu");
    cluster.start("eu", &["us"], log, |_| {});
    cluster.run(1_000);
    assert_eq!(recorded(&cluster, "eu"), before);
}

#[test]
fn another_incarnation_leaves_no_more_conflicts_than_one() {
    let mut cluster = Cluster::new(&["us", "eu"]);
    let max = CONFLICTS_MAX as i64;
    lose(&mut cluster, 0..max);
    assert_eq!(recorded(&cluster, "us").len() as i64, max);
    cluster.stop("eu");
    cluster
        .ddl("us", "ALTER DATABASE tributary FENCE REGION eu")
        .expect("fenced");
    cluster.start("eu", &["us"], Vec::new(), |config| config.reincarnate = true);
    cluster.run(1_000);
    let conflicts = vec![lost(max), lost(max + 1)];
    cluster.step(
        "eu",
        Input::Lost {
            token: 900,
            conflicts,
        },
    );
    cluster.run(4_000);
    for name in ["us", "eu"] {
        let all = recorded(&cluster, name);
        assert_eq!(all.len() as i64, max, "{name}");
        assert_eq!((&all[0].conflict, all[0].number), (&lost(2), 2), "{name}");
        assert_eq!(cluster.dataflow(name).row_tombstones(), 0, "{name}");
    }
}

#[test]
fn what_comes_with_a_conflict_is_counted_on_from() {
    let mut cluster = Cluster::new(&["us", "eu", "ap"]);
    cluster.with_view("us");
    cluster.run(1_000);
    cluster.cut("ap", "us");
    cluster.cut("eu", "us");
    let conflicts = vec![lost(1), lost(2)];
    cluster.step(
        "eu",
        Input::Lost {
            token: 900,
            conflicts,
        },
    );
    cluster.insert("eu", "g", &[(1, 11)]).expect("in");
    cluster.run(400);
    cluster.insert("us", "g", &[(1, 12)]).expect("in");
    // eu comes back with nothing, and ap tells of the conflicts and of the row that has lost by one bundle.
    cluster.stop("eu");
    cluster
        .ddl("us", "ALTER DATABASE tributary FENCE REGION eu")
        .expect("fenced");
    cluster.mend("eu", "us");
    cluster.cut("ap", "eu");
    cluster.start("eu", &["us", "ap"], Vec::new(), |config| {
        config.reincarnate = true
    });
    cluster.run(200);
    assert!(recorded(&cluster, "eu").is_empty());
    cluster.mend("ap", "eu");
    cluster.run(1_000);
    cluster.mend("ap", "us");
    cluster.run(3_000);
    for name in ["us", "eu", "ap"] {
        let all = recorded(&cluster, name).into_iter();
        let all: Vec<String> = all
            .map(|known| format!("{} {}", known.number, known.conflict.key))
            .collect();
        assert_eq!(all, [r#"0 {"id":1}"#, r#"1 {"id":2}"#, r#"2 {"id":1}"#], "{name}");
    }
}
