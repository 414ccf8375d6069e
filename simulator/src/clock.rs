//! A region's wall clock: apart from the others, a little fast or slow, and now and then set anew.

use crate::rng::Rng;

/// Simulated time 0 as the clocks show it, in milliseconds since 1970.
const BASE_MS: u64 = 1_750_000_000_000;

/// A clock that lies.
#[derive(Clone, Debug)]
pub struct Clock {
    offset_ms: i64,
    /// Milliseconds gained per thousand seconds.
    drift_ppm: i64,
}

impl Clock {
    /// A clock up to `skew_ms` off.
    pub fn draw(rng: &mut Rng, skew_ms: u64) -> Self {
        let skew = i64::try_from(skew_ms).unwrap_or(0);
        Self {
            offset_ms: rng.between_signed(-skew, skew),
            drift_ppm: rng.between_signed(-500, 500),
        }
    }

    /// What it shows at simulated time `now_ms`.
    pub fn read(&self, now_ms: u64) -> u64 {
        let now = i64::try_from(now_ms).expect("a run is shorter than 2^63 ms");
        let drifted = now + now * self.drift_ppm / 1_000_000 + self.offset_ms;
        BASE_MS.saturating_add_signed(drifted)
    }

    /// Lets it show so much more, as all clocks do when time passes.
    pub fn pass(&mut self, ms: u64) {
        self.offset_ms += i64::try_from(ms).unwrap_or(0);
    }

    /// Sets it forwards or back by up to `most_ms`.
    pub fn jump(&mut self, rng: &mut Rng, most_ms: u64) {
        let most = i64::try_from(most_ms).unwrap_or(0);
        self.offset_ms += rng.between_signed(-most, most);
    }
}
