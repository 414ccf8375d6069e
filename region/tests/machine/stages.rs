//! Ranges that are too large for one bundle: they come in chunks, survive cuts and crashes, and nobody sees a part of them.

use tributary_region::entry::{Entry, Timed};
use tributary_region::{RegionConfig, Rejected};
use tributary_replication::{Bundle, Chunk};
use tributary_storage::Record;

use super::cluster::{Cluster, TICK_MS, rows};

/// Rows that `us` takes in while `eu` is away.
const MANY: i32 = 6_000;

/// Small bundles and chunks, so that the rows above are many of both.
fn small(config: &mut RegionConfig) {
    config.link.bundle_bytes_max = 20_000;
    config.link.chunk_bytes_max = 4_000;
    config.apply_rows_max = 500;
}

/// `us` with many rows of both kinds, and `eu` that was cut off before they came.
fn apart() -> Cluster {
    apart_with(small)
}

fn apart_with(set: fn(&mut RegionConfig)) -> Cluster {
    let mut cluster = Cluster::new(&[]);
    for (name, peer) in [("us", "eu"), ("eu", "us")] {
        cluster.start(name, &[peer], Vec::new(), |config| {
            set(config);
            if name == "us" {
                config.found = Some(tributary_region::Founding { cluster: [7; 16] });
            }
        });
    }
    cluster.run(400);
    cluster.with_view("us");
    cluster.insert("us", "g", &[(1, 10), (2, 20)]).expect("in");
    cluster.insert("eu", "t", &[(1, 1), (2, 2)]).expect("in");
    cluster.run(400);
    cluster.cut("eu", "us");
    let many: Vec<(i32, i32)> = (100..100 + MANY).map(|id| (id, 1_000 + id)).collect();
    cluster.insert("us", "g", &many).expect("in");
    cluster
        .insert(
            "us",
            "t",
            &many.iter().map(|(id, _)| (*id, *id)).collect::<Vec<_>>(),
        )
        .expect("in");
    cluster.delete("us", "g", &[2]).expect("gone");
    cluster.run(200);
    cluster
}

/// The chunks that a log holds, in its order.
fn chunks(log: &[Record]) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    for record in log {
        if let Ok(Entry::Chunk(bytes)) =
            Timed::decode(record.position, &record.payload).map(|timed| timed.entry)
        {
            chunks.push(Bundle::decode_header(&bytes).expect("it was checked").chunk);
        }
    }
    chunks
}

fn held(cluster: &Cluster) -> usize {
    chunks(cluster.log("eu")).len()
}

/// Lets chunks pass until `eu` holds so many.
fn until_held(cluster: &mut Cluster, count: usize) {
    for _ in 0..2_000 {
        if held(cluster) >= count {
            return;
        }
        cluster.run(TICK_MS);
    }
    panic!("only {} chunks came", held(cluster));
}

fn agree(cluster: &Cluster) {
    let expected = cluster.view("us", "m").expect("readable");
    assert_eq!(expected.len(), 1 + MANY as usize);
    assert_eq!(cluster.view("eu", "m"), Some(expected));
}

#[test]
fn a_range_beyond_a_bundle_goes_on_after_a_cut_and_after_a_crash_of_the_receiver() {
    let mut cluster = apart();
    let before = rows(&[[10, 1], [20, 1]]);
    cluster.mend("eu", "us");
    until_held(&mut cluster, 10);
    cluster.cut("eu", "us");
    cluster.run(1_000);
    assert_eq!(cluster.view("eu", "m"), before, "a part of it is not shown");
    let here: Vec<_> = cluster.snapshot("eu").held.values().copied().collect();
    assert!(
        here.len() == 1 && here[0].chunks >= 10 && here[0].rows > 1_000,
        "it is told: {here:?}"
    );
    // What is taken in while the chunks are under way comes with the sealing bundle.
    cluster.insert("us", "g", &[(3, 30)]).expect("in");
    cluster.insert("eu", "t", &[(3, 3)]).expect("in");
    cluster.mend("eu", "us");
    until_held(&mut cluster, 30);
    let log = cluster.stop("eu");
    cluster.start("eu", &["us"], log, small);
    cluster.run(100);
    assert_eq!(
        cluster.view("eu", "m"),
        before,
        "a restart shows none of it either"
    );
    cluster.run(10_000);
    let expected = cluster.view("us", "m").expect("readable");
    assert_eq!(
        expected.len(),
        2 + MANY as usize,
        "eu's row 2 has nothing to join"
    );
    assert!(expected.contains(&vec![30, 1]));
    assert_eq!(cluster.view("eu", "m"), Some(expected.clone()));
    let chunks = chunks(cluster.log("eu"));
    assert!(chunks.len() > 40, "{} chunks", chunks.len());
    for (number, chunk) in chunks.iter().enumerate() {
        assert_eq!(chunk.stage, chunks[0].stage, "it did not start again");
        assert_eq!(chunk.number as usize, number, "and nothing of it came twice");
    }
    // The log says the same again.
    let log = cluster.stop("eu");
    cluster.start("eu", &["us"], log, small);
    cluster.run(400);
    assert_eq!(cluster.view("eu", "m"), Some(expected));
}

