//! The three regions as they are now, and what can be done to their processes.
//!
//! Faults work on different regions at the same time, each through its region's lock. Whoever expects a process to end
//! (a kill at an fsync, say) says so first; an end that nobody expected is a violation, which the [monitor](super::Monitor)
//! finds.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use super::process::{Invocation, RegionProcess, log_tail};
use super::{Region, http};
use crate::error::{ChaosError, Result};
use crate::journal::Journal;
use crate::network::Network;

/// A region that is started on its data has to be ready within this time.
const READY_MAX: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

/// What all regions have in common.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// The product's binary.
    pub binary: PathBuf,
    /// Data, logs and the journal.
    pub directory: PathBuf,
    /// Further flags of `tributary start`.
    pub flags: Vec<String>,
}

/// The regions.
pub struct Cluster {
    config: ClusterConfig,
    journal: Arc<Journal>,
    members: BTreeMap<Region, Member>,
    /// Clients look here whenever they connect; it changes when the network does.
    sql: RwLock<BTreeMap<Region, SocketAddr>>,
}

/// One region.
struct Member {
    state: Mutex<MemberState>,
}

/// What is known of a region's process.
pub(super) struct MemberState {
    pub(super) invocation: Invocation,
    pub(super) process: Option<RegionProcess>,
    /// A fault is under way that may end the process.
    pub(super) may_end: bool,
}

impl Cluster {
    /// Starts the regions on a network, without waiting.
    pub fn spawn(config: ClusterConfig, network: &Network, journal: Arc<Journal>) -> Result<Cluster> {
        let mut members = BTreeMap::new();
        for region in Region::ALL {
            let invocation = invocation(&config, network, region);
            let process = Some(invocation.spawn()?);
            let state = Mutex::new(MemberState {
                invocation,
                process,
                may_end: false,
            });
            members.insert(region, Member { state });
        }
        let sql = RwLock::new(sql_addresses(network));
        Ok(Cluster {
            config,
            journal,
            members,
            sql,
        })
    }

    /// Waits until every region is ready.
    pub async fn wait_ready(&self) -> Result<()> {
        for region in Region::ALL {
            self.wait_ready_one(region).await?;
        }
        Ok(())
    }

    /// Stops all regions cleanly and starts them on another network, with the same data.
    pub async fn move_to(&self, network: &Network) -> Result<()> {
        self.stop_all().await;
        for region in Region::ALL {
            let mut state = self.state(region).lock().await;
            state.invocation = invocation(&self.config, network, region);
            state.process = Some(state.invocation.spawn()?);
        }
        *self.sql.write().unwrap_or_else(PoisonError::into_inner) = sql_addresses(network);
        self.wait_ready().await
    }

    /// Where a region's SQL is at present.
    pub fn sql(&self, region: Region) -> SocketAddr {
        self.sql.read().unwrap_or_else(PoisonError::into_inner)[&region]
    }

    /// Where a region's data is.
    pub fn data(&self, region: Region) -> PathBuf {
        data(&self.config.directory, region)
    }

    /// A path beside the data.
    pub fn path(&self, name: &str) -> PathBuf {
        self.config.directory.join(name)
    }

    /// The process id of a region, if it runs.
    pub async fn pid(&self, region: Region) -> Option<u32> {
        let state = self.state(region).lock().await;
        state.process.as_ref().map(RegionProcess::pid)
    }

    /// Says whether a fault may end the process.
    pub async fn expect_end(&self, region: Region, may_end: bool) {
        self.state(region).lock().await.may_end = may_end;
    }

    /// How the process ended, if it has; it is forgotten then.
    pub async fn take_ended(&self, region: Region) -> Result<Option<std::process::ExitStatus>> {
        let mut state = self.state(region).lock().await;
        let Some(process) = &mut state.process else {
            return Ok(None);
        };
        let ended = process.ended()?;
        if ended.is_some() {
            state.process = None;
        }
        Ok(ended)
    }

    /// kill -9.
    pub async fn kill(&self, region: Region) -> Result<()> {
        let process = self.state(region).lock().await.process.take();
        match process {
            Some(process) => process.kill().await,
            None => Ok(()),
        }
    }

    /// A clean stop; anything else is a violation.
    pub async fn stop(&self, region: Region) {
        let process = self.state(region).lock().await.process.take();
        if let Some(process) = process
            && let Err(problem) = process.stop().await
        {
            self.journal.violation(
                "a region stops cleanly when it is asked to",
                self.with_log(region, &problem).await,
            );
        }
    }

    /// Stops all cleanly, at the same time.
    pub async fn stop_all(&self) {
        futures::future::join_all(Region::ALL.map(|region| self.stop(region))).await;
    }

    /// Starts a region on its data, and waits until it is ready. It takes as long as [`READY_MAX`]; longer is a violation.
    pub async fn start(&self, region: Region) -> Result<()> {
        {
            let mut state = self.state(region).lock().await;
            state.may_end = false;
            if state.process.is_none() {
                state.process = Some(state.invocation.spawn()?);
            }
        }
        let started = Instant::now();
        match self.wait_ready_one(region).await {
            Ok(()) => {
                let seconds = started.elapsed().as_secs_f64();
                self.journal
                    .note(&format!("{region} is ready after {seconds:.1} s"));
                Ok(())
            }
            Err(error) => {
                self.journal
                    .violation("a region comes back on its data", error.to_string());
                Err(error)
            }
        }
    }

    async fn wait_ready_one(&self, region: Region) -> Result<()> {
        let started = Instant::now();
        loop {
            let http = {
                let mut state = self.state(region).lock().await;
                if let Some(process) = &mut state.process
                    && let Some(status) = process.ended()?
                {
                    return Err(problem(
                        &state,
                        region,
                        format!("ended with {status} at its start"),
                    ));
                }
                state.invocation.http
            };
            if http::is_ready(http).await {
                return Ok(());
            }
            if started.elapsed() > READY_MAX {
                let state = self.state(region).lock().await;
                let seconds = READY_MAX.as_secs();
                return Err(problem(&state, region, format!("is not ready after {seconds} s")));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// A metric of a region.
    pub async fn metric(&self, region: Region, name: &str) -> Option<f64> {
        let http = self.state(region).lock().await.invocation.http;
        http::metric(http, name).await
    }

    /// A text with the end of the region's log below it.
    pub async fn with_log(&self, region: Region, text: &str) -> String {
        let state = self.state(region).lock().await;
        problem(&state, region, text.to_owned()).to_string()
    }

    pub(super) fn state(&self, region: Region) -> &Mutex<MemberState> {
        &self.members[&region].state
    }
}

fn data(directory: &Path, region: Region) -> PathBuf {
    directory.join(region.name())
}

fn invocation(config: &ClusterConfig, network: &Network, region: Region) -> Invocation {
    let place = network.place(region);
    Invocation {
        binary: config.binary.clone(),
        region,
        data: data(&config.directory, region),
        log: config.directory.join(format!("{region}.log")),
        sql: place.sql,
        peer: place.peer,
        http: place.http,
        peers: region
            .others()
            .map(|other| (other, network.dialled(region, other)))
            .collect(),
        namespace: place.namespace,
        flags: config.flags.clone(),
    }
}

fn sql_addresses(network: &Network) -> BTreeMap<Region, SocketAddr> {
    Region::ALL
        .map(|region| (region, network.place(region).sql))
        .into_iter()
        .collect()
}

fn problem(state: &MemberState, region: Region, problem: String) -> ChaosError {
    ChaosError::Region {
        region: region.name(),
        problem,
        log_tail: log_tail(&state.invocation.log),
    }
}
