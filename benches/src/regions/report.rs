//! What three regions together did, as a line and as JSON.

use serde_json::json;

/// One run of a query on all regions.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// From RESUME until every region's view has everything.
    pub elapsed_seconds: f64,
    /// From RESUME until every region has read its own events.
    pub consumed_seconds: f64,
    /// Processor time of each process meanwhile.
    pub cpu_seconds: Vec<f64>,
    /// The greatest memory of each process.
    pub peak_rss_bytes: Vec<u64>,
    /// Bytes sent over all links meanwhile.
    pub link_bytes: u64,
    /// State of all views, in all regions together.
    pub state_bytes: u64,
    /// Rows of the view, which are as many in each region.
    pub view_rows: u64,
}

/// One query.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The query.
    pub query: String,
    /// Regions.
    pub regions: usize,
    /// Processors that all of them share.
    pub cores: usize,
    /// Events of all regions.
    pub events: u64,
    /// The run of median time.
    pub median: Sample,
    /// Runs.
    pub runs: usize,
    /// Events per second of one region with all events, if measured.
    pub one_region: Option<f64>,
}

impl Measured {
    fn rate(&self) -> f64 {
        self.events as f64 / self.median.elapsed_seconds.max(1e-9)
    }

    fn ratio(&self) -> Option<f64> {
        self.one_region.map(|one| self.rate() / one.max(1e-9))
    }

    /// One line of the table.
    pub fn line(&self) -> String {
        let sample = &self.median;
        let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        format!(
            "{:<6} {:>7} {:>5} {:>11} {:>11.0} {:>11} {:>6} {:>8.2} {:>9.2} {:>9.1} {:>9.1} {:>20} {:>8.0} {:>10}",
            self.query,
            self.regions,
            self.cores,
            self.events,
            self.rate(),
            or_dash(self.one_region.map(|one| format!("{one:.0}"))),
            or_dash(self.ratio().map(|ratio| format!("{ratio:.2}"))),
            sample.elapsed_seconds,
            sample.consumed_seconds,
            sample.link_bytes as f64 / 1e6,
            sample.link_bytes as f64 / self.events.max(1) as f64,
            each(&sample.cpu_seconds),
            sample.peak_rss_bytes.iter().max().copied().unwrap_or(0) as f64 / 1e6,
            sample.view_rows,
        )
    }

    /// The same for machines.
    pub fn json(&self) -> serde_json::Value {
        let sample = &self.median;
        json!({
            "query": self.query,
            "engine": "tributary",
            "regions": self.regions,
            "cores": self.cores,
            "events": self.events,
            "events_per_second": self.rate(),
            "events_per_second_one_region": self.one_region,
            "ratio_to_one_region": self.ratio(),
            "elapsed_seconds": sample.elapsed_seconds,
            "consumed_seconds": sample.consumed_seconds,
            "link_bytes": sample.link_bytes,
            "cpu_seconds": sample.cpu_seconds,
            "peak_rss_bytes": sample.peak_rss_bytes,
            "state_bytes": sample.state_bytes,
            "view_rows": sample.view_rows,
            "runs": self.runs,
        })
    }
}

fn each(seconds: &[f64]) -> String {
    let texts: Vec<String> = seconds.iter().map(|seconds| format!("{seconds:.2}")).collect();
    texts.join(" ")
}

/// The head of the table.
pub fn heading() -> String {
    format!(
        "{:<6} {:>7} {:>5} {:>11} {:>11} {:>11} {:>6} {:>8} {:>9} {:>9} {:>9} {:>20} {:>8} {:>10}",
        "query",
        "regions",
        "cores",
        "events",
        "events/s",
        "one region",
        "ratio",
        "seconds",
        "consumed",
        "link MB",
        "B/event",
        "cpu s of each",
        "peak MB",
        "rows"
    )
}
