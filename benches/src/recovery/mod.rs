//! Checkpoints while a source runs, and restarts with the state that came of it.
//!
//! ```text
//!   events ─▶ views with much state ── until the last event: how long each checkpoint holds the region
//!      kill -9 ─▶ start ─▶ every view answers as before: how long
//!      SIGTERM ─▶ start ─▶ every view answers as before: how long
//! ```
//! What a checkpoint does to the region, its metrics say. A restart begins with the process and ends with the answer of
//! the last view; after kill -9 the region reads again what came after its last checkpoint.

mod metrics;
mod report;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;

use crate::prepare::{binary, create_source, create_view, queries, touch_memory};
use crate::process::Server;
use crate::report::append;
use crate::run::files;
use crate::session::Session;
use crate::{Result, Setting};
use metrics::Metrics;
use report::{Measured, Restart};

const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What is measured.
#[derive(Args)]
pub struct Recovery {
    /// How many events; generated into the cache when they are not there yet.
    #[arg(long, default_value_t = 10_000_000)]
    events: u64,
    /// The most events a second.
    #[arg(long)]
    rate: Option<u64>,
    /// The server's processors.
    #[arg(long, default_value_t = 2)]
    cores: usize,
    #[command(flatten)]
    setting: Setting,
}

/// Measures; false when a view answers otherwise after a restart.
pub async fn run(recovery: &Recovery) -> Result<bool> {
    let setting = &recovery.setting;
    let files = files(setting, recovery.events)?;
    touch_memory(setting.touch_gib);
    let mut server = Server::start(&binary(setting)?, recovery.cores)?;
    let measured = measure(recovery, &mut server, files).await;
    let measured = measured.map_err(|reason| format!("{reason}\n{}", server.log_tail()))?;
    println!("{}", measured.table());
    append(setting, &measured.json())?;
    Ok(measured.restarts.iter().all(|restart| restart.same))
}

async fn measure(recovery: &Recovery, server: &mut Server, files: PathBuf) -> Result<Measured> {
    let session = Session::connect(server.port).await?;
    let views = queries(&recovery.setting)?;
    let rate: Vec<(&str, u64)> = recovery.rate.map(|rate| ("rate", rate)).into_iter().collect();
    create_source(&recovery.setting, &session, &files, &rate).await?;
    for query in &views {
        create_view(&recovery.setting, &session, query).await?;
    }
    let started = Instant::now();
    session.execute("ALTER SOURCE events RESUME").await?;
    // The events that the last checkpoint has, as far as looking now and then can tell.
    let (mut checkpoints, mut covered) = (0, 0);
    loop {
        let consumed = session
            .number("SELECT events FROM tributary.sources WHERE name = 'events'")
            .await?;
        let written = Metrics::fetch(server.http_port).await?.checkpoints();
        if written != checkpoints {
            (checkpoints, covered) = (written, consumed);
        }
        if consumed >= recovery.events {
            break;
        }
        if started.elapsed().as_secs() > recovery.setting.timeout_seconds {
            return Err(format!("{consumed} of {} events", recovery.events));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let elapsed_seconds = started.elapsed().as_secs_f64();
    let metrics = Metrics::fetch(server.http_port).await?;
    let answers = answers(&session, &views).await?;
    let state = "SELECT CAST(sum(bytes) AS BIGINT) FROM tributary.operators";
    let state_bytes = session.number(state).await?;
    let state_rows = session
        .number("SELECT CAST(sum(rows) AS BIGINT) FROM tributary.operators")
        .await?;
    drop(session);
    let usage = server.usage()?;
    let mut restarts = Vec::new();
    for gently in [false, true] {
        let stopping = Instant::now();
        server.stop(gently)?;
        let stop_seconds = stopping.elapsed().as_secs_f64();
        let starting = Instant::now();
        server.start_again()?;
        let session = Session::connect(server.port).await?;
        let listening_seconds = starting.elapsed().as_secs_f64();
        let now = self::answers(&session, &views).await?;
        restarts.push(Restart {
            gently,
            stop_seconds,
            listening_seconds,
            seconds: starting.elapsed().as_secs_f64(),
            cpu_seconds: server.usage()?.cpu_seconds,
            same: now == answers,
        });
    }
    Ok(Measured {
        views,
        cores: recovery.cores,
        events: recovery.events,
        elapsed_seconds,
        cpu_seconds: usage.cpu_seconds,
        peak_rss_bytes: usage.peak_rss_bytes,
        state_bytes,
        state_rows,
        replayed: recovery.events - covered.min(recovery.events),
        metrics,
        restarts,
    })
}

/// The number of rows of each view.
async fn answers(session: &Session, views: &[String]) -> Result<Vec<u64>> {
    let mut answers = Vec::with_capacity(views.len());
    for view in views {
        answers.push(session.number(&format!("SELECT count(*) FROM {view}")).await?);
    }
    Ok(answers)
}
