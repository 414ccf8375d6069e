//! The laboratory itself, for a few seconds: a run of faults that every machine permits, and a defect that it has to find.

use std::path::Path;
use std::process::{Command, Output};

/// Faults that need neither the rights of root nor tools.
const FAULTS: &str = "delay,narrow,stall,one-way,cut,flapping,resets,kill,kill-all,freeze,restart";

fn run(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tributary-chaos"))
        .args(["--network", "proxies", "--quiet", "--seed", "5", "--directory"])
        .arg(directory)
        .args(arguments)
        .output()
        .expect("the binary runs")
}

#[test]
fn a_short_run_keeps_every_promise() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let data = directory.path().join("run");
    let output = run(&data, &["--minutes", "0.25", "--faults", FAULTS]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(text.contains("# Chaos: every promise was kept"), "{text}");
    assert!(!data.exists(), "nothing is left of a clean run");
}

#[test]
fn a_ledger_with_an_insert_that_was_never_made_fails_the_run() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let data = directory.path().join("run");
    let arguments = [
        "--minutes",
        "0.02",
        "--agree-s",
        "4",
        "--faults",
        "cut",
        "--control",
        "ledger",
    ];
    let output = run(&data, &arguments);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("each row is in exactly as its client was told"),
        "{text}"
    );
    assert!(data.join("journal.txt").exists(), "the evidence is kept");
}
