//! Aggregates whose first half the owners compute, beside the same aggregates over rows.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::StreamExt;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use tributary_storage::ObjectId;

use super::super::forward::{Errand, ForwardReply};
use super::super::owner;
use super::super::partial::PartialRequest;
use super::super::request::Request;
use super::super::{FarError, FarReads, FarRows};
use super::damaged;
use super::world::{Owners, World, lines};
use crate::pgwire::error::SqlError;

const GROUPS: [&str; 14] = [
    "g",
    "k",
    "ok",
    "day",
    "s",
    "tributary_region",
    "g % 2",
    "upper(k)",
    "coalesce(k, 'none')",
    "date_trunc('day', at)",
    "CASE WHEN g > 2 THEN 'many' WHEN g IS NULL THEN 'none' ELSE 'few' END",
    "g + 1",
    "d > 20",
    "k || '-'",
];
const AGGREGATES: [&str; 22] = [
    "count(*)",
    "count(k)",
    "sum(g)",
    "sum(b)",
    "sum(d)",
    "sum(f)",
    "avg(g)",
    "avg(d)",
    "avg(f)",
    "avg(b)",
    "min(k)",
    "max(at)",
    "min(day)",
    "max(d * 2)",
    "bool_and(ok)",
    "bool_or(ok)",
    "count(*) FILTER (WHERE g > 1)",
    "sum(s)",
    "bit_and(g)",
    "max(length(k))",
    "sum(CASE WHEN ok THEN 1 ELSE 0 END)",
    "avg(s)",
];
const CONDITIONS: [&str; 12] = [
    "",
    "WHERE g > 1",
    "WHERE k LIKE 'x%' OR g IS NULL",
    "WHERE id < 10",
    "WHERE id = 3",
    "WHERE id BETWEEN 5 AND 40",
    "WHERE g IN (1, 2, 4) AND ok",
    "WHERE g + s > 3",
    "WHERE lower(k) = 'ä'",
    "WHERE d / 2 > 10",
    "WHERE at > '2024-03-05' AND NOT ok",
    "WHERE id < 0",
];

