//! Random worlds: messages are lost, repeated, reordered and damaged, links break, regions restart and are
//! slow to sync. When the weather clears, all regions hold the same state, which is what was written.

use std::collections::BTreeMap;

use tributary_replication::{Defects, LinkConfig};

use crate::world::{Dice, Weather, World};

#[derive(Debug, Default)]
struct Seen {
    rewinds: u64,
    joint: usize,
    relays: usize,
    rescans: usize,
    conflicts: u64,
    damaged: u64,
    stale: u64,
}

/// Runs one random world until it should be quiet again.
fn storm(seed: u64, defects: Defects, seen: &mut Seen) -> World {
    let mut dice = Dice(seed.wrapping_mul(7919));
    let names = &["us", "eu", "ap"][..2 + (dice.roll(3) > 0) as usize];
    let weather = Weather {
        delay_ms_min: dice.roll(30),
        delay_ms_max: 30 + dice.roll(200),
        loss_percent: dice.roll(30),
        repeat_percent: dice.roll(30),
        damage_percent: dice.roll(5),
    };
    let config = LinkConfig {
        pending_keys_max: if dice.roll(3) == 0 { 6 } else { 1_000 },
        window_bundles_max: 1 + dice.roll(8) as usize,
        ..LinkConfig::default()
    };
    let mut world = World::new(names, &config, weather, seed);
    for (i, a) in names.iter().enumerate() {
        world.region(a).sync_ms = dice.roll(3) * 30;
        world.region(a).set_defects(defects);
        for b in &names[i + 1..] {
            world.reconnect.insert((a.to_string(), b.to_string()));
        }
    }
    for _ in 0..40 {
        let name = names[dice.roll(names.len() as u64) as usize];
        let other = names[dice.roll(names.len() as u64) as usize];
        match dice.roll(12) {
            0 => {
                world.disconnect(name, other);
            }
            1 if name != other => {
                // Out of reach for a while: a third region must pass things on.
                world
                    .reconnect
                    .retain(|(a, b)| !([name, other] == [a, b] || [other, name] == [a, b]));
                world.disconnect(name, other);
            }
            2 => {
                names
                    .iter()
                    .filter(|peer| **peer != name)
                    .for_each(|peer| world.disconnect(name, peer));
                world.region(name).restart();
            }
            _ => {
                let key = format!("k{}", dice.roll(8));
                let value = (dice.roll(4) > 0).then(|| dice.roll(1000) as i64);
                let now_ms = world.now_ms;
                world.region(name).write(&[(key.as_str(), value)], now_ms);
            }
        }
        world.run(dice.roll(20) * 10);
        look(&world, seen);
    }
    for _ in 0..30 {
        world.run(200);
        look(&world, seen);
    }
    // The weather clears.
    world.weather = Weather {
        delay_ms_min: 5,
        delay_ms_max: 20,
        ..Weather::default()
    };
    for (i, a) in names.iter().enumerate() {
        for b in &names[i + 1..] {
            world.reconnect.insert((a.to_string(), b.to_string()));
        }
    }
    world.run(20_000);
    for region in world.regions.values() {
        seen.joint += region.applied_jointly;
        seen.conflicts += region.conflicts;
        for link in region.links.values() {
            seen.rewinds += link.status().counts.rewinds;
            seen.stale += link.status().counts.stale;
        }
    }
    seen.damaged += world.damaged;
    world
}

fn look(world: &World, seen: &mut Seen) {
    for region in world.regions.values() {
        for link in region.links.values() {
            let status = link.status();
            seen.relays += status.relays.len();
            seen.rescans += usize::from(status.rescan);
        }
    }
}

/// Whether all regions hold the same, are at the same frontier, and have nothing more to say.
fn agree(world: &World) -> Result<(), String> {
    let mut regions = world.regions.values();
    let first = regions.next().expect("a region");
    for region in regions {
        if region.frontier != first.frontier {
            return Err(format!(
                "{} is at {}, {} at {}",
                region.name, region.frontier, first.name, first.frontier
            ));
        }
        if region.state() != first.state() {
            return Err(format!("{:#?}\n{:#?}", region.state(), first.state()));
        }
    }
    for region in world.regions.values() {
        if !region.inbox.is_empty() {
            return Err(format!(
                "{} bundles still wait at {}",
                region.inbox.len(),
                region.name
            ));
        }
    }
    Ok(())
}

