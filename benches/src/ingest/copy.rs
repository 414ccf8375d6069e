//! COPY FROM STDIN in portions: each is one statement and one commit.

use std::pin::pin;
use std::time::Instant;

use bytes::Bytes;
use futures::SinkExt;

use super::rows::Row;
use crate::Result;
use crate::process::Server;
use crate::report::Sample;
use crate::session::Session;

/// Rows of one COPY.
const PORTION_ROWS: u64 = 250_000;
/// Bytes of one message, about what libpq's clients send.
const CHUNK_BYTES: usize = 64 * 1024;

/// Loads the rows in a format and says what that took.
pub async fn run(
    server: &Server,
    session: &Session,
    events: u64,
    format: &str,
    encode: fn(&Row, &mut Vec<u8>),
) -> Result<Sample> {
    let portions: Vec<Bytes> = (0..events)
        .step_by(PORTION_ROWS as usize)
        .map(|from| portion(from, (from + PORTION_ROWS).min(events), format, encode))
        .collect();
    let statement = format!("COPY ingest FROM STDIN (FORMAT {format})");
    let (before, started) = (server.usage()?, Instant::now());
    for portion in portions {
        let sink = session.client().copy_in::<_, Bytes>(&statement).await;
        let sink = sink.map_err(|error| crate::session::describe(&statement, &error))?;
        let mut sink = pin!(sink);
        let mut rest = portion;
        let sent = async {
            while !rest.is_empty() {
                sink.feed(rest.split_to(CHUNK_BYTES.min(rest.len()))).await?;
            }
            sink.as_mut().finish().await
        };
        sent.await
            .map_err(|error| crate::session::describe(&statement, &error))?;
    }
    Sample::since(server, before, started)
}

fn portion(from: u64, to: u64, format: &str, encode: fn(&Row, &mut Vec<u8>)) -> Bytes {
    let mut bytes = Vec::new();
    if format == "binary" {
        bytes.extend_from_slice(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
    }
    for number in from..to {
        encode(&Row::new(number), &mut bytes);
    }
    if format == "binary" {
        bytes.extend_from_slice(&(-1i16).to_be_bytes());
    }
    Bytes::from(bytes)
}
