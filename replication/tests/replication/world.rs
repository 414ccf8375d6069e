//! Regions, the network between them, and time.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use tributary_replication::{LinkConfig, LinkEffect, Member, Message, Tick};
use tributary_storage::RegionId;

use crate::region::{Region, over_the_wire};

/// The steps in which time passes.
const STEP_MS: u64 = 5;

/// What the network does to messages.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    pub delay_ms_min: u64,
    pub delay_ms_max: u64,
    pub loss_percent: u64,
    pub repeat_percent: u64,
    pub damage_percent: u64,
}

/// A small generator of numbers that look random: splitmix64.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below.max(1)
    }
}

pub struct World {
    pub regions: BTreeMap<String, Region>,
    pub weather: Weather,
    pub dice: Dice,
    pub now_ms: u64,
    pub show_heartbeats: bool,
    /// The next messages from one region to another that get lost.
    pub lose: BTreeMap<(String, String), u64>,
    /// How much later than others the next message that is no heartbeat arrives.
    pub late: BTreeMap<(String, String), u64>,
    /// Directions in which nothing arrives.
    pub mute: BTreeSet<(String, String)>,
    pub transcript: Vec<String>,
    pub refused: u64,
    pub damaged: u64,
    connected: BTreeSet<(String, String)>,
    /// Pairs that are connected again whenever they are not.
    pub reconnect: BTreeSet<(String, String)>,
    under_way: BTreeMap<(u64, u64), (String, String, Bytes)>,
    messages: u64,
}

fn pair(a: &str, b: &str) -> (String, String) {
    if a < b {
        (a.into(), b.into())
    } else {
        (b.into(), a.into())
    }
}

fn member(name: &str) -> Member {
    Member {
        name: name.to_owned(),
        incarnation: 1,
        dropped: false,
    }
}

impl World {
    pub fn new(names: &[&str], config: &LinkConfig, weather: Weather, seed: u64) -> Self {
        let numbered = names
            .iter()
            .enumerate()
            .map(|(i, name)| (RegionId(i as u16 + 1), member(name)));
        let members: BTreeMap<RegionId, Member> = numbered.collect();
        let mut regions = BTreeMap::new();
        for (number, Member { name, .. }) in &members {
            let mut region = Region::new(name, number.0, &members, config.clone());
            members
                .values()
                .filter(|peer| peer.name != *name)
                .for_each(|peer| region.add_peer(&peer.name));
            regions.insert(name.clone(), region);
        }
        Self {
            regions,
            weather,
            dice: Dice(seed),
            now_ms: 0,
            show_heartbeats: false,
            lose: BTreeMap::new(),
            late: BTreeMap::new(),
            mute: BTreeSet::new(),
            transcript: vec![],
            refused: 0,
            damaged: 0,
            connected: BTreeSet::new(),
            reconnect: BTreeSet::new(),
            under_way: BTreeMap::new(),
            messages: 0,
        }
    }

    pub fn region(&mut self, name: &str) -> &mut Region {
        self.regions.get_mut(name).expect("a region")
    }

    pub fn connect(&mut self, a: &str, b: &str) {
        if !self.connected.insert(pair(a, b)) {
            return;
        }
        for (from, to) in [(a, b), (b, a)] {
            let now_ms = self.now_ms;
            let (_, effects) = self
                .region(from)
                .with_link(to, now_ms, |link, local, out| link.connected(local, out));
            self.carry_out(from, effects);
        }
    }

    pub fn disconnect(&mut self, a: &str, b: &str) {
        if !self.connected.remove(&pair(a, b)) {
            return;
        }
        self.under_way
            .retain(|_, (from, to, _)| pair(from, to) != pair(a, b));
        for (from, to) in [(a, b), (b, a)] {
            self.region(from)
                .links
                .get_mut(to)
                .expect("a peer")
                .disconnected();
        }
    }

