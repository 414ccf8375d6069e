//! The door withholds what residency forbids, also where the planner had let it pass.

use tributary_planner::catalog::{CatalogChange, Residency, TableOptions};
use tributary_region::entry::{Entry, Timed};
use tributary_replication::{Bundle, SectionObject};

use super::cluster::Cluster;

/// Sets the residency of `t` where the planner would not: while a view reads it.
fn set_residency(cluster: &mut Cluster, residency: Residency) {
    let table = cluster.table("us", "t");
    let options = TableOptions {
        residency,
        ..TableOptions::default()
    };
    let set = CatalogChange::SetOptions { table, options };
    cluster.change_catalog("us", vec![set]).expect("set");
}

#[test]
fn a_bundle_with_a_forbidden_part_is_withheld_whole_until_the_catalog_changes() {
    let mut cluster = Cluster::new(&["us", "eu"]);
    cluster.with_view("us");
    let keyed = "CREATE MATERIALIZED VIEW keyed AS SELECT v, count(*) AS n FROM t GROUP BY v";
    cluster.ddl("us", keyed).expect("made");
    cluster.insert("us", "g", &[(1, 10)]).expect("in");
    cluster.insert("us", "t", &[(1, 1), (2, 1)]).expect("in");
    cluster.run(400);
    assert_eq!(cluster.view("eu", "keyed"), Some(vec![vec![1, 2]]));

    set_residency(&mut cluster, Residency::Enforced);
    cluster.insert("us", "t", &[(3, 1), (4, 2)]).expect("in");
    cluster.insert("us", "g", &[(2, 20)]).expect("in");
    cluster.run(2_000);
    assert_eq!(cluster.view("us", "keyed"), Some(vec![vec![1, 3], vec![2, 1]]));
    assert_eq!(cluster.view("eu", "keyed"), Some(vec![vec![1, 2]]));
    assert_eq!(
        cluster.view("eu", "m"),
        Some(vec![vec![10, 2]]),
        "nor anything else of it"
    );
    let reasons = cluster.withheld("us");
    assert_eq!(reasons.len(), 1, "told once: {reasons:?}");
    assert!(reasons[0].contains("may not leave the region"), "{reasons:?}");

    // What others send is not affected.
    cluster.insert("eu", "g", &[(3, 30)]).expect("in");
    cluster.run(400);
    assert_eq!(
        cluster.snapshot("us").tables[&cluster.table("us", "g")]
            .rows
            .row_count(),
        3
    );

    set_residency(&mut cluster, Residency::default());
    cluster.run(2_000);
    assert_eq!(cluster.view("eu", "keyed"), Some(vec![vec![1, 3], vec![2, 1]]));
    assert_eq!(cluster.view("eu", "m"), cluster.view("us", "m"));
}

#[test]
fn a_chunk_with_a_forbidden_part_is_withheld_and_so_is_all_that_follows() {
    let mut cluster = Cluster::new(&[]);
    for (name, peer) in [("us", "eu"), ("eu", "us")] {
        cluster.start(name, &[peer], Vec::new(), |config| {
            config.link.bundle_bytes_max = 20_000;
            config.link.chunk_bytes_max = 4_000;
            if name == "us" {
                config.found = Some(tributary_region::Founding { cluster: [7; 16] });
            }
        });
    }
    cluster.run(400);
    cluster.with_view("us");
    let keyed = "CREATE MATERIALIZED VIEW keyed AS SELECT v, count(*) AS n FROM t GROUP BY v";
    cluster.ddl("us", keyed).expect("made");
    cluster.insert("us", "t", &[(1, 1)]).expect("in");
    cluster.run(400);
    let before = cluster.view("eu", "keyed");

    cluster.cut("eu", "us");
    let many: Vec<(i32, i32)> = (100..3_100).map(|id| (id, id)).collect();
    cluster.insert("us", "g", &many).expect("in");
    cluster.insert("us", "t", &many).expect("in");
    set_residency(&mut cluster, Residency::Enforced);
    cluster.mend("eu", "us");
    cluster.run(4_000);
    let reasons = cluster.withheld("us");
    assert_eq!(reasons.len(), 1, "told once: {reasons:?}");
    assert!(reasons[0].contains("may not leave the region"), "{reasons:?}");
    let view = cluster.table("us", "keyed");
    let chunks = |cluster: &Cluster| {
        let log = cluster.log("eu").iter();
        let entries = log.filter_map(|record| Timed::decode(record.position, &record.payload).ok());
        let chunks = entries.filter_map(|timed| match timed.entry {
            Entry::Chunk(bytes) => Some(Bundle::decode(&bytes).expect("it was checked")),
            _ => None,
        });
        chunks.collect::<Vec<_>>()
    };
    let came = chunks(&cluster);
    assert!(!came.is_empty(), "what may leave and was read before it has come");
    let is_of_view = |object: &SectionObject| matches!(object, SectionObject::Slots(id) if id.view == view);
    let mut sections = came.iter().flat_map(|chunk| &chunk.sections);
    assert!(!sections.any(|section| is_of_view(&section.object)));
    assert_eq!(cluster.view("eu", "keyed"), before, "nothing of it is shown");

    set_residency(&mut cluster, Residency::default());
    cluster.run(6_000);
    assert_eq!(cluster.view("eu", "keyed"), cluster.view("us", "keyed"));
    assert_eq!(cluster.view("eu", "m"), cluster.view("us", "m"));
    assert!(chunks(&cluster).len() > came.len());
}
