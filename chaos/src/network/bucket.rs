//! How long bytes have to wait for their turn on a lane of limited rate.
//!
//! It is a token bucket, kept as the time at which it will be full again: what is sent moves that time on by what it
//! takes at the rate, and a lane that rested has saved up at most [`BURST`].

use std::time::{Duration, Instant};

/// What may be sent at once after a rest, as time at the rate.
const BURST: Duration = Duration::from_millis(20);

/// The bucket of a lane.
#[derive(Debug, Default)]
pub struct Bucket {
    busy_until: Option<Instant>,
}

impl Bucket {
    /// Takes the turn of so many bytes: how long they have to wait for it.
    pub fn take(&mut self, now: Instant, bytes: usize, bytes_per_s: u64) -> Duration {
        let rested = now.checked_sub(BURST).unwrap_or(now);
        let from = self.busy_until.map_or(rested, |until| until.max(rested));
        let until = from + Duration::from_secs_f64(bytes as f64 / bytes_per_s.max(1) as f64);
        self.busy_until = Some(until);
        until.saturating_duration_since(now)
    }

    /// How long something that came now would have to wait before its own bytes are sent.
    pub fn backlog(&self, now: Instant) -> Duration {
        self.busy_until
            .map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_beyond_the_burst_wait_as_long_as_the_rate_says() {
        let mut bucket = Bucket::default();
        let start = Instant::now();
        assert_eq!(
            bucket.take(start, 1_000, 100_000),
            Duration::ZERO,
            "within the burst"
        );
        assert_eq!(
            bucket.take(start, 1_000, 100_000),
            Duration::ZERO,
            "just the burst"
        );
        assert_eq!(bucket.take(start, 10_000, 100_000), Duration::from_millis(100));
        assert_eq!(bucket.backlog(start), Duration::from_millis(100));
    }

    #[test]
    fn over_a_long_time_the_rate_is_kept() {
        let mut bucket = Bucket::default();
        let start = Instant::now();
        let mut now = start;
        for _ in 0..1_000 {
            now += bucket.take(now, 1_500, 150_000);
        }
        let took = now.duration_since(start);
        assert!(
            took > Duration::from_millis(9_900) && took <= Duration::from_secs(10),
            "{took:?}"
        );
    }

    #[test]
    fn a_rest_saves_up_no_more_than_the_burst() {
        let mut bucket = Bucket::default();
        let start = Instant::now();
        bucket.take(start, 100, 100_000);
        let later = start + Duration::from_secs(60);
        assert_eq!(bucket.take(later, 102_000, 100_000), Duration::from_secs(1));
    }
}
