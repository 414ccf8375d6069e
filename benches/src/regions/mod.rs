//! Three regions of one cluster, each with its own third of the events, against one region with all of them on the
//! same processors.
//!
//! ```text
//!   us/events-*.parquet ─▶ us ◀─────▶ eu ◀─ eu/events-*.parquet      all/events-*.parquet ─▶ one region
//!                           ▲─▶ ap ◀──▲
//!                ap/events-*.parquet
//! ```
//! The clock runs from RESUME until the view of *every* region has the events of all: each region says at which of its
//! epochs it had consumed its own, and a view has them when its frontier covers these three epochs.
//!
//! Each region is a separate process with a log of its own, so three regions do the work of replication on top of the
//! work of one. The ratio says what that costs.

mod cluster;
mod files;
mod report;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::peers::duckdb;
use crate::prepare::{SIDE_ROWS, binary, queries, set_up, touch_memory};
use crate::report::append;
use crate::run::{self, Job, until_next_look};
use crate::session::Session;
use crate::{Regions, Result, Setting};
use cluster::{Cluster, Region};
use files::{Files, files, share};
use report::{Measured, Sample, heading};

/// The regions; the first is the primary.
const NAMES: [&str; 3] = ["us", "eu", "ap"];
/// Events of a comparison.
const CHECK_EVENTS: u64 = 300_000;
const POLL: Duration = Duration::from_millis(10);
/// A query whose rows follow from the time of arrival has no result to compare with.
const TIME_OF_ARRIVAL: &str = "tributary_time";

type Rows = Vec<Vec<Option<String>>>;

/// Measures everything that was asked for; false when a comparison failed.
pub async fn run(regions: &Regions) -> Result<bool> {
    let setting = &regions.setting;
    let binary = binary(setting)?;
    let bench = Bench {
        setting,
        binary,
        cores: regions.cores,
    };
    let mut right = true;
    let mut measured = Vec::new();
    for query in queries(setting)? {
        match regions.check {
            true => match bench.check(&query).await {
                Ok(text) => {
                    println!("{query}: {text}");
                    measured.push(query);
                }
                Err(reason) => {
                    println!("{query}: NOT compared, or not equal: {reason}");
                    right = false;
                }
            },
            false => measured.push(query),
        }
    }
    let files = files(setting, regions.events, &NAMES)?;
    touch_memory(setting.touch_gib);
    println!("{}", heading());
    for query in measured {
        match bench.measure_all(regions, &query, &files).await {
            Ok(measured) => {
                println!("{}", measured.line());
                append(setting, &measured.json())?;
            }
            Err(reason) => {
                println!("{query}: {reason}");
                right = false;
            }
        }
    }
    Ok(right)
}

struct Bench<'a> {
    setting: &'a Setting,
    binary: PathBuf,
    cores: usize,
}

