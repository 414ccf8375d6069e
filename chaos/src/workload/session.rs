//! One connection of a client, made again when it is lost.

use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::{Client, NoTls, SimpleQueryMessage, Statement};

use super::Shared;
use crate::ledger::Outcome;
use crate::regions::Region;

/// No region is down or frozen for so long: a statement without an answer by then has been forgotten.
const ANSWER_MAX: Duration = Duration::from_secs(30);
const RECONNECT: Duration = Duration::from_millis(100);

/// SQLSTATEs that say nothing about whether something was committed: the server is stopping, the connection is lost,
/// the statement was cancelled, or the server has a defect.
const UNCERTAIN: [&str; 4] = ["57P01", "57014", "58030", "XX000"];

/// A row of text; null is `None`.
pub type Row = Vec<Option<String>>;

/// Why a statement did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The server refused it, with this SQLSTATE.
    Refused(String),
    /// Nobody knows what became of it.
    Lost,
}

/// A client of one region.
pub struct Session {
    shared: Arc<Shared>,
    region: Region,
    client: Option<Client>,
    prepared: Option<Statement>,
}

impl Failure {
    /// What it says about a commit.
    pub fn outcome(&self) -> Outcome {
        match self {
            Failure::Refused(state) if is_certain(state) => Outcome::Refused,
            _ => Outcome::Unknown,
        }
    }
}

fn is_certain(state: &str) -> bool {
    !UNCERTAIN.contains(&state) && !state.starts_with("08")
}

impl Session {
    /// Not connected yet.
    pub fn new(shared: Arc<Shared>, region: Region) -> Session {
        Session {
            shared,
            region,
            client: None,
            prepared: None,
        }
    }

    /// Connects if that is needed; `false` after a while without success. `true` and `fresh` when it is a new connection.
    pub async fn connect(&mut self) -> Option<Connection> {
        if self.client.as_ref().is_some_and(|client| !client.is_closed()) {
            return Some(Connection::Same);
        }
        self.client = None;
        self.prepared = None;
        let address = self.shared.cluster.sql(self.region);
        let config = format!(
            "host={} port={} user=postgres dbname=tributary connect_timeout=5",
            address.ip(),
            address.port()
        );
        let connecting = async {
            let (client, connection) = tokio_postgres::connect(&config, NoTls).await.ok()?;
            tokio::spawn(async move {
                // Its end is seen by whoever uses the client.
                let _ = connection.await;
            });
            client.batch_execute("SET regional_reads = 'local'").await.ok()?;
            Some(client)
        };
        match tokio::time::timeout(ANSWER_MAX, connecting).await {
            Ok(Some(client)) => {
                self.client = Some(client);
                self.shared.tallies().connections += 1;
                Some(Connection::New)
            }
            _ => {
                tokio::time::sleep(RECONNECT).await;
                None
            }
        }
    }

    /// Runs a statement and gives its rows.
    pub async fn query(&mut self, sql: &str) -> Result<Vec<Row>, Failure> {
        let messages = self
            .ask(sql, async |client, _| client.simple_query(sql).await)
            .await?;
        let rows = messages.into_iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(
                (0..row.len())
                    .map(|column| row.get(column).map(str::to_owned))
                    .collect(),
            ),
            _ => None,
        });
        Ok(rows.collect())
    }

    /// Prepares the one statement that this session keeps, unless it has.
    pub async fn prepare(&mut self, sql: &str) -> Result<(), Failure> {
        if self.prepared.is_none() {
            self.prepared = Some(self.ask(sql, async |client, _| client.prepare(sql).await).await?);
        }
        Ok(())
    }

    /// Does something with the client: `what` is for people, the statement is the prepared one.
    pub async fn ask<T>(
        &mut self,
        what: &str,
        asking: impl AsyncFnOnce(&Client, Option<&Statement>) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, Failure> {
        let Some(client) = &self.client else {
            return Err(Failure::Lost);
        };
        match tokio::time::timeout(ANSWER_MAX, asking(client, self.prepared.as_ref())).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.failure(&error)),
            Err(_) => {
                self.client = None;
                self.shared.journal.violation(
                    "every statement is answered",
                    format!("{}: {ANSWER_MAX:?} without an answer to {what}", self.region),
                );
                Err(Failure::Lost)
            }
        }
    }

    /// What an error of the client means; counts it.
    pub fn failure(&mut self, error: &tokio_postgres::Error) -> Failure {
        let Some(refusal) = error.as_db_error() else {
            self.client = None;
            return Failure::Lost;
        };
        let state = refusal.code().code().to_owned();
        *self.shared.tallies().errors.entry(state.clone()).or_insert(0) += 1;
        if state == "XX000" {
            self.shared.journal.violation(
                "the server has no internal errors",
                format!("{}: {}", self.region, refusal.message()),
            );
        }
        if !is_certain(&state) {
            // Nothing that follows on this connection would tell.
            self.client = None;
        }
        Failure::Refused(state)
    }
}

/// What [`Session::connect`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// The one there was.
    Same,
    /// A new one.
    New,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_error_that_says_so_is_a_refusal() {
        let refused = |state: &str| Failure::Refused(state.to_owned()).outcome();
        for state in ["40001", "23505", "53100", "57P03"] {
            assert_eq!(refused(state), Outcome::Refused, "{state}");
        }
        for state in ["57P01", "08006", "XX000"] {
            assert_eq!(refused(state), Outcome::Unknown, "{state}");
        }
        assert_eq!(Failure::Lost.outcome(), Outcome::Unknown);
    }
}
