//! The members of a cluster.
//!
//! A region's number is its identity and is never given out again. Its *incarnation* says which of its logs counts:
//! the primary bumps it when the region starts from anything but its own latest durable log, or is fenced.

use serde::{Deserialize, Serialize};
use tributary_storage::{OriginId, RegionId};

use super::{Catalog, RegionOptions};

/// A region that is, or was, a member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionDef {
    /// Its name.
    pub name: String,
    /// Its newest incarnation, from 1.
    pub incarnation: u32,
    /// How it stands to the cluster.
    pub standing: Standing,
    /// Where it is dialled, `host:port`: a hint for regions that were not told otherwise.
    pub address: Option<String>,
}

/// How a region stands to its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// It takes part.
    Member,
    /// It takes in no writes any more: what it has goes to the others, and then it is dropped.
    Leaving,
    /// It is gone. What it had contributed to views stays as it was.
    Dropped,
}

/// What may be done to a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemberChange {
    /// A new member.
    Add {
        /// Its name.
        name: String,
        /// Where it is dialled.
        address: Option<String>,
    },
    /// Where a member is dialled from here on.
    SetAddress(String),
    /// A member is to take in no more writes, or (`false`) may again.
    Drain(bool),
    /// A member is gone.
    Drop,
    /// The region that serializes DDL from here on.
    MakePrimary,
    /// Its earlier logs count no more.
    Reincarnate {
        /// The incarnation that counts.
        incarnation: u32,
    },
    /// A member's options from here on, all of them.
    SetOptions(RegionOptions),
}

/// How far versions and ids jump when the primary itself lost its log: beyond whatever it had given out before.
const RECOVERY_STEP: u32 = 1 << 16;

impl RegionDef {
    /// A new member.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            incarnation: 1,
            standing: Standing::Member,
            address: None,
        }
    }

    /// Whether it takes part, if only to leave.
    pub fn is_member(&self) -> bool {
        self.standing != Standing::Dropped
    }
}

impl Catalog {
    /// The members, without those that were dropped.
    pub fn members(&self) -> impl Iterator<Item = (RegionId, &RegionDef)> {
        let all = self.regions.iter().map(|(id, region)| (*id, region));
        all.filter(|(_, region)| region.is_member())
    }

    /// The member with this name.
    pub fn region_named(&self, name: &str) -> Option<RegionId> {
        self.members()
            .find(|(_, region)| region.name == name)
            .map(|(id, _)| id)
    }

    /// As whom a region writes; `None` for one that never was a member.
    pub fn origin_of(&self, region: RegionId) -> Option<OriginId> {
        let incarnation = self.regions.get(&region)?.incarnation;
        Some(OriginId { region, incarnation })
    }

    /// The name of a region, of dropped ones too.
    pub fn region_name(&self, region: RegionId) -> Option<&str> {
        self.regions.get(&region).map(|region| region.name.as_str())
    }

    /// The smallest number that no region ever had.
    pub fn next_region(&self) -> Option<RegionId> {
        let last = self.regions.keys().next_back().map_or(0, |region| region.0);
        // The last number stands for no region in columns.
        last.checked_add(1).filter(|next| *next < u16::MAX).map(RegionId)
    }

    pub(super) fn change_member(&mut self, id: RegionId, change: &MemberChange) {
        match change {
            MemberChange::Add { name, address } => {
                let address = address.clone();
                let region = RegionDef {
                    address,
                    ..RegionDef::new(name)
                };
                self.regions.insert(id, region);
            }
            MemberChange::SetAddress(address) => {
                if let Some(region) = self.regions.get_mut(&id) {
                    region.address = Some(address.clone());
                }
            }
            MemberChange::SetOptions(options) => self.set_region_options(id, *options),
            MemberChange::MakePrimary => self.primary = Some(id),
            MemberChange::Drain(drains) => self.set_standing(
                id,
                match drains {
                    true => Standing::Leaving,
                    false => Standing::Member,
                },
            ),
            MemberChange::Drop => {
                self.region_options.remove(&id);
                self.set_standing(id, Standing::Dropped);
            }
            MemberChange::Reincarnate { incarnation } => {
                if let Some(region) = self.regions.get_mut(&id) {
                    region.incarnation = region.incarnation.max(*incarnation);
                }
                if self.primary == Some(id) {
                    self.version += u64::from(RECOVERY_STEP);
                    self.next_object = self.next_object.saturating_add(RECOVERY_STEP);
                }
            }
        }
    }

    fn set_standing(&mut self, id: RegionId, standing: Standing) {
        if let Some(region) = self.regions.get_mut(&id) {
            region.standing = standing;
        }
    }
}