impl Bench<'_> {
    /// All runs of a query.
    async fn measure_all(&self, regions: &Regions, query: &str, files: &Files) -> Result<Measured> {
        let runs = regions.runs.max(1);
        let mut samples = Vec::new();
        let mut alone = Vec::new();
        for _ in 0..runs {
            samples.push(self.three(query, files, regions.events, false).await?.0);
            if !regions.only_three {
                let job = Job {
                    query,
                    files: &files.all,
                    events: regions.events,
                    cores: self.cores,
                    rows: None,
                    sink: None,
                };
                let one = run::measure(self.setting, &self.binary, &job).await;
                alone.push(one.map_err(|reason| format!("one region: {reason}"))?);
            }
        }
        samples.sort_by(|a, b| a.elapsed_seconds.total_cmp(&b.elapsed_seconds));
        alone.sort_by(|a, b| a.elapsed_seconds.total_cmp(&b.elapsed_seconds));
        let median = samples.swap_remove(runs / 2);
        if let Some(one) = alone.first()
            && let Some(rows) = one.view_rows
            && rows != median.view_rows
            && !self.depends_on_arrival(query)?
        {
            return Err(format!(
                "three regions have {} rows, one region has {rows}",
                median.view_rows
            ));
        }
        Ok(Measured {
            query: query.to_owned(),
            regions: NAMES.len(),
            cores: self.cores,
            events: regions.events,
            median,
            runs,
            one_region: alone
                .get(runs / 2)
                .map(|one| regions.events as f64 / one.elapsed_seconds.max(1e-9)),
        })
    }

    fn depends_on_arrival(&self, query: &str) -> Result<bool> {
        let path = self.setting.nexmark.join(format!("{query}.sql"));
        let sql = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(sql.contains(TIME_OF_ARRIVAL))
    }

    /// Compares all rows of all regions' views, and those of DuckDB; what was compared, in words.
    async fn check(&self, query: &str) -> Result<String> {
        let files = files(self.setting, CHECK_EVENTS, &NAMES)?;
        let (_, rows) = self.three(query, &files, CHECK_EVENTS, true).await?;
        let mut views = rows.iter().zip(NAMES);
        let Some((first, first_name)) = views.next() else {
            return Err("no region has a view".to_owned());
        };
        for (other, name) in views {
            if let Some((at, row)) = difference(first, other) {
                return Err(format!(
                    "{first_name} has {} rows, {name} has {}; in order, row {at} of one is {row:?}",
                    first.len(),
                    other.len()
                ));
            }
        }
        if !duckdb::has(self.setting, query) {
            return Ok(format!("{} rows, the same in all regions", first.len()));
        }
        let path = std::env::temp_dir().join(format!("tributary-bench-{}-{query}.csv", std::process::id()));
        duckdb::write_rows(&path, first)?;
        duckdb::compare(self.setting, query, &files.all, &path)?;
        let _ = std::fs::remove_file(&path);
        Ok(format!(
            "{} rows, the same in all regions and in DuckDB",
            first.len()
        ))
    }

    /// One run of all regions, with the rows of each region's view if asked for.
    async fn three(
        &self,
        query: &str,
        files: &Files,
        events: u64,
        with_rows: bool,
    ) -> Result<(Sample, Vec<Rows>)> {
        let cluster = Cluster::start(&self.binary, self.cores, &NAMES).await?;
        let measured = self.three_on(&cluster, query, files, events, with_rows).await;
        measured.map_err(|reason| {
            let logs: Vec<String> = cluster
                .regions
                .iter()
                .map(|region| format!("{}:\n{}", region.name, region.server.log_tail()))
                .collect();
            format!("{reason}\n{}", logs.join("\n"))
        })
    }

    async fn three_on(
        &self,
        cluster: &Cluster,
        query: &str,
        files: &Files,
        events: u64,
        with_rows: bool,
    ) -> Result<(Sample, Vec<Rows>)> {
        let primary = cluster.primary()?;
        set_up(self.setting, &primary.session, query, &files.by_region).await?;
        let ready = format!(
            "SELECT count(*) FROM tributary.materialized_views WHERE name = '{query}' AND state = 'ready'"
        );
        cluster.wait_all("the view", &ready, 1).await?;
        if primary
            .session
            .number("SELECT count(*) FROM side_input")
            .await
            .is_ok()
        {
            let sql = "SELECT count(*) FROM side_input";
            cluster
                .wait_all("rows of side_input", sql, SIDE_ROWS as u64)
                .await?;
        }
        let before = cluster.usage()?;
        let bytes_before = cluster.link_bytes().await?;
        let started = Instant::now();
        primary.session.execute("ALTER SOURCE events RESUME").await?;
        let deadline = started + Duration::from_secs(self.setting.timeout_seconds);
        let mut epochs = Vec::new();
        for (number, region) in cluster.regions.iter().enumerate() {
            let own = share(events, NAMES.len(), number);
            let epoch = consumed(region, own, started, deadline)
                .await
                .map_err(|reason| format!("{}: {reason}", region.name))?;
            epochs.push((region.name.as_str(), epoch));
        }
        let consumed_seconds = started.elapsed().as_secs_f64();
        for region in &cluster.regions {
            covered(&region.session, &epochs, deadline)
                .await
                .map_err(|reason| format!("{}: {reason}", region.name))?;
        }
        let elapsed_seconds = started.elapsed().as_secs_f64();
        let after = cluster.usage()?;
        let link_bytes = cluster.link_bytes().await?.saturating_sub(bytes_before);
        let used = before.iter().zip(&after);
        let mut sample = Sample {
            elapsed_seconds,
            consumed_seconds,
            cpu_seconds: used
                .map(|(before, after)| after.cpu_seconds - before.cpu_seconds)
                .collect(),
            peak_rss_bytes: after.iter().map(|usage| usage.peak_rss_bytes).collect(),
            link_bytes,
            ..Sample::default()
        };
        let mut rows = Vec::new();
        let mut counts = Vec::new();
        for region in &cluster.regions {
            let session = &region.session;
            let failures = session.number("SELECT count(*) FROM tributary.errors").await?;
            if failures > 0 {
                return Err(format!(
                    "{failures} expressions failed on rows in {}",
                    region.name
                ));
            }
            counts.push(session.number(&format!("SELECT count(*) FROM {query}")).await?);
            let state =
                format!("SELECT state_bytes FROM tributary.materialized_views WHERE name = '{query}'");
            sample.state_bytes += session.number(&state).await?;
            if with_rows {
                let mut view = session.rows(&format!("SELECT * FROM {query}")).await?;
                view.sort_unstable();
                rows.push(view);
            }
        }
        sample.view_rows = counts.first().copied().unwrap_or(0);
        match counts.iter().all(|count| *count == sample.view_rows) {
            true => Ok((sample, rows)),
            false => Err(format!("the regions' views have {counts:?} rows")),
        }
    }
}

