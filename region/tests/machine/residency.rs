//! The door withholds what residency forbids, also where the planner had let it pass.

use tributary_planner::catalog::{CatalogChange, Residency, TableOptions};

use super::members::Cluster;

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

    // The planner refuses this while the view exists.
    let table = cluster.table("us", "t");
    let set = |residency| CatalogChange::SetOptions {
        table,
        options: TableOptions {
            residency,
            ..TableOptions::default()
        },
    };
    cluster
        .change_catalog("us", vec![set(Residency::Enforced)])
        .expect("set");
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

    cluster
        .change_catalog("us", vec![set(Residency::default())])
        .expect("reset");
    cluster.run(2_000);
    assert_eq!(cluster.view("eu", "keyed"), Some(vec![vec![1, 3], vec![2, 1]]));
    assert_eq!(cluster.view("eu", "m"), cluster.view("us", "m"));
}
