//! An acknowledged write that lost to a concurrent one is told of once, everywhere.

use tributary_region::Input;
use tributary_region::dataflow::conflicts::{CONFLICTS, Conflict, Reason, RecordedConflict, conflicts};
use tributary_replication::{Epoch, Hlc};
use tributary_storage::{ObjectId, OriginId, RegionId};

use super::members::Cluster;

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
