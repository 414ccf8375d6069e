//! One measurement: a fresh server, the source at rest, the view, RESUME, and the wait for the last row.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::peers::{Peer, Peers, duckdb};
use crate::prepare::{binary, cache, queries, set_up, touch_memory};
use crate::process::Server;
use crate::report::{Measured, Sample, append, comparison, heading, settings};
use crate::session::Session;
use crate::sink::Sink;
use crate::{Result, Run, Setting, generate};

/// Events of a comparison.
const CHECK_EVENTS: u64 = 1_000_000;
const POLL_MIN: Duration = Duration::from_millis(10);
const POLL_MAX: Duration = Duration::from_millis(500);

/// Measures everything that was asked for; false when a comparison failed.
pub async fn run(run: &Run) -> Result<bool> {
    let setting = &run.setting;
    let binary = binary(setting)?;
    let queries = queries(setting)?;
    let peers = Peers::prepare(setting, &run.peers)?;
    let mut wrong = Vec::new();
    let mut peers_wrong = Vec::new();
    if run.check {
        let files = files(setting, CHECK_EVENTS)?;
        for query in &queries {
            match check(setting, &binary, query, &files).await {
                Ok(Some(rows)) => println!("{query}: {rows} rows, as DuckDB has them"),
                Ok(None) => println!("{query}: not compared, there is no query for DuckDB"),
                Err(reason) => {
                    println!("{query}: NOT as DuckDB has it: {reason}");
                    wrong.push(query.clone());
                }
            }
            for peer in peers.list.iter().filter(|peer| peers.can(setting, peer, query)) {
                if let Err(reason) = peers.check(setting, peer, query, &files, CHECK_EVENTS) {
                    println!("{query}: {} NOT as DuckDB has it: {reason}", peer.name);
                    peers_wrong.push((peer.name, query.clone()));
                }
            }
        }
    }
    let files = files(setting, run.events)?;
    touch_memory(setting.touch_gib);
    println!("{}", heading());
    let (right, mut failed): (Vec<String>, Vec<String>) =
        queries.into_iter().partition(|query| !wrong.contains(query));
    let mut all = Vec::new();
    for query in &right {
        for &cores in &run.cores {
            if !peers.list.is_empty() {
                // What a peer gave back, the machine may have given to others.
                touch_memory(setting.touch_gib);
            }
            let mut samples = Vec::new();
            for _ in 0..run.runs.max(1) {
                let job = Job {
                    query,
                    files: &files,
                    events: run.events,
                    cores,
                    rows: None,
                    sink: run.sink.as_deref(),
                };
                match measure(setting, &binary, &job).await {
                    Ok(sample) => samples.push(sample),
                    Err(reason) => {
                        println!("{query}: {reason}");
                        break;
                    }
                }
            }
            let mut ours = None;
            if samples.len() == run.runs.max(1) {
                let measured = Measured {
                    query: query.clone(),
                    engine: "tributary",
                    cores,
                    events: run.events,
                    sink: run.sink.clone(),
                    setting: None,
                    ratio: None,
                    samples,
                };
                ours = Some(measured.rate_of_median());
                tell(setting, measured, &mut all)?;
            } else {
                failed.push(query.clone());
            }
            for peer in peers.list.iter().filter(|peer| peers.can(setting, peer, query)) {
                if peers_wrong.contains(&(peer.name, query.clone())) {
                    continue;
                }
                touch_memory(setting.touch_gib);
                match measure_peer(run, &peers, peer, query, &files, cores) {
                    Ok(mut measured) => {
                        measured.ratio = ours.map(|ours| ours / measured.rate_of_median());
                        tell(setting, measured, &mut all)?;
                    }
                    Err(reason) => println!("{query}: {}: {reason}", peer.name),
                }
            }
        }
    }
    if !peers.list.is_empty() {
        println!("\n{}\n{}", comparison(&all), settings(&all));
    }
    Ok(failed.is_empty())
}

fn tell(setting: &Setting, measured: Measured, all: &mut Vec<Measured>) -> Result<()> {
    println!("{}", measured.line());
    append(setting, &measured.json())?;
    all.push(measured);
    Ok(())
}

/// As many runs of a peer as of ours, with the settings of the median one.
fn measure_peer(
    run: &Run,
    peers: &Peers,
    peer: &Peer,
    query: &str,
    files: &Path,
    cores: usize,
) -> Result<Measured> {
    let mut outcomes = (0..run.runs.max(1))
        .map(|_| peers.measure(&run.setting, peer, query, files, run.events, cores))
        .collect::<Result<Vec<_>>>()?;
    outcomes.sort_by(|a, b| a.sample.elapsed_seconds.total_cmp(&b.sample.elapsed_seconds));
    Ok(Measured {
        query: query.to_owned(),
        engine: peer.name,
        cores,
        events: run.events,
        sink: None,
        setting: Some(outcomes[outcomes.len() / 2].setting.clone()),
        ratio: None,
        samples: outcomes.iter().map(|outcome| outcome.sample).collect(),
    })
}

/// The pattern of the files with so many events, which are made if they are not there.
pub fn files(setting: &Setting, events: u64) -> Result<PathBuf> {
    let directory = cache(setting).join(format!("{events}-{}", setting.format));
    let complete = directory.join("complete");
    if !complete.is_file() {
        println!("making {events} events in {}", directory.display());
        generate::Stream::whole(&setting.format).write(events, &directory)?;
        fs::write(&complete, "").map_err(|error| error.to_string())?;
    }
    Ok(directory.join(format!("events-*.{}", setting.format)))
}

