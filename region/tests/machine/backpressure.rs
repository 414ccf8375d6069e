//! A table can ask that it is written only while connected regions are near enough.

use tributary_region::Rejected;

use super::cluster::{Cluster, TICK_MS};

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

#[test]
fn what_is_set_for_a_region_goes_before_what_tables_say() {
    let mut cluster = Cluster::new(&["us", "eu", "ap"]);
    let create = "CREATE TABLE shed (id INT PRIMARY KEY, v INT) LOCALITY GLOBAL WITH (backpressure = 'shed', lag_max = '300ms')";
    cluster.ddl("us", create).expect("made");
    cluster
        .ddl(
            "us",
            "CREATE TABLE free (id INT PRIMARY KEY, v INT) LOCALITY GLOBAL",
        )
        .expect("made");
    cluster.run(400);
    let set = |cluster: &mut Cluster, what: &str| {
        let sql = format!("ALTER DATABASE tributary ALTER REGION ap {what}");
        cluster.ddl("us", &sql).expect("set");
    };
    let who = |outcome: Result<_, Rejected>| match outcome {
        Err(Rejected::Behind {
            peer,
            lag_max_ms,
            waits,
            ..
        }) => Some((peer, lag_max_ms, waits)),
        Err(other) => panic!("{other:?}"),
        Ok(_) => None,
    };
    let ap = |lag_max_ms, waits| Some(("ap".to_owned(), lag_max_ms, waits));
    cluster.slow_down("us", "ap", true);
    cluster.insert("us", "shed", &[(1, 1)]).expect("ap is near");
    cluster.run(600);
    assert_eq!(who(cluster.insert("us", "shed", &[(2, 1)])), ap(300, false));
    set(&mut cluster, "SET (backpressure = 'coalesce')");
    assert_eq!(who(cluster.insert("us", "shed", &[(2, 1)])), None);
    // Another one that is behind still counts, though it is less so.
    cluster.slow_down("us", "eu", true);
    cluster.insert("us", "shed", &[(3, 1)]).expect("eu is near");
    cluster.run(600);
    let eu = Some(("eu".to_owned(), 300, false));
    assert_eq!(who(cluster.insert("us", "shed", &[(4, 1)])), eu);
    cluster.slow_down("us", "eu", false);
    cluster.run(600);
    assert_eq!(who(cluster.insert("us", "shed", &[(4, 1)])), None);
    set(&mut cluster, "SET (backpressure = 'block', lag_max = '1s')");
    assert_eq!(
        who(cluster.insert("us", "free", &[(1, 1)])),
        ap(1_000, true),
        "of all tables"
    );
    set(&mut cluster, "RESET (backpressure)");
    assert_eq!(who(cluster.insert("us", "free", &[(1, 1)])), None);
    assert_eq!(
        who(cluster.insert("us", "shed", &[(5, 1)])),
        ap(1_000, false),
        "of the table, after its time"
    );
    // It is the same in every region, and after a restart.
    assert!(cluster.snapshot("eu").catalog.region_options == cluster.snapshot("us").catalog.region_options);
    let log = cluster.stop("us");
    cluster.start("us", &["eu", "ap"], log, |_| {});
    assert_eq!(cluster.snapshot("us").catalog.region_options.len(), 1);
    set(&mut cluster, "RESET (lag_max)");
    assert!(cluster.snapshot("us").catalog.region_options.is_empty());
}

#[test]
fn fifty_writers_wait_and_all_get_in_when_the_region_is_near_again() {
    const WRITERS: i32 = 50;
    let mut cluster = Cluster::new(&["us", "eu"]);
    let create = "CREATE TABLE block (id INT PRIMARY KEY, v INT) LOCALITY GLOBAL WITH (backpressure = 'block', lag_max = '300ms')";
    cluster.ddl("us", create).expect("made");
    cluster.run(400);
    cluster.slow_down("us", "eu", true);
    cluster.insert("us", "block", &[(0, 0)]).expect("eu is near");
    cluster.run(600);
    // Each asks again and again, as sessions do, with a row of its own.
    let mut waiting: Vec<i32> = (1..=WRITERS).collect();
    for _ in 0..20 {
        let outcomes = cluster.insert_together("us", "block", &waiting);
        for outcome in outcomes {
            assert!(
                matches!(outcome, Err(Rejected::Behind { waits: true, .. })),
                "{outcome:?}"
            );
        }
    }
    assert_eq!(
        cluster.snapshot("us").tables[&cluster.table("us", "block")]
            .rows
            .row_count(),
        1
    );
    cluster.slow_down("us", "eu", false);
    let mut rounds = 0;
    while !waiting.is_empty() {
        rounds += 1;
        assert!(rounds < 100, "{} writers starve", waiting.len());
        let outcomes = cluster.insert_together("us", "block", &waiting);
        let mut outcomes = outcomes.into_iter();
        waiting.retain(|_| outcomes.next().is_some_and(|outcome| outcome.is_err()));
        cluster.run(TICK_MS);
    }
    cluster.run(600);
    for name in ["us", "eu"] {
        let rows = cluster.snapshot(name).tables[&cluster.table(name, "block")]
            .rows
            .row_count();
        assert_eq!(rows, 1 + WRITERS as usize, "{name}: each once");
    }
}
