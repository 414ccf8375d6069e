//! Events per second, as a schedule: how many are due now.

use std::time::{Duration, Instant};

/// How long rows are gathered into a batch, unless less is asked for: what a view shows is at least this old.
pub const GATHER: Duration = Duration::from_millis(5);

/// The schedule of one source in one region. Events made before a restart are not owed again.
#[derive(Debug)]
pub struct Pace {
    started: Instant,
    schedule: Schedule,
}

/// What was given of what is due, without a clock.
#[derive(Debug)]
struct Schedule {
    events_per_second: f64,
    gather: Duration,
    given: u64,
}

/// The next thing to do.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// Wait until this long after the start, then ask again.
    Wait(Duration),
    /// Make this many events.
    Give(u64),
}

impl Pace {
    /// Starts now; rows are gathered for so long.
    pub fn start(events_per_second: f64, gather: Duration) -> Pace {
        Pace {
            started: Instant::now(),
            schedule: Schedule {
                events_per_second,
                gather,
                given: 0,
            },
        }
    }

    /// Waits until events are due and says how many, between 1 and `max`.
    pub async fn due(&mut self, max: u64) -> u64 {
        loop {
            match self.schedule.next(self.started.elapsed(), max) {
                Next::Give(count) => return count,
                Next::Wait(until) => tokio::time::sleep_until((self.started + until).into()).await,
            }
        }
    }
}

impl Schedule {
    fn next(&mut self, elapsed: Duration, max: u64) -> Next {
        let gathered = (self.events_per_second * self.gather.as_secs_f64())
            .ceil()
            .max(1.0) as u64;
        let wanted = gathered.min(max);
        // Rounded up, so that waiting until then is enough.
        let micros = ((self.given + wanted) as f64 / self.events_per_second * 1e6).ceil();
        let at = Duration::from_micros(micros as u64);
        if elapsed < at {
            return Next::Wait(at);
        }
        let owed = (elapsed.as_secs_f64() * self.events_per_second) as u64;
        let count = owed.saturating_sub(self.given).clamp(wanted, max);
        self.given += count;
        Next::Give(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_kept() {
        let mut schedule = Schedule {
            events_per_second: 1000.0,
            gather: GATHER,
            given: 0,
        };
        let mut elapsed = Duration::ZERO;
        while schedule.given < 5000 {
            let left = 5000 - schedule.given;
            match schedule.next(elapsed, left) {
                Next::Wait(until) => {
                    assert!(until > elapsed);
                    elapsed = until;
                }
                Next::Give(count) => assert!(count >= 1 && count <= left),
            }
        }
        assert_eq!(elapsed, Duration::from_secs(5));
    }

    #[test]
    fn arrears_are_made_up_in_batches() {
        let mut schedule = Schedule {
            events_per_second: 1000.0,
            gather: GATHER,
            given: 0,
        };
        let late = Duration::from_secs(10);
        assert_eq!(schedule.next(late, 4000), Next::Give(4000));
        assert_eq!(schedule.next(late, 4000), Next::Give(4000));
        assert_eq!(schedule.next(late, 4000), Next::Give(2000));
        assert_eq!(
            schedule.next(late, 4000),
            Next::Wait(Duration::from_millis(10_005))
        );
    }

    #[test]
    fn a_slow_source_gives_single_events() {
        let mut schedule = Schedule {
            events_per_second: 0.5,
            gather: GATHER,
            given: 0,
        };
        assert_eq!(
            schedule.next(Duration::ZERO, 10),
            Next::Wait(Duration::from_secs(2))
        );
        assert_eq!(schedule.next(Duration::from_secs(2), 10), Next::Give(1));
    }
}
