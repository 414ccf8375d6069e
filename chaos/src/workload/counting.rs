//! Rows with known ids, inserted in four ways.

use std::sync::Arc;
use std::time::Duration;

use futures::SinkExt;
use futures::future::join_all;

use super::{Failure, Load, Session, Shared, settings};
use crate::ledger::Outcome;
use crate::regions::Region;

const WORKLOAD: &str = "counting";
const IDS_PER_REGION: u64 = 1_000_000_000;
const IDS_PER_STYLE: u64 = 100_000_000;
const VALUES: u64 = 1_000;
/// One in so many rows is read back by the session that wrote it.
const READ_EACH: u64 = 4;

/// How rows are inserted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// A statement of text for each row.
    Plain,
    /// Executions of a prepared statement, four at a time on their way.
    Pipelined,
    /// Transactions of three statements, some of which are rolled back, and some of which insert a row twice.
    Transaction,
    /// COPY.
    Copy,
}

impl Style {
    /// All of them.
    pub const ALL: [Style; 4] = [Style::Plain, Style::Pipelined, Style::Transaction, Style::Copy];

    /// Rows that are sent together.
    fn rows(self) -> u64 {
        match self {
            Style::Plain => 1,
            Style::Pipelined => 4,
            Style::Transaction => 3,
            Style::Copy => 20,
        }
    }
}

/// The value of a row, a function of its id, so that it can be checked.
pub fn value(id: u64) -> u64 {
    id % VALUES
}

/// The setting that a row refers to.
pub fn key(id: u64) -> u64 {
    id % settings::KEYS
}

/// Inserts until the end.
pub async fn run(shared: Arc<Shared>, region: Region, style: Style, load: Load) {
    let mut session = Session::new(shared.clone(), region);
    let mut first = region.index() as u64 * IDS_PER_REGION + style as u64 * IDS_PER_STYLE + 1;
    let share = Style::ALL.len() as u64;
    let pause = Duration::from_secs_f64((style.rows() * share) as f64 / load.rows_per_s.max(1) as f64);
    let mut pace = tokio::time::interval(pause);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        pace.tick().await;
        let Some(_turn) = shared.turn().await else { return };
        if session.connect().await.is_none() {
            continue;
        }
        let writer = Writer {
            shared: &shared,
            region,
        };
        match style {
            Style::Plain => writer.plain(&mut session, first).await,
            Style::Pipelined => writer.pipelined(&mut session, first).await,
            Style::Transaction => writer.transaction(&mut session, first).await,
            Style::Copy => writer.copy(&mut session, first).await,
        }
        // An id is never sent twice: whether a lost one arrived is a question for the end.
        first += style.rows();
    }
}

struct Writer<'a> {
    shared: &'a Shared,
    region: Region,
}

impl Writer<'_> {
    async fn plain(&self, session: &mut Session, first: u64) {
        // Whatever was acknowledged before this is sent stands before it in the log.
        let before = self.shared.events(self.region).counts().acknowledged;
        self.shared.events(self.region).send(first, 1);
        let answer = session.query(&self.insert(first)).await;
        let is_in = answer.is_ok();
        self.settle(first, answer.map(|_| ()));
        if is_in && first.is_multiple_of(READ_EACH) {
            self.reads_own_writes(session, before + 1).await;
        }
    }

    /// The session that wrote sees its row, and with it all that was committed before.
    async fn reads_own_writes(&self, session: &mut Session, least: u64) {
        let sql = format!("SELECT n FROM counted WHERE region = '{}'", self.region);
        let Ok(rows) = session.query(&sql).await else {
            return;
        };
        let seen = rows
            .first()
            .and_then(|row| row.first()?.as_ref()?.parse::<u64>().ok());
        if seen.is_none_or(|seen| seen < least) {
            let detail = format!(
                "{}: {seen:?} events, of which {least} were committed before",
                self.region
            );
            self.shared
                .journal
                .violation("a session reads its own writes", detail);
        }
    }

    async fn pipelined(&self, session: &mut Session, first: u64) {
        let sql = "INSERT INTO events (id, region, key, n) VALUES ($1, $2, $3, $4)";
        if session.prepare(sql).await.is_err() {
            return;
        }
        let ids: Vec<u64> = (first..first + Style::Pipelined.rows()).collect();
        for id in &ids {
            self.shared.events(self.region).send(*id, 1);
        }
        let region = self.region.name();
        let answers = session
            .ask(sql, async |client, statement| {
                let statement = statement.expect("it was prepared above");
                let executions = ids.iter().map(|id| async move {
                    let (id, key, n) = (*id as i64, key(*id) as i64, value(*id) as i64);
                    client.execute(statement, &[&id, &region, &key, &n]).await
                });
                Ok(join_all(executions).await)
            })
            .await;
        match answers {
            Ok(answers) => {
                for (id, answer) in ids.iter().zip(answers) {
                    self.settle(*id, answer.map(|_| ()).map_err(|error| session.failure(&error)));
                }
            }
            Err(failure) => {
                for id in &ids {
                    self.settle(*id, Err(failure.clone()));
                }
            }
        }
    }

    async fn transaction(&self, session: &mut Session, first: u64) {
        let rows = Style::Transaction.rows();
        self.shared.events(self.region).send(first, rows);
        let turn = first / rows % 8;
        let steps = async {
            session.query("BEGIN").await?;
            for id in first..first + rows {
                session.query(&self.insert(id)).await?;
            }
            if turn == 1 {
                // Refused: the row is there already, so that none of the transaction may be.
                session.query(&self.insert(first)).await?;
            }
            Ok(())
        };
        let prepared: Result<(), Failure> = steps.await;
        if prepared.is_err() || turn == 0 {
            // COMMIT was never said, so whatever becomes of this, nothing is committed.
            let _ = session.query("ROLLBACK").await;
            self.shared.events(self.region).settle(first, Outcome::Refused);
            self.shared.committed(WORKLOAD, self.region, Outcome::Refused);
            return;
        }
        if turn == 1 {
            self.shared.journal.violation(
                "a key is there once",
                format!("{}: event {first} could be inserted twice", self.region),
            );
        }
        let answer = session.query("COMMIT").await;
        self.settle(first, answer.map(|_| ()));
    }

    async fn copy(&self, session: &mut Session, first: u64) {
        let ids = first..first + Style::Copy.rows();
        let lines: String = ids
            .map(|id| format!("{id}\t{}\t{}\t{}\n", self.region, key(id), value(id)))
            .collect();
        self.shared.events(self.region).send(first, Style::Copy.rows());
        let sql = "COPY events (id, region, key, n) FROM STDIN";
        let answer = session
            .ask(sql, async |client, _| {
                let sink = client.copy_in(sql).await?;
                let mut sink = std::pin::pin!(sink);
                sink.send(std::io::Cursor::new(lines.into_bytes())).await?;
                sink.finish().await
            })
            .await;
        self.settle(first, answer.map(|_| ()));
    }

    fn insert(&self, id: u64) -> String {
        format!(
            "INSERT INTO events (id, region, key, n) VALUES ({id}, '{}', {}, {})",
            self.region,
            key(id),
            value(id)
        )
    }

    fn settle(&self, first: u64, answer: Result<(), Failure>) {
        let outcome = match answer {
            Ok(()) => Outcome::Acknowledged,
            Err(failure) => failure.outcome(),
        };
        if outcome != Outcome::Unknown {
            self.shared.events(self.region).settle(first, outcome);
        }
        self.shared.committed(WORKLOAD, self.region, outcome);
    }
}
