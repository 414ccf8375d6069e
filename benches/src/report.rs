//! Results: a table for people, JSON for machines.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use serde_json::json;

use crate::process::{Server, Usage};
use crate::{Result, Setting};

/// One run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// From the first row on its way until the last is visible, or answered for.
    pub elapsed_seconds: f64,
    /// Processor time meanwhile.
    pub cpu_seconds: f64,
    /// The process's greatest memory.
    pub peak_rss_bytes: u64,
    /// Bytes written by the sink, if there is one.
    pub sink_bytes: u64,
    /// The operators' state at the end.
    pub state_bytes: u64,
    /// Rows of the operators' state at the end.
    pub state_rows: u64,
    /// Rows of the view at the end, where they are counted.
    pub view_rows: Option<u64>,
}

impl Sample {
    /// What a server used since then; without state and rows.
    pub fn since(server: &Server, before: Usage, started: Instant) -> Result<Sample> {
        let elapsed_seconds = started.elapsed().as_secs_f64();
        let after = server.usage()?;
        Ok(Sample {
            elapsed_seconds,
            cpu_seconds: after.cpu_seconds - before.cpu_seconds,
            peak_rss_bytes: after.peak_rss_bytes,
            ..Sample::default()
        })
    }
}

/// All runs of one query on one engine.
pub struct Measured {
    /// The query.
    pub query: String,
    /// tributary or a peer's name.
    pub engine: &'static str,
    /// Cores.
    pub cores: usize,
    /// Events.
    pub events: u64,
    /// The sink that the changes went to.
    pub sink: Option<String>,
    /// A peer's settings, for people.
    pub setting: Option<String>,
    /// How many times as many events a second as this peer we take in.
    pub ratio: Option<f64>,
    /// Runs.
    pub samples: Vec<Sample>,
}

impl Measured {
    /// The run of median time.
    pub fn median(&self) -> Sample {
        let mut samples = self.samples.clone();
        samples.sort_by(|a, b| a.elapsed_seconds.total_cmp(&b.elapsed_seconds));
        samples.get(samples.len() / 2).copied().unwrap_or_default()
    }

    /// Events a second of the run of median time.
    pub fn rate_of_median(&self) -> f64 {
        self.rate(&self.median())
    }

    /// The least and the most events a second of all runs.
    fn range(&self) -> (f64, f64) {
        let rates = self.samples.iter().map(|sample| self.rate(sample));
        rates.fold((f64::INFINITY, 0.0), |(least, most), rate| {
            (least.min(rate), most.max(rate))
        })
    }

    fn rate(&self, sample: &Sample) -> f64 {
        self.events as f64 / sample.elapsed_seconds.max(1e-9)
    }

    /// Events for each second of the server's processor time: what one core would take in, were it never to wait.
    fn rate_of_cpu(&self, sample: &Sample) -> f64 {
        self.events as f64 / sample.cpu_seconds.max(1e-9)
    }

    /// One line of the table.
    pub fn line(&self) -> String {
        let median = self.median();
        format!(
            "{:<17} {:<10} {:>5} {:>11} {:>13.0} {:>9.2} {:>8.2} {:>13.0} {:>9.0} {:>10.1} {:>10} {:>6}",
            self.query,
            self.engine,
            self.cores,
            self.events,
            self.rate(&median),
            median.elapsed_seconds,
            median.cpu_seconds,
            self.rate_of_cpu(&median),
            median.peak_rss_bytes as f64 / 1e6,
            median.state_bytes as f64 / 1e6,
            median.view_rows.map_or_else(String::new, |rows| rows.to_string()),
            self.ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}")),
        )
    }

    /// The result for machines.
    pub fn json(&self) -> serde_json::Value {
        let median = self.median();
        let (least, most) = self.range();
        json!({
            "query": self.query,
            "engine": self.engine,
            "cores": self.cores,
            "events": self.events,
            "events_per_second": { "median": self.rate(&median), "min": least, "max": most },
            "peak_rss_bytes": median.peak_rss_bytes,
            "cpu_seconds": median.cpu_seconds,
            "events_per_cpu_second": self.rate_of_cpu(&median),
            "elapsed_seconds": median.elapsed_seconds,
            "sink": self.sink,
            "setting": self.setting,
            "tributary_ratio": self.ratio,
            "sink_bytes": median.sink_bytes,
            "state_bytes": median.state_bytes,
            "state_rows": median.state_rows,
            "view_rows": median.view_rows,
            "runs": self.samples.len(),
        })
    }
}

/// Adds a result to the file of results, if there is to be one.
pub fn append(setting: &Setting, result: &serde_json::Value) -> Result<()> {
    append_to(setting.out.as_deref(), result)
}

/// Adds a result to a file, if there is one.
pub fn append_to(file: Option<&Path>, result: &serde_json::Value) -> Result<()> {
    let Some(path) = file else {
        return Ok(());
    };
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map_err(|error| format!("{}: {error}", path.display()))?;
    writeln!(file, "{result}").map_err(|error| error.to_string())
}

/// The head of the table.
pub fn heading() -> String {
    format!(
        "{:<17} {:<10} {:>5} {:>11} {:>13} {:>9} {:>8} {:>13} {:>9} {:>10} {:>10} {:>6}",
        "query",
        "engine",
        "cores",
        "events",
        "events/s",
        "seconds",
        "cpu s",
        "events/cpu s",
        "peak MB",
        "state MB",
        "rows",
        "ratio"
    )
}

/// All engines side by side: thousands of events a second of the median run, the least and the most, and how many times
/// a peer's median ours is.
pub fn comparison(all: &[Measured]) -> String {
    let mut engines: Vec<&str> = Vec::new();
    let mut rows: Vec<(&str, usize)> = Vec::new();
    for measured in all {
        if !engines.contains(&measured.engine) {
            engines.push(measured.engine);
        }
        if !rows.contains(&(&measured.query, measured.cores)) {
            rows.push((&measured.query, measured.cores));
        }
    }
    let mut head = "| query | cores |".to_owned();
    for engine in &engines {
        head += &format!(" {engine} | min-max |");
        if *engine != "tributary" {
            head += " ratio |";
        }
    }
    let columns = head.matches('|').count() - 1;
    let mut table = format!("{head}\n|{}", "---|".repeat(columns));
    for (query, cores) in rows {
        table += &format!("\n| {query} | {cores} |");
        for engine in &engines {
            let measured = all.iter().find(|measured| {
                (measured.query.as_str(), measured.cores, measured.engine) == (query, cores, engine)
            });
            let ratio = *engine != "tributary";
            table += &match measured {
                Some(measured) => {
                    let (least, most) = measured.range();
                    let rate = measured.rate_of_median() / 1e3;
                    let ratio = measured
                        .ratio
                        .map_or_else(String::new, |ratio| format!(" {ratio:.2} |"));
                    format!(" {rate:.0} | {:.0}-{:.0} |{ratio}", least / 1e3, most / 1e3)
                }
                None => " | |".to_owned() + if ratio { " |" } else { "" },
            };
        }
    }
    table
}

/// One line for each setting that peers ran with.
pub fn settings(all: &[Measured]) -> String {
    let mut lines: Vec<String> = Vec::new();
    for measured in all {
        let Some(setting) = &measured.setting else {
            continue;
        };
        let line = format!("{}: {setting}", measured.engine);
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines.join("\n")
}
