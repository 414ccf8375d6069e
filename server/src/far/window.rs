//! The versions of this region's REGIONAL tables that others may still read.
//!
//! Others know the epochs that bundles ended at, so what is kept is what a bundle showed, and what was published last (after
//! a restart others ask for that, and nothing may be sent for long). A version goes [`KEPT_MIN`] after every connected peer
//! has acknowledged a later one: a statement may have begun just before. Never more than [`VERSIONS_MAX`] are kept: beyond
//! that the oldest go, and reads of them fail with 40001.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tributary_region::{Snapshot, TableSnapshot};
use tributary_replication::Epoch;
use tributary_replication::link::LinkState;
use tributary_storage::{ObjectId, OriginId};

/// How long a version is kept after the last acknowledgement of a later one.
const KEPT_MIN: Duration = Duration::from_secs(5);
/// The most versions. At a tick of 20 ms this is five seconds of steady writes.
const VERSIONS_MAX: usize = 256;

/// Own REGIONAL tables as of an epoch.
type Tables = Arc<BTreeMap<ObjectId, TableSnapshot>>;

/// See the module's documentation.
#[derive(Default)]
pub struct Versions(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    origin: Option<OriginId>,
    /// What was published last.
    newest: Option<(Epoch, Tables)>,
    /// What bundles showed.
    sent: BTreeMap<Epoch, Version>,
}

struct Version {
    tables: Tables,
    /// Since when every connected peer has acknowledged a later one.
    passed: Option<Instant>,
}

impl Versions {
    /// Keeps what a bundle that leaves shows of own rows.
    pub fn keep(&self, snapshot: &Snapshot) {
        if let Some((origin, epoch)) = version_of(snapshot) {
            self.kept().keep(origin, epoch, || tables_of(snapshot));
        }
    }

    /// Takes in what is published now, and drops what nobody reads any more.
    pub fn publish(&self, snapshot: &Snapshot, now: Instant) {
        let Some((origin, epoch)) = version_of(snapshot) else {
            return;
        };
        let connected = snapshot
            .links
            .iter()
            .filter(|(_, status)| status.state == LinkState::Up);
        let acked = connected.map(|(_, status)| status.acked).min();
        let mut kept = self.kept();
        kept.publish(origin, epoch, || tables_of(snapshot));
        kept.prune(acked, now);
    }

