//! The kinds of faults.

use super::abilities::Ability;
use crate::network::Lane;
use crate::regions::Region;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Everything arrives late.
    Delay,
    /// Little passes.
    Narrow,
    /// Connections stay open, new ones are accepted, and nothing passes.
    Stall,
    /// Nothing passes in one direction.
    OneWay,
    /// Connections are closed and refused.
    Cut,
    /// Cut and healed, again and again.
    Flapping,
    /// Connections are reset at random.
    Resets,
    /// Bits are flipped.
    Damage,
    /// Packets are lost.
    Loss,
    /// Packets arrive twice.
    Doubling,
    /// Packets are overtaken by later ones.
    Reordering,
    /// 30 % loss, doubled and overtaken packets, 300 ms there and back, 1 Mbit/s.
    Misery,
    /// kill -9, and a start some time later.
    Kill,
    /// kill -9 of all regions at once.
    KillAll,
    /// SIGSTOP, and SIGCONT some time later.
    Freeze,
    /// A clean stop, and a start some time later.
    Restart,
    /// kill -9 at an fsync.
    KillAtSync,
    /// An fsync fails with EIO.
    SyncError,
    /// The disk is full.
    FullDisk,
}

/// Where it goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a region's process or disk, or on all its links.
    In(Region),
    /// Between two regions; from the first to the second where it is one way.
    Between(Region, Region),
    /// In all regions, or on all links.
    Everywhere,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 19] = [
        Kind::Delay,
        Kind::Narrow,
        Kind::Stall,
        Kind::OneWay,
        Kind::Cut,
        Kind::Flapping,
        Kind::Resets,
        Kind::Damage,
        Kind::Loss,
        Kind::Doubling,
        Kind::Reordering,
        Kind::Misery,
        Kind::Kill,
        Kind::KillAll,
        Kind::Freeze,
        Kind::Restart,
        Kind::KillAtSync,
        Kind::SyncError,
        Kind::FullDisk,
    ];

    /// Its name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Delay => "delay",
            Kind::Narrow => "narrow",
            Kind::Stall => "stall",
            Kind::OneWay => "one-way",
            Kind::Cut => "cut",
            Kind::Flapping => "flapping",
            Kind::Resets => "resets",
            Kind::Damage => "damage",
            Kind::Loss => "loss",
            Kind::Doubling => "doubling",
            Kind::Reordering => "reordering",
            Kind::Misery => "misery",
            Kind::Kill => "kill",
            Kind::KillAll => "kill-all",
            Kind::Freeze => "freeze",
            Kind::Restart => "restart",
            Kind::KillAtSync => "kill-at-sync",
            Kind::SyncError => "sync-error",
            Kind::FullDisk => "full-disk",
        }
    }

    /// The kind of this name.
    pub fn named(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether it happens to a process or a disk, and not to a link.
    pub fn is_of_process(self) -> bool {
        self >= Kind::Kill
    }

    /// What the machine has to permit, beyond processes and sockets.
    pub fn needs(self) -> Option<Ability> {
        match self {
            Kind::KillAtSync | Kind::SyncError => Some(Ability::Strace),
            Kind::FullDisk => Some(Ability::Mount),
            Kind::Loss | Kind::Doubling | Kind::Reordering | Kind::Misery => Some(Ability::Packets),
            _ => None,
        }
    }

    /// Whether it can happen on a network of packets, or of proxies.
    pub fn fits(self, is_packets: bool) -> bool {
        match self {
            Kind::Loss | Kind::Doubling | Kind::Reordering | Kind::Misery => is_packets,
            // There is no connection that a router of packets could reset, and TCP drops damaged packets.
            Kind::Resets | Kind::Damage => !is_packets,
            _ => true,
        }
    }

    /// What it does to a lane, for a strength between 0 and 1; nothing for what is done otherwise.
    pub fn lane(self, strength: f64) -> Lane {
        let between = |low: u64, high: u64| low + ((high - low) as f64 * strength) as u64;
        let percent = |low, high| between(low, high) as u8;
        let good = Lane::default();
        match self {
            Kind::Delay => Lane {
                delay_ms: between(20, 400),
                jitter_ms: between(5, 200),
                ..good
            },
            Kind::Narrow => Lane {
                bytes_per_s: Some(between(15_000, 300_000)),
                ..good
            },
            Kind::Stall | Kind::OneWay => Lane {
                is_held: true,
                ..good
            },
            Kind::Damage => Lane {
                damaged_one_in: Some(between(2_000, 40_000)),
                ..good
            },
            Kind::Loss => Lane {
                lost_percent: percent(1, 40),
                ..good
            },
            Kind::Doubling => Lane {
                doubled_percent: percent(5, 60),
                ..good
            },
            Kind::Reordering => Lane {
                overtaken_percent: percent(5, 50),
                delay_ms: 5,
                ..good
            },
            Kind::Misery => Lane {
                delay_ms: 150,
                jitter_ms: 10,
                bytes_per_s: Some(125_000),
                lost_percent: 30,
                doubled_percent: 5,
                overtaken_percent: 10,
                ..good
            },
            _ => good,
        }
    }
}

impl Place {
    /// The lanes that it concerns.
    pub fn lanes(self, kind: Kind) -> Vec<(Region, Region)> {
        let all = Region::ALL
            .into_iter()
            .flat_map(|from| from.others().map(move |to| (from, to)));
        let concerns = |(from, to): &(Region, Region)| match self {
            Place::In(region) => *from == region || *to == region,
            Place::Between(one, other) if kind == Kind::OneWay => (*from, *to) == (one, other),
            Place::Between(one, other) => [(one, other), (other, one)].contains(&(*from, *to)),
            Place::Everywhere => true,
        };
        all.filter(concerns).collect()
    }

    /// The pairs that it concerns, each once.
    pub fn pairs(self, kind: Kind) -> Vec<(Region, Region)> {
        let mut pairs: Vec<(Region, Region)> = self
            .lanes(kind)
            .into_iter()
            .map(|(from, to)| (from.min(to), from.max(to)))
            .collect();
        pairs.sort();
        pairs.dedup();
        pairs
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::In(region) => write!(f, "{region}"),
            Place::Between(one, other) => write!(f, "{one}-{other}"),
            Place::Everywhere => f.write_str("everywhere"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_their_kinds() {
        for kind in Kind::ALL {
            assert_eq!(Kind::named(kind.name()), Some(kind));
        }
        assert_eq!(Kind::named("earthquake"), None);
    }

    #[test]
    fn a_place_concerns_lanes_in_both_directions_unless_it_is_one_way() {
        let between = Place::Between(Region::Us, Region::Eu);
        assert_eq!(between.lanes(Kind::Stall).len(), 2);
        assert_eq!(between.lanes(Kind::OneWay), [(Region::Us, Region::Eu)]);
        assert_eq!(Place::In(Region::Ap).lanes(Kind::Delay).len(), 4);
        assert_eq!(
            Place::In(Region::Ap).pairs(Kind::Cut),
            [(Region::Us, Region::Ap), (Region::Eu, Region::Ap)]
        );
        assert_eq!(Place::Everywhere.lanes(Kind::Loss).len(), 6);
    }

    #[test]
    fn faults_of_links_change_lanes_and_those_of_processes_do_not() {
        for kind in Kind::ALL {
            let otherwise = [Kind::Cut, Kind::Flapping, Kind::Resets].contains(&kind);
            let changes = kind.lane(0.5) != Lane::default();
            assert_eq!(changes, !kind.is_of_process() && !otherwise, "{kind:?}");
        }
    }
}
