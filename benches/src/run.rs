//! One measurement: a fresh server, the source at rest, the view, RESUME, and the wait for the last row.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::process::Server;
use crate::report::{Measured, Sample, heading};
use crate::session::Session;
use crate::{Result, Run, duckdb, generate};

/// Events of a comparison.
const CHECK_EVENTS: u64 = 1_000_000;
const POLL_MIN: Duration = Duration::from_millis(10);
const POLL_MAX: Duration = Duration::from_millis(500);
const SIDE_ROWS: usize = 10_000;
const SIDE_ROWS_PER_INSERT: usize = 1000;

const VIEWS: &str = "
CREATE VIEW person AS SELECT p_id AS id, p_name AS name, p_email_address AS email_address,
  p_credit_card AS credit_card, p_city AS city, p_state AS state, p_date_time AS date_time, p_extra AS extra,
  tributary_time, tributary_region FROM events WHERE event_type = 0;
CREATE VIEW auction AS SELECT a_id AS id, a_item_name AS item_name, a_description AS description,
  a_initial_bid AS initial_bid, a_reserve AS reserve, a_date_time AS date_time, a_expires AS expires,
  a_seller AS seller, a_category AS category, a_extra AS extra,
  tributary_time, tributary_region FROM events WHERE event_type = 1;
CREATE VIEW bid AS SELECT b_auction AS auction, b_bidder AS bidder, b_price AS price, b_channel AS channel,
  b_url AS url, b_date_time AS date_time, b_extra AS extra,
  tributary_time, tributary_region FROM events WHERE event_type = 2;
";

/// Measures everything that was asked for; false when a comparison failed.
pub async fn run(run: &Run) -> Result<bool> {
    let binary = binary(run.tributary.as_deref())?;
    let queries = queries(run)?;
    let mut wrong = Vec::new();
    if run.check {
        let files = files(run, CHECK_EVENTS)?;
        for query in &queries {
            match check(run, &binary, query, &files).await {
                Ok(Some(rows)) => println!("{query}: {rows} rows, as DuckDB has them"),
                Ok(None) => println!("{query}: not compared, there is no query for DuckDB"),
                Err(reason) => {
                    println!("{query}: NOT as DuckDB has it: {reason}");
                    wrong.push(query.clone());
                }
            }
        }
    }
    let files = files(run, run.events)?;
    touch_memory(run.touch_gib);
    println!("{}", heading());
    let (right, mut failed): (Vec<String>, Vec<String>) =
        queries.into_iter().partition(|query| !wrong.contains(query));
    for query in &right {
        for &cores in &run.cores {
            let mut samples = Vec::new();
            for _ in 0..run.runs.max(1) {
                match measure(run, &binary, query, &files, run.events, cores, None).await {
                    Ok(sample) => samples.push(sample),
                    Err(reason) => {
                        println!("{query}: {reason}");
                        break;
                    }
                }
            }
            if samples.len() == run.runs.max(1) {
                tell(run, query, "tributary", cores, samples)?;
            } else {
                failed.push(query.clone());
            }
            if run.peers.iter().any(|peer| peer == "duckdb") && duckdb::has(run, query) {
                let samples: Result<Vec<Sample>> = (0..run.runs.max(1))
                    .map(|_| duckdb::measure(run, query, &files, cores))
                    .collect();
                match samples {
                    Ok(samples) => tell(run, query, "duckdb", cores, samples)?,
                    Err(reason) => println!("{query}: duckdb: {reason}"),
                }
            }
        }
    }
    Ok(failed.is_empty())
}

/// The server's binary: the one given, or the one beside this.
pub fn binary(given: Option<&Path>) -> Result<PathBuf> {
    match given {
        Some(path) => Ok(path.to_owned()),
        None => std::env::current_exe()
            .map(|own| own.with_file_name("tributary"))
            .map_err(|error| error.to_string()),
    }
}

/// Writes to so much memory once and gives it back. On a virtual machine the first touch of a page may cost the host
/// far more than the work that is measured.
pub fn touch_memory(gib: usize) {
    const PAGE: usize = 4096;
    let portions: Vec<Vec<u8>> = (0..gib * 16)
        .map(|_| {
            let mut portion = vec![0; 1 << 26];
            portion.iter_mut().step_by(PAGE).for_each(|byte| *byte = 1);
            portion
        })
        .collect();
    drop(std::hint::black_box(portions));
}

fn tell(run: &Run, query: &str, engine: &'static str, cores: usize, samples: Vec<Sample>) -> Result<()> {
    let measured = Measured {
        query: query.to_owned(),
        engine,
        cores,
        events: run.events,
        samples,
    };
    println!("{}", measured.line());
    run.out.as_ref().map_or(Ok(()), |out| measured.append(out))
}

/// The names of the queries asked for, in order.
fn queries(run: &Run) -> Result<Vec<String>> {
    if run.queries != "all" {
        return Ok(run
            .queries
            .split(',')
            .map(|query| query.trim().to_owned())
            .collect());
    }
    let entries =
        fs::read_dir(&run.nexmark).map_err(|error| format!("{}: {error}", run.nexmark.display()))?;
    let mut numbers: Vec<(u32, String)> = entries
        .filter_map(|entry| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            let query = name.strip_suffix(".sql")?;
            Some((query.strip_prefix('q')?.parse().ok()?, query.to_owned()))
        })
        .collect();
    numbers.sort();
    Ok(numbers.into_iter().map(|(_, query)| query).collect())
}