/// Compares a view's rows at a million events; their number, or `None` without a query for DuckDB.
async fn check(setting: &Setting, binary: &Path, query: &str, files: &Path) -> Result<Option<u64>> {
    if query.contains('+') {
        // Each of them alone is compared, when it is asked for.
        return Ok(None);
    }
    let rows = std::env::temp_dir().join(format!("tributary-bench-{}-{query}.csv", std::process::id()));
    let job = Job {
        query,
        files,
        events: CHECK_EVENTS,
        cores: 2,
        rows: Some(&rows),
        sink: None,
    };
    let sample = measure(setting, binary, &job).await?;
    if !duckdb::has(setting, query) {
        let _ = fs::remove_file(&rows);
        return Ok(None);
    }
    let compared = duckdb::compare(setting, query, files, &rows);
    if compared.is_ok() {
        let _ = fs::remove_file(&rows);
    }
    compared.map(|()| sample.view_rows)
}

/// What one run does.
pub struct Job<'a> {
    /// The query, or several joined by `+`, whose views are there together.
    pub query: &'a str,
    /// The pattern of the files.
    pub files: &'a Path,
    /// How many events they have.
    pub events: u64,
    /// The server's processors.
    pub cores: usize,
    /// Where the view's rows go at the end.
    pub rows: Option<&'a Path>,
    /// The sink that writes the view's changes.
    pub sink: Option<&'a str>,
}

/// One run.
pub async fn measure(setting: &Setting, binary: &Path, job: &Job<'_>) -> Result<Sample> {
    let server = Server::start(binary, job.cores)?;
    let measured = measure_on(setting, &server, job).await;
    measured.map_err(|reason| format!("{reason}\n{}", server.log_tail()))
}

async fn measure_on(setting: &Setting, server: &Server, job: &Job<'_>) -> Result<Sample> {
    let (query, events) = (job.query, job.events);
    let session = Session::connect(server.port).await?;
    set_up(setting, &session, query, job.files).await?;
    let sink = match job.sink {
        Some(kind) => Some(Sink::create(&session, query, kind).await?),
        None => None,
    };
    let before = server.usage()?;
    let started = Instant::now();
    session.execute("ALTER SOURCE events RESUME").await?;
    let deadline = started + Duration::from_secs(setting.timeout_seconds);
    let consumed_after = loop {
        // The number of rows and the views are of one snapshot.
        let seen = session
            .rows("SELECT events, error FROM tributary.sources WHERE name = 'events'")
            .await?;
        let value = |at: usize| seen.first().and_then(|row| row.get(at)?.clone());
        if let Some(error) = value(1) {
            return Err(error);
        }
        let consumed: u64 = value(0).and_then(|text| text.parse().ok()).unwrap_or(0);
        if consumed >= events {
            break started.elapsed();
        }
        if Instant::now() > deadline {
            return Err(format!(
                "{consumed} of {events} events after {} s",
                setting.timeout_seconds
            ));
        }
        tokio::time::sleep(until_next_look(started.elapsed(), consumed, events)).await;
    };
    let (elapsed, sink_bytes) = match &sink {
        Some(sink) => {
            let bytes = sink.wait(&session, deadline).await?;
            (started.elapsed(), bytes)
        }
        None => (consumed_after, 0),
    };
    let after = server.usage()?;
    let failures = session
        .number("SELECT count(*) FROM tributary.errors")
        .await
        .unwrap_or(0);
    if failures > 0 {
        return Err(format!(
            "{failures} expressions failed on rows: see tributary.errors"
        ));
    }
    let views: Vec<String> = query.split('+').map(|view| format!("'{view}'")).collect();
    let state = |column: &str| {
        let views = views.join(", ");
        format!("SELECT sum({column})::BIGINT FROM tributary.materialized_views WHERE name IN ({views})")
    };
    let counts: Vec<String> = query
        .split('+')
        .map(|view| format!("(SELECT count(*) FROM {view})"))
        .collect();
    let counted = format!("SELECT {}", counts.join(" + "));
    if let Some(path) = job.rows {
        let view = session.rows(&format!("SELECT * FROM {query}")).await?;
        duckdb::write_rows(path, &view)?;
    }
    Ok(Sample {
        elapsed_seconds: elapsed.as_secs_f64(),
        cpu_seconds: after.cpu_seconds - before.cpu_seconds,
        peak_rss_bytes: after.peak_rss_bytes,
        sink_bytes,
        state_bytes: session.number(&state("state_bytes")).await?,
        state_rows: session.number(&state("state_rows")).await?,
        view_rows: Some(session.number(&counted).await?),
    })
}

/// Half of what is left, by the progress so far: a look costs the server a query, on the core that is measured.
pub fn until_next_look(elapsed: Duration, consumed: u64, events: u64) -> Duration {
    if consumed == 0 {
        return POLL_MIN * 5;
    }
    let left = elapsed.mul_f64(events.saturating_sub(consumed) as f64 / consumed as f64);
    (left / 2).clamp(POLL_MIN, POLL_MAX)
}
