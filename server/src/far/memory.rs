//! The memory of everything that this region computes for others, together.
//!
//! Whoever comes takes what is left of [`BYTES_MAX`]. Where nothing is left, who holds less than [`SHARE_BYTES`] may
//! still take that much: no request fails because of others. Beyond it groups go out early ([`super::states`]) and free
//! what they held. So the bound is that of the pool and of a share for each operator of the requests that are served at
//! once, and of the batch that a join is making, which nobody counts.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryLimit, MemoryPool, MemoryReservation, human_readable_size};
use datafusion::execution::runtime_env::RuntimeEnv;

use crate::query::context::runtime_over;

/// What all requests may take.
const BYTES_MAX: usize = 256 << 20;
/// What each operator may take in any case.
const SHARE_BYTES: usize = 4 << 20;

/// Where other regions' requests are computed; `None` where no runtime can be made.
pub(super) fn runtime() -> Option<Arc<RuntimeEnv>> {
    static RUNTIME: LazyLock<Option<Arc<RuntimeEnv>>> =
        LazyLock::new(|| runtime_over(Shared::new(BYTES_MAX, SHARE_BYTES)).ok());
    RUNTIME.clone()
}

/// See the module's documentation.
#[derive(Debug)]
struct Shared {
    bytes_max: usize,
    share_bytes: usize,
    used: AtomicUsize,
}

impl Shared {
    fn new(bytes_max: usize, share_bytes: usize) -> Self {
        Self {
            bytes_max,
            share_bytes,
            used: AtomicUsize::new(0),
        }
    }
}

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (used, max) = (self.reserved(), self.bytes_max);
        write!(
            f,
            "for other regions ({} of {})",
            human_readable_size(used),
            human_readable_size(max)
        )
    }
}

impl MemoryPool for Shared {
    fn name(&self) -> &str {
        "for other regions"
    }

    fn grow(&self, _reservation: &MemoryReservation, additional: usize) {
        self.used.fetch_add(additional, Ordering::Relaxed);
    }

    fn shrink(&self, _reservation: &MemoryReservation, shrink: usize) {
        self.used.fetch_sub(shrink, Ordering::Relaxed);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        let in_share = reservation.size().saturating_add(additional) <= self.share_bytes;
        let grown = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                let grown = used.saturating_add(additional);
                (in_share || grown <= self.bytes_max).then_some(grown)
            });
        match grown {
            Ok(_) => Ok(()),
            Err(_) => Err(DataFusionError::ResourcesExhausted(format!(
                "{additional} bytes more are not left {self}"
            ))),
        }
    }

    fn reserved(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.bytes_max)
    }
}

#[cfg(test)]
mod tests {
    use datafusion::execution::memory_pool::MemoryConsumer;

    use super::*;

    #[test]
    fn one_may_take_everything_and_leaves_a_share_to_each_other() {
        let pool: Arc<dyn MemoryPool> = Arc::new(Shared::new(100, 10));
        let holder = |name: &str| MemoryConsumer::new(name).register(&pool);
        let (all, small) = (holder("all"), holder("small"));
        all.try_grow(100).expect("nobody else is there");
        assert!(all.try_grow(1).is_err());
        small.try_grow(10).expect("its share");
        assert!(small.try_grow(1).is_err(), "no more than its share");
        assert_eq!(pool.reserved(), 110);
        all.shrink(60);
        small.try_grow(50).expect("it is left");
        assert!(small.try_grow(1).is_err());
        drop(all);
        drop(small);
        assert_eq!(pool.reserved(), 0);
    }

    #[test]
    fn all_requests_share_one_pool() {
        let (one, other) = (runtime().expect("a runtime"), runtime().expect("a runtime"));
        assert!(Arc::ptr_eq(&one.memory_pool, &other.memory_pool));
    }
}
