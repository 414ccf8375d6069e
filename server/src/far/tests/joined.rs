//! Aggregates over joins that the owners compute, beside the same over rows.

use std::sync::Arc;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::pushed::{chosen, named};
use super::world::{World, lines};

const JOINS: [&str; 9] = [
    "t JOIN dim ON t.g = dim.g",
    "dim JOIN t ON t.g = dim.g AND t.s > dim.weight",
    "t LEFT JOIN dim ON t.g = dim.g AND (dim.weight < t.s OR t.ok)",
    "dim RIGHT JOIN t ON dim.g = t.g",
    "dim JOIN t ON t.g + 1 = dim.g AND t.s = dim.weight",
    "t JOIN (VALUES (1, 'one', 1), (2, 'two', 2), (2, 'zwei', 0)) AS dim (g, name, weight) ON t.g = dim.g",
    "t LEFT JOIN (SELECT length(k) AS g, max(k) AS name, sum(n)::int AS weight FROM kinds GROUP BY 1) dim ON t.g = dim.g",
    "(SELECT * FROM t WHERE s > 0) t JOIN kinds ON t.k = kinds.k LEFT JOIN dim ON dim.g = kinds.n AND dim.g <> t.g",
    "dim JOIN kinds ON dim.g = kinds.n JOIN t ON t.k = kinds.k",
];
const GROUPS: [&str; 7] = [
    "dim.name",
    "dim.weight % 2",
    "t.g",
    "t.k",
    "t.tributary_region",
    "upper(dim.name)",
    "coalesce(dim.name, t.k)",
];
const AGGREGATES: [&str; 10] = [
    "count(*)",
    "count(dim.name)",
    "sum(t.b)",
    "sum(dim.weight)",
    "avg(t.d)",
    "min(dim.name)",
    "max(t.at)",
    "sum(t.g * dim.weight)",
    "count(*) FILTER (WHERE dim.weight > 1)",
    "max(t.k || dim.name)",
];
const CONDITIONS: [&str; 6] = [
    "",
    "WHERE t.g > 1",
    "WHERE t.s + dim.weight > 3",
    "WHERE dim.name LIKE '%e' OR t.k IS NULL",
    "WHERE t.id < 10",
    "WHERE dim.weight IS NULL",
];

fn query(random: &mut StdRng) -> String {
    let groups = chosen(&GROUPS, random.random_range(0..3), random);
    let number = random.random_range(usize::from(groups.is_empty())..4);
    let aggregates = chosen(&AGGREGATES, number, random);
    let shown: Vec<String> = groups.iter().chain(&aggregates).enumerate().map(named).collect();
    let mut sql = format!(
        "SELECT {} FROM {} {}",
        shown.join(", "),
        JOINS.choose(random).expect("there are some"),
        CONDITIONS.choose(random).expect("there are some"),
    );
    if !groups.is_empty() {
        sql = format!("{sql} GROUP BY {}", groups.join(", "));
    }
    sql
}

