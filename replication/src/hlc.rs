//! Hybrid logical time: wall-clock milliseconds that never run backwards and respect causality.
//!
//! A region's clock gives strictly increasing values and is pushed forward by what it hears, so an effect
//! always has a greater time than its cause, whatever the wall clocks say. Time decides freshness, the
//! winner among concurrent writes and where bundles are cut; never durability or convergence.
//!
//! The layout is 48 bits of milliseconds since 1970 and 16 bits of counter; a full counter carries into
//! the milliseconds, so the clock is never exhausted, only a little fast.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::lattice::Lattice;

/// The length of the base tick in milliseconds; all regions cut at multiples of it.
pub const TICK_MS: u64 = 20;

/// A clock further behind what it heard than this is out of order: its region refuses its own GLOBAL writes.
pub const DRIFT_MS_MAX: u64 = 5_000;

/// The greatest wall-clock time accepted from a peer, in milliseconds since 1970 (the year 4199).
/// Later ones are damage: they would use up the range of the clock.
pub const PHYSICAL_MS_MAX: u64 = 1 << 46;

const COUNTER_BITS: u32 = 16;

/// A moment in hybrid logical time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Hlc(u64);

/// A boundary in hybrid logical time at which bundles are cut: milliseconds divided by the base tick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Tick(pub u64);

impl Hlc {
    /// The first moment of a millisecond.
    pub fn from_ms(ms: u64) -> Self {
        Self(ms.min(u64::MAX >> COUNTER_BITS) << COUNTER_BITS)
    }

    /// Milliseconds since 1970.
    pub fn ms(self) -> u64 {
        self.0 >> COUNTER_BITS
    }

    /// The place among the moments of this millisecond.
    pub fn counter(self) -> u16 {
        (self.0 & 0xffff) as u16
    }

    /// The tick this moment lies in, for ticks of `tick_ms` milliseconds.
    pub fn tick(self, tick_ms: u64) -> Tick {
        Tick(self.ms() / tick_ms.max(1))
    }

    /// The next moment.
    pub fn successor(self) -> Self {
        Self(
            self.0
                .checked_add(1)
                .expect("moments beyond the year 4199 are refused on receipt"),
        )
    }

    /// The moment as it stands in columns.
    pub fn as_i64(self) -> i64 {
        i64::try_from(self.0).expect("moments beyond the year 4199 are refused on receipt")
    }

    /// The inverse of [`Hlc::as_i64`], for a number from a peer; `None` when it lies outside the range of
    /// sane times.
    pub fn from_i64(value: i64) -> Option<Self> {
        let hlc = Self(u64::try_from(value).ok()?);
        (hlc.ms() <= PHYSICAL_MS_MAX).then_some(hlc)
    }
}

impl Lattice for Hlc {
    fn merge(&mut self, other: Self) -> bool {
        let grows = other > *self;
        if grows {
            *self = other;
        }
        grows
    }
}

impl fmt::Display for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.ms(), self.counter())
    }
}

impl fmt::Display for Tick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A region's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HlcClock {
    last: Hlc,
}

impl HlcClock {
    /// A clock that continues after `last`, the greatest moment found in the log.
    pub fn starting_after(last: Hlc) -> Self {
        Self { last }
    }

    /// The greatest moment given out or heard of.
    pub fn last(&self) -> Hlc {
        self.last
    }

    /// A moment later than every one given out or observed before.
    pub fn now(&mut self, physical_ms: u64) -> Hlc {
        self.last = Hlc::from_ms(physical_ms.min(PHYSICAL_MS_MAX)).max(self.last.successor());
        self.last
    }

    /// Takes in a moment heard from elsewhere.
    pub fn observe(&mut self, heard: Hlc) {
        self.last.merge(heard);
    }

    /// How far the wall clock is behind what was heard, in milliseconds.
    pub fn drift_ms(&self, physical_ms: u64) -> u64 {
        self.last.ms().saturating_sub(physical_ms)
    }

    /// Whether the wall clock is so far behind that this region must not stamp GLOBAL rows.
    pub fn is_drifted(&self, physical_ms: u64) -> bool {
        self.drift_ms(physical_ms) > DRIFT_MS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lattice::assert_laws;

    #[test]
    fn moments_are_a_lattice() {
        assert_laws(&[
            Hlc::default(),
            Hlc::from_ms(1),
            Hlc::from_ms(1).successor(),
            Hlc::from_ms(2),
        ]);
    }

    #[test]
    fn the_clock_is_strictly_monotone_and_respects_what_it_heard() {
        let mut clock = HlcClock::default();
        let mut last = clock.now(1_000);
        for physical_ms in [1_000, 1_000, 400, 1_001, 0, 5_000, 4_999] {
            let now = clock.now(physical_ms);
            assert!(now > last, "{now} after {last}");
            last = now;
        }
        clock.observe(Hlc::from_ms(9_000));
        assert!(clock.now(5_001) > Hlc::from_ms(9_000));
        assert_eq!(clock.drift_ms(5_001), 3_999);
        assert!(!clock.is_drifted(5_001) && clock.is_drifted(3_999));
    }

    #[test]
    fn a_full_counter_carries_into_the_milliseconds() {
        let mut clock = HlcClock::default();
        for _ in 0..70_000 {
            clock.now(1);
        }
        assert_eq!(clock.last().ms(), 2);
        assert_eq!(Hlc::from_ms(41).tick(TICK_MS), Tick(2));
        assert_eq!(Hlc::from_ms(7).successor().counter(), 1);
    }

    #[test]
    fn insane_times_are_not_read() {
        assert_eq!(Hlc::from_i64(-1), None);
        assert_eq!(Hlc::from_i64(i64::MAX), None);
        let sane = Hlc::from_ms(PHYSICAL_MS_MAX);
        assert_eq!(Hlc::from_i64(sane.as_i64()), Some(sane));
    }
}
