//! Doing the faults of a round, all of them undone at its end.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::try_join_all;
use tokio::time::{Instant, sleep, timeout};

use super::disk::SmallDisk;
use super::kind::{Kind, Place};
use super::schedule::{Fault, Round};
use super::strace;
use crate::error::Result;
use crate::journal::Journal;
use crate::network::{Lane, Network};
use crate::regions::{Cluster, Region, Signal, signal};

/// A sync that is waited for comes within this time, or the fault is counted as missed.
const SYNC_MAX: Duration = Duration::from_secs(12);
/// A node whose sync has failed has to stop within this time.
const STOP_AFTER_ERROR_MAX: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(50);
/// Room for a region to start, and too little for a log of RocksDB to be reserved.
const ROOM_AT_START_BYTES: u64 = 16 << 20;
/// A disk that is about to be full still takes so much.
const ROOM_BYTES_MAX: f64 = 1e5;

/// Who does the faults.
pub struct Injector {
    /// The regions.
    pub cluster: Arc<Cluster>,
    /// The story.
    pub journal: Arc<Journal>,
    /// The links.
    pub links: LinkFaults,
    /// The disk of [`Region::ON_SMALL_DISK`], where there is one.
    pub disk: Option<Arc<SmallDisk>>,
    /// What was done, and what was tried and did not happen.
    pub done: Mutex<BTreeMap<Kind, Done>>,
}

/// How often a kind of fault was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// It happened.
    pub happened: u64,
    /// It was waited for in vain.
    pub missed: u64,
}

/// The faults of links at present; where several concern a lane, each of its properties is the worst of them.
pub struct LinkFaults {
    network: Arc<Network>,
    active: Mutex<Vec<Active>>,
}

#[derive(Clone, Debug)]
struct Active {
    fault: Fault,
    is_cut: bool,
}

impl LinkFaults {
    /// No faults yet.
    pub fn new(network: Arc<Network>) -> LinkFaults {
        LinkFaults {
            network,
            active: Mutex::default(),
        }
    }

    fn begin(&self, fault: &Fault, is_cut: bool) {
        let fault = fault.clone();
        let mut active = self.lock();
        active.push(Active { fault, is_cut });
        self.apply(&active);
    }

    fn end(&self, fault: &Fault) {
        let mut active = self.lock();
        active.retain(|active| active.fault != *fault);
        self.apply(&active);
    }

