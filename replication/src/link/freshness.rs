//! Round trips and "as of": how old what we know of a peer can be, without comparing clocks.
//!
//! We asked at our own time `t`; the peer answered with its epoch `e`. Once our frontier covers `e` we know
//! everything the peer had announced at `t`, so we are fresh as of `t`, and stay so until the next answer.

use std::collections::VecDeque;

use crate::frontier::Epoch;
use crate::link::message::Echo;

/// Answers whose epoch is not covered yet; past the maximum new ones are left out, which only makes the
/// figure older than it could be.
const ANSWERS_MAX: usize = 64;

/// What is known of the delay to a peer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Freshness {
    round_trip_ms: Option<u64>,
    /// The shortest round trip of the session: that of a way on which nothing waits.
    least_round_trip_ms: Option<u64>,
    /// The newest of our own times that came back.
    echoed_ms: Option<u64>,
    as_of_ms: Option<u64>,
    answers: VecDeque<(Epoch, u64)>,
    /// The peer's newest time and when it came, to be echoed.
    heard: Option<(u64, u64)>,
}

impl Freshness {
    /// A new session: nothing under way will be answered, but what is known stays known.
    pub(crate) fn restart(&mut self) {
        self.echoed_ms = None;
        self.least_round_trip_ms = None;
        self.answers.clear();
        self.heard = None;
    }

    /// Takes in one round trip that began at `sent_ms` and was held for `held_ms` at the other end.
    pub(crate) fn measured(&mut self, sent_ms: u64, held_ms: u64, now_ms: u64) {
        let sample = now_ms.saturating_sub(sent_ms).saturating_sub(held_ms);
        // A moving average with weight 1/4, as for TCP: quick to follow a change of route, deaf to one stall.
        let smoothed = self.round_trip_ms.map_or(sample, |old| (old * 3 + sample) / 4);
        self.round_trip_ms = Some(smoothed);
        self.least_round_trip_ms = Some(self.least_round_trip_ms.map_or(sample, |least| least.min(sample)));
    }

    /// Takes in a heartbeat: the peer's own time and epoch, and perhaps an answer.
    pub(crate) fn heard(&mut self, sent_ms: u64, epoch: Epoch, echo: Option<Echo>, now_ms: u64) {
        if self.heard.is_none_or(|(newest, _)| sent_ms > newest) {
            self.heard = Some((sent_ms, now_ms));
        }
        let Some(echo) = echo.filter(|echo| echo.sent_ms <= now_ms) else {
            return;
        };
        if self.echoed_ms.is_some_and(|newest| echo.sent_ms <= newest) {
            return;
        }
        self.measured(echo.sent_ms, echo.held_ms, now_ms);
        self.echoed_ms = Some(echo.sent_ms);
        let has_room = self.answers.len() < ANSWERS_MAX;
        match self.answers.back_mut() {
            Some((last, asked_ms)) if *last == epoch => *asked_ms = echo.sent_ms,
            _ if has_room => self.answers.push_back((epoch, echo.sent_ms)),
            _ => {}
        }
    }

    /// Our frontier covers the peer up to `epoch`.
    pub(crate) fn covered(&mut self, epoch: Epoch) {
        while let Some((answered, asked_ms)) = self.answers.front().copied()
            && answered <= epoch
        {
            self.as_of_ms = self.as_of_ms.max(Some(asked_ms));
            self.answers.pop_front();
        }
    }

    /// The answer to the peer's newest heartbeat.
    pub(crate) fn echo(&self, now_ms: u64) -> Option<Echo> {
        self.heard.map(|(sent_ms, heard_ms)| Echo {
            sent_ms,
            held_ms: now_ms.saturating_sub(heard_ms),
        })
    }

    pub(crate) fn round_trip_ms(&self) -> Option<u64> {
        self.round_trip_ms
    }

    /// Whether a round trip takes longer than it has to, by a fourth and by more than `slack_ms`: something waits on the way.
    /// So it is before anything is known.
    pub(crate) fn is_slowed(&self, slack_ms: u64) -> bool {
        let known = self.round_trip_ms.zip(self.least_round_trip_ms);
        known.is_none_or(|(now_ms, least_ms)| now_ms > least_ms + slack_ms.max(least_ms / 4))
    }

    pub(crate) fn echoed_ms(&self) -> Option<u64> {
        self.echoed_ms
    }

    pub(crate) fn as_of_ms(&self) -> Option<u64> {
        self.as_of_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fresh_as_of_the_question_once_the_answer_is_covered() {
        let mut freshness = Freshness::default();
        freshness.heard(
            5,
            Epoch(3),
            Some(Echo {
                sent_ms: 100,
                held_ms: 10,
            }),
            150,
        );
        assert_eq!(
            (freshness.round_trip_ms(), freshness.as_of_ms()),
            (Some(40), None)
        );
        freshness.covered(Epoch(2));
        assert_eq!(freshness.as_of_ms(), None);
        freshness.covered(Epoch(3));
        assert_eq!(freshness.as_of_ms(), Some(100));
        assert_eq!(
            freshness.echo(170),
            Some(Echo {
                sent_ms: 5,
                held_ms: 20
            })
        );
    }

    #[test]
    fn old_and_impossible_echoes_change_nothing() {
        let mut freshness = Freshness::default();
        freshness.heard(
            5,
            Epoch(1),
            Some(Echo {
                sent_ms: 100,
                held_ms: 0,
            }),
            120,
        );
        freshness.heard(
            6,
            Epoch(1),
            Some(Echo {
                sent_ms: 90,
                held_ms: 0,
            }),
            500,
        );
        freshness.heard(
            7,
            Epoch(1),
            Some(Echo {
                sent_ms: 900,
                held_ms: 0,
            }),
            500,
        );
        assert_eq!(freshness.round_trip_ms(), Some(20));
        freshness.covered(Epoch(1));
        assert_eq!(freshness.as_of_ms(), Some(100));
    }

    #[test]
    fn a_way_is_slowed_when_round_trips_get_longer() {
        let mut freshness = Freshness::default();
        assert!(freshness.is_slowed(20), "nothing is known");
        freshness.measured(1_000, 0, 1_160);
        assert!(!freshness.is_slowed(20));
        for _ in 0..8 {
            freshness.measured(2_000, 0, 2_190);
        }
        assert!(!freshness.is_slowed(20), "within a fourth");
        for _ in 0..8 {
            freshness.measured(2_000, 0, 2_240);
        }
        assert!(freshness.is_slowed(20));
        freshness.restart();
        assert!(freshness.is_slowed(20), "another way, perhaps");
        freshness.measured(3_000, 0, 3_240);
        assert!(!freshness.is_slowed(20));
    }

    #[test]
    fn answers_are_bounded() {
        let mut freshness = Freshness::default();
        for i in 1..=200 {
            freshness.heard(
                i,
                Epoch(i),
                Some(Echo {
                    sent_ms: i,
                    held_ms: 0,
                }),
                1_000,
            );
        }
        assert_eq!(freshness.answers.len(), ANSWERS_MAX);
    }
}
