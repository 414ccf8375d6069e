//! When something was merged in portions. Nothing leaves meanwhile, which is no peer's delay.

use std::collections::VecDeque;

/// So many are remembered; what is forgotten counts as delay again.
const MERGES_MAX: usize = 256;

/// The last merges, and the one that goes on.
#[derive(Debug, Default)]
pub(crate) struct Merges {
    past: VecDeque<(u64, u64)>,
    since_ms: Option<u64>,
}

impl Merges {
    /// Something is being merged.
    pub(crate) fn begin(&mut self, now_ms: u64) {
        self.since_ms.get_or_insert(now_ms);
    }

    /// It is merged.
    pub(crate) fn end(&mut self, now_ms: u64) {
        if let Some(since_ms) = self.since_ms.take() {
            self.past.push_back((since_ms, now_ms));
        }
        if self.past.len() > MERGES_MAX {
            self.past.pop_front();
        }
    }

    /// For how many of the last `span_ms` milliseconds something was merged.
    pub(crate) fn within(&self, span_ms: u64, now_ms: u64) -> u64 {
        let from_ms = now_ms.saturating_sub(span_ms);
        let present = self.since_ms.map(|since_ms| (since_ms, now_ms));
        let all = self.past.iter().copied().chain(present);
        let parts =
            all.map(|(begun_ms, ended_ms)| ended_ms.min(now_ms).saturating_sub(begun_ms.max(from_ms)));
        parts.sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_part_of_a_merge_within_the_span_counts() {
        let mut merges = Merges::default();
        assert_eq!(merges.within(1_000, 5_000), 0);
        merges.begin(1_000);
        merges.begin(1_500);
        assert_eq!(merges.within(10_000, 2_000), 1_000, "it goes on");
        merges.end(3_000);
        merges.begin(4_000);
        merges.end(4_100);
        assert_eq!(merges.within(10_000, 5_000), 2_100);
        assert_eq!(merges.within(2_500, 5_000), 600);
        assert_eq!(
            merges.within(500, 5_000),
            0,
            "a peer that was level since is behind by itself"
        );
        for begun_ms in 0..MERGES_MAX as u64 {
            merges.begin(10_000 + begun_ms * 10);
            merges.end(10_001 + begun_ms * 10);
        }
        assert_eq!(merges.within(100_000, 20_000), MERGES_MAX as u64);
    }
}
