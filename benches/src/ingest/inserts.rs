//! Prepared INSERTs of one row: pipelined on one connection, or awaited one by one on many.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Statement};

use super::rows::Row;
use crate::Result;
use crate::process::Server;
use crate::report::Sample;
use crate::session::Session;

const INSERT: &str = "INSERT INTO ingest VALUES ($1, $2, $3, $4, $5, $6, $7)";
/// Statements of one transaction.
const TRANSACTION_ROWS: u64 = 10_000;
/// Statements that are sent before the first answer is awaited.
const PIPELINE: usize = 1000;

/// INSERTs on one connection, with a Sync behind each; in transactions of many, or each one by itself.
pub async fn pipelined(server: &Server, session: &Session, events: u64, grouped: bool) -> Result<Sample> {
    let client = session.client();
    let statement = prepare(client).await?;
    let rows: Vec<Values> = (0..events).map(Values::of).collect();
    let (before, started) = (server.usage()?, Instant::now());
    for transaction in rows.chunks(TRANSACTION_ROWS as usize) {
        if grouped {
            session.execute("BEGIN").await?;
        }
        let mut waiting = FuturesUnordered::new();
        for values in transaction {
            if waiting.len() >= PIPELINE {
                waiting.next().await.transpose()?;
            }
            let mut insert = Box::pin(insert(client, &statement, values));
            // The first poll sends it.
            if let std::task::Poll::Ready(done) = futures::poll!(&mut insert) {
                done?;
            } else {
                waiting.push(insert);
            }
        }
        while let Some(done) = waiting.next().await {
            done?;
        }
        if grouped {
            session.execute("COMMIT").await?;
        }
    }
    Sample::since(server, before, started)
}

/// INSERTs on many connections, each awaited: every answer is a durable commit.
pub async fn from_many(server: &Server, events: u64, clients: usize) -> Result<Sample> {
    let clients = clients.max(1) as u64;
    let mut ready = Vec::new();
    for _ in 0..clients {
        let session = Session::connect(server.port).await?;
        let statement = prepare(session.client()).await?;
        ready.push((session, statement));
    }
    let rows: Arc<Vec<Values>> = Arc::new((0..events).map(Values::of).collect());
    let (before, started) = (server.usage()?, Instant::now());
    let mut tasks = tokio::task::JoinSet::new();
    for (client, (session, statement)) in ready.into_iter().enumerate() {
        let rows = Arc::clone(&rows);
        tasks.spawn(async move {
            for values in rows.iter().skip(client).step_by(clients as usize) {
                insert(session.client(), &statement, values).await?;
            }
            Ok::<(), String>(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.map_err(|error| error.to_string())??;
    }
    Sample::since(server, before, started)
}

async fn prepare(client: &Client) -> Result<Statement> {
    client
        .prepare(INSERT)
        .await
        .map_err(|error| crate::session::describe(INSERT, &error))
}

struct Values {
    row: Row,
    at: SystemTime,
}

impl Values {
    fn of(number: u64) -> Values {
        let row = Row::new(number);
        let at = Duration::new(row.seconds, row.micros * 1000);
        let at = SystemTime::UNIX_EPOCH + at;
        Values { row, at }
    }
}

async fn insert(client: &Client, statement: &Statement, values: &Values) -> Result<()> {
    let row = &values.row;
    let parameters: [&(dyn ToSql + Sync); 7] = [
        &row.id,
        &row.kind,
        &row.amount,
        &row.name,
        &row.note,
        &values.at,
        &row.price,
    ];
    let inserted = client
        .execute(statement, &parameters)
        .await
        .map_err(|error| crate::session::describe(INSERT, &error))?;
    match inserted {
        1 => Ok(()),
        other => Err(format!("an INSERT of one row inserted {other}")),
    }
}
