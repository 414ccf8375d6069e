//! The world: regions, the network between them, and a queue of events that is the only clock.
//!
//! ```text
//!   trouble (faults, writes, DDL) ──▶ heal (all up, network clean, no writes) ──▶ everything equal?  ──▶ next round
//! ```
//!
//! One thread, one queue ordered by (time, when planned), all chance from the seed: a run is a function of its
//! options. Each event steps at most a few regions; every effect goes through the trace and the checks.

mod clients;
mod event;
mod faults;
mod links;
pub mod members;
pub mod node;
pub mod operator;
mod settle;
mod shell;

use std::collections::BTreeSet;

use tributary_region::Input;

use crate::checks::slots::SlotCheck;
use crate::clock::Clock;
use crate::failure::{Checked, Failure};
use crate::ledger::Ledger;
use crate::model::Model;
use crate::network::Network;
use crate::options::Options;
use crate::report::Report;
use crate::rng::Rng;
use crate::trace::Trace;
use crate::workload::Workload;
use event::{Event, Fault, Queue};
use node::Node;
use operator::Members;

/// All of a run.
pub struct World {
    options: Options,
    now_ms: u64,
    rng: Rng,
    queue: Queue,
    nodes: Vec<Node>,
    network: Network,
    model: Model,
    ledger: Ledger,
    slots: SlotCheck,
    members: Members,
    workload: Workload,
    trace: Trace,
    report: Report,
    healed: bool,
    /// Ends of connections that have not learned yet that their connection is gone.
    hanging: BTreeSet<(usize, usize)>,
    heal_deadline_ms: u64,
    /// Records of each log and bundles sent when all regions agreed.
    idle_since: Option<(Vec<u64>, u64, u64)>,
    rounds_done: u32,
    finished: bool,
}

/// Runs a seed's world to its end; `printed` writes the trace to standard output.
///
/// # Errors
/// The first violation.
pub fn run(options: Options, printed: bool) -> Result<Report, Box<Failure>> {
    let mut world = World::new(options, printed);
    match world.run() {
        Ok(()) => {
            for node in &world.nodes {
                world.report.lost_writes += node.log_disk.lost_writes() + node.state_disk.lost_writes();
                if let Some(process) = &node.process {
                    world.report.absorb(&process.region);
                }
            }
            world.report.ledger = world.ledger.counts;
            world.report.network = world.network.counts;
            world.report.digest = world.trace.digest();
            world.report.simulated_ms = world.now_ms;
            Ok(world.report)
        }
        Err(violation) => Err(Box::new(Failure {
            options: world.options,
            at_ms: world.now_ms,
            step: world.report.steps,
            violation,
        })),
    }
}

impl World {
    fn new(options: Options, printed: bool) -> Self {
        let rng = Rng::new(options.seed);
        let mut clocks = rng.fork("clocks");
        let places = options.regions + options.spare;
        let nodes: Vec<Node> = (0..places)
            .map(|index| Node::new(index, &options, Clock::draw(&mut clocks, options.clock_skew_ms)))
            .collect();
        let mut model = Model::default();
        for node in &nodes {
            model.begin(node.log(), node.config.name.clone());
        }
        Self {
            now_ms: 0,
            queue: Queue::default(),
            nodes,
            network: Network::new(rng.fork("network"), places, options.link),
            model,
            ledger: Ledger::default(),
            slots: SlotCheck::default(),
            members: Members {
                rng: rng.fork("members"),
                leaving: None,
                former: BTreeSet::new(),
                drained: Vec::new(),
            },
            workload: Workload::new(rng.fork("workload"), &options),
            trace: Trace::new(printed),
            report: Report::default(),
            healed: false,
            hanging: BTreeSet::new(),
            heal_deadline_ms: 0,
            idle_since: None,
            rounds_done: 0,
            finished: false,
            rng: rng.fork("world"),
            options,
        }
    }

    fn run(&mut self) -> Checked {
        for node in 0..self.nodes.len() {
            let at = self.rng.between(0, 100);
            self.queue.plan(at, Event::Restart(node));
            self.queue.plan(at, Event::Write(node));
        }
        for pair in self.network.pairs() {
            self.queue.plan(0, Event::Connect(pair));
        }
        self.queue.plan(150, Event::Ddl);
        Fault::ALL.into_iter().for_each(|fault| self.plan_fault(fault));
        if self.options.members.happen() {
            self.queue.plan(200, Event::Operate);
        }
        self.queue.plan(self.options.trouble_ms, Event::Heal);
        while !self.finished {
            let (at_ms, event) = self.queue.next().expect("timers plan timers for ever");
            self.now_ms = at_ms;
            self.happen(event)?;
        }
        Ok(())
    }

    fn happen(&mut self, event: Event) -> Checked {
        let still_until_ms = event.process().map_or(0, |node| self.nodes[node].paused_until_ms);
        if still_until_ms > self.now_ms {
            // In the order in which they would have happened.
            self.queue.plan(still_until_ms, event);
            return Ok(());
        }
        match event {
            Event::Timer { node, boot } if self.runs(node, boot) => self.timer(node),
            Event::Work { node, boot } if self.runs(node, boot) => self.work(node),
            Event::Sync { node, boot } if self.runs(node, boot) => {
                self.begin_sync(node);
                Ok(())
            }
            Event::Synced { node, boot, position } if self.runs(node, boot) => self.end_sync(node, position),
            Event::CheckpointDue { node, boot } if self.runs(node, boot) => {
                self.plan_checkpoint(node);
                self.step(node, Input::CheckpointDue)
            }
            Event::WriteCheckpoint {
                node,
                boot,
                checkpoint,
            } if self.runs(node, boot) => self.write_checkpoint(node, &checkpoint),
            // It may have stood still, and been started anew since: its connections are others.
            Event::Hangup { node, boot, peer } if self.runs(node, boot) => self.hangup(node, peer),
            Event::Hangup { .. }
            | Event::Timer { .. }
            | Event::Work { .. }
            | Event::Sync { .. }
            | Event::Synced { .. }
            | Event::CheckpointDue { .. }
            | Event::WriteCheckpoint { .. } => Ok(()),
            Event::Deliver {
                direction,
                connection,
                bytes,
                damaged,
            } => self.deliver(direction, connection, &bytes, damaged),
            Event::Connect(pair) => self.connect(pair),
            Event::Write(node) => self.write(node),
            Event::Ddl => self.ddl(),
            Event::Operate => self.operate(),
            Event::Restart(node) => self.restart(node),
            Event::Fault(fault) => self.fault(fault),
            Event::Days(days) => {
                self.pass_days(days);
                Ok(())
            }
            Event::Mend(cut) => {
                cut.iter().for_each(|direction| self.network.mend(*direction));
                Ok(())
            }
            Event::DiskSpace(node) => self.disk_space(node),
            Event::Heal => self.heal(),
            Event::Settled => self.check_settled(),
        }
    }

    fn runs(&self, node: usize, boot: u64) -> bool {
        self.nodes[node].boot == boot && self.nodes[node].process.is_some()
    }
}
