//! What becomes of a packet: a function of the lane's settings, the time and the seed.
//!
//! ```text
//!   lost? ─▶ turn at the lane's rate (a long queue loses the packet) ─▶ delay ─▶ held back? ─▶ twice?
//! ```

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::super::Lane;
use super::super::bucket::Bucket;

/// The queue of a limited lane holds what it can send in this time, as that of a cheap router does.
const QUEUE_MAX: Duration = Duration::from_millis(400);
/// A packet that is held back comes so much later, so that others overtake it.
const HELD_BACK_MS: std::ops::RangeInclusive<u64> = 3..=60;

/// The randomness and the queue of one lane.
pub struct Router {
    random: StdRng,
    bucket: Bucket,
}

/// What becomes of a packet.
#[derive(Debug, PartialEq, Eq)]
pub struct Fate {
    /// When it arrives: not at all, once, or twice.
    pub arrivals: Vec<Instant>,
    /// Whether others are to overtake it.
    pub is_held_back: bool,
}

impl Fate {
    /// It never arrives.
    pub const LOST: Fate = Fate {
        arrivals: Vec::new(),
        is_held_back: false,
    };
}

impl Router {
    /// A lane whose queue is empty.
    pub fn new(seed: u64) -> Router {
        Router {
            random: StdRng::seed_from_u64(seed),
            bucket: Bucket::default(),
        }
    }

    /// Decides about a packet of `bytes` bytes that is sent now.
    pub fn route(&mut self, lane: &Lane, bytes: usize, now: Instant) -> Fate {
        if self.happens(lane.lost_percent) {
            return Fate::LOST;
        }
        let turn = match lane.bytes_per_s {
            Some(_) if self.bucket.backlog(now) > QUEUE_MAX => return Fate::LOST,
            Some(rate) => self.bucket.take(now, bytes, rate),
            None => Duration::ZERO,
        };
        let is_held_back = self.happens(lane.overtaken_percent);
        let mut due = now + turn + lane.delay(&mut self.random);
        if is_held_back {
            due += Duration::from_millis(self.random.random_range(HELD_BACK_MS));
        }
        let mut arrivals = vec![due];
        if self.happens(lane.doubled_percent) {
            arrivals.push(due + Duration::from_millis(self.random.random_range(HELD_BACK_MS)));
        }
        Fate {
            arrivals,
            is_held_back,
        }
    }

    fn happens(&mut self, percent: u8) -> bool {
        percent > 0 && self.random.random_range(0..100) < percent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(lane: &Lane, packets: usize) -> [usize; 3] {
        let mut router = Router::new(7);
        let now = Instant::now();
        let fates = (0..packets).map(|_| router.route(lane, 100, now));
        fates.fold([0; 3], |[lost, doubled, held], fate| {
            [
                lost + usize::from(fate.arrivals.is_empty()),
                doubled + usize::from(fate.arrivals.len() == 2),
                held + usize::from(fate.is_held_back),
            ]
        })
    }

    #[test]
    fn a_good_lane_delivers_each_packet_once_and_at_once() {
        assert_eq!(count(&Lane::default(), 1_000), [0, 0, 0]);
        let now = Instant::now();
        assert_eq!(Router::new(1).route(&Lane::default(), 1_500, now).arrivals, [now]);
    }

    #[test]
    fn of_many_packets_about_the_percentages_are_lost_doubled_and_overtaken() {
        let lane = Lane {
            lost_percent: 30,
            doubled_percent: 10,
            overtaken_percent: 20,
            ..Lane::default()
        };
        let [lost, doubled, held] = count(&lane, 10_000);
        assert!((2_800..3_200).contains(&lost), "{lost}");
        assert!(
            (550..850).contains(&doubled),
            "{doubled}: a tenth of those that were not lost"
        );
        assert!((1_250..1_550).contains(&held), "{held}: a fifth of those");
    }

    #[test]
    fn a_limited_lane_makes_packets_wait_and_its_queue_is_bounded() {
        let lane = Lane {
            bytes_per_s: Some(100_000),
            ..Lane::default()
        };
        let mut router = Router::new(7);
        let now = Instant::now();
        let arrivals: Vec<Instant> = (0..100)
            .flat_map(|_| router.route(&lane, 1_000, now).arrivals)
            .collect();
        assert!(arrivals.is_sorted());
        assert!((40..=45).contains(&arrivals.len()), "{}", arrivals.len());
    }
}
