//! Options of tables: what `ALTER TABLE … SET (…)` and `CREATE TABLE … WITH (…)` write.
//!
//! They stand beside the objects and not inside them: an object's definition never changes, and what was logged of it
//! stays readable. A table without an entry has the defaults.

use std::fmt;

use serde::{Deserialize, Serialize};
use tributary_storage::ObjectId;

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

impl TableOptions {
    /// Whether values of the table's columns must stay.
    pub fn is_resident(&self) -> bool {
        self.residency == Residency::Enforced
    }

    /// How far a connected region may be behind before a writer waits or is refused; `None` when neither happens.
    pub fn lag_limit_ms(&self) -> Option<u64> {
        let limit_ms = self.lag_max_ms.unwrap_or(LAG_MAX_DEFAULT_MS);
        (self.backpressure != Backpressure::Coalesce).then_some(limit_ms)
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

    /// Whether residency is enforced of any table.
    pub fn has_resident_tables(&self) -> bool {
        self.options.values().any(TableOptions::is_resident)
    }

    /// Whether values of this object's columns must stay in the region that owns them.
    pub fn is_resident(&self, object: ObjectId) -> bool {
        self.options(object).is_resident()
    }

    pub(super) fn set_options(&mut self, table: ObjectId, options: TableOptions) {
        if options == TableOptions::default() {
            self.options.remove(&table);
        } else {
            self.options.insert(table, options);
        }
    }
}
