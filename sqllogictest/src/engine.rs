//! What the runner needs of an engine: statements in, rows of text out.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType, Normalizer};
use tokio::sync::Mutex;

use crate::spread::Spread;

/// One logical connection over all regions.
pub struct Connection(pub Arc<Mutex<Spread>>, pub &'static str);

/// An error of the engine, or of the connection to it.
#[derive(Debug)]
pub struct EngineError {
    /// SQLSTATE, when the engine gave one.
    pub state: Option<String>,
    /// The message.
    pub message: String,
}

impl std::fmt::Display for EngineError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.state {
            Some(state) => write!(f, "{} ({state})", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for EngineError {}

impl From<tokio_postgres::Error> for EngineError {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(db) => Self {
                state: Some(db.code().code().to_owned()),
                message: db.message().to_owned(),
            },
            None => Self {
                state: None,
                message: error.to_string(),
            },
        }
    }
}

#[async_trait]
impl AsyncDB for Connection {
    type Error = EngineError;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, EngineError> {
        self.0.lock().await.run(sql).await
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &str {
        self.1
    }

    async fn sleep(duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    fn error_sql_state(error: &EngineError) -> Option<String> {
        error.state.clone()
    }
}

/// Compares results value by value, with runs of white space folded.
pub fn same_rows(normalizer: Normalizer, actual: &[Vec<String>], expected: &[String]) -> bool {
    let fold = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let expected: Vec<String> = expected.iter().map(|line| fold(&normalizer(line))).collect();
    let actual: Vec<String> = actual.iter().map(|row| fold(&row.join(" "))).collect();
    expected == actual
}
