//! Identities. None of them is ever reused (invariant 13).
//!
//! They live in the lowest crate because the catalog, the slots and the bundles all speak of them; this crate
//! itself attaches no meaning to them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A region of the cluster, numbered by the primary when the region is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RegionId(pub u16);

/// A single writer of a log: a region in one of its incarnations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OriginId {
    /// The region.
    pub region: RegionId,
    /// Bumped whenever the region starts from anything but its own latest durable log; the first is 1.
    pub incarnation: u32,
}

impl OriginId {
    /// The first incarnation of a region.
    pub fn first(region: RegionId) -> Self {
        Self {
            region,
            incarnation: 1,
        }
    }

    /// The origin as one ordered integer, the form in which it stands in columns.
    pub fn as_i64(self) -> i64 {
        (i64::from(self.region.0) << 32) | i64::from(self.incarnation)
    }

    /// The inverse of [`OriginId::as_i64`]; `None` for an integer that names no origin.
    pub fn from_i64(value: i64) -> Option<Self> {
        let region = u16::try_from(value >> 32).ok()?;
        let incarnation = u32::try_from(value & 0xffff_ffff).ok()?;
        Some(Self {
            region: RegionId(region),
            incarnation,
        })
    }
}

impl fmt::Display for OriginId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}.{}", self.region.0, self.incarnation)
    }
}

/// A catalog object: a table, a view, a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectId(pub u32);

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A local fragment of a materialized view, and so the slot set it writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FragmentId {
    /// The view the fragment belongs to.
    pub view: ObjectId,
    /// Its number within the view, from 0.
    pub number: u16,
}

impl fmt::Display for FragmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.view.0, self.number)
    }
}

/// A digest of a plan and its schemas: equal fingerprints mean that the same columns mean the same thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Fingerprint(pub [u8; 16]);
