//! Spreads the statements of one file over the regions.
//!
//! Rows of REGIONAL tables are written through one region: the file's home. Everything else goes round: DDL, writes to
//! GLOBAL tables, queries, be they of views or of tables, whose rows then come from the home. Before a statement runs in another region
//! than the last write, it waits until that region's frontier covers the writer's.

use std::path::Path;
use std::time::{Duration, Instant};

use sqllogictest::{DBOutput, DefaultColumnType};
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::engine::EngineError;
use crate::postgres;

/// How long a region may take to hear of a write elsewhere.
const COVERAGE_TIMEOUT: Duration = Duration::from_secs(20);

/// See the module's documentation.
pub struct Spread {
    regions: Vec<(String, Client)>,
    engine: &'static str,
    home: usize,
    next: usize,
    written_in: Option<usize>,
    in_transaction: bool,
    regional: Vec<String>,
    materialized: Vec<String>,
}

impl Spread {
    /// Routes over the given regions; the file's name chooses its home.
    pub fn new(regions: Vec<(String, Client)>, engine: &'static str, file: &Path) -> Self {
        let name = file
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        let home = name.bytes().map(usize::from).sum::<usize>() % regions.len();
        Self {
            regions,
            engine,
            home,
            next: 0,
            written_in: None,
            in_transaction: false,
            regional: Vec::new(),
            materialized: Vec::new(),
        }
    }

    /// Runs one statement where it belongs.
    pub async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, EngineError> {
        if self.engine == "postgres" {
            return self.run_on_postgres(sql).await;
        }
        let folded = sql.trim().to_lowercase();
        let region = self.route(&folded);
        if !self.in_transaction {
            self.cover(region).await?;
        }
        self.in_transaction |= folded == "begin";
        self.in_transaction &= folded != "commit" && folded != "rollback";
        let output = query(&self.regions[region].1, sql).await;
        if !folded.starts_with("select") {
            self.written_in = Some(region);
        }
        self.note_objects(&folded);
        output
    }

    fn route(&mut self, folded: &str) -> usize {
        let words = || folded.split(|c: char| !c.is_alphanumeric() && c != '_');
        let touches_regional = words().any(|word| self.regional.iter().any(|table| table == word));
        let is_ddl = ["create", "drop", "explain"]
            .iter()
            .any(|verb| folded.starts_with(verb));
        // System tables show what is in the region that is asked.
        let is_read = folded.starts_with("select") && !folded.contains("tributary.");
        if self.in_transaction || (touches_regional && !is_ddl && !is_read) || is_session_statement(folded) {
            return self.home;
        }
        self.next = (self.next + 1) % self.regions.len();
        self.next
    }

    /// Remembers the names of REGIONAL tables.
    fn note_objects(&mut self, folded: &str) {
        let mut words = folded
            .split(|c: char| c.is_whitespace() || c == '(')
            .filter(|word| !word.is_empty());
        if (words.next(), words.next()) == (Some("create"), Some("table"))
            && !folded.contains("locality global")
        {
            self.regional.extend(
                words
                    .find(|word| !["if", "not", "exists"].contains(word))
                    .map(str::to_owned),
            );
        }
    }

    /// Waits until a region's frontier covers that of the region of the last write and is settled: before that, a
    /// join of regional with global rows may show another region's part as of an earlier moment.
    async fn cover(&mut self, region: usize) -> Result<(), EngineError> {
        let Some(writer) = self.written_in.filter(|_| self.regions.len() > 1) else {
            return Ok(());
        };
        query(&self.regions[writer].1, "FLUSH").await?;
        let (name, client) = &self.regions[writer];
        let own = format!("SELECT epoch FROM tributary.frontier WHERE origin = '{name}'");
        let settled = format!("{own} AND settled");
        let epoch = single_number(client, &own).await?;
        let begin = Instant::now();
        while single_number(&self.regions[region].1, &settled).await? < epoch {
            if begin.elapsed() > COVERAGE_TIMEOUT {
                let reader = &self.regions[region].0;
                let message =
                    format!("{reader} did not settle at epoch {epoch} of {name} in {COVERAGE_TIMEOUT:?}");
                return Err(EngineError { state: None, message });
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    async fn run_on_postgres(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, EngineError> {
        let client = &self.regions[0].1;
        for view in &self.materialized {
            query(client, &format!("REFRESH MATERIALIZED VIEW {view}")).await?;
        }
        let Some(translated) = postgres::translate(sql) else {
            return Ok(DBOutput::StatementComplete(0));
        };
        let output = query(client, &translated).await?;
        postgres::note_materialized(&translated, &mut self.materialized);
        Ok(output)
    }
}

/// Statements that belong to a session and so must meet the same one.
fn is_session_statement(folded: &str) -> bool {
    [
        "begin",
        "commit",
        "rollback",
        "set",
        "show",
        "reset",
        "start transaction",
    ]
    .iter()
    .any(|verb| folded.starts_with(verb))
}

async fn single_number(client: &Client, sql: &str) -> Result<i64, EngineError> {
    for message in client.simple_query(sql).await? {
        if let SimpleQueryMessage::Row(row) = message {
            let value = row.get(0).unwrap_or("0");
            return value.parse().map_err(|_| EngineError {
                state: None,
                message: format!("{value:?} is not a number: {sql}"),
            });
        }
    }
    Ok(0)
}

async fn query(client: &Client, sql: &str) -> Result<DBOutput<DefaultColumnType>, EngineError> {
    let mut rows = Vec::new();
    let mut columns = None;
    let mut affected = 0;
    for message in client.simple_query(sql).await? {
        match message {
            SimpleQueryMessage::RowDescription(description) => columns = Some(description.len()),
            SimpleQueryMessage::Row(row) => {
                columns = Some(row.len());
                rows.push((0..row.len()).map(|column| shown(row.get(column))).collect());
            }
            SimpleQueryMessage::CommandComplete(count) => affected = count,
            _ => {}
        }
    }
    Ok(match columns {
        Some(columns) => DBOutput::Rows {
            types: vec![DefaultColumnType::Any; columns],
            rows,
        },
        None => DBOutput::StatementComplete(affected),
    })
}

/// The conventions of the format for what white space cannot show.
fn shown(value: Option<&str>) -> String {
    match value {
        None => "NULL".to_owned(),
        Some("") => "(empty)".to_owned(),
        Some(text) => text.to_owned(),
    }
}