    fn apply(&self, active: &[Active]) {
        for (from, to) in Place::Everywhere.lanes(Kind::Delay) {
            let concerns =
                |active: &&Active| active.fault.place.lanes(active.fault.kind).contains(&(from, to));
            let lane = active
                .iter()
                .filter(concerns)
                .fold(Lane::default(), |lane, active| {
                    lane.combined(active.fault.kind.lane(active.fault.strength))
                });
            self.network.set_lane(from, to, lane);
            let is_cut = active.iter().filter(concerns).any(|active| active.is_cut);
            if from < to {
                self.network.set_cut(from, to, is_cut);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Active>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Injector {
    /// Does the faults of a round; when it returns, all are undone and all regions run.
    pub async fn run(&self, round: &Round) -> Result<()> {
        try_join_all(round.faults.iter().map(|fault| self.do_one(fault))).await?;
        Ok(())
    }

    /// What was done so far.
    pub fn done(&self) -> BTreeMap<Kind, Done> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn do_one(&self, fault: &Fault) -> Result<()> {
        sleep(fault.start).await;
        self.journal.note(&format!("fault  {fault}"));
        let happened = if fault.kind.is_of_process() {
            self.process_fault(fault).await?
        } else {
            self.link_fault(fault).await;
            true
        };
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        let done = done.entry(fault.kind).or_default();
        if happened {
            done.happened += 1;
        } else {
            done.missed += 1;
        }
        Ok(())
    }

    async fn link_fault(&self, fault: &Fault) {
        let until = Instant::now() + fault.time;
        match fault.kind {
            Kind::Cut => {
                self.links.begin(fault, true);
                sleep(fault.time).await;
            }
            Kind::Flapping => {
                while Instant::now() < until {
                    self.links.begin(fault, true);
                    sleep(fault.period / 2).await;
                    self.links.end(fault);
                    sleep(fault.period / 2).await;
                }
            }
            Kind::Resets => {
                while Instant::now() < until {
                    for (one, other) in fault.place.pairs(fault.kind) {
                        self.links.network.reset(one, other);
                    }
                    sleep(fault.period).await;
                }
            }
            _ => {
                self.links.begin(fault, false);
                sleep(fault.time).await;
            }
        }
        self.links.end(fault);
        self.journal.note(&format!("healed {fault}"));
    }

    async fn process_fault(&self, fault: &Fault) -> Result<bool> {
        match (fault.kind, fault.place) {
            (Kind::KillAll, _) => {
                try_join_all(Region::ALL.map(|region| self.cluster.kill(region))).await?;
                sleep(fault.time / 2).await;
                try_join_all(Region::ALL.map(|region| self.cluster.start(region))).await?;
                Ok(true)
            }
            (kind, Place::In(region)) => self.fault_in(kind, region, fault).await,
            _ => Ok(false),
        }
    }

    async fn fault_in(&self, kind: Kind, region: Region, fault: &Fault) -> Result<bool> {
        match kind {
            Kind::Freeze => {
                let Some(pid) = self.cluster.pid(region).await else {
                    return Ok(false);
                };
                signal(pid, Signal::Freeze)?;
                sleep(fault.time).await;
                signal(pid, Signal::Thaw)?;
                self.journal.note(&format!("{region} goes on"));
                return Ok(true);
            }
            Kind::FullDisk => {
                let Some(disk) = &self.disk else {
                    return Ok(false);
                };
                // RocksDB reserves space for its log far ahead, unless there is too little when it opens it.
                self.cluster.kill(region).await?;
                disk.fill(ROOM_AT_START_BYTES).await?;
                self.cluster.start(region).await?;
                disk.fill((fault.strength * ROOM_BYTES_MAX) as u64).await?;
                sleep(fault.time).await;
                disk.empty().await?;
                self.journal
                    .note(&format!("the disk of {region} has space again"));
                return Ok(true);
            }
            Kind::KillAtSync | Kind::SyncError => return self.fault_of_sync(kind, region, fault).await,
            Kind::Restart => self.cluster.stop(region).await,
            _ => self.cluster.kill(region).await?,
        }
        sleep(fault.time).await;
        self.cluster.start(region).await?;
        Ok(true)
    }

    async fn fault_of_sync(&self, kind: Kind, region: Region, fault: &Fault) -> Result<bool> {
        let Some(pid) = self.cluster.pid(region).await else {
            return Ok(false);
        };
        let what = match kind {
            Kind::SyncError => "error=EIO",
            _ => "signal=KILL",
        };
        self.cluster.expect_end(region, true).await;
        let output = self.cluster.path(&format!("strace-{region}.txt"));
        let tracer = strace::attach(pid, what, fault.sync, &output)?;
        let waiting = async {
            loop {
                if let Some(status) = self.cluster.take_ended(region).await? {
                    return Ok(Some(status));
                }
                if kind == Kind::SyncError && tracer.injected().is_some() {
                    return Ok(None);
                }
                sleep(POLL).await;
            }
        };
        let ended: Result<_> = match timeout(SYNC_MAX, waiting).await {
            Ok(ended) => ended,
            Err(_) => {
                let syncs = tracer.syncs();
                tracer.detach().await;
                self.journal
                    .note(&format!("{region} made {syncs} syncs, none of them the one"));
                return self.missed(region).await;
            }
        };
        let status = match ended? {
            Some(status) => Some(status),
            None => self.stop_after_error(region).await?,
        };
        let call = tracer.injected().or_else(|| tracer.last());
        let call = call.unwrap_or_else(|| "its first sync".to_owned());
        tracer.detach().await;
        match status {
            Some(status) => {
                self.journal
                    .note(&format!("{region} ended with {status} at {call}"));
                if status.success() {
                    let detail = format!("{region} ended with success after {call}");
                    self.journal
                        .violation("a sync that failed is not a success", detail);
                }
            }
            None => {
                let detail = format!(
                    "{region} still runs {} s after {call}",
                    STOP_AFTER_ERROR_MAX.as_secs()
                );
                self.journal.violation("a node stops when a sync fails", detail);
                self.cluster.kill(region).await?;
            }
        }
        sleep(fault.time / 4).await;
        self.cluster.start(region).await?;
        Ok(true)
    }

    async fn stop_after_error(&self, region: Region) -> Result<Option<std::process::ExitStatus>> {
        let until = Instant::now() + STOP_AFTER_ERROR_MAX;
        while Instant::now() < until {
            if let Some(status) = self.cluster.take_ended(region).await? {
                return Ok(Some(status));
            }
            sleep(POLL).await;
        }
        Ok(None)
    }

    /// The fault did not come: the region goes on, unless it did come after all while nobody looked.
    async fn missed(&self, region: Region) -> Result<bool> {
        let ended = self.cluster.take_ended(region).await?;
        self.cluster.expect_end(region, false).await;
        if ended.is_some() {
            self.cluster.start(region).await?;
        }
        Ok(ended.is_some())
    }
}
