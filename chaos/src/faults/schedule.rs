//! Which faults, where and when: a function of the seed and of the kinds that can be had.
//!
//! Kinds are dealt like cards from a shuffled deck, so that each comes before any comes twice. A round has one to three
//! faults that overlap; no region has two faults of its process at once, since what one expects of it the other would
//! break.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};

use super::kind::{Kind, Place};
use crate::regions::Region;

const FAULTS_MAX: usize = 3;
const START_MS: std::ops::Range<u64> = 200..3_500;
const TIME_MS: std::ops::Range<u64> = 1_500..8_000;
/// Some last longer than any timeout of the links.
const LONG_CHANCE: f64 = 0.15;
const LONG_FACTOR: u32 = 3;
const PERIOD_MS: std::ops::Range<u64> = 100..1_500;
/// The fsync that is hit, of those of a thread.
const SYNC: std::ops::Range<u64> = 1..150;

/// One thing that goes wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// What.
    pub kind: Kind,
    /// Where.
    pub place: Place,
    /// After the beginning of its round.
    pub start: Duration,
    /// How long it stays so.
    pub time: Duration,
    /// How bad it is, between 0 and 1.
    pub strength: f64,
    /// Of what happens again and again: how long between.
    pub period: Duration,
    /// Of what happens at an fsync: at which.
    pub sync: u64,
}

/// Faults that overlap.
#[derive(Clone, Debug, PartialEq)]
pub struct Round {
    /// In the order of their start.
    pub faults: Vec<Fault>,
}

/// The rounds of a seed, without end.
pub struct Schedule {
    random: StdRng,
    kinds: Vec<Kind>,
    deck: Vec<Kind>,
}

impl Schedule {
    /// The rounds of a seed with these kinds of faults.
    pub fn new(seed: u64, kinds: Vec<Kind>) -> Schedule {
        Schedule {
            random: StdRng::seed_from_u64(seed),
            kinds,
            deck: Vec::new(),
        }
    }

    /// The next round.
    pub fn next_round(&mut self) -> Round {
        let count = self.random.random_range(1..=FAULTS_MAX);
        let mut free: Vec<Region> = Region::ALL.to_vec();
        let mut faults = Vec::new();
        for _ in 0..count {
            let Some(kind) = self.deal() else { break };
            let Some(place) = self.place(kind, &free) else {
                // It does not fit beside the others: the next round has it.
                self.deck.push(kind);
                break;
            };
            if kind.is_of_process() {
                free.retain(|region| Place::In(*region) != place && place != Place::Everywhere);
            }
            faults.push(self.fault(kind, place));
        }
        faults.sort_by_key(|fault| fault.start);
        Round { faults }
    }

    fn deal(&mut self) -> Option<Kind> {
        if self.deck.is_empty() {
            self.deck = self.kinds.clone();
            self.deck.shuffle(&mut self.random);
        }
        self.deck.pop()
    }

    fn place(&mut self, kind: Kind, free: &[Region]) -> Option<Place> {
        match kind {
            Kind::KillAll => (free.len() == Region::ALL.len()).then_some(Place::Everywhere),
            Kind::FullDisk => {
                let is_free = free.contains(&Region::ON_SMALL_DISK);
                is_free.then_some(Place::In(Region::ON_SMALL_DISK))
            }
            _ if kind.is_of_process() => Some(Place::In(*free.choose(&mut self.random)?)),
            _ => {
                let one = *Region::ALL.choose(&mut self.random)?;
                let others: Vec<Region> = one.others().collect();
                let other = *others.choose(&mut self.random)?;
                let is_pair = kind == Kind::OneWay || self.random.random_bool(0.45);
                Some(match self.random.random_range(0..4) {
                    _ if is_pair => Place::Between(one, other),
                    0 => Place::Everywhere,
                    _ => Place::In(one),
                })
            }
        }
    }

    fn fault(&mut self, kind: Kind, place: Place) -> Fault {
        let random = &mut self.random;
        let mut millis = |range| Duration::from_millis(random.random_range(range));
        let (start, mut time, period) = (millis(START_MS), millis(TIME_MS), millis(PERIOD_MS));
        if random.random_bool(LONG_CHANCE) {
            time *= LONG_FACTOR;
        }
        Fault {
            kind,
            place,
            start,
            time,
            period,
            strength: random.random_range(0.0..1.0),
            sync: random.random_range(SYNC),
        }
    }
}

impl Round {
    /// Whether the process of a region has a fault in this round.
    pub fn touches_process(&self, region: Region) -> bool {
        self.faults.iter().any(|fault| {
            let is_there = fault.place == Place::In(region) || fault.place == Place::Everywhere;
            fault.kind.is_of_process() && is_there
        })
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = self.time.as_secs_f64();
        write!(f, "{} {}", self.kind.name(), self.place)?;
        match self.kind {
            Kind::KillAtSync | Kind::SyncError => write!(f, " at sync {} of a thread", self.sync),
            Kind::Flapping | Kind::Resets => {
                write!(f, " every {} ms for {seconds:.1} s", self.period.as_millis())
            }
            Kind::Delay | Kind::Narrow | Kind::Damage | Kind::Loss | Kind::Doubling | Kind::Reordering => {
                write!(f, " with {} for {seconds:.1} s", properties(self))
            }
            _ => write!(f, " for {seconds:.1} s"),
        }
    }
}

fn properties(fault: &Fault) -> String {
    let lane = fault.kind.lane(fault.strength);
    match fault.kind {
        Kind::Delay => format!("{} to {} ms", lane.delay_ms, lane.delay_ms + lane.jitter_ms),
        Kind::Narrow => format!("{} bytes/s", lane.bytes_per_s.unwrap_or(0)),
        Kind::Damage => format!("a bit in {} bytes", lane.damaged_one_in.unwrap_or(0)),
        _ => {
            let percent = lane
                .lost_percent
                .max(lane.doubled_percent)
                .max(lane.overtaken_percent);
            format!("{percent} %")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(seed: u64, count: usize) -> Vec<Round> {
        let mut schedule = Schedule::new(seed, Kind::ALL.to_vec());
        (0..count).map(|_| schedule.next_round()).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_rounds_and_another_gives_others() {
        assert_eq!(rounds(7, 50), rounds(7, 50));
        assert_ne!(rounds(7, 50), rounds(8, 50));
    }

    #[test]
    fn each_kind_comes_before_any_comes_twice() {
        let mut kinds: Vec<Kind> = rounds(3, 40)
            .into_iter()
            .flat_map(|round| round.faults)
            .map(|fault| fault.kind)
            .collect();
        kinds.truncate(Kind::ALL.len() - 2);
        let count = kinds.len();
        kinds.sort();
        kinds.dedup();
        // What does not fit into one round goes to the next, and the order within a round is that of time.
        assert!(kinds.len() + 2 >= count, "{kinds:?}");
    }

    #[test]
    fn no_region_has_two_faults_of_its_process_in_a_round() {
        for round in rounds(11, 300) {
            assert!(!round.faults.is_empty());
            for region in Region::ALL {
                let own = |fault: &&Fault| {
                    fault.kind.is_of_process()
                        && [Place::In(region), Place::Everywhere].contains(&fault.place)
                };
                let count = round.faults.iter().filter(own).count();
                assert!(count <= 1, "{round:?}");
                assert_eq!(round.touches_process(region), count == 1);
            }
        }
    }
}
