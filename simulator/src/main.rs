//! The simulator's command line: ranges of seeds, one seed with its trace, and the deliberate faults.

// Only to say how long a suite took.
#![allow(clippy::disallowed_methods)]

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use tributary_simulator::{Control, Options, suite};

/// From this many seeds on, a suite in which something never occurred fails.
const SUITE_SEEDS_MIN: u64 = 100;

/// Runs clusters under a seeded network, clock and disk, and checks every guarantee.
#[derive(Parser)]
#[command(name = "tributary-simulator", version)]
struct Arguments {
    /// How many seeds to run.
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Run this seed alone and print its trace.
    #[arg(long)]
    seed: Option<u64>,
    /// With --seed: switch on a deliberate fault.
    #[arg(long, value_parser = control)]
    control: Option<Control>,
    /// Run the deliberate faults; each must be found.
    #[arg(long)]
    controls: bool,
    /// Threads, one seed each.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
}

fn control(name: &str) -> Result<Control, String> {
    let names: Vec<&str> = Control::ALL.iter().map(|control| control.name()).collect();
    Control::named(name).ok_or_else(|| format!("one of {}", names.join(", ")))
}

fn main() -> ExitCode {
    suite::keep_panics();
    let arguments = Arguments::parse();
    let sound = match arguments {
        Arguments {
            seed: Some(seed),
            control,
            ..
        } => one(seed, control),
        Arguments {
            controls: true, from, ..
        } => controls(from),
        Arguments {
            seeds, from, jobs, ..
        } => range(from, seeds, jobs),
    };
    if sound {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn one(seed: u64, control: Option<Control>) -> bool {
    let mut options = Options::draw(seed);
    if let Some(control) = control {
        options = options.with_control(control);
    }
    println!("{options}");
    match suite::run_one(options, true) {
        Ok(report) => {
            report.lines().iter().for_each(|line| println!("{line}"));
            for (message, count) in &report.refused_views {
                println!("refused {count} times: {message}");
            }
            report.unknown.iter().for_each(|what| println!("{what}"));
            println!(
                "trace {}",
                report
                    .digest
                    .iter()
                    .map(|byte| format!("{byte:02x}"))
                    .collect::<String>()
            );
            true
        }
        Err(failure) => {
            println!("{failure}");
            false
        }
    }
}

fn range(from: u64, seeds: u64, jobs: usize) -> bool {
    let start = Instant::now();
    let (report, failures) = suite::run_many(from, seeds, jobs);
    report.lines().iter().for_each(|line| println!("{line}"));
    let mut refused: Vec<_> = report.refused_views.iter().collect();
    refused.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    refused
        .iter()
        .take(5)
        .for_each(|(message, count)| println!("refused {count} times: {message}"));
    report.unknown.iter().take(5).for_each(|what| println!("{what}"));
    println!(
        "{:.1} s, {} of {seeds} seeds failed",
        start.elapsed().as_secs_f64(),
        failures.len()
    );
    for failure in &failures {
        println!("  seed {}: {}", failure.options.seed, failure.violation.guarantee);
    }
    match report.shortfall() {
        Some(shortfall) if failures.is_empty() => {
            println!("this suite does not count: {shortfall}");
            // A handful of seeds cannot show everything; a suite that CI relies on must.
            seeds < SUITE_SEEDS_MIN
        }
        _ => failures.is_empty(),
    }
}

fn controls(from: u64) -> bool {
    let mut sound = true;
    for control in Control::ALL {
        match suite::run_control(control, from) {
            Ok(failure) => {
                println!(
                    "{}: found at seed {}: {}",
                    control.name(),
                    failure.options.seed,
                    failure.violation
                );
            }
            Err(unnoticed) => {
                println!("{unnoticed}");
                sound = false;
            }
        }
    }
    sound
}
