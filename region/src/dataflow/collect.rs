//! Dropping tombstones that have become stable (RFC 0010).
//!
//! Which ones these are is the region's decision, and a log record; what is done about it here depends on nothing else.
//! Nothing of it can be seen but the memory: no row, no slot and no frontier changes.

use tributary_replication::{Frontier, Hlc, Lattice};
use tributary_storage::ObjectId;

use super::Dataflow;

impl Dataflow {
    /// Up to where tombstones were dropped, here or by those whose bundles were applied.
    pub fn collected(&self) -> &Frontier {
        &self.collected
    }

    /// Tombstones of GLOBAL rows.
    pub fn row_tombstones(&self) -> usize {
        self.tables.values().map(|table| table.rows.tombstones()).sum()
    }

    /// Tombstones of one table.
    pub fn tombstones_of(&self, table: ObjectId) -> usize {
        self.tables.get(&table).map_or(0, |table| table.rows.tombstones())
    }

    /// Tombstones of slots.
    pub fn slot_tombstones(&self) -> usize {
        self.slots.values().map(|slots| slots.set.tombstones()).sum()
    }

    /// Whether a record that is sealed at or after `before` and says `stable` would drop anything.
    pub(crate) fn has_stable(&self, stable: &Frontier, before: Hlc) -> bool {
        let mut stable = stable.clone();
        stable.merge(self.collected.clone());
        let mut tables = self.tables.values();
        let mut slots = self.slots.values();
        tables.any(|table| table.rows.has_stable(&stable, before))
            || slots.any(|slots| slots.set.has_stable(&stable))
    }

    /// Drops what `stable` covers, and what others have dropped already. `at` is the time of the record.
    pub(super) fn collect(&mut self, stable: &Frontier, at: Hlc) {
        let mut all = self.collected.clone();
        all.merge(stable.clone());
        let tables = self.tables.values_mut();
        let rows: usize = tables.map(|table| table.rows.collect(&all, at)).sum();
        let slots = self.slots.values_mut();
        let slots: usize = slots.map(|slots| slots.set.collect(&all)).sum();
        self.counts.collected += (rows + slots) as u64;
        if !self.defects.collect_early {
            self.collected = all;
        }
    }
}
