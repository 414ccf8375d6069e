//! The catalog: what exists, as plain data. Every region holds the same one; it changes only by applying
//! [`CatalogChange`]s in the order in which the primary region logged them.
//!
//! Invariants: ids are given out upwards from `next_object` and never again; names are unique over tables, views,
//! sources and sinks, all in schema `public`, and are stored folded (unquoted names are lower case). The fields
//! are public so that they serialize, but only [`Catalog::apply`] changes a catalog.
//!
//! Left out: system tables (the server's), and any judgement about a change (that is `ddl`'s: `apply` is total).

mod dependents;
mod earlier;
mod member;
mod object;
mod options;
mod sink;
mod source;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tributary_storage::{ObjectId, RegionId};

use crate::error::PlanError;
pub use member::{MemberChange, RegionDef, Standing};
pub use object::{
    ColumnDef, ColumnDefault, HIDDEN_PREFIX, MaterializedViewDef, Object, ObjectKind, SinkDef, SourceDef,
    TableDef, TableLocality, ViewColumn, ViewDef,
};

pub use options::{Backpressure, LagLimit, RegionOptions, Residency, TableOptions};
pub use sink::{BLACKHOLE_CONNECTOR, SINK_INTERVAL_MS_DEFAULT, SINK_OP, SINK_POSITION};
pub(crate) use source::source_time;
pub use source::{FILE_CONNECTOR, REGION_PLACEHOLDER, SOURCE_TIME};

/// The hidden key column of a table that was created without a primary key.
pub const ROW_ID: &str = "tributary_row_id";
/// The prefix of names that no user's column may have.
pub const RESERVED_PREFIX: &str = "tributary_";

/// The bytes of [`Catalog::to_bytes`] start with this; the last byte is the format's number.
const MAGIC: [u8; 4] = *b"TCT\x05";

/// Everything that exists in a cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Catalog {
    /// How many changes made this catalog.
    pub version: u64,
    /// The cluster's identity; `None` before it was founded.
    pub cluster: Option<[u8; 16]>,
    /// The region that serializes DDL.
    pub primary: Option<RegionId>,
    /// The members, and those that were.
    pub regions: BTreeMap<RegionId, RegionDef>,
    /// Tables, views, sources and sinks.
    pub objects: BTreeMap<ObjectId, Arc<Object>>,
    /// The smallest id that was never given out.
    pub next_object: u32,
    /// Per REGIONAL table the version that truncated it last.
    pub truncated: BTreeMap<ObjectId, u64>,
    /// Per table what was set for it; see [`Catalog::options`].
    pub options: BTreeMap<ObjectId, TableOptions>,
    /// Per region what was set for it; see [`Catalog::region_options`].
    pub region_options: BTreeMap<RegionId, RegionOptions>,
}

/// One step of the catalog's history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum CatalogChange {
    /// The primary's first start.
    Found {
        /// The new cluster's identity.
        cluster: [u8; 16],
        /// Its members; each starts with incarnation 1.
        regions: Vec<(RegionId, String)>,
        /// The region that serializes DDL.
        primary: RegionId,
    },
    /// A new object, under a new id.
    Create(Object),
    /// Objects that cease to exist.
    Drop(Vec<ObjectId>),
    /// A source is to rest, or to go on.
    PauseSource {
        /// The source.
        source: ObjectId,
        /// Whether it rests.
        paused: bool,
    },
    /// The rows of a REGIONAL table go, in all regions.
    Truncate(ObjectId),
    /// A table's options from here on, all of them.
    SetOptions {
        /// The table.
        table: ObjectId,
        /// Its options.
        options: TableOptions,
    },
    /// Something happens to a member, or a region becomes one.
    Member {
        /// The region.
        region: RegionId,
        /// What happens.
        change: MemberChange,
    },
}

/// Settings of a session that matter to planning, and are frozen into what is created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanSettings {
    /// The session's time zone, an IANA name.
    pub time_zone: String,
}

impl Default for PlanSettings {
    fn default() -> Self {
        Self {
            time_zone: "UTC".to_owned(),
        }
    }
}

impl Catalog {
    /// Applies one change. Total and deterministic: the same changes in the same order give equal catalogs.
    pub fn apply(&mut self, change: &CatalogChange) {
        self.version += 1;
        match change {
            CatalogChange::Found {
                cluster,
                regions,
                primary,
            } => {
                self.cluster = Some(*cluster);
                self.primary = Some(*primary);
                for (region, name) in regions {
                    self.regions.insert(*region, RegionDef::new(name));
                }
            }
            CatalogChange::Create(object) => {
                self.next_object = self.next_object.max(object.id.0.saturating_add(1));
                self.objects.insert(object.id, Arc::new(object.clone()));
            }
            CatalogChange::PauseSource { source, paused } => self.pause_source(*source, *paused),
            CatalogChange::SetOptions { table, options } => self.set_options(*table, *options),
            CatalogChange::Member { region, change } => self.change_member(*region, change),
            CatalogChange::Truncate(table) => {
                self.truncated.insert(*table, self.version);
            }
            CatalogChange::Drop(objects) => {
                for object in objects {
                    self.truncated.remove(object);
                    self.options.remove(object);
                    self.objects.remove(object);
                }
            }
        }
    }

    /// The object with this (folded) name. Hidden views are not found by name.
    pub fn object(&self, name: &str) -> Option<&Arc<Object>> {
        let mut objects = self.objects.values();
        objects.find(|object| object.name == name && !object.is_hidden())
    }

    /// The object with this id.
    pub fn by_id(&self, id: ObjectId) -> Option<&Arc<Object>> {
        self.objects.get(&id)
    }

    /// The table with this id.
    pub fn table(&self, id: ObjectId) -> Option<&TableDef> {
        match &self.by_id(id)?.kind {
            ObjectKind::Table(def) => Some(def),
            _ => None,
        }
    }

    /// The materialized view with this id.
    pub fn materialized_view(&self, id: ObjectId) -> Option<&MaterializedViewDef> {
        match &self.by_id(id)?.kind {
            ObjectKind::MaterializedView(def) => Some(def),
            _ => None,
        }
    }

    /// The catalog as bytes: equal catalogs, and only they, have equal bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let bytes = MAGIC.to_vec();
        postcard::to_extend(self, bytes).expect("a catalog holds nothing that postcard cannot")
    }

    /// The inverse of [`Catalog::to_bytes`]; the three formats before this one are read too.
    ///
    /// # Errors
    /// `Internal` for bytes that are not a catalog.
    pub fn from_bytes(bytes: &[u8]) -> Result<Catalog, PlanError> {
        if let Some(earlier) = earlier::read(bytes) {
            return earlier;
        }
        let body = bytes
            .strip_prefix(&MAGIC)
            .ok_or_else(|| PlanError::internal("the catalog's bytes are of an unknown format"))?;
        postcard::from_bytes(body).map_err(|error| PlanError::internal(format!("damaged catalog: {error}")))
    }
}

#[cfg(test)]
mod tests;
