//! Golden scripts: `testscripts/link/*.txt` hold commands, a line `---`, and every message that follows from
//! them. `BLESS=1` writes the second part anew; it is then reviewed like code.
//!
//! Commands: `regions a b c` (always first), `connect a b`, `disconnect a b`, `run MS`, `write a key=value`
//! (`key=` deletes), `lose a b COUNT` (messages that are no heartbeats), `late a b MS` (the next that is no heartbeat), `mute a b` (everything), `restart a`, `joining a`, `join a`,
//! `rename a NAME`, `cluster a BYTE`, `epoch a EPOCH`, `fork a`, `fence a b` and `drop a b` (what the catalog of a says of b), `small-messages` and `few-keys` (before
//! `regions`), `heartbeats`, `state a`, `status a b`.

use std::fmt::Write;
use std::path::Path;

use tributary_replication::{ClusterId, LinkConfig};

use crate::region::CLUSTER;
use crate::world::{Weather, World};

const QUIET: Weather = Weather {
    delay_ms_min: 10,
    delay_ms_max: 10,
    loss_percent: 0,
    repeat_percent: 0,
    damage_percent: 0,
};

#[test]
fn transcripts_are_as_blessed() {
    let folder = Path::new("testscripts/link");
    let mut scripts: Vec<_> = std::fs::read_dir(folder)
        .expect("the folder is there")
        .map(|entry| entry.expect("readable").path())
        .collect();
    scripts.sort();
    assert!(!scripts.is_empty());
    let mut different = String::new();
    for path in scripts {
        let text = std::fs::read_to_string(&path).expect("readable");
        let (commands, expected) = text.split_once("\n---\n").unwrap_or((text.trim_end(), ""));
        let actual = run(commands);
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&path, format!("{commands}\n---\n{actual}")).expect("writable");
        } else if actual != expected {
            let name = path.file_name().expect("a file").to_string_lossy();
            write!(different, "{name} (BLESS=1 accepts):\n{actual}\n").expect("text");
        }
    }
    assert!(different.is_empty(), "{different}");
}

fn run(commands: &str) -> String {
    let mut config = LinkConfig::default();
    let mut world = World::new(&[], &config, QUIET, 0);
    for line in commands
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["regions", names @ ..] => world = World::new(names, &config, QUIET, 0),
            ["small-messages"] => config.message_bytes_max = 100,
            ["few-keys"] => config.pending_keys_max = 2,
            _ => {
                world.transcript.push(format!("> {line}"));
                command(&mut world, &words);
            }
        }
    }
    world
        .transcript
        .iter()
        .fold(String::new(), |text, line| text + line + "\n")
}

fn command(world: &mut World, words: &[&str]) {
    let now_ms = world.now_ms;
    let number = |word: &str| word.parse::<u64>().expect("a number");
    match words {
        ["connect", a, b] => world.connect(a, b),
        ["disconnect", a, b] => world.disconnect(a, b),
        ["run", ms] => world.run(number(ms)),
        ["heartbeats"] => world.show_heartbeats = true,
        ["write", name, writes @ ..] => {
            let writes: Vec<(&str, Option<i64>)> = writes
                .iter()
                .map(|write| write.split_once('=').expect("key=value"))
                .map(|(key, value)| (key, (!value.is_empty()).then(|| value.parse().expect("a number"))))
                .collect();
            world.region(name).write(&writes, now_ms);
        }
        ["lose", a, b, count] => {
            world.lose.insert((a.to_string(), b.to_string()), number(count));
        }
        ["late", a, b, ms] => {
            world.late.insert((a.to_string(), b.to_string()), number(ms));
        }
        ["mute", a, b] => {
            world.mute.insert((a.to_string(), b.to_string()));
        }
        ["restart", name] => world.region(name).restart(),
        ["joining", name] => {
            world.region(name).identity = None;
            world.region(name).members.clear();
        }
        ["join", name] => {
            let other = world
                .regions
                .values()
                .find(|region| region.identity.is_some())
                .expect("a member");
            let members = other.members.clone();
            let (number, _) = members
                .iter()
                .find(|(_, member)| member.name == *name)
                .expect("a member");
            let fresh = crate::region::Region::new(name, number.0, &members, LinkConfig::default());
            world.region(name).identity = fresh.identity;
            world.region(name).members = members;
        }
        ["rename", name, new] => world.region(name).name = new.to_string(),
        ["cluster", name, byte] => {
            let cluster = ClusterId([number(byte) as u8; 16]);
            assert_ne!(cluster, CLUSTER);
            world.region(name).identity.as_mut().expect("a member").cluster = cluster;
        }
        ["fence", at, name] | ["drop", at, name] => {
            let mut members = world.region(at).members.values_mut();
            let member = members.find(|member| member.name == *name).expect("a member");
            match words[0] {
                "fence" => member.incarnation += 1,
                _ => member.dropped = true,
            }
        }
        ["epoch", name, epoch] => world.region(name).set_own_epoch(number(epoch)),
        ["fork", name] => world.region(name).fork(),
        ["state", name] => {
            let region = world.region(name);
            let line = format!("{name} at {}: {}", region.frontier, region.slots().join(" "));
            world.transcript.push(line);
        }
        ["status", a, b] => {
            let status = world.region(a).links[*b].status();
            world.transcript.push(format!(
                "{a} to {b}: {:?}, acked {}, {} keys{}, {} in flight, every {} ticks, {} rewinds, {} relays, as of {:?}",
                status.state,
                status.acked,
                status.pending_keys,
                if status.rescan { " (rescan)" } else { "" },
                status.in_flight,
                status.tick_multiple,
                status.counts.rewinds,
                status.relays.len(),
                status.as_of_ms,
            ));
        }
        other => panic!("no such command: {other:?}"),
    }
}
