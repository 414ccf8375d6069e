//! What the clients saw, as a table and as JSON.

use serde_json::json;

/// Times of many, in milliseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    /// How many.
    pub count: usize,
    /// Half of them are not above it.
    pub p50_ms: f64,
    /// 99 of 100 are not above it.
    pub p99_ms: f64,
    /// The greatest.
    pub max_ms: f64,
}

impl Times {
    /// Of these.
    pub fn of(mut times_ms: Vec<f64>) -> Times {
        times_ms.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let place = (times_ms.len() as f64 * share).ceil() as usize;
            times_ms.get(place.max(1) - 1).copied().unwrap_or(0.0)
        };
        Times {
            count: times_ms.len(),
            p50_ms: at(0.5),
            p99_ms: at(0.99),
            max_ms: at(1.0),
        }
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "count": self.count,
            "p50_ms": self.p50_ms,
            "p99_ms": self.p99_ms,
            "max_ms": self.max_ms,
        })
    }
}

/// One run.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The queries whose views moved meanwhile.
    pub views: Vec<String>,
    /// The server's processors.
    pub cores: usize,
    /// Clients.
    pub clients: u64,
    /// Events a second that should come.
    pub rate: u64,
    /// Events a second that came.
    pub events_per_second: f64,
    /// Lookups and aggregates a second, of all clients.
    pub queries_per_second: f64,
    /// Times of lookups.
    pub lookups: Times,
    /// Times of aggregates.
    pub aggregates: Times,
    /// From the arrival of an event until a query shows it.
    pub freshness: Times,
    /// Rows of the view that was read, at the end.
    pub served_rows: u64,
    /// Processor time of the server.
    pub cpu_seconds: f64,
    /// The server's greatest memory.
    pub peak_rss_bytes: u64,
}

impl Measured {
    /// For people.
    pub fn table(&self) -> String {
        let mut lines = vec![
            format!("views         {}", self.views.join(", ")),
            format!(
                "events/s      {:.0} of {} a second",
                self.events_per_second, self.rate
            ),
            format!(
                "queries/s     {:.0} of {} clients, over {} rows",
                self.queries_per_second, self.clients, self.served_rows
            ),
            format!(
                "server        {} cores, {:.1} CPU seconds, peak {:.0} MB",
                self.cores,
                self.cpu_seconds,
                self.peak_rss_bytes as f64 / 1e6
            ),
            format!(
                "{:<12} {:>10} {:>10} {:>10} {:>10}",
                "ms", "count", "p50", "p99", "max"
            ),
        ];
        for (name, times) in [
            ("lookup", &self.lookups),
            ("aggregate", &self.aggregates),
            ("freshness", &self.freshness),
        ] {
            lines.push(format!(
                "{name:<12} {:>10} {:>10.2} {:>10.2} {:>10.2}",
                times.count, times.p50_ms, times.p99_ms, times.max_ms
            ));
        }
        lines.join("\n")
    }

    /// For machines.
    pub fn json(&self) -> serde_json::Value {
        json!({
            "bench": "serve",
            "engine": "tributary",
            "views": self.views,
            "cores": self.cores,
            "clients": self.clients,
            "rate": self.rate,
            "events_per_second": self.events_per_second,
            "queries_per_second": self.queries_per_second,
            "lookup": self.lookups.json(),
            "aggregate": self.aggregates.json(),
            "freshness": self.freshness.json(),
            "served_rows": self.served_rows,
            "cpu_seconds": self.cpu_seconds,
            "peak_rss_bytes": self.peak_rss_bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_times_that_were_seen() {
        let times = Times::of((1..=200).rev().map(f64::from).collect());
        assert_eq!(
            (times.count, times.p50_ms, times.p99_ms, times.max_ms),
            (200, 100.0, 198.0, 200.0)
        );
        assert_eq!(Times::of(Vec::new()).p99_ms, 0.0);
    }
}
