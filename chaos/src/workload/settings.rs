//! Rows that every region writes: the newest version wins, in all regions the same.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{Session, Shared};
use crate::ledger::Outcome;
use crate::regions::Region;

/// Keys `0..KEYS`, all of which are there from the beginning.
pub const KEYS: u64 = 500;
/// Not a key of the workload: written when all regions agree, and then expected everywhere.
pub const MARKER: u64 = KEYS;

const WORKLOAD: &str = "settings";
const VALUES_PER_REGION: u64 = 1_000_000_000;
const PAUSE: Duration = Duration::from_millis(150);

/// The statement that writes every key.
pub fn initial() -> String {
    let rows: Vec<String> = (0..KEYS).map(|key| format!("({key}, 0, 'nobody')")).collect();
    format!(
        "INSERT INTO settings (key, value, writer) VALUES {}",
        rows.join(", ")
    )
}

/// The statement that writes a key, new or not.
pub fn upsert(key: u64, value: u64, writer: Region) -> String {
    format!(
        "INSERT INTO settings (key, value, writer) VALUES ({key}, {value}, '{writer}') \
         ON CONFLICT (key) DO UPDATE SET value = excluded.value, writer = excluded.writer"
    )
}

/// Writes until the end.
pub async fn run(shared: Arc<Shared>, region: Region, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed ^ 0x5e77_1465);
    let mut session = Session::new(shared.clone(), region);
    // A value is never written twice, so that it says who wrote it, and when.
    let mut value = (region.index() as u64 + 1) * VALUES_PER_REGION;
    loop {
        tokio::time::sleep(PAUSE).await;
        let Some(_turn) = shared.turn().await else { return };
        if session.connect().await.is_none() {
            continue;
        }
        value += 1;
        shared.settings(region).send(value, 1);
        let sql = upsert(random.random_range(0..KEYS), value, region);
        let outcome = match session.query(&sql).await {
            Ok(_) => Outcome::Acknowledged,
            Err(failure) => failure.outcome(),
        };
        if outcome != Outcome::Unknown {
            shared.settings(region).settle(value, outcome);
        }
        shared.committed(WORKLOAD, region, outcome);
    }
}
