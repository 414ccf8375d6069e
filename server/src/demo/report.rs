//! What was measured and checked, as a table.

/// The report of a run.
#[derive(Debug, Default)]
pub struct Report {
    lines: Vec<Line>,
}

#[derive(Debug)]
struct Line {
    what: String,
    figure: String,
    check: Option<bool>,
}

impl Report {
    /// A figure without a promise.
    pub fn figure(&mut self, what: &str, figure: impl Into<String>) {
        self.lines.push(Line {
            what: what.to_owned(),
            figure: figure.into(),
            check: None,
        });
    }

    /// A promise, whether it was kept, and the figure that shows it.
    pub fn check(&mut self, what: &str, kept: bool, figure: impl Into<String>) {
        self.lines.push(Line {
            what: what.to_owned(),
            figure: figure.into(),
            check: Some(kept),
        });
    }

    /// How many promises were not kept.
    pub fn failed(&self) -> usize {
        self.lines.iter().filter(|line| line.check == Some(false)).count()
    }

    /// Prints it to stdout.
    pub fn print(&self) {
        print!("{}", self.render());
    }

    fn render(&self) -> String {
        let width = self
            .lines
            .iter()
            .map(|line| line.what.chars().count())
            .max()
            .unwrap_or(0);
        let mut text = String::from("\nReport\n");
        for line in &self.lines {
            let mark = match line.check {
                None => "      ",
                Some(true) => "ok    ",
                Some(false) => "FAILED",
            };
            text.push_str(&format!("  {mark}  {:width$}  {}\n", line.what, line.figure));
        }
        text.push_str(&match self.failed() {
            0 => "All checks passed.\n".to_owned(),
            failed => format!("{failed} check(s) FAILED.\n"),
        });
        text
    }
}

/// Bytes for people.
pub fn human_bytes(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} B"),
        10_000..10_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_check_is_counted_and_shown() {
        let mut report = Report::default();
        report.figure("events", "300000");
        report.check("agree", true, "yes");
        report.check("fast", false, "9 s");
        assert_eq!(report.failed(), 1);
        let text = report.render();
        assert!(text.contains("FAILED  fast    9 s"), "{text}");
        assert!(text.contains("1 check(s) FAILED."), "{text}");
    }
}
