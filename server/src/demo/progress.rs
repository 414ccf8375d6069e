//! What is going on, while it goes on: bars on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Where progress is shown.
pub struct Progress {
    terminal: bool,
}

/// One step of the story.
pub struct Step {
    title: String,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Bars when stderr is a terminal.
    pub fn new() -> Progress {
        Progress {
            terminal: std::io::stderr().is_terminal(),
        }
    }

    /// A step of unknown length.
    pub fn step(&self, title: &str) -> Step {
        self.begin(title, ProgressBar::new_spinner(), "{spinner} {msg} [{elapsed}]")
    }

    /// A step of a known length.
    pub fn counted(&self, title: &str, total: u64) -> Step {
        self.begin(
            title,
            ProgressBar::new(total),
            "{spinner} {msg} {wide_bar} {human_pos}/{human_len} [{elapsed}]",
        )
    }

    fn begin(&self, title: &str, bar: ProgressBar, template: &str) -> Step {
        let title = title.to_owned();
        if !self.terminal {
            eprintln!("… {title}");
            return Step { title, bar: None };
        }
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style);
        bar.set_message(title.clone());
        bar.enable_steady_tick(Duration::from_millis(100));
        Step {
            title,
            bar: Some(bar),
        }
    }
}

impl Step {
    /// How far it is.
    pub fn set(&self, position: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(position);
        }
    }

    /// It is done; what came of it.
    pub fn done(self, outcome: &str) {
        let line = format!("✓ {}: {outcome}", self.title);
        match &self.bar {
            Some(bar) => {
                bar.finish_and_clear();
                eprintln!("{line}");
            }
            None => eprintln!("{line}"),
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
