//! What a check says when it fails.

use std::fmt;

use thiserror::Error;

use crate::options::Options;

/// A broken guarantee.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{guarantee}: {detail}")]
pub struct Violation {
    /// Which guarantee.
    pub guarantee: &'static str,
    /// What was seen, with the values.
    pub detail: String,
}

impl Violation {
    /// A broken guarantee.
    pub fn new(guarantee: &'static str, detail: impl Into<String>) -> Self {
        Self {
            guarantee,
            detail: detail.into(),
        }
    }
}

/// Whether a step kept all guarantees.
pub type Checked<T = ()> = Result<T, Violation>;

/// A failed run.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Its options, the seed among them.
    pub options: Options,
    /// When, in simulated milliseconds.
    pub at_ms: u64,
    /// After how many steps of regions.
    pub step: u64,
    /// What.
    pub violation: Violation,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seed = self.options.seed;
        writeln!(f, "seed {seed} failed at {} ms, step {}", self.at_ms, self.step)?;
        writeln!(f, "  {}", self.violation)?;
        writeln!(f, "  options: {}", self.options)?;
        match self.options.control {
            None => write!(f, "  replay: make sim SEED={seed}"),
            Some(control) => {
                write!(
                    f,
                    "  replay: tributary-simulator --seed {seed} --control {}",
                    control.name()
                )
            }
        }
    }
}
