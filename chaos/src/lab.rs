//! A run, from the first start of the regions to the report.
//!
//! ```text
//!   start ─▶ tables, clients ─▶ [ round of faults ─▶ heal ─▶ caught up ─▶ rest ─▶ equal ─▶ newest wins ]* on proxies
//!         ─▶ stop, start on packets ─▶ [ … ]* ─▶ clients end ─▶ every row ─▶ kill -9 of all ─▶ every row ─▶ stop
//! ```

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::control::Control;
use crate::error::Result;
use crate::faults::{Abilities, Ability, Injector, Kind, LinkFaults, Schedule, SmallDisk};
use crate::journal::Journal;
use crate::network::{Network, Packets, Proxies, remove_leftovers};
use crate::regions::{Cluster, ClusterConfig, Monitor, Region};
use crate::report::Report;
use crate::workload::{Clients, Load, Shared, schema};
use crate::{agreement, finish};

/// A region whose process has no fault acknowledges commits at least this often.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// Between two rounds.
const BREATH: Duration = Duration::from_millis(500);
const BETWEEN_OPENINGS: Duration = Duration::from_millis(700);

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The product's binary.
    pub binary: PathBuf,
    /// An empty directory for data, logs and the journal.
    pub directory: PathBuf,
    /// Of the schedule.
    pub seed: u64,
    /// How long faults are done; what begins within it is brought to its end.
    pub time: Duration,
    /// Whether to use proxies, packets, or first the ones and then the others.
    pub networks: Networks,
    /// These faults only; empty: all.
    pub kinds: Vec<Kind>,
    /// How busy the clients are.
    pub load: Load,
    /// The defect of the laboratory that the run is to find.
    pub control: Option<Control>,
    /// Further flags of `tributary start`.
    pub flags: Vec<String>,
    /// Regions that can reach each other have to agree within this time.
    pub agree_max: Duration,
    /// Nothing on the standard output but the report.
    pub quiet: bool,
}

/// Which networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Networks {
    /// TCP proxies.
    Proxies,
    /// Packets between namespaces.
    Packets,
    /// First the ones, then the others.
    Both,
}

/// A run under way.
struct Lab {
    options: Options,
    journal: Arc<Journal>,
    cluster: Arc<Cluster>,
    shared: Arc<Shared>,
    disk: Option<Arc<SmallDisk>>,
    report: Report,
    /// The regions did not agree: what follows would only blur what led to it.
    is_over: bool,
    /// The count of damaged messages that each region told last; it begins again with each process.
    damaged: BTreeMap<Region, f64>,
}

/// Runs and reports. An error means that nothing could be tried at all.
pub async fn run(options: Options) -> Result<Report> {
    std::fs::create_dir_all(&options.directory)?;
    let journal = Arc::new(Journal::start(&options.directory, options.quiet)?);
    journal.note(&format!(
        "seed {}, data and logs in {}",
        options.seed,
        options.directory.display()
    ));
    remove_leftovers();
    let abilities = abilities(&options).await;
    for (ability, why) in abilities.missing() {
        journal.note(&format!("left out: {}: {why}", ability.name()));
    }
    let disk = match abilities.has(Ability::Mount) {
        true => {
            let path = options.directory.join(Region::ON_SMALL_DISK.name());
            Some(Arc::new(SmallDisk::mount(&path).await?))
        }
        false => None,
    };
    let is_packets = |ability: &Abilities| ability.has(Ability::Packets);
    let mut phases = match options.networks {
        Networks::Proxies => vec![false],
        Networks::Both if is_packets(&abilities) => vec![false, true],
        Networks::Packets if is_packets(&abilities) => vec![true],
        _ => vec![false],
    };
    let mut network = Arc::new(start_network(phases.remove(0), options.seed).await?);
    let config = ClusterConfig {
        binary: options.binary.clone(),
        directory: options.directory.clone(),
        flags: options.flags.clone(),
    };
    let cluster = Arc::new(Cluster::spawn(config, &network, journal.clone())?);
    cluster.wait_ready().await?;
    let shared = Arc::new(Shared::new(cluster.clone(), journal.clone(), options.agree_max));
    schema::make(&shared).await?;
    let report = Report {
        seed: options.seed,
        abilities,
        ..Report::default()
    };
    let mut lab = Lab {
        options,
        journal,
        cluster,
        shared,
        disk,
        report,
        is_over: false,
        damaged: BTreeMap::new(),
    };
    let monitor = Monitor::start(lab.cluster.clone(), lab.journal.clone());
    let clients = Clients::start(&lab.shared, lab.options.load, lab.options.seed);
    let started = Instant::now();
    let outcome = lab.story(&mut network, &phases, clients).await;
    lab.report.time = started.elapsed();
    if let Err(error) = outcome {
        lab.journal.note(&format!("broken off: {error}"));
        lab.report.broken_off = Some(error.to_string());
    }
    lab.report.memory = monitor.peaks();
    drop(monitor);
    lab.cluster.stop_all().await;
    Ok(lab.end().await)
}