/// Waits until a region has consumed so many of its events; its own epoch by then.
async fn consumed(region: &Region, events: u64, started: Instant, deadline: Instant) -> Result<u64> {
    // Both are of one snapshot.
    let sql = format!(
        "SELECT s.events, s.error, f.epoch FROM tributary.sources s \
         LEFT JOIN tributary.frontier f ON f.origin = '{}' WHERE s.name = 'events'",
        region.name
    );
    loop {
        let found = region.session.rows(&sql).await?;
        let value = |at: usize| found.first().and_then(|row| row.get(at)?.clone());
        let number = |at: usize| value(at).and_then(|text| text.parse().ok()).unwrap_or(0_u64);
        if let Some(error) = value(1) {
            return Err(error);
        }
        if number(0) >= events {
            return Ok(number(2));
        }
        if Instant::now() > deadline {
            return Err(format!("{} of {events} events are consumed", number(0)));
        }
        tokio::time::sleep(until_next_look(started.elapsed(), number(0), events)).await;
    }
}

/// Waits until a region's frontier covers these epochs.
async fn covered(session: &Session, epochs: &[(&str, u64)], deadline: Instant) -> Result<()> {
    loop {
        let known = session
            .rows("SELECT origin, max(epoch) FROM tributary.frontier GROUP BY origin")
            .await?;
        let epoch_of = |name: &str| {
            let row = known
                .iter()
                .find(|row| row.first() == Some(&Some(name.to_owned())))?;
            row.get(1)?.as_ref()?.parse::<u64>().ok()
        };
        let missing = epochs
            .iter()
            .find(|(name, epoch)| epoch_of(name).unwrap_or(0) < *epoch);
        let Some((name, epoch)) = missing else {
            return Ok(());
        };
        if Instant::now() > deadline {
            return Err(format!("of {name}, epoch {epoch} is not there"));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The first place at which sorted rows differ, with a row that only one of them has there.
fn difference<'a>(a: &'a Rows, b: &'a Rows) -> Option<(usize, &'a Vec<Option<String>>)> {
    let at = (0..a.len().max(b.len())).find(|at| a.get(*at) != b.get(*at))?;
    Some((at, a.get(at).or_else(|| b.get(at))?))
}
