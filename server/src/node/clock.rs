//! Wall time for the region, which has no clock of its own.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970 that never go back while the process lives: the wall clock at the start plus
/// monotonic time since. Jumps of the wall clock do not reach the region; its rate does, since time daemons
/// steer the monotonic clock's rate too.
#[derive(Debug)]
pub struct Clock {
    started: Instant,
    started_ms: u64,
}

impl Clock {
    /// Starts at the wall clock's time.
    pub fn start() -> Clock {
        Clock {
            started: Instant::now(),
            started_ms: wall_ms(),
        }
    }

    /// Now.
    pub fn now_ms(&self) -> u64 {
        let elapsed_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.started_ms.saturating_add(elapsed_ms)
    }
}

/// The wall clock, in milliseconds since 1970; 0 for a clock set before it.
pub fn wall_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