#[test]
fn a_sender_that_restarts_begins_again_and_nothing_is_doubled() {
    let mut cluster = apart();
    cluster.mend("eu", "us");
    until_held(&mut cluster, 10);
    let log = cluster.stop("us");
    cluster.start("us", &["eu"], log, small);
    cluster.run(10_000);
    agree(&cluster);
    let stages: std::collections::BTreeSet<u64> = chunks(cluster.log("eu"))
        .iter()
        .map(|chunk| chunk.stage)
        .collect();
    assert_eq!(stages.len(), 2);
}

#[test]
fn a_stage_is_sent_once_however_long_it_is_merged_while_its_sender_writes() {
    let mut cluster = apart_with(|config| {
        small(config);
        config.apply_rows_max = 20;
    });
    cluster.mend("eu", "us");
    let (mut applying, mut written) = (0, 0);
    for _ in 0..4_000 {
        if cluster.dataflow("eu").is_applying() {
            applying += 1;
            written += 1;
            let row = (500_000 + written, 500_000 + written);
            cluster.insert("us", "g", &[row]).expect("in");
            cluster.insert("us", "t", &[row]).expect("in");
        } else if applying > 0 {
            break;
        }
        cluster.run(TICK_MS);
    }
    assert!(applying as u64 * TICK_MS > 3_000, "{applying} ticks");
    cluster.run(3_000);
    let chunks = chunks(cluster.log("eu"));
    for (number, chunk) in chunks.iter().enumerate() {
        assert_eq!(
            (chunk.stage, chunk.number as usize),
            (chunks[0].stage, number),
            "each chunk came once"
        );
    }
    let view = cluster.view("eu", "m").expect("readable");
    assert_eq!(view.len(), (1 + MANY + written) as usize);
    assert_eq!(Some(view), cluster.view("us", "m"));
}

#[test]
fn commits_are_taken_while_a_stage_is_applied_but_not_over_what_it_brings() {
    let mut cluster = apart();
    commit_while_merging(&mut cluster);
    assert!(held(&cluster) > 10);
}

#[test]
fn commits_are_taken_while_a_large_bundle_is_merged_but_not_over_what_it_brings() {
    let mut cluster = apart_with(|config| config.apply_rows_max = 500);
    commit_while_merging(&mut cluster);
    assert_eq!(held(&cluster), 0, "it came as it was");
    // The log says the same again.
    let (view, log) = (cluster.view("eu", "m"), cluster.stop("eu"));
    cluster.start("eu", &["us"], log, |_| {});
    assert_eq!(cluster.view("eu", "m"), view);
}

/// Commits in `eu` while it takes in what it lacks, of which nothing is shown before it is whole.
fn commit_while_merging(cluster: &mut Cluster) {
    cluster.mend("eu", "us");
    let before = cluster.view("eu", "m");
    let (mut applying, mut taken, mut refused, mut to_merge) = (0, 0, 0, 0);
    for tick in 0..4_000 {
        cluster.run(TICK_MS);
        if !cluster.dataflow("eu").is_applying() {
            continue;
        }
        applying += 1;
        to_merge = cluster.snapshot("eu").rows_to_merge.max(to_merge);
        assert_eq!(
            cluster.view("eu", "m"),
            before,
            "tick {tick}: a part of it is shown"
        );
        let key = 1_000_000 + tick;
        cluster
            .insert("eu", "t", &[(key, 1)])
            .expect("nothing stands against it");
        taken += 1;
        // A key that is to come, and that is not there yet or is already.
        let id = cluster.table("eu", "g");
        match cluster.insert("eu", "g", &[(100 + MANY / 2, 5)]) {
            Err(Rejected::Conflict { table }) if table == id => refused += 1,
            outcome => assert!(!cluster.dataflow("eu").is_applying(), "{outcome:?}"),
        }
    }
    assert!(applying > 5 && refused > 2, "{applying} ticks, {refused} refused");
    assert!(to_merge > 1_000, "{to_merge}");
    cluster.run(2_000);
    let snapshot = cluster.snapshot("eu");
    assert!(snapshot.held.is_empty() && snapshot.rows_to_merge == 0);
    let view = cluster.view("eu", "m").expect("readable");
    assert_eq!(Some(&view), cluster.view("us", "m").as_ref());
    assert!(
        view.contains(&vec![10, 1 + taken]),
        "what was taken is in: {:?}",
        view.first()
    );
}

