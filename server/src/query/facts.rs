//! What a statement knows of its session: the facts that functions such as `current_user` return.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tributary_region::Snapshot;
use tributary_storage::ObjectId;

use crate::session::settings::Settings;
use crate::source::state::Task;

/// The name of the one database, whatever name a client connects with.
pub use tributary_planner::ddl::DATABASE;

/// Facts of a session, fixed for a statement except for the settings.
#[derive(Clone)]
pub struct Facts {
    /// The user's name.
    pub user: String,
    /// The process number told to the client.
    pub process: i32,
    /// This region.
    pub region: String,
    /// The build's version.
    pub version: String,
    /// What the tasks of sources are doing, for `tributary.sources`.
    pub source_tasks: Arc<BTreeMap<ObjectId, Task>>,
    /// What this region's sinks are doing, for `tributary.sinks`.
    pub sink_tasks: Arc<BTreeMap<ObjectId, crate::sink::state::Task>>,
    /// Whether links are encrypted and proven, for `tributary.links`.
    pub secure_links: bool,
    /// `tributary_frontier()`.
    pub frontier: String,
    /// When the transaction began, in nanoseconds since 1970: `now()`.
    pub started_ns: i64,
    /// The settings, which `set_config` changes.
    pub settings: Arc<Mutex<Settings>>,
}

impl Facts {
    /// The settings now.
    pub fn settings(&self) -> Settings {
        self.settings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// The frontier of a snapshot with the names of regions, for example `{us: 17, eu: 9} settled`. An origin that is not
/// the first of its region shows its incarnation: `us/2: 17`.
pub fn frontier_text(snapshot: &Snapshot) -> String {
    let entries: Vec<String> = snapshot
        .frontier
        .iter()
        .map(|(origin, epoch)| {
            let region = snapshot.catalog.regions.get(&origin.region);
            let name = region.map_or_else(|| format!("r{}", origin.region.0), |region| region.name.clone());
            match origin.incarnation {
                1 => format!("{name}: {}", epoch.0),
                incarnation => format!("{name}/{incarnation}: {}", epoch.0),
            }
        })
        .collect();
    let settled = if snapshot.settled { " settled" } else { "" };
    format!("{{{}}}{settled}", entries.join(", "))
}
