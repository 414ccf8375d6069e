//! The threads that compute the partitions of a step.

use tributary_executor::{Job, Workers};

/// A pool of threads. With one worker there is none: the region's own thread does the work.
#[derive(Debug)]
pub struct Pool {
    count: usize,
    threads: Option<rayon::ThreadPool>,
}

impl Pool {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the system does not give so many.
    pub fn start(count: usize) -> std::io::Result<Self> {
        let threads = || {
            rayon::ThreadPoolBuilder::new()
                .num_threads(count)
                .thread_name(|number| format!("worker {number}"))
                .build()
                .map_err(std::io::Error::other)
        };
        Ok(Self {
            count,
            threads: (count > 1).then(threads).transpose()?,
        })
    }
}

impl Workers for Pool {
    fn count(&self) -> usize {
        self.count
    }

    fn run(&self, jobs: Vec<Job<'_>>) {
        match &self.threads {
            Some(threads) if jobs.len() > 1 => threads.scope(|scope| {
                for job in jobs {
                    scope.spawn(move |_| job());
                }
            }),
            _ => jobs.into_iter().for_each(|job| job()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn all_jobs_are_done_and_a_panic_is_not_lost() {
        for count in [1, 3] {
            let pool = Pool::start(count).expect("a few threads");
            assert_eq!(pool.count(), count);
            let done = AtomicUsize::new(0);
            let job = || -> Job<'_> {
                Box::new(|| {
                    let _ = done.fetch_add(1, Ordering::SeqCst);
                })
            };
            pool.run((0..10).map(|_| job()).collect());
            assert_eq!(done.load(Ordering::SeqCst), 10);
            let failing: Vec<Job> = vec![Box::new(|| panic!("on purpose")), Box::new(|| {})];
            let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| pool.run(failing)));
            assert!(caught.is_err());
        }
    }
}