#[test]
fn own_commits_have_their_turn_between_bundles_that_came_together() {
    let mut cluster = apart_with(|config| config.link.bundle_bytes_max = 1 << 20);
    cluster.mend("eu", "us");
    cluster.run(2_000);
    cluster.slow_down("us", "eu", true);
    for id in [10, 11, 12] {
        cluster.insert("us", "g", &[(id, 1)]).expect("in");
        cluster.run(200);
    }
    // They arrive one by one, and no Work is done in between.
    let bundles = |cluster: &Cluster| cluster.dataflow("eu").counts().bundles;
    let records = |cluster: &Cluster| {
        let log = cluster.log("eu").iter();
        let entries = log.filter_map(|record| Timed::decode(record.position, &record.payload).ok());
        entries
            .filter(|timed| matches!(timed.entry, Entry::Bundles(_)))
            .count()
    };
    let before = (bundles(&cluster), records(&cluster));
    cluster.slow_down("us", "eu", false);
    cluster.run(200);
    let after = (bundles(&cluster) - before.0, records(&cluster) - before.1);
    assert_eq!(
        after,
        (3, 2),
        "one at once, and the others as a set, after it was stepped"
    );
}

#[test]
fn without_room_for_a_stage_the_sender_is_told_and_goes_on_when_there_is() {
    let mut cluster = apart();
    let log = cluster.stop("eu");
    cluster.start("eu", &["us"], log, |config| {
        small(config);
        config.link.stage_bytes_max = 20_000;
    });
    cluster.mend("eu", "us");
    cluster.run(4_000);
    let snapshot = cluster.snapshot("us");
    let (_, link) = &snapshot.links[0];
    assert!(
        link.last_error
            .as_deref()
            .is_some_and(|error| error.contains("no room for a stage")),
        "{:?}",
        link.last_error
    );
    assert_eq!(cluster.view("eu", "m"), rows(&[[10, 1], [20, 1]]));
    let held: u64 = cluster.dataflow("eu").staged_bytes();
    assert!(held <= 20_000, "{held} bytes");
    let log = cluster.stop("eu");
    cluster.start("eu", &["us"], log, small);
    cluster.run(15_000);
    agree(&cluster);
}

#[test]
fn keys_beyond_the_cap_are_forgotten_and_found_again() {
    let mut cluster = Cluster::new(&[]);
    for (name, peer) in [("us", "eu"), ("eu", "us")] {
        cluster.start(name, &[peer], Vec::new(), |config| {
            config.link.pending_bytes_max = 10_000;
            if name == "us" {
                config.found = Some(tributary_region::Founding { cluster: [7; 16] });
            }
        });
    }
    cluster.run(400);
    cluster.with_view("us");
    cluster.insert("eu", "t", &[(1, 1), (2, 700)]).expect("in");
    cluster.run(400);
    let link = |cluster: &Cluster| cluster.snapshot("us").links[0].1.clone();
    assert!(!link(&cluster).rescan, "all is acknowledged");
    cluster.cut("eu", "us");
    cluster.insert("us", "g", &[(1, 10)]).expect("in");
    cluster.run(200);
    assert!(!link(&cluster).rescan && link(&cluster).pending_bytes > 0);
    for first in (100..1_100).step_by(50) {
        let some: Vec<(i32, i32)> = (first..first + 50).map(|id| (id, id)).collect();
        cluster.insert("us", "g", &some).expect("in");
        cluster.run(100);
        assert!(link(&cluster).pending_bytes <= 10_000, "{:?}", link(&cluster));
    }
    assert!(link(&cluster).rescan, "{:?}", link(&cluster));
    cluster.delete("us", "g", &[101]).expect("gone");
    cluster.mend("eu", "us");
    cluster.run(1_000);
    assert_eq!(cluster.view("eu", "m"), rows(&[[10, 1], [700, 1]]));
    let table = cluster.table("eu", "g");
    let held = |name: &str| {
        let rows = cluster.snapshot(name).tables[&table].rows.scan(100);
        rows.map(|delta| delta.len()).sum::<usize>()
    };
    assert_eq!(held("eu"), held("us"));
    assert!(!link(&cluster).rescan);
}
