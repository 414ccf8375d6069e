//! SQL to a server under measurement.

use std::time::{Duration, Instant};

use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use crate::Result;

const CONNECT_MAX: Duration = Duration::from_secs(30);

/// A session.
pub struct Session(Client);

impl Session {
    /// Connects as soon as the server listens, and waits until its region takes part in its cluster.
    pub async fn connect(port: u16) -> Result<Session> {
        let started = Instant::now();
        let session = Self::listening(port, started).await?;
        while session
            .number("SELECT count(*) FROM tributary.regions")
            .await
            .unwrap_or(0)
            == 0
        {
            if started.elapsed() > CONNECT_MAX {
                return Err("the server does not found its cluster".to_owned());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(session)
    }

    async fn listening(port: u16, started: Instant) -> Result<Session> {
        let config = format!("host=127.0.0.1 port={port} user=bench dbname=tributary");
        loop {
            match tokio_postgres::connect(&config, NoTls).await {
                Ok((client, connection)) => {
                    tokio::spawn(connection);
                    return Ok(Session(client));
                }
                Err(error) if started.elapsed() > CONNECT_MAX => {
                    return Err(format!("the server does not answer: {error}"));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// The connection.
    pub fn client(&self) -> &Client {
        &self.0
    }

    /// Runs statements.
    pub async fn execute(&self, sql: &str) -> Result<()> {
        self.0
            .batch_execute(sql)
            .await
            .map_err(|error| describe(sql, &error))
    }

    /// The rows of a query as text.
    pub async fn rows(&self, sql: &str) -> Result<Vec<Vec<Option<String>>>> {
        let messages = self
            .0
            .simple_query(sql)
            .await
            .map_err(|error| describe(sql, &error))?;
        let row = |message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect())
            }
            _ => None,
        };
        Ok(messages.into_iter().filter_map(row).collect())
    }

    /// The first value of a query.
    pub async fn value(&self, sql: &str) -> Result<Option<String>> {
        let rows = self.rows(sql).await?;
        Ok(rows
            .into_iter()
            .next()
            .and_then(|row| row.into_iter().next().flatten()))
    }

    /// The first value of a query, as a number; 0 without one.
    pub async fn number(&self, sql: &str) -> Result<u64> {
        let value = self.value(sql).await?;
        Ok(value.and_then(|text| text.parse().ok()).unwrap_or(0))
    }
}

/// An error as text, with the start of its statement.
pub fn describe(sql: &str, error: &tokio_postgres::Error) -> String {
    let start: String = sql.chars().take(120).collect();
    match error.as_db_error() {
        Some(refused) => {
            let hint = refused
                .hint()
                .map(|hint| format!(" ({hint})"))
                .unwrap_or_default();
            format!("{} {}{hint}: {start}", refused.code().code(), refused.message())
        }
        None => format!("{error}: {start}"),
    }
}
