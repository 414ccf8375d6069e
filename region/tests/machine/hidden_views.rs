//! Views of which one side of a join is a hidden view: three regions, random changes, restarts; where the frontier is
//! settled every region shows the batch answer.

use std::collections::BTreeMap;

use super::cluster::Cluster;

const REGIONS: [&str; 3] = ["eu", "us", "asia"];

const TABLES: [&str; 2] = [
    "CREATE TABLE orders (id INT PRIMARY KEY, customer INT)",
    "CREATE TABLE payments (id INT PRIMARY KEY, payer INT)",
];
/// How many orders and payments there are of each customer, and the sum of the ids of both.
const PAID: &str = "SELECT o.customer, count(*) AS n, sum(p.id + o.id) AS s FROM orders o \
                    JOIN payments p ON p.payer = o.customer GROUP BY o.customer";

/// Numbers that look random, the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> i32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        i32::try_from((self.0 >> 33) % bound).expect("small bounds")
    }
}

/// Rows by region and key.
type Rows = BTreeMap<(&'static str, i32), i32>;

#[derive(Default)]
struct World {
    orders: Rows,
    payments: Rows,
}

impl World {
    /// Changes some rows of one region.
    fn change(&mut self, cluster: &mut Cluster, numbers: &mut Numbers) {
        let region = REGIONS[usize::try_from(numbers.below(3)).expect("small")];
        let (table, rows) = match numbers.below(2) {
            0 => ("orders", &mut self.orders),
            _ => ("payments", &mut self.payments),
        };
        let key = numbers.below(40);
        match rows.remove(&(region, key)) {
            Some(_) => drop(cluster.delete(region, table, &[key]).expect("it is there")),
            None => {
                let value = numbers.below(5);
                cluster
                    .insert(region, table, &[(key, value)])
                    .expect("the key is free");
                rows.insert((region, key), value);
            }
        }
    }

    fn answer(&self) -> Vec<Vec<i64>> {
        let mut answer: BTreeMap<i32, (i64, i64)> = BTreeMap::new();
        for ((_, order), customer) in &self.orders {
            for ((_, payment), _) in self.payments.iter().filter(|(_, payer)| *payer == customer) {
                let (count, sum) = answer.entry(*customer).or_default();
                *count += 1;
                *sum += i64::from(*payment + *order);
            }
        }
        let rows = answer.into_iter();
        rows.map(|(customer, (count, sum))| vec![i64::from(customer), count, sum])
            .collect()
    }

    /// Every region shows the batch answer.
    fn check(&self, cluster: &Cluster, views: &[&str]) {
        let expected = Some(self.answer());
        for region in REGIONS {
            assert!(cluster.snapshot(region).settled, "{region} is settled");
            for view in views {
                assert_eq!(cluster.view(region, view), expected, "{view} in {region}");
            }
        }
    }
}

fn hidden(cluster: &Cluster, region: &str) -> usize {
    let snapshot = cluster.snapshot(region);
    let objects = snapshot.catalog.objects.values();
    objects.filter(|object| object.is_hidden()).count()
}

fn create(cluster: &mut Cluster, view: &str, merge: &str) {
    let text = format!("CREATE MATERIALIZED VIEW {view} WITH (merge = '{merge}') AS {PAID}");
    cluster.ddl("eu", &text).expect("it can be made");
}

#[test]
fn settled_views_over_hidden_views_are_the_batch_answer() {
    let mut cluster = Cluster::new(&REGIONS);
    for table in TABLES {
        cluster.ddl("eu", table).expect("the primary makes tables");
    }
    let (mut world, mut numbers) = (World::default(), Numbers(7));
    for _ in 0..40 {
        world.change(&mut cluster, &mut numbers);
    }
    cluster.run(200);
    for (view, merge) in [
        ("small", "p"),
        ("large", "orders"),
        ("also", "p"),
        ("both", "both"),
    ] {
        create(&mut cluster, view, merge);
    }
    cluster.run(400);
    assert_eq!(hidden(&cluster, "us"), 2, "equal ones are one");
    let views = ["small", "large", "also", "both"];
    world.check(&cluster, &views);
    for round in 0..12 {
        for _ in 0..6 {
            world.change(&mut cluster, &mut numbers);
        }
        if round % 4 == 1 {
            // It begins anew from its log.
            let log = cluster.stop("us");
            cluster.start("us", &["eu", "asia"], log, |_| {});
        }
        cluster.run(600);
        world.check(&cluster, &views);
    }
    assert!(!world.answer().is_empty(), "there is something to compare");
    cluster
        .ddl("eu", "DROP MATERIALIZED VIEW small, large")
        .expect("nothing reads them");
    assert_eq!(hidden(&cluster, "asia"), 1, "one is read by another view");
    world.change(&mut cluster, &mut numbers);
    cluster.run(400);
    world.check(&cluster, &["also", "both"]);
    cluster
        .ddl("eu", "DROP MATERIALIZED VIEW also")
        .expect("nothing reads it");
    assert_eq!(hidden(&cluster, "asia"), 0);
}

/// Three regions of which `us` is apart, has a payment, and does not hear of two views: `late` reads a hidden one, and `top`
/// reads `late`.
fn with_views_that_wait() -> Cluster {
    let mut cluster = Cluster::new(&REGIONS);
    for table in TABLES {
        cluster.ddl("eu", table).expect("the primary makes tables");
    }
    cluster.insert("us", "payments", &[(1, 5)]).expect("free");
    cluster.insert("eu", "orders", &[(1, 5), (2, 6)]).expect("free");
    cluster.insert("asia", "payments", &[(3, 6)]).expect("free");
    cluster.run(200);
    cluster.cut("eu", "us");
    cluster.cut("asia", "us");
    create(&mut cluster, "late", "payments");
    let top = "CREATE MATERIALIZED VIEW top AS SELECT sum(n) AS n, sum(s) AS s FROM late";
    cluster.ddl("eu", top).expect("it can be made");
    cluster.run(600);
    cluster
}

fn wait_for_us(cluster: &Cluster, region: &str) {
    let snapshot = cluster.snapshot(region);
    for view in ["late", "top"] {
        let id = snapshot.catalog.object(view).expect("it was created").id;
        let missing: Vec<&str> = snapshot.views[&id]
            .missing
            .iter()
            .filter_map(|region| snapshot.catalog.region_name(*region))
            .collect();
        assert_eq!(missing, ["us"], "what {view} in {region} waits for");
        let (done, all) = snapshot.views[&id].backfill;
        assert!(done < all, "{region} has not attached {view}");
    }
}

/// Regions show these rows of `late`, and in `top` their sums.
fn show(cluster: &Cluster, regions: &[&str], late: &[&[i64]]) {
    let late: Vec<Vec<i64>> = late.iter().map(|row| row.to_vec()).collect();
    let sum = |column: usize| late.iter().map(|row| row[column]).sum();
    let top = vec![vec![sum(1), sum(2)]];
    for region in regions {
        assert_eq!(cluster.view(region, "late"), Some(late.clone()), "in {region}");
        assert_eq!(cluster.view(region, "top"), Some(top.clone()), "in {region}");
    }
}

/// A region's part of a view counts from its attach record on, so it must not be made from half of a hidden view.
#[test]
fn a_view_waits_until_the_views_that_it_reads_are_complete() {
    let mut cluster = with_views_that_wait();
    for region in ["eu", "asia"] {
        wait_for_us(&cluster, region);
    }
    // What changes meanwhile, and a restart, make no difference.
    cluster.insert("eu", "orders", &[(3, 6)]).expect("free");
    let log = cluster.stop("eu");
    cluster.start("eu", &["us", "asia"], log, |_| {});
    cluster.run(400);
    wait_for_us(&cluster, "eu");
    cluster.mend("eu", "us");
    cluster.mend("asia", "us");
    cluster.run(1_200);
    for region in REGIONS {
        let late = vec![vec![5, 1, 2], vec![6, 2, 11]];
        assert_eq!(cluster.view(region, "late"), Some(late), "in {region}");
        assert_eq!(
            cluster.view(region, "top"),
            Some(vec![vec![3, 13]]),
            "in {region}"
        );
    }
}

#[test]
fn a_view_no_longer_waits_for_a_region_that_is_dropped() {
    let mut cluster = with_views_that_wait();
    let drop = "ALTER DATABASE tributary DROP REGION us FORCE";
    cluster.ddl("eu", drop).expect("it is dropped");
    cluster.run(800);
    show(&cluster, &["eu", "asia"], &[&[6, 1, 5]]);
}

/// What was told of a view is gone with the disk: the region computes its part again, from nothing.
#[test]
fn a_view_waits_for_a_region_that_comes_back_without_its_disk() {
    let mut cluster = with_views_that_wait();
    cluster.stop("us");
    cluster
        .ddl("eu", "ALTER DATABASE tributary FENCE REGION us")
        .expect("it is fenced");
    cluster.run(400);
    cluster.mend("eu", "us");
    cluster.mend("asia", "us");
    cluster.start("us", &["eu", "asia"], Vec::new(), |config| {
        config.reincarnate = true
    });
    cluster.run(1_600);
    cluster.insert("us", "payments", &[(7, 5)]).expect("free");
    cluster.run(600);
    for region in REGIONS {
        let late = vec![vec![5, 1, 8], vec![6, 1, 5]];
        assert_eq!(cluster.view(region, "late"), Some(late), "in {region}");
        assert_eq!(
            cluster.view(region, "top"),
            Some(vec![vec![2, 13]]),
            "in {region}"
        );
    }
}

#[test]
fn a_region_that_is_added_and_one_that_was_alone_serve_views_over_hidden_views() {
    let mut cluster = Cluster::new(&["eu"]);
    for table in TABLES {
        cluster.ddl("eu", table).expect("the primary makes tables");
    }
    create(&mut cluster, "paid", "p");
    cluster
        .insert("eu", "orders", &[(1, 5), (2, 5), (3, 6)])
        .expect("free");
    cluster
        .insert("eu", "payments", &[(1, 5), (2, 6), (3, 9)])
        .expect("free");
    cluster.run(200);
    let alone = Some(vec![vec![5, 2, 5], vec![6, 1, 5]]);
    assert_eq!(cluster.view("eu", "paid"), alone, "of one that is alone");
    cluster
        .ddl("eu", "ALTER DATABASE tributary ADD REGION \"us\"")
        .expect("it is added");
    cluster.start("us", &["eu"], Vec::new(), |_| {});
    cluster.run(1_500);
    for region in ["eu", "us"] {
        assert_eq!(cluster.view(region, "paid"), alone, "in {region}");
    }
    cluster.insert("us", "orders", &[(1, 9)]).expect("it takes part");
    cluster
        .insert("us", "payments", &[(7, 6)])
        .expect("it takes part");
    cluster.run(600);
    let together = Some(vec![vec![5, 2, 5], vec![6, 2, 15], vec![9, 1, 4]]);
    for region in ["eu", "us"] {
        assert_eq!(cluster.view(region, "paid"), together, "in {region}");
    }
}

/// Many orders of few customers, and few payments: what travels for the view.
#[test]
fn only_rows_of_the_side_that_is_named_travel() {
    let mut cluster = Cluster::new(&REGIONS);
    for table in TABLES {
        cluster.ddl("eu", table).expect("the primary makes tables");
    }
    for region in REGIONS {
        let orders: Vec<(i32, i32)> = (0..12_000).map(|id| (id, id % 50)).collect();
        let payments: Vec<(i32, i32)> = (0..100).map(|id| (id, id)).collect();
        cluster.insert(region, "orders", &orders).expect("free");
        cluster.insert(region, "payments", &payments).expect("free");
    }
    cluster.run(600);
    let mut bytes_for = |view: &str, merge: &str| {
        let before = cluster.bundle_bytes();
        create(&mut cluster, view, merge);
        cluster.run(1_000);
        cluster.bundle_bytes() - before
    };
    let (both, one, other) = (
        bytes_for("b", "both"),
        bytes_for("p", "p"),
        bytes_for("o", "orders"),
    );
    assert!(one * 4 < both, "{one} bytes and {both} with both sides");
    assert!(one * 4 < other, "{one} bytes and {other} with the large side");
    let shown = ["b", "p", "o"].map(|view| cluster.view("us", view));
    assert!(shown[0].is_some() && shown.iter().all(|rows| *rows == shown[0]));
}
