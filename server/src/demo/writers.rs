//! Clients that write and read while things break, and remember what they were told.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;

use super::DemoError;
use super::cluster::connect;
use super::oracle::query;

const WRITERS_PER_REGION: u64 = 4;
const RECONNECT: Duration = Duration::from_millis(50);
/// Ids of one region's payments begin at a multiple of this.
const IDS_PER_REGION: u64 = 1_000_000_000;
const ACCOUNTS: u64 = 500;

/// What the clients of one region know.
#[derive(Debug, Default)]
pub struct Written {
    /// Ids that were sent: each may be there.
    pub sent: BTreeSet<u64>,
    /// Ids that were acknowledged: each must be there.
    pub acknowledged: BTreeSet<u64>,
    /// Time of each acknowledged write.
    pub write_times: Vec<Duration>,
    /// Time of each answered read.
    pub read_times: Vec<Duration>,
    /// Statements that failed: connections that broke, or refusals.
    pub failures: u64,
}

/// Writers and a reader in one region.
pub struct Load {
    written: Arc<Mutex<Written>>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

/// The amount of a payment, a function of its id, so that sums can be checked.
pub fn amount(id: u64) -> u64 {
    id % 1000 + 1
}

impl Load {
    /// Starts the clients of a region; `phase` keeps the ids of several runs apart.
    pub fn start(address: SocketAddr, region: u64, phase: u64) -> Load {
        let written = Arc::new(Mutex::new(Written::default()));
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for writer in 0..WRITERS_PER_REGION {
            let first = region * IDS_PER_REGION + phase * (IDS_PER_REGION / 10) + writer;
            tasks.spawn(write(address, first, written.clone(), stopped.clone()));
        }
        tasks.spawn(read(address, written.clone(), stopped));
        Load { written, stop, tasks }
    }

    /// Ends the clients once their present statement is answered.
    pub async fn stop(mut self) -> Written {
        self.stop.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
        std::mem::take(&mut *self.written.lock().await)
    }
}

async fn write(
    address: SocketAddr,
    first: u64,
    written: Arc<Mutex<Written>>,
    stopped: watch::Receiver<bool>,
) {
    let mut id = first;
    let mut client = None;
    while !*stopped.borrow() {
        let Some(connected) = &client else {
            client = reconnect(address).await;
            continue;
        };
        written.lock().await.sent.insert(id);
        let started = Instant::now();
        let sql = format!(
            "INSERT INTO payment VALUES ({id}, {}, {})",
            id % ACCOUNTS,
            amount(id)
        );
        let outcome = query(connected, &sql).await;
        let mut written = written.lock().await;
        match outcome {
            Ok(_) => {
                written.acknowledged.insert(id);
                written.write_times.push(started.elapsed());
            }
            Err(error) => {
                tracing::debug!(id, %error, "a write failed");
                written.failures += 1;
                client = None;
            }
        }
        // An id is never sent twice: whether a lost one arrived is a question for the end.
        id += WRITERS_PER_REGION;
    }
}

async fn read(address: SocketAddr, written: Arc<Mutex<Written>>, stopped: watch::Receiver<bool>) {
    let mut client = None;
    while !*stopped.borrow() {
        let Some(connected) = &client else {
            client = reconnect(address).await;
            continue;
        };
        let started = Instant::now();
        match query(connected, "SELECT payments, total FROM payment_totals").await {
            Ok(_) => written.lock().await.read_times.push(started.elapsed()),
            Err(_) => {
                written.lock().await.failures += 1;
                client = None;
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn reconnect(address: SocketAddr) -> Option<tokio_postgres::Client> {
    let client: Result<_, DemoError> = connect(address).await;
    if client.is_err() {
        tokio::time::sleep(RECONNECT).await;
    }
    client.ok()
}

/// The `percent`-th percentile; zero for nothing.
pub fn percentile(times: &[Duration], percent: usize) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let index = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(index).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles() {
        let times: Vec<Duration> = (1..=100).rev().map(Duration::from_millis).collect();
        assert_eq!(percentile(&times, 50), Duration::from_millis(51));
        assert_eq!(percentile(&times, 99), Duration::from_millis(100));
        assert_eq!(percentile(&[], 99), Duration::ZERO);
    }
}
