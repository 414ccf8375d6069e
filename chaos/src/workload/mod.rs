//! Clients that write and read in all regions while things break, and remember what they were told.
//!
//! | workload | table | promise |
//! |---|---|---|
//! | [counting] | `events`, REGIONAL | what is acknowledged is in once, what is refused is not, views count exactly that |
//! | [bank] | `accounts`, REGIONAL | transfers keep the sum of each region, at every moment that anybody sees |
//! | [settings] | `settings`, GLOBAL | all regions end with the same rows, none of which was refused |
//! | [reader] | all views | sums, bounds, and counts that never go back |

pub mod bank;
pub mod counting;
pub mod reader;
pub mod schema;
mod session;
pub mod settings;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};
use tokio::task::JoinSet;

pub use session::{Failure, Session};

use crate::journal::Journal;
use crate::ledger::{Counts, Ledger, Outcome};
use crate::regions::{Cluster, Region};

/// What all clients share.
pub struct Shared {
    /// The regions.
    pub cluster: Arc<Cluster>,
    /// Where violations go.
    pub journal: Arc<Journal>,
    /// Regions that can reach each other have to agree within this time.
    pub agree_max: Duration,
    /// Statements hold it for reading; who holds it for writing knows that nothing is under way.
    gate: Arc<RwLock<()>>,
    is_stopped: AtomicBool,
    state: BTreeMap<Region, RegionState>,
    tallies: Mutex<Tallies>,
}

struct RegionState {
    events: Mutex<Ledger>,
    settings: Mutex<Ledger>,
    pauses: Mutex<Pauses>,
}

/// When writes of a region were last acknowledged.
#[derive(Clone, Copy)]
struct Pauses {
    last: Instant,
    longest: Duration,
}

/// Counts of what was answered.
#[derive(Clone, Debug, Default)]
pub struct Tallies {
    /// Commits of each workload.
    pub commits: BTreeMap<&'static str, Counts>,
    /// Errors by SQLSTATE.
    pub errors: BTreeMap<String, u64>,
    /// Reads that were answered and checked.
    pub reads: u64,
    /// Reads that were not.
    pub reads_failed: u64,
    /// Reads that did not show yet what another connection had been told before they began.
    pub reads_behind: u64,
    /// Connections that were made.
    pub connections: u64,
}

/// How busy the clients are.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Rows that are inserted into `events`, a second and region.
    pub rows_per_s: u64,
}

impl Shared {
    /// Nothing has been written yet.
    pub fn new(cluster: Arc<Cluster>, journal: Arc<Journal>, agree_max: Duration) -> Shared {
        let state = Region::ALL.map(|region| {
            let pauses = Pauses {
                last: Instant::now(),
                longest: Duration::ZERO,
            };
            let state = RegionState {
                events: Mutex::default(),
                settings: Mutex::default(),
                pauses: Mutex::new(pauses),
            };
            (region, state)
        });
        Shared {
            cluster,
            journal,
            agree_max,
            gate: Arc::default(),
            is_stopped: AtomicBool::new(false),
            state: state.into_iter().collect(),
            tallies: Mutex::default(),
        }
    }

    /// What a region's clients know of its rows of `events`.
    pub fn events(&self, region: Region) -> MutexGuard<'_, Ledger> {
        lock(&self.state[&region].events)
    }

    /// What a region's clients know of the values they wrote into `settings`.
    pub fn settings(&self, region: Region) -> MutexGuard<'_, Ledger> {
        lock(&self.state[&region].settings)
    }

    /// Counts.
    pub fn tallies(&self) -> MutexGuard<'_, Tallies> {
        lock(&self.tallies)
    }

    /// Leave to do something, until the guard is dropped; `None`: it is over.
    pub async fn turn(&self) -> Option<OwnedRwLockReadGuard<()>> {
        let guard = self.gate.clone().read_owned().await;
        (!self.is_stopped.load(Ordering::Relaxed)).then_some(guard)
    }

    /// Waits until nothing is under way, and keeps it so until the guard is dropped.
    pub async fn pause(&self) -> OwnedRwLockWriteGuard<()> {
        self.gate.clone().write_owned().await
    }

    /// Counts the outcome of a commit.
    pub fn committed(&self, workload: &'static str, region: Region, outcome: Outcome) {
        self.tallies()
            .commits
            .entry(workload)
            .or_default()
            .add(outcome, 1);
        if outcome == Outcome::Acknowledged {
            let mut pauses = lock(&self.state[&region].pauses);
            pauses.longest = pauses.longest.max(pauses.last.elapsed());
            pauses.last = Instant::now();
        }
    }

    /// Begins to measure how long a region goes without an acknowledged commit.
    pub fn begin_pauses(&self) {
        for state in self.state.values() {
            *lock(&state.pauses) = Pauses {
                last: Instant::now(),
                longest: Duration::ZERO,
            };
        }
    }

    /// The longest time without an acknowledged commit since then.
    pub fn longest_pause(&self, region: Region) -> Duration {
        let pauses = *lock(&self.state[&region].pauses);
        pauses.longest.max(pauses.last.elapsed())
    }
}

/// All clients.
pub struct Clients {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

impl Clients {
    /// Starts them in all regions.
    pub fn start(shared: &Arc<Shared>, load: Load, seed: u64) -> Clients {
        let mut tasks = JoinSet::new();
        for region in Region::ALL {
            let seed = seed.wrapping_add(1_000 * region.index() as u64);
            for style in counting::Style::ALL {
                tasks.spawn(counting::run(shared.clone(), region, style, load));
            }
            for teller in 0..bank::TELLERS {
                tasks.spawn(bank::run(shared.clone(), region, seed + teller));
            }
            tasks.spawn(settings::run(shared.clone(), region, seed));
            tasks.spawn(reader::run(shared.clone(), region));
        }
        Clients {
            shared: shared.clone(),
            tasks,
        }
    }

    /// Ends them once their statements are answered.
    pub async fn stop(mut self) {
        self.shared.is_stopped.store(true, Ordering::Relaxed);
        while self.tasks.join_next().await.is_some() {}
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