    pub fn run(&mut self, for_ms: u64) {
        let until_ms = self.now_ms + for_ms;
        while self.now_ms < until_ms {
            self.now_ms += STEP_MS;
            if self.now_ms.is_multiple_of(100) {
                for (a, b) in self.reconnect.clone() {
                    self.connect(&a, &b);
                }
            }
            while let Some(((due_ms, _), _)) = self.under_way.first_key_value()
                && *due_ms <= self.now_ms
            {
                let (_, (from, to, bytes)) = self.under_way.pop_first().expect("there is one");
                self.deliver(&from, &to, &bytes);
            }
            let now_ms = self.now_ms;
            let tick = now_ms.is_multiple_of(20).then_some(Tick(now_ms / 20));
            for name in self.regions.keys().cloned().collect::<Vec<_>>() {
                let effects = self.region(&name).poll(now_ms, tick);
                self.carry_out(&name, effects);
            }
        }
    }

    pub fn say(&mut self, line: String) {
        self.transcript.push(format!("[{:>5}] {line}", self.now_ms));
    }

    fn deliver(&mut self, from: &str, to: &str, bytes: &Bytes) {
        let now_ms = self.now_ms;
        match Message::decode(bytes) {
            Ok(message) => {
                let effects = self.region(to).receive(from, message, now_ms);
                self.carry_out(to, effects);
            }
            Err(_) => self.damaged += 1,
        }
    }

    fn carry_out(&mut self, name: &str, effects: Vec<(String, LinkEffect)>) {
        for (peer, effect) in effects {
            match effect {
                LinkEffect::Send(message) => self.send(name, &peer, &message),
                LinkEffect::Deliver(_) => unreachable!("the region takes its bundles itself"),
                LinkEffect::Refused { reason } => {
                    self.refused += 1;
                    self.say(format!("{name} refuses {peer}: {reason}"));
                }
                LinkEffect::Fatal { reason } => self.say(format!("{name} must stop: {reason}")),
                LinkEffect::Close { reason } => {
                    self.say(format!("{name} closes the link to {peer}: {reason}"));
                    self.hang_up(name, &peer);
                }
            }
        }
    }

    /// Closes behind everything that was said, as a stream does.
    fn hang_up(&mut self, name: &str, peer: &str) {
        let last: Vec<_> = self
            .under_way
            .iter()
            .filter(|(_, (from, to, _))| from == name && to == peer)
            .map(|(due, _)| *due)
            .collect();
        self.region(name)
            .links
            .get_mut(peer)
            .expect("a peer")
            .disconnected();
        for due in last {
            if let Some((from, to, bytes)) = self.under_way.remove(&due) {
                self.deliver(&from, &to, &bytes);
            }
        }
        self.disconnect(name, peer);
    }

    fn send(&mut self, from: &str, to: &str, message: &Message) {
        let is_heartbeat = matches!(message, Message::Heartbeat(_));
        let shown = !is_heartbeat || self.show_heartbeats;
        let lose = self
            .lose
            .get_mut(&(from.to_string(), to.to_string()))
            .filter(|count| **count > 0);
        let lost_on_purpose = !is_heartbeat && lose.is_some();
        if lost_on_purpose && let Some(count) = lose {
            *count -= 1;
        }
        let late = (from.to_string(), to.to_string());
        let late_ms = match is_heartbeat {
            true => 0,
            false => self.late.remove(&late).unwrap_or(0),
        };
        let mute = self.mute.contains(&(from.to_string(), to.to_string()));
        let lost = lost_on_purpose || mute || self.dice.roll(100) < self.weather.loss_percent;
        if shown {
            self.say(format!(
                "{from} -> {to}: {message}{}",
                match (lost, late_ms) {
                    (true, _) => " (lost)",
                    (false, 0) => "",
                    (false, _) => " (late)",
                }
            ));
        }
        if lost || !self.connected.contains(&pair(from, to)) {
            return;
        }
        let copies = if self.dice.roll(100) < self.weather.repeat_percent {
            2
        } else {
            1
        };
        for _ in 0..copies {
            let spread = self.weather.delay_ms_max - self.weather.delay_ms_min + 1;
            let delay_ms = self.weather.delay_ms_min + self.dice.roll(spread);
            let mut bytes = over_the_wire(message).to_vec();
            if self.dice.roll(100) < self.weather.damage_percent {
                let at = self.dice.roll(bytes.len() as u64) as usize;
                bytes[at] ^= 1 << self.dice.roll(8);
            }
            self.messages += 1;
            let due = (self.now_ms + late_ms + delay_ms.max(1), self.messages);
            self.under_way
                .insert(due, (from.into(), to.into(), Bytes::from(bytes)));
        }
    }
}