    /// Own tables as of an epoch.
    pub fn get(&self, origin: OriginId, epoch: Epoch) -> Result<Tables, super::Opened> {
        self.kept().get(origin, epoch)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn version_of(snapshot: &Snapshot) -> Option<(OriginId, Epoch)> {
    let origin = snapshot.origin?;
    Some((origin, snapshot.frontier.get(origin)))
}

fn tables_of(snapshot: &Snapshot) -> Tables {
    let regional = snapshot.tables.iter().filter(|(_, table)| !table.def.is_global());
    Arc::new(regional.map(|(id, table)| (*id, table.clone())).collect())
}

impl Kept {
    fn keep(&mut self, origin: OriginId, epoch: Epoch, tables: impl FnOnce() -> Tables) {
        self.start(origin);
        let tables = match &self.newest {
            Some((newest, tables)) if *newest == epoch => Arc::clone(tables),
            _ => tables(),
        };
        self.sent.entry(epoch).or_insert(Version { tables, passed: None });
        while self.sent.len() > VERSIONS_MAX {
            self.sent.pop_first();
        }
    }

    fn publish(&mut self, origin: OriginId, epoch: Epoch, tables: impl FnOnce() -> Tables) {
        self.start(origin);
        if self.newest.as_ref().is_none_or(|(newest, _)| *newest != epoch) {
            self.newest = Some((epoch, tables()));
        }
    }

    /// Another incarnation's versions are of another log.
    fn start(&mut self, origin: OriginId) {
        if self.origin != Some(origin) {
            *self = Kept {
                origin: Some(origin),
                ..Kept::default()
            };
        }
    }

    /// `acked` is the least that a connected peer has acknowledged, `None` without any.
    fn prune(&mut self, acked: Option<Epoch>, now: Instant) {
        let newest = self.newest.as_ref().map(|(newest, _)| *newest);
        self.sent.retain(|epoch, version| {
            let later = acked.or(newest);
            if later.is_some_and(|later| *epoch < later) {
                version.passed.get_or_insert(now);
            }
            version
                .passed
                .is_none_or(|since| now.duration_since(since) < KEPT_MIN)
        });
    }

    fn get(&self, origin: OriginId, epoch: Epoch) -> Result<Tables, super::Opened> {
        if self.origin != Some(origin) {
            return Err(super::Opened::OtherOrigin);
        }
        let newest = self.newest.as_ref().filter(|(newest, _)| *newest == epoch);
        let sent = || self.sent.get(&epoch).map(|version| &version.tables);
        let found = newest.map(|(_, tables)| tables).or_else(sent);
        found.cloned().ok_or(super::Opened::Gone)
    }
}

#[cfg(test)]
mod tests {
    use tributary_storage::RegionId;

    use super::super::Opened;
    use super::*;

    fn origin(incarnation: u32) -> OriginId {
        OriginId {
            region: RegionId(1),
            incarnation,
        }
    }

    fn is_there(kept: &Kept, epoch: u64) -> bool {
        kept.get(origin(1), Epoch(epoch)).is_ok()
    }

    fn with_sent(epochs: impl IntoIterator<Item = u64>) -> Kept {
        let mut kept = Kept::default();
        for epoch in epochs {
            kept.publish(origin(1), Epoch(epoch), Tables::default);
            kept.keep(origin(1), Epoch(epoch), Tables::default);
        }
        kept
    }

    #[test]
    fn a_version_stays_until_every_peer_is_beyond_it_and_some_time_more() {
        let mut kept = with_sent([10, 20, 30]);
        let start = Instant::now();
        kept.prune(Some(Epoch(20)), start);
        kept.prune(Some(Epoch(20)), start + KEPT_MIN * 10);
        assert!(!is_there(&kept, 10), "acknowledged beyond, long ago");
        assert!(is_there(&kept, 20), "a peer shows it, however old it is");
        let later = start + KEPT_MIN * 10;
        kept.prune(Some(Epoch(30)), later);
        kept.prune(Some(Epoch(30)), later + KEPT_MIN / 2);
        assert!(is_there(&kept, 20), "a statement may have begun just before");
        kept.prune(Some(Epoch(30)), later + KEPT_MIN);
        assert!(!is_there(&kept, 20) && is_there(&kept, 30));
    }

    #[test]
    fn what_was_published_and_not_sent_goes_with_the_next_and_the_newest_is_always_there() {
        let mut kept = with_sent([10]);
        kept.publish(origin(1), Epoch(15), Tables::default);
        assert!(is_there(&kept, 15) && is_there(&kept, 10));
        kept.publish(origin(1), Epoch(20), Tables::default);
        assert!(!is_there(&kept, 15) && is_there(&kept, 20));
        let start = Instant::now();
        kept.prune(None, start);
        kept.prune(None, start + KEPT_MIN);
        assert!(!is_there(&kept, 10) && is_there(&kept, 20), "nobody is connected");
    }

    #[test]
    fn the_oldest_go_at_the_limit_and_another_log_has_other_versions() {
        let most = VERSIONS_MAX as u64;
        let mut kept = with_sent(0..=most);
        assert!(!is_there(&kept, 0) && is_there(&kept, 1) && is_there(&kept, most));
        kept.publish(origin(2), Epoch(1), Tables::default);
        assert!(matches!(
            kept.get(origin(1), Epoch(most)),
            Err(Opened::OtherOrigin)
        ));
        assert!(matches!(kept.get(origin(2), Epoch(most)), Err(Opened::Gone)));
    }
}