#[tokio::test(flavor = "multi_thread")]
async fn what_owners_join_and_aggregate_is_what_comes_of_their_rows() {
    let mut pushed = 0;
    for seed in 0..4 {
        let mut random = StdRng::seed_from_u64(seed);
        let sizes = [[20, 30, 40], [0, 60, 0], [7, 0, 1], [90, 5, 200]][seed as usize];
        let world = World::new(seed, sizes).await;
        for number in 0..40 {
            let sql = query(&mut random);
            let reads_own = number % 5 != 0;
            let (over_rows, with_help, helped) = world.both(&sql, reads_own).await;
            assert_eq!(over_rows.0, with_help.0, "seed {seed}, rows {sizes:?}: {sql}");
            assert!(over_rows.0.is_ok(), "seed {seed}: {sql}: {:?}", over_rows.0);
            pushed += usize::from(helped);
        }
    }
    // The others ask for rows of the side by a semi-join, or read nothing because a condition contradicts itself.
    assert!(pushed > 100, "most of 160 go along: {pushed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn joins_that_give_rows_of_the_table_go_along() {
    let world = World::new(6, [30, 40, 50]).await;
    let statements = [
        "SELECT count(*) FROM t WHERE g IN (SELECT g FROM dim WHERE weight > 0)",
        "SELECT k, sum(g) FROM t WHERE EXISTS (SELECT FROM kinds WHERE kinds.k = t.k AND kinds.n > t.g) GROUP BY k",
        "SELECT k, count(*) FROM t WHERE NOT EXISTS (SELECT FROM kinds WHERE kinds.k = t.k) GROUP BY k",
        "SELECT count(*) FROM t JOIN dim ON t.g IS NOT DISTINCT FROM dim.weight",
        "SELECT name, n FROM (SELECT dim.name, count(*) AS n FROM t JOIN dim USING (g) GROUP BY 1) ORDER BY n, name LIMIT 2",
        "SELECT a.n, b.n FROM (SELECT count(*) AS n FROM t JOIN dim USING (g)) a, (SELECT count(*) AS n FROM t) b",
        "SELECT count(*) FROM t JOIN generate_series(1, 1000) AS s(i) ON t.id = s.i",
        "SELECT w.x, count(*) FROM t JOIN (SELECT g, repeat(name, 50000) AS x FROM dim) w USING (g) GROUP BY 1",
        "SELECT count(*), sum(t.g) FROM t JOIN dim ON t.g = dim.g AND t.g > dim.weight * 100",
        "SELECT count(*) FROM t JOIN (SELECT g FROM dim WHERE weight > 100) d USING (g)",
        "SELECT count(*), count(d.g) FROM t LEFT JOIN (SELECT g FROM dim WHERE weight > 100) d USING (g)",
        "SELECT count(*) FROM t WHERE g IN (SELECT weight FROM dim WHERE weight IS NULL)",
        "SELECT count(*) FROM t WHERE NOT EXISTS (SELECT FROM dim WHERE dim.weight IS NULL AND dim.weight = t.g)",
        "SELECT count(*) FROM t JOIN dim ON t.g IS NOT DISTINCT FROM dim.weight",
    ];
    world.all_go_along(&statements).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn joins_that_need_rows_of_all_regions_or_much_of_this_one_stay_here() {
    let world = World::new(7, [30, 40, 50]).await;
    let statements = [
        "SELECT dim.name, count(t.id) FROM dim LEFT JOIN t ON t.g = dim.g GROUP BY 1",
        "SELECT DISTINCT dim.name FROM t JOIN dim USING (g)",
        "SELECT count(*) FROM t WHERE g NOT IN (SELECT weight FROM dim WHERE weight > 100)",
        "SELECT count(*) FROM t WHERE g NOT IN (SELECT weight FROM dim WHERE weight IS NULL)",
        "SELECT count(*) FROM t FULL JOIN dim ON t.g = dim.g",
        "SELECT count(*) FROM t CROSS JOIN dim",
        "SELECT count(*) FROM t JOIN dim ON t.g > dim.g",
        "SELECT count(*) FROM dim WHERE g IN (SELECT g FROM t)",
        "SELECT count(*) FROM t WHERE g NOT IN (SELECT weight FROM dim)",
        "SELECT count(*) FROM t a JOIN t b ON a.g = b.g",
        "SELECT count(*) FROM t JOIN (SELECT g FROM dim LIMIT 3) d ON t.g = d.g WHERE t.id = 3",
        "SELECT count(*) FROM t JOIN tributary.regions r ON t.k = r.name",
        "SELECT count(*) FROM t JOIN dim USING (g) WHERE t.id > (SELECT min(n) FROM kinds)",
        "SELECT count(*) FROM t JOIN (SELECT g FROM dim WHERE weight > (SELECT min(n) FROM kinds)) d USING (g)",
        "SELECT count(*) FROM t JOIN secret USING (g)",
        "SELECT count(*) FROM t JOIN (SELECT * FROM dim WHERE g IN (SELECT g FROM secret)) dim USING (g)",
        "SELECT count(*) FROM t JOIN generate_series(1, 70000) AS s(i) ON t.id = s.i",
        "SELECT max(s.v) FROM t JOIN (SELECT i, repeat('x', 100) AS v FROM generate_series(1, 20000) AS s(i)) s ON t.id = s.i",
        "SELECT t.ok, md5(dim.name), count(*) FROM t JOIN dim USING (g) GROUP BY 1, 2",
    ];
    world.all_stay_here(&statements).await;
    // An aggregate beside a join that stays is pushed all the same.
    let both = "SELECT a.n, b.n FROM (SELECT count(*) AS n FROM t JOIN generate_series(1, 70000) AS s(i) ON t.id = s.i) a, \
                (SELECT count(*) AS n FROM t) b";
    let (over_rows, with_help, helped) = world.both(both, true).await;
    assert_eq!(over_rows.0, with_help.0);
    assert!(helped && with_help.1 < over_rows.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_enforced_since_the_snapshot_was_taken_stays_here() {
    let world = World::new(9, [30, 40, 50]).await;
    let sql = "SELECT dim.name, count(*) FROM t JOIN dim USING (g) GROUP BY 1";
    for (enforced, expected) in [
        (None, ["states", "states"]),
        (Some("kinds"), ["states", "states"]),
        (Some("dim"), ["rows", "rows"]),
        (Some("t"), ["rows", "rows"]),
    ] {
        let mut reads = world.owners();
        reads.enforced.extend(enforced.map(|table| world.table(table)));
        let reads = Arc::new(reads);
        let answer = world.plan(sql, &reads, true).await.collect().await;
        assert!(answer.is_ok_and(|rows| rows.num_rows() > 1));
        assert_eq!(*reads.asked.lock().expect("no panic"), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_runs_again_sends_no_sides() {
    let world = World::new(9, [30, 40, 50]).await;
    let sql = "SELECT dim.name, count(*) FROM t JOIN dim USING (g) GROUP BY 1";
    let mut reads = world.owners();
    reads.is_repeated = true;
    let reads = Arc::new(reads);
    let answer = world.plan(sql, &reads, true).await.collect().await;
    assert!(answer.is_ok_and(|rows| rows.num_rows() > 1));
    assert_eq!(*reads.asked.lock().expect("no panic"), ["rows", "rows"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn sides_of_a_statement_are_bounded_together() {
    let world = World::new(10, [30, 40, 50]).await;
    // About 0.9 MB each.
    let one = "SELECT count(s.v) AS n FROM t JOIN (SELECT i, repeat('x', 90) || i::text AS v \
               FROM generate_series(1, 8000) AS s(i)) s ON t.id = s.i";
    let all = |count: usize| vec![one; count].join(" UNION ALL ");
    world.all_go_along(&[&all(2)]).await;
    world.all_stay_here(&[&all(20)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_a_side_and_of_a_join_are_the_statement_s() {
    let world = World::new(8, [5, 5, 5]).await;
    for sql in [
        "SELECT count(*) FROM t JOIN (SELECT g, 1 / (g - 1) AS x FROM dim) d ON t.g = d.g AND d.x > 0",
        "SELECT count(*) FROM t JOIN dim ON t.g = dim.g AND 1 / (t.g - dim.g) > 0",
        "SELECT sum(1 / (t.g - dim.g)) FROM t JOIN dim ON t.g = dim.g",
    ] {
        let (over_rows, with_help, _) = world.both(sql, true).await;
        assert_eq!(over_rows.0, Err("22012".to_owned()), "{sql}");
        assert_eq!(with_help.0, over_rows.0, "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_knows_scans_only_is_asked_for_rows_to_join() {
    let world = World::new(4, [40; 3]).await;
    let sql = "SELECT dim.name, count(*), sum(d) FROM t JOIN dim USING (g) GROUP BY 1";
    let mut reads = world.owners();
    reads.old.push("us");
    let reads = Arc::new(reads);
    let answer = world
        .plan(sql, &reads, true)
        .await
        .collect()
        .await
        .expect("it has rows");
    let (expected, _, _) = world.both(sql, true).await;
    assert_eq!(Ok(lines(&answer)), expected.0);
    let mut asked = reads.asked.lock().expect("no panic").clone();
    asked.sort_unstable();
    assert_eq!(asked, ["rows", "rows", "states"], "eu had understood");
}