#[test]
fn all_regions_end_with_equal_state() {
    let mut seen = Seen::default();
    for seed in 0..60 {
        let world = storm(seed, Defects::default(), &mut seen);
        if let Err(difference) = agree(&world) {
            panic!("seed {seed}: {difference}\n{}", world.transcript.join("\n"));
        }
    }
    println!("{seen:?}");
    let Seen {
        rewinds,
        joint,
        relays,
        rescans,
        conflicts,
        damaged,
        stale,
    } = seen;
    assert!(
        rewinds > 0 && joint > 0 && relays > 0 && rescans > 0,
        "the storms were too mild"
    );
    assert!(
        conflicts > 0 && damaged > 0 && stale > 0,
        "the storms were too mild"
    );
}

#[test]
fn the_same_seed_gives_the_same_transcript() {
    let run = || storm(5, Defects::default(), &mut Seen::default()).transcript;
    assert_eq!(run(), run());
}

/// With old values overwriting new ones, some storm must end in disagreement: otherwise the test above
/// proves nothing.
#[test]
fn the_check_fails_when_old_values_overwrite_new_ones() {
    let defects = Defects {
        skip_duplicate_check: true,
        ..Defects::default()
    };
    let wrong = (0..60)
        .filter(|seed| agree(&storm(*seed, defects, &mut Seen::default())).is_err())
        .count();
    assert!(wrong > 0);
}

/// A quiet cluster is silent: when everybody knows everything, only heartbeats are sent.
#[test]
fn an_idle_cluster_says_nothing_but_heartbeats() {
    let weather = Weather {
        delay_ms_min: 10,
        delay_ms_max: 10,
        ..Weather::default()
    };
    let mut world = World::new(&["us", "eu", "ap"], &LinkConfig::default(), weather, 1);
    for (a, b) in [("us", "eu"), ("us", "ap"), ("eu", "ap")] {
        world.connect(a, b);
    }
    world.run(500);
    for (i, name) in ["us", "eu", "ap"].into_iter().enumerate() {
        world.region(name).write(&[("a", Some(i as i64))], 500);
    }
    world.run(2_000);
    agree(&world).expect("equal state");
    let said = world.transcript.len();
    world.run(10_000);
    assert_eq!(world.transcript.len(), said, "{:#?}", &world.transcript[said..]);
    for region in world.regions.values() {
        for link in region.links.values() {
            let status = link.status();
            assert_eq!(
                (status.in_flight, status.pending_keys, status.round_trip_ms),
                (0, 0, Some(20))
            );
            assert!(status.as_of_ms.expect("echoes came") > 11_000);
        }
    }
}

/// A thousand changes of one key while the peer is away are one key to remember and one row to send.
#[test]
fn changes_coalesce_while_a_peer_is_away() {
    let weather = Weather {
        delay_ms_min: 10,
        delay_ms_max: 10,
        ..Weather::default()
    };
    let mut world = World::new(&["us", "eu"], &LinkConfig::default(), weather, 1);
    world.connect("us", "eu");
    world.run(500);
    world.disconnect("us", "eu");
    for value in 0..1_000 {
        world.region("us").write(&[("hot", Some(value))], 500);
    }
    let status = world.region("us").links["eu"].status();
    assert_eq!(
        (status.pending_keys, status.rescan),
        (1, false),
        "one row; slots and blobs are found by their stamps"
    );
    world.connect("us", "eu");
    world.run(1_000);
    agree(&world).expect("equal state");
    let rows: Vec<&String> = world
        .transcript
        .iter()
        .filter(|line| line.contains("slots 7.0"))
        .collect();
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert!(
        rows[0].contains("r1.1 0->1000") && rows[0].contains("slots 7.0 of r1.1: 1 rows"),
        "{rows:?}"
    );
    let counts: BTreeMap<_, _> = world
        .regions
        .iter()
        .map(|(n, r)| (n.clone(), r.slots()))
        .collect();
    assert_eq!(counts["eu"], ["hot@r1.1=999"]);
}
