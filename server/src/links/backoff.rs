//! How long to wait before the next attempt to connect: exponential, with jitter, so that regions that lost each
//! other at the same moment do not come back at the same moment.

use std::time::Duration;

use rand::Rng;

const FIRST: Duration = Duration::from_millis(50);
const MAX: Duration = Duration::from_millis(1500);

/// The state of one peer's attempts.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
}

impl Backoff {
    /// Before the first failure.
    pub fn new() -> Backoff {
        Backoff { next: FIRST }
    }

    /// After a failure: how long to wait; between half and all of a bound that doubles up to a maximum.
    pub fn wait(&mut self, random: &mut impl Rng) -> Duration {
        let bound = self.next;
        self.next = (self.next * 2).min(MAX);
        bound.mul_f64(random.random_range(0.5..=1.0))
    }

    /// After a success.
    pub fn reset(&mut self) {
        self.next = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn waits_double_up_to_the_maximum_and_start_over() {
        let mut random = StdRng::seed_from_u64(7);
        let mut backoff = Backoff::new();
        let mut bound = FIRST;
        for _ in 0..10 {
            let wait = backoff.wait(&mut random);
            assert!(wait >= bound / 2 && wait <= bound, "{wait:?} of {bound:?}");
            bound = (bound * 2).min(MAX);
        }
        backoff.reset();
        assert!(backoff.wait(&mut random) <= FIRST);
    }
}