async fn abilities(options: &Options) -> Abilities {
    let mut abilities = Abilities::find(&options.directory).await;
    if options.networks == Networks::Proxies {
        abilities = abilities.without(Ability::Packets, "not asked for");
    }
    for ability in [Ability::Strace, Ability::Mount] {
        let wanted = |kind: &Kind| kind.needs() == Some(ability);
        if !options.kinds.is_empty() && !options.kinds.iter().any(wanted) {
            abilities = abilities.without(ability, "not asked for");
        }
    }
    abilities
}

async fn start_network(is_packets: bool, seed: u64) -> Result<Network> {
    Ok(match is_packets {
        true => Network::Packets(Packets::start(seed).await?),
        false => Network::Proxies(Proxies::start(seed).await?),
    })
}

impl Lab {
    async fn story(&mut self, network: &mut Arc<Network>, later: &[bool], clients: Clients) -> Result<()> {
        for region in Region::ALL {
            tokio::time::sleep(BETWEEN_OPENINGS).await;
            schema::open_accounts(&self.shared, region).await?;
        }
        self.journal.note("all accounts are open");
        let time = self.options.time / (later.len() as u32 + 1);
        self.rounds(network, time).await?;
        for is_packets in later {
            if self.is_over {
                break;
            }
            self.journal.note("the regions move to the other network");
            let next = Arc::new(start_network(*is_packets, self.options.seed).await?);
            // Nobody writes while everything is down, so that the move is not mistaken for a fault.
            let _rest = self.shared.pause().await;
            self.cluster.move_to(&next).await?;
            *network = next;
            drop(_rest);
            self.rounds(network, time).await?;
        }
        clients.stop().await;
        self.last_checks().await
    }

    /// Rounds of faults for so long, with everything checked after each.
    async fn rounds(&mut self, network: &Arc<Network>, time: Duration) -> Result<()> {
        let is_packets = matches!(**network, Network::Packets(_));
        let name = if is_packets { "packets" } else { "proxies" };
        let injector = Injector {
            cluster: self.cluster.clone(),
            journal: self.journal.clone(),
            links: LinkFaults::new(network.clone()),
            disk: self.disk.clone(),
            done: Mutex::default(),
        };
        let mut schedule = Schedule::new(self.options.seed ^ u64::from(is_packets), self.kinds(is_packets));
        let started = Instant::now();
        let mut outcome = Ok(());
        while started.elapsed() < time && outcome.is_ok() && !self.is_over {
            let number = *self
                .report
                .rounds
                .entry(name)
                .and_modify(|count| *count += 1)
                .or_insert(1);
            self.journal.note(&format!("round {number} on {name}"));
            outcome = self.round(&injector, &mut schedule, number).await;
            tokio::time::sleep(BREATH).await;
        }
        for (kind, done) in injector.done() {
            let sum = self.report.faults.entry(kind).or_default();
            sum.happened += done.happened;
            sum.missed += done.missed;
        }
        for (lane, bytes) in network.bytes() {
            *self.report.bytes.entry(lane).or_insert(0) += bytes;
        }
        let mishaps = network.mishaps();
        for (sum, count) in self.report.mishaps.iter_mut().zip(mishaps) {
            *sum += count;
        }
        outcome
    }

