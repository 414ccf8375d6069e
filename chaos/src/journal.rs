//! What happened, with the time since the start: faults, healings, agreements, violations.
//!
//! Lines go to the standard output and to `journal.txt` beside the data of the regions, as they happen, so that the
//! story of a run that was interrupted is there too. A violation is a promise of the product that was not kept; one of
//! them makes the run fail.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Of each kind of violation so many are told in full; the rest are counted.
const TOLD_MAX: usize = 10;

/// A promise that was not kept.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Since the start.
    pub at: Duration,
    /// Which promise; violations of one kind have the same.
    pub promise: &'static str,
    /// What was seen and what was expected.
    pub detail: String,
}

/// The story of a run.
pub struct Journal {
    started: Instant,
    state: Mutex<State>,
}

struct State {
    file: Option<File>,
    quiet: bool,
    violations: Vec<Violation>,
    by_promise: BTreeMap<&'static str, usize>,
}

impl Journal {
    /// A story that begins now.
    pub fn start(directory: &Path, quiet: bool) -> std::io::Result<Journal> {
        let file = File::options()
            .create(true)
            .append(true)
            .open(directory.join("journal.txt"))?;
        Ok(Journal {
            started: Instant::now(),
            state: Mutex::new(State {
                file: Some(file),
                quiet,
                violations: Vec::new(),
                by_promise: BTreeMap::new(),
            }),
        })
    }

    /// Since the start.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Something that happened.
    pub fn note(&self, text: &str) {
        let at = self.elapsed();
        self.lock().write(at, text);
    }

    /// A promise that was not kept.
    pub fn violation(&self, promise: &'static str, detail: impl Into<String>) {
        let (at, detail) = (self.elapsed(), detail.into());
        let mut state = self.lock();
        let count = state.by_promise.entry(promise).or_insert(0);
        *count += 1;
        if *count > TOLD_MAX {
            return;
        }
        state.write(at, &format!("VIOLATION {promise}: {detail}"));
        state.violations.push(Violation { at, promise, detail });
    }

    /// The violations that were told, and how many there were of each kind.
    pub fn violations(&self) -> (Vec<Violation>, BTreeMap<&'static str, usize>) {
        let state = self.lock();
        (state.violations.clone(), state.by_promise.clone())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl State {
    fn write(&mut self, at: Duration, text: &str) {
        let line = format!("[{:7.2} s] {text}\n", at.as_secs_f64());
        if !self.quiet {
            print!("{line}");
        }
        if let Some(file) = &mut self.file
            && file.write_all(line.as_bytes()).is_err()
        {
            // The disk of the laboratory is not what is tested; the standard output has the line.
            self.file = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn violations_are_all_counted_and_the_first_of_each_kind_told() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let journal = Journal::start(directory.path(), true).expect("a writable directory");
        journal.note("round 1");
        assert!(journal.violations().1.is_empty());
        for number in 0..TOLD_MAX + 5 {
            journal.violation("money is kept", format!("{number} is missing"));
        }
        let (told, by_promise) = journal.violations();
        assert_eq!(told.len(), TOLD_MAX);
        assert_eq!(by_promise["money is kept"], TOLD_MAX + 5);
        let text = std::fs::read_to_string(directory.path().join("journal.txt")).expect("it was written");
        assert!(
            text.contains("round 1") && text.contains("VIOLATION money is kept: 0 is missing"),
            "{text}"
        );
    }
}
