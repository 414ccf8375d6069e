//! How many rows a source submits at once: as many as can be seen in time.
//!
//! Large batches are cheaper per row, small ones are seen sooner. Without a target a batch is as large as it may be. With
//! one, the size follows what is measured: it falls by half when a batch was seen too late, and grows by an eighth when
//! one was seen well before. Batches under way when the size was changed say nothing about the new size; they are passed
//! over.

use std::time::Duration;

/// Batches are not made smaller than this: the cost of a record would be all there is.
const ROWS_MIN: usize = 64;

/// The size of batches.
#[derive(Debug)]
pub struct Batching {
    target: Option<Duration>,
    rows: usize,
    rows_max: usize,
}

impl Batching {
    /// Batches of at most so many rows, to be seen within the target.
    pub fn new(target: Option<Duration>, rows_max: usize) -> Self {
        let rows = match target {
            None => rows_max,
            Some(_) => (rows_max / 16).max(ROWS_MIN.min(rows_max)),
        };
        Self {
            target,
            rows,
            rows_max,
        }
    }

    /// Whether it matters when a batch is seen.
    pub fn is_measured(&self) -> bool {
        self.target.is_some()
    }

    /// The rows of the next batch, at most.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// A batch of so many rows was seen so long after it was submitted.
    pub fn seen(&mut self, rows: usize, after: Duration) {
        let Some(target) = self.target else {
            return;
        };
        if after > target && rows <= self.rows {
            self.rows = (self.rows / 2).max(ROWS_MIN.min(self.rows_max));
        } else if after < target.mul_f64(0.7) && rows >= self.rows {
            self.rows = (self.rows + self.rows / 8 + 1).min(self.rows_max);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Duration = Duration::from_millis(20);

    /// The size after many batches of which each is seen after so long a time per row, with four under way.
    fn settled(micros_per_row: u64) -> (usize, Duration) {
        let mut batching = Batching::new(Some(TARGET), 65_536);
        let mut under_way = std::collections::VecDeque::new();
        let mut last = Duration::ZERO;
        for _ in 0..1000 {
            under_way.push_back(batching.rows());
            if under_way.len() == 4 {
                let waiting: usize = under_way.iter().sum();
                last = Duration::from_micros(waiting as u64 * micros_per_row);
                let rows = under_way.pop_front().expect("there are four");
                batching.seen(rows, last);
            }
        }
        (batching.rows(), last)
    }

    #[test]
    fn the_size_settles_where_batches_are_seen_in_time() {
        for micros_per_row in [1, 5, 20] {
            let (rows, after) = settled(micros_per_row);
            assert!(after < TARGET * 3 / 2, "{rows} rows were seen after {after:?}");
            assert!(after > TARGET / 4, "{rows} rows were seen after {after:?}");
        }
    }

    #[test]
    fn it_has_bounds() {
        let (rows, _) = settled(1_000);
        assert_eq!(rows, ROWS_MIN, "even so small a batch is late");
        assert_eq!(settled(0).0, 65_536);
        let mut small = Batching::new(Some(TARGET), 8);
        small.seen(8, TARGET * 2);
        assert_eq!(small.rows(), 8);
    }

    #[test]
    fn without_a_target_batches_are_as_large_as_they_may_be() {
        let mut batching = Batching::new(None, 1000);
        batching.seen(1000, Duration::from_secs(10));
        assert!(batching.rows() == 1000 && !batching.is_measured());
    }
}
