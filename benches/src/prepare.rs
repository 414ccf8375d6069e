//! What precedes a measurement: queries, the binary, memory, and the relations that the queries read.

use std::fs;
use std::path::{Path, PathBuf};

use crate::session::Session;
use crate::{Result, Setting};

/// Rows of the table of q13.
pub const SIDE_ROWS: usize = 10_000;
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

/// The server's binary.
pub fn binary(setting: &Setting) -> Result<PathBuf> {
    binary_or(setting.tributary.as_deref())
}

/// The server's binary: the one given, or the one beside this.
pub fn binary_or(given: Option<&Path>) -> Result<PathBuf> {
    match given {
        Some(path) => Ok(path.to_owned()),
        None => Ok(std::env::current_exe()
            .map_err(|error| error.to_string())?
            .with_file_name("tributary")),
    }
}

/// Where generated files are kept.
pub fn cache(setting: &Setting) -> PathBuf {
    match &setting.cache {
        Some(cache) => cache.clone(),
        None => std::env::temp_dir().join("tributary-nexmark"),
    }
}

/// The names of the queries asked for, in order.
pub fn queries(setting: &Setting) -> Result<Vec<String>> {
    if setting.queries != "all" {
        return Ok(setting
            .queries
            .split(',')
            .map(|query| query.trim().to_owned())
            .collect());
    }
    let entries =
        fs::read_dir(&setting.nexmark).map_err(|error| format!("{}: {error}", setting.nexmark.display()))?;
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

/// The source at rest, the plain views and the view of the query, or of several joined by `+`.
pub async fn set_up(setting: &Setting, session: &Session, query: &str, files: &Path) -> Result<()> {
    create_source(setting, session, files, &[]).await?;
    for query in query.split('+') {
        create_view(setting, session, query).await?;
    }
    Ok(())
}

/// The source at rest, with further options, and the plain views over it.
pub async fn create_source(
    setting: &Setting,
    session: &Session,
    files: &Path,
    options: &[(&str, u64)],
) -> Result<()> {
    let options = options
        .iter()
        .map(|(name, value)| format!(", {name} = '{value}'"));
    let options: String = options.collect();
    session
        .execute(&format!(
            "CREATE SOURCE events WITH (connector = 'file', path = '{}', format = '{}', paused = 'true'{options})",
            files.display(),
            setting.format
        ))
        .await?;
    for view in VIEWS.split(';').filter(|view| !view.trim().is_empty()) {
        session.execute(view.trim()).await?;
    }
    Ok(())
}

/// The materialized view of a query.
pub async fn create_view(setting: &Setting, session: &Session, query: &str) -> Result<()> {
    let path = setting.nexmark.join(format!("{query}.sql"));
    let sql = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
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
