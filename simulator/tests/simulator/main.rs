//! The simulator's own guarantees: the same seed is the same run, sound regions pass, and every deliberate fault
//! is found.

use tributary_simulator::options::{Control, Options};
use tributary_simulator::report::STEPS_MIN;
use tributary_simulator::suite;
use tributary_storage::Family;

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in [1, 2] {
        let digest =
            |seed| suite::run_one(Options::draw(seed), false).map(|report| (report.digest, report.steps));
        let first = digest(seed).unwrap_or_else(|failure| panic!("{failure}"));
        let second = digest(seed).unwrap_or_else(|failure| panic!("{failure}"));
        assert_eq!(first, second, "seed {seed}");
        let other = digest(seed + 100).unwrap_or_else(|failure| panic!("{failure}"));
        assert_ne!(first.0, other.0, "seeds {seed} and {}", seed + 100);
    }
}

#[test]
fn a_few_seeds_keep_every_guarantee() {
    let (report, failures) = suite::run_many(1, 12, 2);
    assert!(
        failures.is_empty(),
        "{} seeds failed, the first: {}",
        failures.len(),
        failures[0]
    );
    assert_eq!(
        (report.runs, report.short_runs),
        (12, 0),
        "each run takes at least {STEPS_MIN} steps"
    );
    assert!(report.views_compared > 100 && report.sql_compared > 10 && report.unknown_to_oracle == 0);
}

fn found(control: Control) {
    if let Err(unnoticed) = suite::run_control(control, 1) {
        panic!("{unnoticed}");
    }
}

#[test]
fn acknowledging_before_the_sync_is_found() {
    found(Control::AckBeforeSync);
}

#[test]
fn a_skipped_duplicate_check_is_found() {
    found(Control::SkipDuplicateCheck);
}

#[test]
fn merging_by_adding_is_found() {
    found(Control::MergeByAdding);
}

#[test]
fn ignored_causes_are_found() {
    found(Control::IgnoreCauses);
}

#[test]
fn a_reused_incarnation_is_found() {
    found(Control::ReuseIncarnation);
}

#[test]
fn slots_of_a_superseded_incarnation_are_found() {
    found(Control::KeepSuperseded);
}

#[test]
fn joining_before_views_are_computed_is_found() {
    found(Control::JoinEarly);
}

#[test]
fn a_tombstone_dropped_early_is_found() {
    found(Control::CollectEarly);
}

#[test]
fn a_conflict_that_is_not_recorded_is_found() {
    found(Control::LoseConflicts);
}

#[test]
fn a_skipped_residency_check_is_found() {
    found(Control::SkipResidencyCheck);
}

#[test]
fn a_lost_flush_of_each_family_is_found() {
    for family in Family::ALL {
        found(Control::LoseFlush(family));
    }
}
