//! One direction between two regions: what it does to what it carries, and how much it has carried.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;

use super::bucket::Bucket;

/// What a lane does to what it carries. The default is nothing at all.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Lane {
    /// Everything arrives so much later.
    pub delay_ms: u64,
    /// And up to so much later again, at random.
    pub jitter_ms: u64,
    /// No more than this passes; none: no bound.
    pub bytes_per_s: Option<u64>,
    /// Nothing passes, and nobody is told: connections stay open (or are accepted) and are silent.
    pub is_held: bool,
    /// A bit of one byte in so many is flipped. Proxies only: TCP would drop such a packet.
    pub damaged_one_in: Option<u64>,
    /// Percent of packets that are lost. Packets only, as the next two.
    pub lost_percent: u8,
    /// Percent of packets that arrive twice.
    pub doubled_percent: u8,
    /// Percent of packets that are held back so that later ones overtake them.
    pub overtaken_percent: u8,
}

impl Lane {
    /// Two faults at once: of each property what is worse.
    pub fn combined(self, other: Lane) -> Lane {
        let least = |one: Option<u64>, other: Option<u64>| match (one, other) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        Lane {
            delay_ms: self.delay_ms.max(other.delay_ms),
            jitter_ms: self.jitter_ms.max(other.jitter_ms),
            bytes_per_s: least(self.bytes_per_s, other.bytes_per_s),
            is_held: self.is_held || other.is_held,
            damaged_one_in: least(self.damaged_one_in, other.damaged_one_in),
            lost_percent: self.lost_percent.max(other.lost_percent),
            doubled_percent: self.doubled_percent.max(other.doubled_percent),
            overtaken_percent: self.overtaken_percent.max(other.overtaken_percent),
        }
    }

    /// How long something takes that is sent now.
    pub fn delay(&self, random: &mut impl Rng) -> Duration {
        Duration::from_millis(self.delay_ms + random.random_range(0..=self.jitter_ms))
    }
}

/// A lane as it is now.
pub struct LaneState {
    lane: watch::Sender<Lane>,
    cut: watch::Sender<bool>,
    bytes: AtomicU64,
    turns: Mutex<Turns>,
}

struct Turns {
    bucket: Bucket,
    random: StdRng,
}

impl LaneState {
    /// A lane that carries everything at once.
    pub fn new(seed: u64) -> LaneState {
        LaneState {
            lane: watch::Sender::new(Lane::default()),
            cut: watch::Sender::new(false),
            bytes: AtomicU64::new(0),
            turns: Mutex::new(Turns {
                bucket: Bucket::default(),
                random: StdRng::seed_from_u64(seed),
            }),
        }
    }

    /// What it does at present.
    pub fn get(&self) -> Lane {
        *self.lane.borrow()
    }

    /// Changes what it does.
    pub fn set(&self, lane: Lane) {
        self.lane.send_replace(lane);
    }

    /// Whether packets are all lost.
    pub fn is_cut(&self) -> bool {
        *self.cut.borrow()
    }

    /// Loses all packets, or no longer.
    pub fn set_cut(&self, cut: bool) {
        self.cut.send_replace(cut);
    }

    /// Waits while nothing passes.
    pub async fn passable(&self) {
        let mut lane = self.lane.subscribe();
        // The sender is a field of self, so it outlives the wait.
        let _ = lane.wait_for(|lane| !lane.is_held).await;
    }

    /// Counts what arrived.
    pub fn carried(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes that arrived so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// How long so many bytes wait for their turn, which they take.
    pub fn take_turn(&self, bytes: usize) -> Duration {
        match self.get().bytes_per_s {
            Some(rate) => self.turns().bucket.take(Instant::now(), bytes, rate),
            None => Duration::ZERO,
        }
    }

    /// How long something takes that is sent now.
    pub fn delay(&self) -> Duration {
        self.get().delay(&mut self.turns().random)
    }

    /// Flips bits, if the lane does.
    pub fn damage(&self, bytes: &mut [u8]) {
        let Some(one_in) = self.get().damaged_one_in else {
            return;
        };
        let random = &mut self.turns().random;
        let chance = (bytes.len() as f64 / one_in.max(1) as f64).min(1.0);
        if !bytes.is_empty() && random.random_bool(chance) {
            let at = random.random_range(0..bytes.len());
            bytes[at] ^= 1 << random.random_range(0..8);
        }
    }

    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_faults_at_once_each_property_is_the_worse_one() {
        let slow = Lane {
            delay_ms: 200,
            bytes_per_s: Some(5),
            ..Lane::default()
        };
        let lossy = Lane {
            delay_ms: 10,
            lost_percent: 30,
            is_held: true,
            ..Lane::default()
        };
        let both = slow.combined(lossy);
        assert_eq!(both, lossy.combined(slow));
        assert_eq!(
            (both.delay_ms, both.bytes_per_s, both.lost_percent, both.is_held),
            (200, Some(5), 30, true)
        );
        assert_eq!(slow.combined(Lane::default()), slow);
    }

    #[test]
    fn damage_flips_single_bits_and_only_where_it_is_asked_for() {
        let lane = LaneState::new(1);
        let mut bytes = vec![0_u8; 100];
        lane.damage(&mut bytes);
        assert!(bytes.iter().all(|byte| *byte == 0));
        lane.set(Lane {
            damaged_one_in: Some(1),
            ..Lane::default()
        });
        lane.damage(&mut bytes);
        assert_eq!(bytes.iter().map(|byte| byte.count_ones()).sum::<u32>(), 1);
    }
}
