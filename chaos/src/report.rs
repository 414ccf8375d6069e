//! What a run did and found, as Markdown that reads well as plain text too.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use crate::faults::{Abilities, Done, Kind};
use crate::journal::Violation;
use crate::ledger::Counts;
use crate::network::LaneBytes;
use crate::regions::{Peaks, Region};
use crate::workload::Tallies;

/// Everything there is to tell.
#[derive(Debug, Default)]
pub struct Report {
    /// Of the schedule.
    pub seed: u64,
    /// How long faults were done.
    pub time: Duration,
    /// Rounds of faults on each kind of network.
    pub rounds: BTreeMap<&'static str, u64>,
    /// What was done.
    pub faults: BTreeMap<Kind, Done>,
    /// What the machine does not permit, and why.
    pub abilities: Abilities,
    /// What clients were told.
    pub tallies: Tallies,
    /// What is known of the rows of `events`.
    pub events: BTreeMap<Region, Counts>,
    /// From the end of the faults until all regions showed what had been acknowledged.
    pub catching_up: Vec<Duration>,
    /// From the rest of the clients until all regions were equal.
    pub agreeing: Vec<Duration>,
    /// The longest times without an acknowledged commit in a region whose process had no fault.
    pub pauses: Vec<Duration>,
    /// The most memory of each region.
    pub memory: Peaks,
    /// Bytes over links.
    pub bytes: LaneBytes,
    /// Packets lost, doubled, overtaken.
    pub mishaps: [u64; 3],
    /// Messages that regions refused because they were damaged.
    pub damaged: f64,
    /// The violations that were told in full.
    pub violations: Vec<Violation>,
    /// All violations, counted.
    pub violated: BTreeMap<&'static str, usize>,
    /// Why the run ended before its time.
    pub broken_off: Option<String>,
}

impl Report {
    /// Whether every promise was kept to the end.
    pub fn is_clean(&self) -> bool {
        self.violated.is_empty() && self.broken_off.is_none()
    }

