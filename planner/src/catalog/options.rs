//! Options of tables: what `ALTER TABLE … SET (…)` and `CREATE TABLE … WITH (…)` write. And of regions: `ALTER DATABASE … ALTER
//! REGION … SET (…)`.
//!
//! They stand beside the objects and members and not inside them: an object's definition never changes, and what was logged of
//! it stays readable. What has no entry has the defaults. What a region's options say goes before what the table's do.

use std::fmt;

use serde::{Deserialize, Serialize};
use tributary_storage::{ObjectId, RegionId};

use super::Catalog;

/// The options of a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableOptions {
    /// Whether values of its columns may leave the region that owns them.
    pub residency: Residency,
    /// The least number of rows of this table, in one region, that a group must hold for its key to leave the region;
    /// absent: no key leaves.
    pub min_group_size: Option<u64>,
    /// How many tombstones are kept; absent: as many as the region's own limit says.
    pub tombstones_max: Option<u64>,
    /// What a writer meets when a connected region is further behind than `lag_max_ms`.
    pub backpressure: Backpressure,
    /// How far a connected region may be behind before `backpressure` is felt, in milliseconds; absent:
    /// [`LAG_MAX_DEFAULT_MS`].
    pub lag_max_ms: Option<u64>,
}

/// How far a region may be behind where the table says to wait or to refuse, and not when.
pub const LAG_MAX_DEFAULT_MS: u64 = 10_000;

/// Whether values of a table's columns may leave the region that owns them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Residency {
    /// They may.
    #[default]
    None,
    /// They leave only inside of an aggregate that allows it.
    Enforced,
}

/// What a writer meets when a peer is too far behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Backpressure {
    /// Nothing: what changes often is sent once.
    #[default]
    Coalesce,
    /// It waits.
    Block,
    /// It is refused.
    Shed,
}

/// The options of a region, as one that others send to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionOptions {
    /// What writers of any table meet when this region is too far behind; absent: what the table says.
    pub backpressure: Option<Backpressure>,
    /// How far it may be behind, in milliseconds; absent: what the table says.
    pub lag_max_ms: Option<u64>,
}

/// How far a region may be behind for a write to a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LagLimit {
    /// In milliseconds.
    pub max_ms: u64,
    /// Whether the writer waits; otherwise it is refused.
    pub waits: bool,
}

impl RegionOptions {
    /// What was set, as names and texts that can be set again.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let backpressure = self
            .backpressure
            .map(|backpressure| ("backpressure", backpressure.to_string()));
        let lag_max = self
            .lag_max_ms
            .map(|lag_ms| ("lag_max", format!("{lag_ms} milliseconds")));
        backpressure.into_iter().chain(lag_max).collect()
    }
}

impl TableOptions {
    /// Whether values of the table's columns must stay.
    pub fn is_resident(&self) -> bool {
        self.residency == Residency::Enforced
    }

    /// How far a connected region may be behind before a writer waits or is refused; `None` when neither happens.
    pub fn lag_limit(&self, region: &RegionOptions) -> Option<LagLimit> {
        let backpressure = region.backpressure.unwrap_or(self.backpressure);
        let max_ms = region.lag_max_ms.or(self.lag_max_ms);
        (backpressure != Backpressure::Coalesce).then_some(LagLimit {
            max_ms: max_ms.unwrap_or(LAG_MAX_DEFAULT_MS),
            waits: backpressure == Backpressure::Block,
        })
    }

    /// What was set, as names and texts that can be set again.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let default = TableOptions::default();
        let mut set = Vec::new();
        if self.residency != default.residency {
            set.push(("residency", self.residency.to_string()));
        }
        let numbers = [
            ("min_group_size", self.min_group_size),
            ("tombstones_max", self.tombstones_max),
        ];
        set.extend(
            numbers
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?.to_string()))),
        );
        if self.backpressure != default.backpressure {
            set.push(("backpressure", self.backpressure.to_string()));
        }
        set.extend(
            self.lag_max_ms
                .map(|lag_ms| ("lag_max", format!("{lag_ms} milliseconds"))),
        );
        set
    }
}

impl fmt::Display for Residency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Residency::None => "none",
            Residency::Enforced => "enforced",
        })
    }
}

impl fmt::Display for Backpressure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Backpressure::Coalesce => "coalesce",
            Backpressure::Block => "block",
            Backpressure::Shed => "shed",
        })
    }
}

impl Catalog {
    /// The options of a table; the defaults for whatever has none.
    pub fn options(&self, table: ObjectId) -> TableOptions {
        self.options.get(&table).copied().unwrap_or_default()
    }

    /// The options of a region; the defaults for one that has none.
    pub fn region_options(&self, region: RegionId) -> RegionOptions {
        self.region_options.get(&region).copied().unwrap_or_default()
    }

    /// Whether a writer of a table may have to wait for some region.
    pub fn may_wait(&self, table: ObjectId) -> bool {
        let options = self.options(table);
        let limit = |(region, _)| options.lag_limit(&self.region_options(region));
        self.members().filter_map(limit).any(|limit| limit.waits)
    }

    /// Whether residency is enforced of any table.
    pub fn has_resident_tables(&self) -> bool {
        self.options.values().any(TableOptions::is_resident)
    }

    /// Whether values of this object's columns must stay in the region that owns them.
    pub fn is_resident(&self, object: ObjectId) -> bool {
        self.options(object).is_resident()
    }

    pub(super) fn set_region_options(&mut self, region: RegionId, options: RegionOptions) {
        if options == RegionOptions::default() {
            self.region_options.remove(&region);
        } else {
            self.region_options.insert(region, options);
        }
    }

    pub(super) fn set_options(&mut self, table: ObjectId, options: TableOptions) {
        if options == TableOptions::default() {
            self.options.remove(&table);
        } else {
            self.options.insert(table, options);
        }
    }
}