pub(super) fn chosen(from: &[&'static str], number: usize, random: &mut StdRng) -> Vec<&'static str> {
    let mut from = from.to_vec();
    from.shuffle(random);
    from.truncate(number);
    from
}

fn query(random: &mut StdRng) -> String {
    let number = random.random_range(0..3);
    let groups = chosen(&GROUPS, number, random);
    let number = random.random_range(usize::from(groups.is_empty())..5);
    let aggregates = chosen(&AGGREGATES, number, random);
    let shown: Vec<String> = groups.iter().chain(&aggregates).enumerate().map(named).collect();
    let mut sql = format!(
        "SELECT {} FROM t {}",
        shown.join(", "),
        CONDITIONS.choose(random).expect("there are some")
    );
    if !groups.is_empty() {
        sql = format!("{sql} GROUP BY {}", groups.join(", "));
    }
    if random.random_ratio(1, 3) {
        sql.push_str(" HAVING count(*) > 1");
    }
    if random.random_ratio(1, 4) {
        let order: Vec<String> = (1..=shown.len()).map(|column| column.to_string()).collect();
        sql = format!("{sql} ORDER BY {} LIMIT 3", order.join(", "));
    }
    sql
}

pub(super) fn named((number, expr): (usize, &&str)) -> String {
    format!("{expr} AS c{number}")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_owners_aggregate_is_what_comes_of_their_rows() {
    let (mut states, mut rows) = (0, 0);
    for seed in 0..12 {
        let mut random = StdRng::seed_from_u64(seed);
        let sizes = [(); 3].map(|()| *[0, 1, 30, 120].choose(&mut random).expect("some"));
        let world = World::new(seed, sizes).await;
        for _ in 0..25 {
            let sql = query(&mut random);
            let reads_own = random.random_ratio(2, 3);
            let (over_rows, with_help, helped) = world.both(&sql, reads_own).await;
            assert_eq!(over_rows.0, with_help.0, "seed {seed}, rows {sizes:?}: {sql}");
            assert!(helped, "seed {seed}: {sql}");
            rows += over_rows.1;
            states += with_help.1;
        }
    }
    assert!(states * 3 < rows, "{states} states, {rows} rows");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_merge_or_is_not_known_there_stays_here() {
    let world = World::new(1, [40; 3]).await;
    let statements = [
        "SELECT count(DISTINCT g), count(DISTINCT k), sum(g) FROM t",
        "SELECT string_agg(k, ',' ORDER BY k) FROM t",
        "SELECT array_agg(g ORDER BY g) FROM t",
        "SELECT median(f) FROM t",
        "SELECT g, count(*) FROM t GROUP BY ROLLUP (g)",
        "SELECT random() < 2, count(*) FROM t GROUP BY 1",
        "SELECT count(*) FROM (SELECT id FROM t LIMIT 7) few",
        "SELECT md5(k), count(*) FROM t GROUP BY 1",
        "SELECT a.g, count(*) FROM t a JOIN t b ON a.g = b.s GROUP BY a.g",
        "SELECT count(*) FROM (SELECT rank() OVER (ORDER BY id) AS r FROM t) ranked WHERE r < 5",
    ];
    world.all_stay_here(&statements).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn aggregates_anywhere_in_a_statement_are_pushed() {
    let world = World::new(2, [40; 3]).await;
    for sql in [
        "SELECT DISTINCT g FROM t",
        "SELECT count(DISTINCT g), sum(s) FROM t",
        "SELECT DISTINCT g FROM t LIMIT 2",
        "SELECT x.g, x.n, y.most FROM (SELECT g, count(*) AS n FROM t GROUP BY g) x \
         JOIN (SELECT g, max(d) AS most FROM t GROUP BY g) y ON x.g = y.g",
        "SELECT count(*) FROM (SELECT g, sum(b) AS total FROM t GROUP BY g) sums WHERE total > 0",
        "SELECT g, sum(n) FROM (SELECT g, k, count(*) AS n FROM t GROUP BY g, k) counts GROUP BY g",
        "SELECT max(f) FROM t UNION ALL SELECT min(f) FROM t",
        "SELECT count(*) FROM t WHERE tributary_region = 'eu'",
        "SELECT tributary_region, stddev_pop(s), var_pop(s) FROM t GROUP BY tributary_region",
        "SELECT g, max(d) AS most FROM t GROUP BY g ORDER BY most DESC NULLS LAST LIMIT 2",
    ] {
        let (over_rows, with_help, helped) = world.both(sql, true).await;
        assert!(helped, "{sql}");
        match sql.ends_with("FROM t LIMIT 2") {
            // Which two is nobody's promise.
            true => assert_eq!(
                over_rows.0.map(|lines| lines.len()),
                with_help.0.map(|lines| lines.len())
            ),
            false => assert_eq!(over_rows.0, with_help.0, "{sql}"),
        }
        assert!(
            with_help.1 < over_rows.1,
            "{sql}: {} of {}",
            with_help.1,
            over_rows.1
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_in_what_owners_compute_are_the_statement_s() {
    let world = World::new(3, [0, 40, 40]).await;
    for (sql, state) in [
        ("SELECT sum(10 / (id - 5)) FROM t", "22012"),
        ("SELECT count(*) FROM t WHERE 10 / (id - 5) > 1", "22012"),
        ("SELECT max(id + 2147483640) FROM t", "22003"),
        ("SELECT max(k::int) FROM t", "22P02"),
    ] {
        let (over_rows, with_help, _) = world.both(sql, true).await;
        assert_eq!(over_rows.0, Err(state.to_owned()), "{sql}");
        assert_eq!(with_help.0, Err(state.to_owned()), "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_knows_scans_only_is_asked_for_rows() {
    let world = World::new(4, [40; 3]).await;
    let sql = "SELECT g, count(*), sum(d) FROM t GROUP BY g";
    let mut reads = world.owners();
    reads.old.push("us");
    let reads = Arc::new(reads);
    let answer = world.plan(sql, &reads, true).await.collect().await;
    let (expected, _, _) = world.both(sql, true).await;
    assert_eq!(
        answer
            .map(|rows| lines(&rows))
            .map_err(|error| error.state.to_owned()),
        expected.0
    );
    let mut asked = reads.asked.lock().expect("no panic").clone();
    asked.sort_unstable();
    assert_eq!(asked, ["rows", "rows", "states"], "eu had understood");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_aggregation_is_refused_or_answered() {
    /// Keeps what is asked.
    struct Listener(Mutex<Vec<Request>>);
    #[async_trait]
    impl FarReads for Listener {
        async fn open(&self, _region: &str, request: &Request) -> Result<FarRows, FarError> {
            self.0.lock().expect("no panic").push(request.clone());
            Ok(futures::stream::empty().boxed())
        }

        async fn forward(&self, _: &str, _: &Errand) -> Result<ForwardReply, FarError> {
            panic!("nothing is written here")
        }

        fn is_resident(&self, _: ObjectId) -> bool {
            false
        }
    }
    let world = World::new(5, [1, 20, 1]).await;
    let owners = world.owners();
    let listener = Arc::new(Listener(Mutex::default()));
    for sql in [
        "SELECT CASE WHEN g > 2 THEN upper(k) ELSE 'few' END AS c, count(*), avg(d), sum(b) \
         FILTER (WHERE k LIKE 'x%'), min(at) FROM t WHERE g + s IN (1, 2, 3, 4) AND NOT k IS NULL GROUP BY 1",
        "SELECT kinds.n, count(*) FROM t LEFT JOIN kinds ON t.k = kinds.k AND kinds.n <> t.g GROUP BY 1",
    ] {
        let planned = world
            .plan_by(sql, &owners, Arc::clone(&listener) as _, true)
            .await;
        planned
            .collect()
            .await
            .expect("nothing comes, and that is an answer");
        let requests = std::mem::take(&mut *listener.0.lock().expect("no panic"));
        let Some(Request::States(sound)) = requests.into_iter().next() else {
            panic!("it is pushed: {sql}");
        };
        check_damaged(&owners, &sound);
    }
}

fn check_damaged(owners: &Owners, sound: &PartialRequest) {
    let kept = &owners.regions["eu"];
    let answer = |request: &Request| -> Result<usize, String> {
        let answer = owner::answer(&kept.versions, &kept.snapshot, request);
        answer
            .map_err(|opened| format!("{opened:?}"))?
            .enumerate()
            .map(|(number, batch)| {
                assert!(number < 10, "it does not end: {request:?}");
                batch.map(|batch| batch.num_rows())
            })
            .sum::<Result<usize, _>>()
            .map_err(|error| SqlError::from(error).to_string())
    };
    assert!(answer(&Request::States(Box::new(sound.clone()))).is_ok_and(|groups| groups > 1));
    let (mut answered, mut refused) = (0, 0);
    for bytes in damaged(sound) {
        match postcard::from_bytes(&bytes).map(|request| answer(&Request::States(Box::new(request)))) {
            Ok(Ok(_)) => answered += 1,
            Ok(Err(error)) => {
                assert!(!error.contains("an internal error ended"), "{error}");
                refused += 1;
            }
            Err(_) => refused += 1,
        }
    }
    assert!(
        answered > 0 && refused > 0,
        "{answered} answered, {refused} refused"
    );
}
