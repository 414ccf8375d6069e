//! The versions of this region's REGIONAL tables that others may still read.
//!
//! A version is what was published, or sent, at an epoch. It is kept until every connected peer has acknowledged a later
//! one and [`KEPT_MIN`] has passed since (a statement may have begun just before); never more than [`VERSIONS_MAX`]:
//! beyond that the oldest go, and reads of them fail with 40001.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tributary_region::{Snapshot, TableSnapshot};
use tributary_replication::Epoch;
use tributary_replication::link::LinkState;
use tributary_storage::{ObjectId, OriginId};

/// How long a version is kept after the last acknowledgement of it.
const KEPT_MIN: Duration = Duration::from_secs(5);
/// The most versions. At a tick of 20 ms this is five seconds of steady writes.
const VERSIONS_MAX: usize = 256;

/// See the module's documentation.
#[derive(Default)]
pub struct Versions(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    origin: Option<OriginId>,
    versions: BTreeMap<Epoch, Version>,
}

struct Version {
    tables: Arc<BTreeMap<ObjectId, TableSnapshot>>,
    /// Since when a newer one is there.
    followed: Option<Instant>,
}

impl Versions {
    /// Keeps what a snapshot shows of own rows, and drops what nobody reads any more.
    pub fn keep(&self, snapshot: &Snapshot, now: Instant) {
        let Some(origin) = snapshot.origin else { return };
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.origin != Some(origin) {
            kept.origin = Some(origin);
            kept.versions.clear();
        }
        let epoch = snapshot.frontier.get(origin);
        let before = kept.versions.len();
        kept.versions.entry(epoch).or_insert_with(|| {
            let regional = snapshot.tables.iter().filter(|(_, table)| !table.def.is_global());
            let tables = regional.map(|(id, table)| (*id, table.clone())).collect();
            Version {
                tables: Arc::new(tables),
                followed: None,
            }
        });
        if kept.versions.len() > before
            && let Some((_, followed)) = kept.versions.range_mut(..epoch).next_back()
        {
            followed.followed.get_or_insert(now);
        }
        let connected = snapshot
            .links
            .iter()
            .filter(|(_, status)| status.state == LinkState::Up);
        let acked = connected.map(|(_, status)| status.acked).min().unwrap_or(epoch);
        let newest = kept.versions.keys().next_back().copied();
        kept.versions.retain(|version, kept| {
            let is_young = kept
                .followed
                .is_none_or(|since| now.duration_since(since) < KEPT_MIN);
            Some(*version) == newest || *version >= acked || is_young
        });
        while kept.versions.len() > VERSIONS_MAX {
            kept.versions.pop_first();
        }
    }

    /// Own tables as of an epoch.
    pub fn get(
        &self,
        origin: OriginId,
        epoch: Epoch,
    ) -> Result<Arc<BTreeMap<ObjectId, TableSnapshot>>, super::Opened> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.origin != Some(origin) {
            return Err(super::Opened::OtherOrigin);
        }
        let version = kept.versions.get(&epoch).ok_or(super::Opened::Gone)?;
        Ok(Arc::clone(&version.tables))
    }

    /// The number of versions kept.
    pub fn len(&self) -> usize {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .versions
            .len()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