    /// The text.
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing into a String does not fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let verdict = match (self.is_clean(), self.violated.is_empty()) {
            (true, _) => "every promise was kept",
            (_, true) => "BROKEN OFF",
            _ => "VIOLATIONS",
        };
        writeln!(out, "# Chaos: {verdict}\n")?;
        let rounds: Vec<String> = self
            .rounds
            .iter()
            .map(|(name, count)| format!("{count} on {name}"))
            .collect();
        let minutes = self.time.as_secs_f64() / 60.0;
        writeln!(
            out,
            "Seed {}, {minutes:.1} minutes, rounds: {}.\n",
            self.seed,
            rounds.join(", ")
        )?;
        if let Some(why) = &self.broken_off {
            writeln!(out, "The run ended before its time: {why}\n")?;
        }
        self.write_violations(out)?;
        self.write_faults(out)?;
        self.write_commits(out)?;
        self.write_figures(out)
    }

    fn write_violations(&self, out: &mut String) -> std::fmt::Result {
        if self.violated.is_empty() {
            return Ok(());
        }
        writeln!(out, "## Violations\n")?;
        for (promise, count) in &self.violated {
            writeln!(out, "- {count} × {promise}")?;
            for violation in self
                .violations
                .iter()
                .filter(|violation| violation.promise == *promise)
            {
                let detail = violation.detail.replace('\n', "\n      ");
                writeln!(out, "  - at {:.2} s: {detail}", violation.at.as_secs_f64())?;
            }
        }
        writeln!(out)
    }

    fn write_faults(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "## Faults\n\n| kind | done | missed |\n|---|---|---|")?;
        for (kind, done) in &self.faults {
            writeln!(out, "| {} | {} | {} |", kind.name(), done.happened, done.missed)?;
        }
        writeln!(out)?;
        for (ability, why) in self.abilities.missing() {
            writeln!(out, "Left out: {}: {why}\n", ability.name())?;
        }
        Ok(())
    }

    fn write_commits(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "## Commits\n\n| workload | acknowledged | refused | unknown |\n|---|---|---|---|"
        )?;
        for (workload, counts) in &self.tallies.commits {
            writeln!(out, "| {workload} | {} |", columns(counts))?;
        }
        for (region, counts) in &self.events {
            writeln!(out, "| rows of events in {region} | {} |", columns(counts))?;
        }
        let errors: Vec<String> = self
            .tallies
            .errors
            .iter()
            .map(|(state, count)| format!("{state} {count}"))
            .collect();
        writeln!(out, "\nErrors by SQLSTATE: {}.", or_none(&errors))?;
        writeln!(
            out,
            "Reads that were checked: {}, without an answer: {}, behind what another connection had been told: {}; \
             connections: {}.\n",
            self.tallies.reads,
            self.tallies.reads_failed,
            self.tallies.reads_behind,
            self.tallies.connections
        )
    }

    fn write_figures(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "## Figures\n\n| what | median | max |\n|---|---|---|")?;
        let times = [
            (
                "caught up after the end of all faults, clients at work",
                &self.catching_up,
            ),
            ("equal once clients rest", &self.agreeing),
            (
                "longest time without a commit where the process had no fault",
                &self.pauses,
            ),
        ];
        for (what, times) in times {
            let (median, max) = median_and_max(times);
            writeln!(
                out,
                "| {what} | {:.2} s | {:.2} s |",
                median.as_secs_f64(),
                max.as_secs_f64()
            )?;
        }
        let memory: Vec<String> = self
            .memory
            .iter()
            .map(|(region, bytes)| format!("{region} {} MB", bytes >> 20))
            .collect();
        writeln!(out, "\nMost memory (RSS): {}.", or_none(&memory))?;
        let bytes: Vec<String> = self
            .bytes
            .iter()
            .map(|((from, to), bytes)| format!("{from}→{to} {:.1} MB", *bytes as f64 / 1e6))
            .collect();
        writeln!(out, "Bytes over links: {}.", or_none(&bytes))?;
        let [lost, doubled, overtaken] = self.mishaps;
        writeln!(
            out,
            "Packets lost {lost}, doubled {doubled}, overtaken {overtaken}."
        )?;
        writeln!(out, "Messages refused as damaged: {}.", self.damaged)
    }
}

fn columns(counts: &Counts) -> String {
    format!(
        "{} | {} | {}",
        counts.acknowledged, counts.refused, counts.unknown
    )
}

fn or_none(parts: &[String]) -> String {
    match parts {
        [] => "none".to_owned(),
        _ => parts.join(", "),
    }
}

fn median_and_max(times: &[Duration]) -> (Duration, Duration) {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let at = |index: usize| sorted.get(index).copied().unwrap_or_default();
    (at(sorted.len() / 2), at(sorted.len().saturating_sub(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_violation_is_in_the_verdict_and_told_with_its_time() {
        let mut report = Report {
            seed: 7,
            ..Report::default()
        };
        assert!(report.is_clean());
        assert!(report.render().starts_with("# Chaos: every promise was kept"));
        report.violated.insert("money is kept", 3);
        report.violations.push(Violation {
            at: Duration::from_millis(1_500),
            promise: "money is kept",
            detail: "7 are missing".to_owned(),
        });
        let text = report.render();
        assert!(!report.is_clean());
        assert!(text.starts_with("# Chaos: VIOLATIONS"), "{text}");
        assert!(
            text.contains("- 3 × money is kept\n  - at 1.50 s: 7 are missing"),
            "{text}"
        );
    }

    #[test]
    fn a_run_that_was_broken_off_is_not_clean() {
        let report = Report {
            broken_off: Some("no space".to_owned()),
            ..Report::default()
        };
        assert!(!report.is_clean());
        assert!(report.render().contains("BROKEN OFF"));
    }

    #[test]
    fn medians_and_maxima() {
        let times: Vec<Duration> = [3, 1, 2].map(Duration::from_secs).to_vec();
        assert_eq!(
            median_and_max(&times),
            (Duration::from_secs(2), Duration::from_secs(3))
        );
        assert_eq!(median_and_max(&[]), (Duration::ZERO, Duration::ZERO));
    }
}
