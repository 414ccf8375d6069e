//! Many runs: over several threads, each run on one, and the deliberate faults.

use std::backtrace::BacktraceStatus;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::failure::{Failure, Violation};
use crate::options::{Control, Options};
use crate::report::Report;
use crate::world;

/// How many seeds a deliberate fault may stay unnoticed.
pub const CONTROL_SEEDS_MAX: u64 = 12;

thread_local! {
    /// Where the last panic of this thread happened.
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Keeps the text of panics instead of printing it, since a run that panics is reported as failed.
pub fn keep_panics() {
    std::panic::set_hook(Box::new(|info| {
        let place = info
            .location()
            .map_or_else(String::new, |location| format!(" at {location}"));
        let payload = info.payload();
        let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_default();
        // Empty unless RUST_BACKTRACE asks for it.
        let backtrace = match std::backtrace::Backtrace::capture() {
            captured if captured.status() == BacktraceStatus::Captured => format!("\n{captured}"),
            _ => String::new(),
        };
        PANIC.with(|panic| *panic.borrow_mut() = format!("{text}{place}{backtrace}"));
    }));
}

/// Runs one seed; a panic anywhere in it is a violation.
///
/// # Errors
/// The failure.
pub fn run_one(options: Options, printed: bool) -> Result<Report, Box<Failure>> {
    let kept = options.clone();
    catch_unwind(AssertUnwindSafe(|| world::run(options, printed))).unwrap_or_else(|_| {
        let text = PANIC.with(|panic| panic.borrow().clone());
        let violation = Violation::new("nothing panics", text);
        Err(Box::new(Failure {
            options: kept,
            at_ms: 0,
            step: 0,
            violation,
        }))
    })
}

/// Runs `count` seeds from `first` on so many threads. Goes on after a failure; returns the sum of the runs that
/// succeeded, and the failures by seed.
pub fn run_many(first: u64, count: u64, jobs: usize) -> (Report, Vec<Failure>) {
    let next = AtomicU64::new(first);
    let outcome = Mutex::new((Report::default(), Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first.saturating_add(count) {
                        break;
                    }
                    let result = run_one(Options::draw(seed), false);
                    let mut outcome = outcome.lock().expect("no holder of the lock panics");
                    match result {
                        Ok(report) => outcome.0.add(&report),
                        Err(failure) => {
                            eprintln!("{failure}");
                            outcome.1.push(*failure);
                        }
                    }
                }
            });
        }
    });
    let (report, mut failures) = outcome.into_inner().expect("no holder of the lock panics");
    failures.sort_by_key(|failure| failure.options.seed);
    (report, failures)
}

/// Runs seeds with a deliberate fault until a check finds it.
///
/// # Errors
/// When none of [`CONTROL_SEEDS_MAX`] seeds brings it to light.
pub fn run_control(control: Control, first: u64) -> Result<Failure, String> {
    for seed in first..first + CONTROL_SEEDS_MAX {
        if let Err(failure) = run_one(Options::draw(seed).with_control(control), false) {
            return Ok(*failure);
        }
    }
    Err(format!(
        "{} stayed unnoticed in {CONTROL_SEEDS_MAX} seeds from {first}",
        control.name()
    ))
}
