//! What was measured, as a table and as JSON.

use serde_json::json;

use super::Metrics;

/// One restart.
#[derive(Clone, Copy, Debug)]
pub struct Restart {
    /// After SIGTERM; otherwise after kill -9.
    pub gently: bool,
    /// Until the process was gone.
    pub stop_seconds: f64,
    /// From the start of the process until a session was open and its region took part.
    pub listening_seconds: f64,
    /// From the start of the process until the last view answered.
    pub seconds: f64,
    /// Processor time until then.
    pub cpu_seconds: f64,
    /// Whether the views answered as before.
    pub same: bool,
}

/// One run.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The queries of the views.
    pub views: Vec<String>,
    /// The server's processors.
    pub cores: usize,
    /// Events.
    pub events: u64,
    /// Until the views had all of them.
    pub elapsed_seconds: f64,
    /// Processor time until then.
    pub cpu_seconds: f64,
    /// The server's greatest memory.
    pub peak_rss_bytes: u64,
    /// The operators' state, results included.
    pub state_bytes: u64,
    /// Its rows.
    pub state_rows: u64,
    /// About how many events came after the last checkpoint.
    pub replayed: u64,
    /// What the server says of checkpoints.
    pub metrics: Metrics,
    /// After kill -9 and after SIGTERM.
    pub restarts: Vec<Restart>,
}

impl Measured {
    /// For people.
    pub fn table(&self) -> String {
        let metrics = &self.metrics;
        let each = |sum: f64| sum / (metrics.checkpoints().max(1) as f64);
        let mut lines = vec![
            format!("views         {}", self.views.join(", ")),
            format!(
                "events        {} in {:.1} s on {} cores, {:.1} CPU seconds, peak {:.0} MB",
                self.events,
                self.elapsed_seconds,
                self.cores,
                self.cpu_seconds,
                self.peak_rss_bytes as f64 / 1e6
            ),
            format!(
                "state         {:.0} MB in {} rows",
                self.state_bytes as f64 / 1e6,
                self.state_rows
            ),
            format!(
                "checkpoints   {}, each {:.2} s and {:.0} MB",
                metrics.checkpoints(),
                each(metrics.checkpoint_seconds()),
                each(metrics.checkpoint_bytes()) / 1e6
            ),
            format!(
                "stalls        longest {:.1} ms; {} of {:.1} ms on average, {:.0} ms for each checkpoint",
                metrics.stall_max_seconds() * 1e3,
                metrics.stalls(),
                metrics.stall_seconds() * 1e3 / metrics.stalls().max(1) as f64,
                each(metrics.stall_seconds()) * 1e3
            ),
        ];
        for restart in &self.restarts {
            let how = match restart.gently {
                true => "SIGTERM".to_owned(),
                false => format!("kill -9, about {} events to replay", self.replayed),
            };
            lines.push(format!(
                "restart       {:.2} s, listening after {:.2} s, {:.1} CPU seconds ({how}: gone after {:.2} s){}",
                restart.seconds,
                restart.listening_seconds,
                restart.cpu_seconds,
                restart.stop_seconds,
                if restart.same { "" } else { ": NOT AS BEFORE" }
            ));
        }
        lines.join("\n")
    }

    /// For machines.
    pub fn json(&self) -> serde_json::Value {
        let metrics = &self.metrics;
        let restart = |restart: &Restart| {
            json!({
                "after": if restart.gently { "SIGTERM" } else { "kill -9" },
                "stop_seconds": restart.stop_seconds,
                "listening_seconds": restart.listening_seconds,
                "seconds": restart.seconds,
                "cpu_seconds": restart.cpu_seconds,
                "same": restart.same,
            })
        };
        json!({
            "bench": "recovery",
            "engine": "tributary",
            "views": self.views,
            "cores": self.cores,
            "events": self.events,
            "elapsed_seconds": self.elapsed_seconds,
            "cpu_seconds": self.cpu_seconds,
            "peak_rss_bytes": self.peak_rss_bytes,
            "state_bytes": self.state_bytes,
            "state_rows": self.state_rows,
            "checkpoints": metrics.checkpoints(),
            "checkpoint_seconds": metrics.checkpoint_seconds(),
            "checkpoint_bytes": metrics.checkpoint_bytes(),
            "stalls": metrics.stalls(),
            "stall_seconds": metrics.stall_seconds(),
            "stall_max_seconds": metrics.stall_max_seconds(),
            "events_replayed": self.replayed,
            "restarts": self.restarts.iter().map(restart).collect::<Vec<_>>(),
        })
    }
}
