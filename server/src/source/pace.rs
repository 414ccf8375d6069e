//! Events per second, as a schedule: how many are due now.

use std::time::Duration;

use tokio::time::Instant;

/// Smaller batches than this are worth waiting for.
const GATHER: Duration = Duration::from_millis(100);

/// The schedule of one source in one region.
#[derive(Debug)]
pub struct Pace {
    started: Instant,
    events_per_second: f64,
    given: u64,
}

impl Pace {
    /// Starts now; events made before a restart are not owed again.
    pub fn start(events_per_second: f64) -> Pace {
        Pace { started: Instant::now(), events_per_second, given: 0 }
    }

    /// Waits until events are due and says how many, between 1 and `max`.
    pub async fn due(&mut self, max: u64) -> u64 {
        let gathered = (self.events_per_second * GATHER.as_secs_f64()).ceil().max(1.0) as u64;
        let wanted = gathered.min(max);
        let at = Duration::from_secs_f64((self.given + wanted) as f64 / self.events_per_second);
        tokio::time::sleep_until(self.started + at).await;
        let owed = self.started.elapsed().as_secs_f64() * self.events_per_second;
        let count = (owed as u64).saturating_sub(self.given).clamp(wanted, max);
        self.given += count;
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_rate_is_kept_and_arrears_are_made_up_in_batches() {
        let mut pace = Pace::start(1000.0);
        let started = Instant::now();
        let mut events = 0;
        while events < 5000 {
            events += pace.due(5000 - events).await;
        }
        let seconds = started.elapsed().as_secs_f64();
        assert!((4.9..5.1).contains(&seconds), "{seconds}");
        // A consumer that was away for ten seconds gets what is owed, no more than it asks for at once.
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(pace.due(4000).await, 4000);
        assert_eq!(pace.due(4000).await, 4000);
        assert!(pace.due(4000).await >= 2000);
    }
}
