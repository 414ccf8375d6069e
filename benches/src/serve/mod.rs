//! Reading while a source runs at a fixed rate, with the views of several queries moving at once.
//!
//! ```text
//!   events at RATE ─▶ the views of all queries ─┬─ served: bids by auction ◀── clients: lookups and small aggregates
//!                                               └─ newest: the latest arrival ◀── one prober: freshness
//! ```
//! An event arrives when it enters the log (`tributary_time`); it can be queried when a query shows it. The prober
//! reads the newest arrival again and again: each time that it is another one, its age then is a sample, which is too
//! high by up to the time of one probe. All views move together, so this holds for each of them.

mod clients;
mod report;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::prepare::{binary, create_source, create_view, queries, touch_memory};
use crate::process::Server;
use crate::report::append;
use crate::run::files;
use crate::session::Session;
use crate::{Result, Serve};
use clients::{Reading, read};
use report::{Measured, Times};

/// What the clients read.
const SERVED: &str = "CREATE MATERIALIZED VIEW served AS \
    SELECT auction, count(*) AS bids, max(price) AS best FROM bid GROUP BY auction";
/// When the newest event arrived, in milliseconds since 1970.
const NEWEST: &str = "CREATE MATERIALIZED VIEW newest AS SELECT max(tributary_time) AS at FROM events";
const PROBE: &str = "SELECT CAST(extract(epoch FROM at) * 1000 AS BIGINT) FROM newest";
const PROBE_PAUSE: Duration = Duration::from_millis(5);
const READY_MAX: Duration = Duration::from_secs(30);

/// Measures; always true, since nothing is compared.
pub async fn run(serve: &Serve) -> Result<bool> {
    let files = files(&serve.setting, serve.rate * serve.seconds)?;
    touch_memory(serve.setting.touch_gib);
    let server = Server::start(&binary(&serve.setting)?, serve.cores)?;
    let measured = measure(serve, &server, files).await;
    let measured = measured.map_err(|reason| format!("{reason}\n{}", server.log_tail()))?;
    println!("{}", measured.table());
    append(&serve.setting, &measured.json())?;
    Ok(true)
}

async fn measure(serve: &Serve, server: &Server, files: PathBuf) -> Result<Measured> {
    let session = Session::connect(server.port).await?;
    let views = queries(&serve.setting)?;
    let latency = serve.latency_ms.map(|latency| ("latency_ms", latency));
    let options: Vec<(&str, u64)> = [("rate", serve.rate)].into_iter().chain(latency).collect();
    create_source(&serve.setting, &session, &files, &options).await?;
    for query in &views {
        create_view(&serve.setting, &session, query).await?;
    }
    session.execute(SERVED).await?;
    session.execute(NEWEST).await?;
    wait_ready(&session).await?;

    let before = server.usage()?;
    session.execute("ALTER SOURCE events RESUME").await?;
    let started = Instant::now();
    let ends = started + Duration::from_secs(serve.seconds);
    let stop = Arc::new(AtomicBool::new(false));
    let reading = Reading {
        port: server.port,
        rate: serve.rate,
        started,
        counted_from: started + Duration::from_secs(serve.warm_up_seconds),
        aggregate_every: serve.aggregate_every,
        stop: stop.clone(),
    };
    let clients: Vec<_> = (0..serve.clients)
        .map(|number| tokio::spawn(read(reading.clone(), number)))
        .collect();
    let freshness = probe(&session, reading.counted_from, ends).await;
    let consumed = session
        .number("SELECT events FROM tributary.sources WHERE name = 'events'")
        .await?;
    let elapsed = started.elapsed();
    stop.store(true, Ordering::Relaxed);
    let (mut lookups, mut aggregates) = (Vec::new(), Vec::new());
    for client in clients {
        let (more_lookups, more_aggregates) = client.await.map_err(|error| error.to_string())??;
        lookups.extend(more_lookups);
        aggregates.extend(more_aggregates);
    }
    let after = server.usage()?;
    let counted = elapsed.as_secs_f64() - serve.warm_up_seconds as f64;
    Ok(Measured {
        views,
        cores: serve.cores,
        clients: serve.clients,
        rate: serve.rate,
        events_per_second: consumed as f64 / elapsed.as_secs_f64(),
        queries_per_second: (lookups.len() + aggregates.len()) as f64 / counted.max(1e-9),
        lookups: Times::of(lookups),
        aggregates: Times::of(aggregates),
        freshness: Times::of(freshness?),
        served_rows: session.number("SELECT count(*) FROM served").await?,
        cpu_seconds: after.cpu_seconds - before.cpu_seconds,
        peak_rss_bytes: after.peak_rss_bytes,
    })
}

async fn wait_ready(session: &Session) -> Result<()> {
    let started = Instant::now();
    let missing = "SELECT count(*) FROM tributary.materialized_views WHERE state <> 'ready'";
    while session.number(missing).await? > 0 {
        if started.elapsed() > READY_MAX {
            return Err("the views are not ready".to_owned());
        }
        tokio::time::sleep(PROBE_PAUSE).await;
    }
    Ok(())
}

/// Ages of arrivals when they were first seen, in milliseconds.
async fn probe(session: &Session, counted_from: Instant, ends: Instant) -> Result<Vec<f64>> {
    let mut ages = Vec::new();
    let mut newest = 0;
    while Instant::now() < ends {
        let seen = session.number(PROBE).await?;
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_err(|error| error.to_string())?;
        if seen > newest {
            newest = seen;
            if Instant::now() >= counted_from {
                ages.push((now.as_secs_f64() * 1e3 - seen as f64).max(0.0));
            }
        }
        tokio::time::sleep(PROBE_PAUSE).await;
    }
    Ok(ages)
}
