//! Who computes the partitions of a step.

/// A piece of work of one partition.
pub type Job<'a> = Box<dyn FnOnce() + Send + 'a>;

/// Runs the pieces of a step, at the same time or one after the other. Results do not depend on which.
pub trait Workers: std::fmt::Debug + Send + Sync {
    /// How many pieces run at the same time: the number of partitions of a view.
    fn count(&self) -> usize;

    /// Runs all of them and returns when all are done; a panic of one is a panic of the whole.
    fn run(&self, jobs: Vec<Job<'_>>);
}

/// Everything on the calling thread.
#[derive(Clone, Copy, Debug)]
pub struct Inline {
    partitions: usize,
}

impl Inline {
    /// That many partitions, one after the other.
    ///
    /// # Panics
    /// When there is none.
    pub fn new(partitions: usize) -> Self {
        assert!(partitions > 0, "a view has at least one partition");
        Self { partitions }
    }
}

impl Workers for Inline {
    fn count(&self) -> usize {
        self.partitions
    }

    fn run(&self, jobs: Vec<Job<'_>>) {
        jobs.into_iter().for_each(|job| job());
    }
}
