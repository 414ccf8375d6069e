//! A table can ask that it is written only while connected regions are near enough.

use tributary_region::Rejected;

use super::members::Cluster;

#[test]
fn a_table_is_written_only_while_connected_regions_are_near_enough() {
    let mut cluster = Cluster::new(&["us", "eu"]);
    for (table, options) in [
        ("shed", "WITH (backpressure = 'shed', lag_max = '300ms')"),
        ("block", "WITH (backpressure = 'block', lag_max = '1s')"),
        ("free", ""),
    ] {
        let create = format!("CREATE TABLE {table} (id INT PRIMARY KEY, v INT) LOCALITY GLOBAL {options}");
        cluster.ddl("us", &create).expect("made");
    }
    cluster.run(400);
    cluster.slow_down("us", "eu", true);
    cluster.insert("us", "shed", &[(1, 1)]).expect("eu is near");
    cluster.run(200);
    cluster.insert("us", "shed", &[(2, 1)]).expect("near enough");
    cluster.run(300);
    let refused = cluster.insert("us", "shed", &[(3, 1)]).expect_err("too far");
    let Rejected::Behind {
        peer,
        lag_ms,
        lag_max_ms,
        waits,
        ..
    } = refused
    else {
        panic!("{refused:?}");
    };
    assert_eq!((peer.as_str(), lag_max_ms, waits), ("eu", 300, false));
    assert!(
        (400..700).contains(&lag_ms),
        "since the oldest change: {lag_ms} ms"
    );
    cluster
        .insert("us", "block", &[(1, 1)])
        .expect("near enough for this table");
    cluster.insert("us", "free", &[(1, 1)]).expect("it does not ask");
    cluster.insert("eu", "shed", &[(9, 1)]).expect("us is near eu");
    cluster.run(700);
    let refused = cluster.insert("us", "block", &[(2, 1)]).expect_err("too far now");
    assert!(
        matches!(
            refused,
            Rejected::Behind {
                waits: true,
                lag_max_ms: 1_000,
                ..
            }
        ),
        "{refused:?}"
    );

    // Who is cut off stops nobody, and when it is back only the time since then counts.
    cluster.cut("eu", "us");
    cluster
        .insert("us", "shed", &[(4, 1)])
        .expect("nobody is connected");
    cluster.run(2_000);
    cluster.mend("eu", "us");
    cluster.run(60);
    cluster.insert("us", "shed", &[(5, 1)]).expect("just back");
    cluster.run(500);
    cluster
        .insert("us", "shed", &[(6, 1)])
        .expect_err("too far again");

    // Near again, all goes on, and nothing of what was refused is there.
    cluster.slow_down("us", "eu", false);
    cluster.run(3_000);
    cluster.insert("us", "shed", &[(7, 1)]).expect("near");
    cluster.run(400);
    for name in ["us", "eu"] {
        let rows = cluster.snapshot(name).tables[&cluster.table(name, "shed")]
            .rows
            .row_count();
        assert_eq!(rows, 6, "{name}");
    }

    // The options can be taken back.
    cluster.slow_down("us", "eu", true);
    cluster.insert("us", "free", &[(2, 1)]).expect("in");
    cluster.run(2_000);
    cluster.insert("us", "shed", &[(8, 1)]).expect_err("too far");
    cluster
        .ddl("us", "ALTER TABLE shed RESET (backpressure)")
        .expect("reset");
    cluster
        .insert("us", "shed", &[(8, 1)])
        .expect("it does not ask any more");
}
