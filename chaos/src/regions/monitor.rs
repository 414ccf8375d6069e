//! Watches the processes: how much memory they take, and that none ends by itself.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::{Cluster, Region};
use crate::journal::Journal;

const EVERY: Duration = Duration::from_millis(250);

/// The most memory each region had, in bytes, over all its processes.
pub type Peaks = BTreeMap<Region, u64>;

/// The watch; it ends when this is dropped.
pub struct Monitor {
    peaks: Arc<Mutex<Peaks>>,
    task: JoinHandle<()>,
}

impl Monitor {
    /// Begins to watch.
    pub fn start(cluster: Arc<Cluster>, journal: Arc<Journal>) -> Monitor {
        let peaks = Arc::new(Mutex::new(Peaks::new()));
        let shared = peaks.clone();
        let task = tokio::spawn(async move {
            loop {
                for region in Region::ALL {
                    look(&cluster, &journal, &shared, region).await;
                }
                tokio::time::sleep(EVERY).await;
            }
        });
        Monitor { peaks, task }
    }

    /// What was seen so far.
    pub fn peaks(&self) -> Peaks {
        self.peaks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn look(cluster: &Arc<Cluster>, journal: &Arc<Journal>, peaks: &Mutex<Peaks>, region: Region) {
    let ended = {
        let mut state = cluster.state(region).lock().await;
        let may_end = state.may_end;
        let Some(process) = &mut state.process else {
            return;
        };
        let (_, peak) = process.memory();
        let mut peaks = peaks.lock().unwrap_or_else(PoisonError::into_inner);
        let known = peaks.entry(region).or_insert(0);
        *known = (*known).max(peak);
        match process.ended() {
            Ok(Some(status)) if !may_end => {
                state.process = None;
                status
            }
            _ => return,
        }
    };
    let text = cluster
        .with_log(region, &format!("ended by itself with {ended}"))
        .await;
    journal.violation("a region does not end by itself", text);
    // The run goes on, to see what else there is.
    let (cluster, journal) = (cluster.clone(), journal.clone());
    tokio::spawn(async move {
        if let Err(error) = cluster.start(region).await {
            journal.note(&format!("{region} could not be started again: {error}"));
        }
    });
}
