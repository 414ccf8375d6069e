//! How long the oldest change that a peer has not acknowledged has been waiting for it.
//!
//! Times of changes are sampled: a sample stands for all epochs from its own to that of the next one, so the wait that is
//! told is never too short, and at most a hundredth too long once samples had to be thinned out. Time before the
//! connection does not count: nobody could have acknowledged anything.

use std::collections::VecDeque;

use crate::frontier::Epoch;

/// The most samples that are kept: beyond, every second one goes.
const SAMPLES_MAX: usize = 256;

/// The least time between two samples, in milliseconds.
const APART_MS: u64 = 10;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Lag {
    samples: VecDeque<(Epoch, u64)>,
    apart_ms: u64,
    /// The newest change.
    changed_to: Epoch,
}

impl Lag {
    pub(crate) fn new() -> Self {
        Self {
            samples: VecDeque::new(),
            apart_ms: APART_MS,
            changed_to: Epoch(0),
        }
    }

    /// A session began with a peer that has everything up to `acked` of what goes to `changed_to`.
    pub(crate) fn restart(&mut self, acked: Epoch, changed_to: Epoch, now_ms: u64) {
        *self = Self::new();
        if acked < changed_to {
            self.changed(changed_to, now_ms);
        }
    }

    /// There is a change.
    pub(crate) fn changed(&mut self, epoch: Epoch, now_ms: u64) {
        self.changed_to = self.changed_to.max(epoch);
        let last = self.samples.back();
        if last.is_some_and(|(_, last_ms)| now_ms < last_ms + self.apart_ms) {
            return;
        }
        self.samples.push_back((epoch, now_ms));
        if self.samples.len() > SAMPLES_MAX {
            let mut number = 0;
            self.samples.retain(|_| {
                number += 1;
                number % 2 == 1
            });
            self.apart_ms *= 2;
        }
    }

    /// The peer has everything up to here.
    pub(crate) fn acknowledged(&mut self, acked: Epoch) {
        if acked >= self.changed_to {
            self.samples.clear();
            self.apart_ms = APART_MS;
        }
        while self.samples.get(1).is_some_and(|(epoch, _)| *epoch <= acked) {
            self.samples.pop_front();
        }
    }

    /// Since when the oldest change waits.
    pub(crate) fn since_ms(&self) -> Option<u64> {
        self.samples.front().map(|(_, ms)| *ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_change_that_is_not_acknowledged_counts() {
        let mut lag = Lag::new();
        assert_eq!(lag.since_ms(), None);
        for (epoch, ms) in [(1, 100), (2, 105), (3, 120), (7, 140)] {
            lag.changed(Epoch(epoch), ms);
        }
        assert_eq!(lag.since_ms(), Some(100));
        lag.acknowledged(Epoch(1));
        assert_eq!(lag.since_ms(), Some(100), "2 came right after");
        lag.acknowledged(Epoch(3));
        assert_eq!(lag.since_ms(), Some(120), "4 may be as old as 3");
        lag.acknowledged(Epoch(6));
        lag.acknowledged(Epoch(7));
        assert_eq!(lag.since_ms(), None);
        lag.restart(Epoch(7), Epoch(9), 500);
        assert_eq!(lag.since_ms(), Some(500));
        lag.acknowledged(Epoch(8));
        assert_eq!(lag.since_ms(), Some(500));
        lag.acknowledged(Epoch(9));
        assert_eq!(lag.since_ms(), None);
    }

    #[test]
    fn samples_are_bounded_and_the_wait_is_never_too_short_and_hardly_too_long() {
        let mut lag = Lag::new();
        for ms in 0..200_000 {
            lag.changed(Epoch(ms + 1), ms);
            assert!(lag.samples.len() <= SAMPLES_MAX);
            // The peer is a twentieth of the time behind.
            let acked = ms - ms / 20;
            lag.acknowledged(Epoch(acked));
            let since = lag.since_ms().expect("it is behind");
            // Epoch acked + 1 is of time `acked`.
            assert!(
                since <= acked && acked - since <= lag.apart_ms.max(APART_MS),
                "{since} at {ms}"
            );
        }
        assert!(lag.apart_ms <= 80, "{}", lag.apart_ms);
    }
}