    async fn round(&mut self, injector: &Injector, schedule: &mut Schedule, number: u64) -> Result<()> {
        let round = schedule.next_round();
        self.shared.begin_pauses();
        injector.run(&round).await?;
        let caught_up = agreement::caught_up(&self.shared, Instant::now()).await;
        for region in Region::ALL {
            let pause = self.shared.longest_pause(region);
            if round.touches_process(region) {
                continue;
            }
            self.report.pauses.push(pause);
            if pause > PAUSE_MAX {
                let detail = format!(
                    "{region}: {:.1} s without an acknowledged commit",
                    pause.as_secs_f64()
                );
                self.journal
                    .violation("a region takes writes whatever happens to others", detail);
            }
        }
        let rest = self.shared.pause().await;
        if let Some(control) = self.options.control {
            control.apply(&self.shared).await;
        }
        let equal = agreement::equal(&self.shared).await;
        let writer = Region::ALL[number as usize % Region::ALL.len()];
        agreement::newest_wins(&self.shared, writer, number).await;
        drop(rest);
        self.is_over = caught_up.is_none() || equal.is_none();
        self.count_damaged().await;
        self.report.catching_up.extend(caught_up);
        self.report.agreeing.extend(equal);
        let text = |time: Option<Duration>| {
            time.map_or("never".to_owned(), |time| format!("{:.2} s", time.as_secs_f64()))
        };
        self.journal.note(&format!(
            "caught up after {}, equal after {}",
            text(caught_up),
            text(equal)
        ));
        Ok(())
    }

    fn kinds(&self, is_packets: bool) -> Vec<Kind> {
        let asked = |kind: &Kind| self.options.kinds.is_empty() || self.options.kinds.contains(kind);
        let can = |kind: &Kind| {
            kind.needs()
                .is_none_or(|ability| self.report.abilities.has(ability))
        };
        let kinds = Kind::ALL.into_iter();
        kinds
            .filter(|kind| asked(kind) && can(kind) && kind.fits(is_packets))
            .collect()
    }

    async fn last_checks(&mut self) -> Result<()> {
        if self.is_over {
            self.journal
                .note("the regions did not agree: every row is read, and that is all");
            finish::check(&self.shared).await;
            return Ok(());
        }
        agreement::equal(&self.shared).await;
        finish::check(&self.shared).await;
        self.journal
            .note("every row was read; kill -9 of all, and once more");
        for region in Region::ALL {
            self.cluster.kill(region).await?;
        }
        for region in Region::ALL {
            self.cluster.start(region).await?;
        }
        agreement::equal(&self.shared).await;
        finish::check(&self.shared).await;
        Ok(())
    }

    async fn count_damaged(&mut self) {
        for region in Region::ALL {
            let told = self.cluster.metric(region, "tributary_peer_damaged_total").await;
            let told = told.unwrap_or(0.0);
            let before = self.damaged.insert(region, told).unwrap_or(0.0);
            self.report.damaged += if told < before { told } else { told - before };
        }
    }

    /// Fills in the rest of the report; what a run that failed leaves on the small disk is copied to where it stays.
    async fn end(mut self) -> Report {
        self.report.tallies = self.shared.tallies().clone();
        for region in Region::ALL {
            let counts = self.shared.events(region).counts();
            self.report.events.insert(region, counts);
        }
        (self.report.violations, self.report.violated) = self.journal.violations();
        if !self.report.is_clean() && self.disk.is_some() {
            let from = self.cluster.data(Region::ON_SMALL_DISK);
            let to = self.cluster.path(&format!("{}-kept", Region::ON_SMALL_DISK));
            let arguments = ["-a".as_ref(), from.as_os_str(), to.as_os_str()];
            let copied = tokio::process::Command::new("cp").args(arguments).status().await;
            self.journal.note(&format!(
                "{} copied to {}: {copied:?}",
                from.display(),
                to.display()
            ));
        }
        self.report
    }
}