/// The pattern of the files with so many events, which are made if they are not there.
fn files(run: &Run, events: u64) -> Result<PathBuf> {
    let cache = match &run.cache {
        Some(cache) => cache.clone(),
        None => std::env::temp_dir().join("tributary-nexmark"),
    };
    let directory = cache.join(format!("{events}-{}", run.format));
    let complete = directory.join("complete");
    if !complete.is_file() {
        println!("making {events} events in {}", directory.display());
        generate::generate(events, &directory, &run.format)?;
        fs::write(&complete, "").map_err(|error| error.to_string())?;
    }
    Ok(directory.join(format!("events-*.{}", run.format)))
}

/// Compares a view's rows at a million events; their number, or `None` without a query for DuckDB.
async fn check(run: &Run, binary: &Path, query: &str, files: &Path) -> Result<Option<u64>> {
    let rows = std::env::temp_dir().join(format!("tributary-bench-{}-{query}.csv", std::process::id()));
    let sample = measure(run, binary, query, files, CHECK_EVENTS, 2, Some(&rows)).await?;
    if !duckdb::has(run, query) {
        let _ = fs::remove_file(&rows);
        return Ok(None);
    }
    let compared = duckdb::compare(run, query, files, &rows);
    if compared.is_ok() {
        let _ = fs::remove_file(&rows);
    }
    compared.map(|()| Some(sample.view_rows))
}

/// One run; the view's rows go to `rows`, if given.
async fn measure(
    run: &Run,
    binary: &Path,
    query: &str,
    files: &Path,
    events: u64,
    cores: usize,
    rows: Option<&Path>,
) -> Result<Sample> {
    let server = Server::start(binary, cores)?;
    let measured = measure_on(run, &server, query, files, events, rows).await;
    measured.map_err(|reason| format!("{reason}\n{}", server.log_tail()))
}

async fn measure_on(
    run: &Run,
    server: &Server,
    query: &str,
    files: &Path,
    events: u64,
    rows: Option<&Path>,
) -> Result<Sample> {
    let session = Session::connect(server.port).await?;
    set_up(run, &session, query, files).await?;
    let before = server.usage()?;
    let started = Instant::now();
    session.execute("ALTER SOURCE events RESUME").await?;
    let deadline = started + Duration::from_secs(run.timeout_seconds);
    let elapsed = loop {
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
                run.timeout_seconds
            ));
        }
        tokio::time::sleep(until_next_look(started.elapsed(), consumed, events)).await;
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
    let state =
        |column: &str| format!("SELECT {column} FROM tributary.materialized_views WHERE name = '{query}'");
    if let Some(path) = rows {
        let view = session.rows(&format!("SELECT * FROM {query}")).await?;
        duckdb::write_rows(path, &view)?;
    }
    Ok(Sample {
        elapsed_seconds: elapsed.as_secs_f64(),
        cpu_seconds: after.cpu_seconds - before.cpu_seconds,
        peak_rss_bytes: after.peak_rss_bytes,
        state_bytes: session.number(&state("state_bytes")).await?,
        state_rows: session.number(&state("state_rows")).await?,
        view_rows: session.number(&format!("SELECT count(*) FROM {query}")).await?,
    })
}

/// Half of what is left, by the progress so far: a look costs the server a query, on the core that is measured.
fn until_next_look(elapsed: Duration, consumed: u64, events: u64) -> Duration {
    if consumed == 0 {
        return POLL_MIN * 5;
    }
    let left = elapsed.mul_f64(events.saturating_sub(consumed) as f64 / consumed as f64);
    (left / 2).clamp(POLL_MIN, POLL_MAX)
}

/// The source at rest, the plain views and the query's view.
async fn set_up(run: &Run, session: &Session, query: &str, files: &Path) -> Result<()> {
    let path = run.nexmark.join(format!("{query}.sql"));
    let sql = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    session
        .execute(&format!(
            "CREATE SOURCE events WITH (connector = 'file', path = '{}', format = '{}', paused = 'true')",
            files.display(),
            run.format
        ))
        .await?;
    for view in VIEWS.split(';').filter(|view| !view.trim().is_empty()) {
        session.execute(view.trim()).await?;
    }
    if sql.contains("side_input") {
        fill_side_input(session).await?;
    }
    let is_query = sql
        .lines()
        .map(str::trim)
        .find(|line| !line.is_empty() && !line.starts_with("--"))
        .is_some_and(|line| !line.to_uppercase().starts_with("CREATE"));
    let statement = match is_query {
        true => format!("CREATE MATERIALIZED VIEW {query} AS\n{sql}"),
        false => sql,
    };
    session.execute(&statement).await
}

/// The table of q13: every region has it.
async fn fill_side_input(session: &Session) -> Result<()> {
    session
        .execute("CREATE TABLE side_input (key BIGINT PRIMARY KEY, value TEXT) LOCALITY GLOBAL")
        .await?;
    for from in (0..SIDE_ROWS).step_by(SIDE_ROWS_PER_INSERT) {
        let rows: Vec<String> = (from..from + SIDE_ROWS_PER_INSERT)
            .map(|key| format!("({key}, '{key}')"))
            .collect();
        session
            .execute(&format!("INSERT INTO side_input VALUES {}", rows.join(", ")))
            .await?;
    }
    Ok(())
}
