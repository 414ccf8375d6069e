//! Clients with prepared statements, each asking as soon as it has its answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::Result;
use crate::session::{Session, describe};

const LOOKUP: &str = "SELECT bids, best FROM served WHERE auction = $1";
const AGGREGATE: &str =
    "SELECT count(*), sum(bids), max(best) FROM served WHERE auction >= $1 AND auction < $1 + 100";
/// The first auction, and how many there are among so many events.
const FIRST_AUCTION: u64 = 1000;
const AUCTIONS: u64 = 3;
const AMONG_EVENTS: u64 = 50;

/// What each client is told.
#[derive(Clone)]
pub struct Reading {
    /// The server's port.
    pub port: u16,
    /// Events a second.
    pub rate: u64,
    /// When events began to come.
    pub started: Instant,
    /// When times begin to count.
    pub counted_from: Instant,
    /// Every so many statements one is an aggregate.
    pub aggregate_every: u64,
    /// Turns true at the end.
    pub stop: Arc<AtomicBool>,
}

/// Reads until told to stop; the times of lookups and of aggregates, in milliseconds.
pub async fn read(reading: Reading, number: u64) -> Result<(Vec<f64>, Vec<f64>)> {
    let session = Session::connect(reading.port).await?;
    let client = session.client();
    let prepare = async |sql: &str| client.prepare(sql).await.map_err(|error| describe(sql, &error));
    let (lookup, aggregate) = (prepare(LOOKUP).await?, prepare(AGGREGATE).await?);
    let (mut lookups, mut aggregates) = (Vec::new(), Vec::new());
    let mut random = number;
    let mut asked = 0_u64;
    while !reading.stop.load(Ordering::Relaxed) {
        asked += 1;
        let auction = auction(&reading, &mut random);
        let is_aggregate = asked.is_multiple_of(reading.aggregate_every);
        let (sql, statement, times) = match is_aggregate {
            true => (AGGREGATE, &aggregate, &mut aggregates),
            false => (LOOKUP, &lookup, &mut lookups),
        };
        let begun = Instant::now();
        client
            .query(statement, &[&auction])
            .await
            .map_err(|error| describe(sql, &error))?;
        if begun >= reading.counted_from {
            times.push(begun.elapsed().as_secs_f64() * 1e3);
        }
    }
    Ok((lookups, aggregates))
}

/// An auction that there probably is by now.
fn auction(reading: &Reading, random: &mut u64) -> i64 {
    let events = reading.started.elapsed().as_secs_f64() * reading.rate as f64;
    let auctions = (events as u64 / AMONG_EVENTS * AUCTIONS).max(1);
    i64::try_from(FIRST_AUCTION + next(random) % auctions).unwrap_or(i64::MAX)
}

/// SplitMix64.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
