//! What happened, as a digest and, when asked for, as text.
//!
//! The digest covers every effect of every region in order, so two runs with the same digest did the same.

use std::fmt::Display;

/// The digest of a run so far.
pub struct Trace {
    hasher: blake3::Hasher,
    printed: bool,
}

impl Trace {
    /// An empty trace, printed as it grows or not.
    pub fn new(printed: bool) -> Self {
        Self {
            hasher: blake3::Hasher::new(),
            printed,
        }
    }

    /// Adds an event of a region at a time; `bytes` enter the digest only.
    pub fn add(&mut self, at_ms: u64, region: usize, event: impl Display, bytes: &[u8]) {
        let line = format!("{at_ms:>7} r{} {event}", region + 1);
        self.hasher.update(line.as_bytes());
        self.hasher.update(bytes);
        if self.printed {
            println!("{line}");
        }
    }

    /// The digest.
    pub fn digest(&self) -> [u8; 32] {
        *self.hasher.finalize().as_bytes()
    }
}
