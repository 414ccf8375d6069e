//! Slots: (fragment, key, origin) -> (stamp, partial or tombstone).
//!
//! A slot is written by its origin alone and holds the origin's *whole* value for the key, never an
//! increment. So of two values with the same origin the one with the newer stamp is right, whatever the
//! order, and however often, they arrive; equal stamps hold equal values, and anything else is corruption.
//!
//! One [`SlotSet`] holds the slots of one fragment: a hash index from keys to numbers, and for each origin its
//! values in the order in which they came, which is the order of their stamps:
//!
//! ```text
//!   key ──index──▶ k     origin 1: place[k] ──▶ row     rows: key columns ... | stamp | deleted | partial columns ...
//!                        origin 2: place[k] ──▶ row     (a newer value is appended, the older one is dead)
//! ```
//!
//! So what was written since an epoch is the end of a store, and rows are stored as they are shipped.
//!
//! Invariants: at most one live row per (key, origin); tombstones are kept until everybody to whom this region may have to
//! say so has heard of them ([`SlotSet::collect`], RFC 0010). A key that its origin deletes without ever having written it
//! leaves no tombstone: nobody can have heard of it.
//!
//! Left out: merging partials (the executor's).

mod of_origin;
mod picks;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use tributary_storage::{KeyIndex, OriginId, RowStore, RowsSnapshot, Spill};

use crate::defects::Defects;
use crate::error::{ReplicationError, Result};
use crate::frontier::{Epoch, Frontier};
use crate::partials::{ArrowPartials, PartialOps};
use crate::section::{Expected, boolean, check_columns, stamps};
use crate::walk::{SlotsWalk, Walk};
use of_origin::OfOrigin;
use picks::Picks;

/// Keys without slots are forgotten when they are the majority, and there are at least so many keys.
const UNUSED_KEYS_MIN: usize = 1024;

/// The columns of a fragment's slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotLayout {
    /// The types of the key columns; keys may be null, and there may be none.
    pub key_types: Vec<DataType>,
    /// The types of the partial columns.
    pub partial_types: Vec<DataType>,
}

/// New absolute values of an origin's own slots. Each key occurs at most once.
#[derive(Clone, Debug)]
pub struct SlotChanges {
    /// The number of changes.
    pub rows: usize,
    /// The key columns.
    pub keys: Vec<ArrayRef>,
    /// True for tombstones; never null.
    pub deleted: BooleanArray,
    /// The partial columns, null for tombstones.
    pub partials: Vec<ArrayRef>,
}

/// What a write or a merge changed: every changed key with its live slots before and after.
#[derive(Clone, Debug)]
pub struct SlotDelta {
    /// The number of changed keys.
    pub rows: usize,
    /// The key columns of the changed keys, each key once.
    pub keys: Vec<ArrayRef>,
    /// The live slots of these keys before.
    pub before: LiveSlots,
    /// The live slots of these keys after.
    pub after: LiveSlots,
}

/// Slots of all origins, without tombstones.
#[derive(Clone, Debug)]
pub struct LiveSlots {
    /// For each slot the index of its key among the changed keys; ascending, origins ascending within.
    pub probe: UInt32Array,
    /// The origin of each slot, as [`OriginId::as_i64`].
    pub origins: Int64Array,
    /// The partial columns.
    pub partials: Vec<ArrayRef>,
}

/// A section that is well-formed.
struct Arrived {
    stamps: Vec<Epoch>,
    /// The numbers of its keys.
    keys: Vec<u32>,
    /// Its rows as they are kept.
    rows: RecordBatch,
}

/// The slots of one fragment, of all origins.
pub struct SlotSet {
    layout: SlotLayout,
    schema: SchemaRef,
    partials: Arc<dyn PartialOps>,
    index: KeyIndex,
    origins: BTreeMap<OriginId, OfOrigin>,
    /// Per key the batch that named it last, to find one that is named twice.
    named: Vec<u64>,
    batches: u64,
    defects: Defects,
}

impl SlotSet {
    /// An empty set.
    pub fn new(layout: SlotLayout) -> Self {
        let partials = ArrowPartials::new(layout.partial_types.clone());
        Self {
            schema: Self::row_schema(&layout),
            partials: Arc::new(partials),
            index: KeyIndex::new(&layout.key_types),
            layout,
            origins: BTreeMap::new(),
            named: Vec::new(),
            batches: 0,
            defects: Defects::default(),
        }
    }

    /// Takes in the slots of an origin that a checkpoint brought back.
    ///
    /// # Panics
    /// When the origin has slots already, or the columns are not those of [`SlotSet::row_schema`].
    pub fn restore(&mut self, origin: OriginId, rows: RowStore) {
        let keys = self.layout.key_types.len();
        let slots = OfOrigin::restored(rows, keys, &mut self.index);
        let earlier = self.origins.insert(origin, slots);
        assert!(earlier.is_none(), "an origin's slots are restored once");
        self.named.resize(self.index.len(), 0);
    }

    /// Switches defects on. For tests only.
    pub fn with_defects(mut self, defects: Defects) -> Self {
        self.set_defects(defects);
        self
    }

    /// Switches defects on or off. For tests only.
    pub fn set_defects(&mut self, defects: Defects) {
        self.defects = defects;
    }

    /// The columns in which an origin's slots are kept and shipped: keys, stamp Int64, deleted Boolean, partials.
    pub fn row_schema(layout: &SlotLayout) -> SchemaRef {
        let named = |prefix: char, types: &[DataType]| -> Vec<Field> {
            let field = |(i, t): (usize, &DataType)| Field::new(format!("{prefix}{i}"), t.clone(), true);
            types.iter().enumerate().map(field).collect()
        };
        let mut fields = named('k', &layout.key_types);
        fields.push(Field::new("stamp", DataType::Int64, false));
        fields.push(Field::new("deleted", DataType::Boolean, false));
        fields.extend(named('p', &layout.partial_types));
        Arc::new(Schema::new(fields))
    }

    /// The columns of these slots.
    pub fn layout(&self) -> &SlotLayout {
        &self.layout
    }

    /// Writes the origin's own values. Every key of `changes` is in the result.
    ///
    /// # Panics
    /// When a key occurs twice, a live key is stamped back in time, or the columns are not those of the layout.
    pub fn write_own(&mut self, origin: OriginId, stamp: Epoch, changes: &SlotChanges) -> SlotDelta {
        assert!(stamp > Epoch(0), "epoch 0 is before every write");
        assert_eq!(
            changes.deleted.len(),
            changes.rows,
            "every change says whether it deletes"
        );
        assert!(
            tombstones_are_null(&changes.deleted, &changes.partials),
            "a tombstone carries no partial"
        );
        let keys = self.index.insert(&changes.keys, changes.rows);
        assert!(self.are_distinct(&keys), "a step changes each key at most once");
        if let Some(held) = self.origins.get(&origin) {
            let newest = held.newest_stamp(&keys);
            assert!(
                newest <= stamp,
                "{origin} writes at {stamp} a slot that it wrote at {newest}"
            );
        }
        let mut columns = changes.keys.clone();
        columns.push(Arc::new(Int64Array::from(vec![stamp.as_i64(); changes.rows])));
        columns.push(Arc::new(changes.deleted.clone()));
        columns.extend(changes.partials.iter().cloned());
        let rows = RecordBatch::try_new(self.schema.clone(), columns).expect("the columns are the layout's");
        self.write(origin, &keys, &rows, false)
    }

    /// Takes in a section of another origin. Values that are not newer than what is held are ignored.
    ///
    /// # Errors
    /// `Corrupt` when the columns are not those of a section, a key occurs twice, or an equal stamp comes
    /// with another value. No slot is changed then.
    pub fn merge_foreign(&mut self, origin: OriginId, rows: &RecordBatch) -> Result<SlotDelta> {
        let what = format!("a slot section of {origin}");
        let Arrived { stamps, keys, rows } = self.read(&what, rows)?;
        let accepted = self.judge(&what, origin, &stamps, &keys, &rows)?;
        if accepted.true_count() == accepted.len() {
            return Ok(self.write(origin, &keys, &rows, true));
        }
        let rows = filter_record_batch(&rows, &accepted).expect("there is one verdict per row");
        let kept = keys.into_iter().zip(accepted.values()).filter(|(_, kept)| *kept);
        Ok(self.write(origin, &kept.map(|(key, _)| key).collect::<Vec<_>>(), &rows, true))
    }

    /// Whether a section of another origin could be merged here, as far as it tells by itself. Its keys are indexed, so this is
    /// for a set that is used for nothing else.
    ///
    /// # Errors
    /// `Corrupt` when the columns are not those of a section, or a key occurs twice.
    pub fn check_foreign(&mut self, origin: OriginId, rows: &RecordBatch) -> Result<()> {
        self.read(&format!("a slot section of {origin}"), rows).map(drop)
    }

    fn read(&mut self, what: &str, rows: &RecordBatch) -> Result<Arrived> {
        check_columns(what, rows, &self.expected_columns())?;
        let key_count = self.layout.key_types.len();
        let stamps = stamps(what, rows.column(key_count))?;
        let partials = self.partials.decode(&rows.columns()[key_count + 2..])?;
        if !tombstones_are_null(boolean(rows.column(key_count + 1)), &partials) {
            return Err(ReplicationError::corrupt(what, "a tombstone carries a partial"));
        }
        let mut columns = rows.columns()[..key_count + 2].to_vec();
        columns.extend(partials);
        let rows = RecordBatch::try_new(self.schema.clone(), columns).expect("the columns were checked");
        let keys = self.index.insert(&rows.columns()[..key_count], rows.num_rows());
        match self.are_distinct(&keys) {
            true => Ok(Arrived { stamps, keys, rows }),
            false => Err(ReplicationError::corrupt(what, "a key occurs twice")),
        }
    }

    /// Drops all slots of an origin whose log counts no more, tombstones included: nothing of it will be merged
    /// again. `None` when it holds none that live.
    pub fn forget(&mut self, origin: OriginId) -> Option<SlotDelta> {
        let (number, rows) = {
            let number = self.origins.keys().position(|held_by| *held_by == origin)?;
            (number, self.origins[&origin].live())
        };
        if rows.is_empty() {
            self.origins.remove(&origin);
            return None;
        }
        let key_count = self.layout.key_types.len();
        let columns = self.origins[&origin].take(&rows);
        let keys = self.index.insert(&columns.columns()[..key_count], rows.len());
        let (mut before, mut after) = (Picks::new(&self.origins), Picks::new(&self.origins));
        for (probe, key) in keys.iter().enumerate() {
            for (other, slots) in self.origins.values().enumerate() {
                if let Some(place) = slots.place(*key).filter(|place| !place.deleted) {
                    before.push(probe, other, place.row);
                    if other != number {
                        after.push(probe, other, place.row);
                    }
                }
            }
        }
        let partials = &columns.columns()[key_count + 2..];
        let delta = SlotDelta {
            rows: rows.len(),
            keys: columns.columns()[..key_count].to_vec(),
            before: before.take(&self.origins, key_count + 2, origin, partials),
            after: after.take(&self.origins, key_count + 2, origin, partials),
        };
        self.origins.remove(&origin);
        Some(delta)
    }

    /// The values of `origin` that are stamped later than an epoch, as they are shipped: keys, stamp Int64, deleted
    /// Boolean, partials.
    pub fn section(&self, origin: OriginId, since: Epoch) -> RecordBatch {
        let rows = match self.origins.get(&origin) {
            Some(slots) => slots.since(since),
            None => RecordBatch::new_empty(self.schema.clone()),
        };
        let key_count = self.layout.key_types.len();
        let mut columns = rows.columns()[..key_count + 2].to_vec();
        columns.extend(self.partials.encode(&rows.columns()[key_count + 2..]));
        RecordBatch::try_new(self.section_schema(), columns).expect("slots are stored as they are shipped")
    }

    /// As [`SlotSet::section`], in portions of at most so many rows.
    pub fn walk(&self, origin: OriginId, since: Epoch, rows_max: usize) -> Option<Walk> {
        let slots = self.origins.get(&origin)?;
        Some(Walk::Slots(SlotsWalk {
            scan: slots.snapshot().scan_from(slots.first_since(since), rows_max),
            since,
            key_count: self.layout.key_types.len(),
            partials: self.partials.clone(),
            shipped: self.section_schema(),
        }))
    }

    /// About how many bytes the values are that are stamped later than an epoch; not less by much.
    pub fn bytes_since(&self, origin: OriginId, since: Epoch) -> usize {
        self.origins
            .get(&origin)
            .map_or(0, |slots| slots.bytes_since(since))
    }

    /// What is held of each origin, tombstones included, in the columns of [`SlotSet::row_schema`].
    pub fn snapshots(&self) -> impl Iterator<Item = (OriginId, Arc<RowsSnapshot>)> + '_ {
        let of_origin = |(origin, slots): (&OriginId, &OfOrigin)| (*origin, slots.snapshot());
        self.origins.iter().map(of_origin)
    }

    /// The rows that can be spilled, by origin.
    pub fn spillable(&mut self) -> impl Iterator<Item = &mut dyn Spill> {
        self.origins.values_mut().map(OfOrigin::spillable)
    }

    /// The number of tombstones.
    pub fn tombstones(&self) -> usize {
        self.origins.values().map(OfOrigin::tombstones).sum()
    }

    /// Whether [`SlotSet::collect`] would drop anything.
    pub fn has_stable(&self, stable: &Frontier) -> bool {
        let mut origins = self.origins.iter();
        origins.any(|(origin, slots)| slots.has_stable(stable.get(*origin)))
    }

    /// Drops the tombstones that `stable` covers: everybody has heard of them. Returns how many.
    pub fn collect(&mut self, stable: &Frontier) -> usize {
        let origins = self.origins.iter_mut();
        let dropped = origins
            .map(|(origin, slots)| slots.collect(stable.get(*origin)))
            .sum();
        if dropped > 0 && self.index.len() >= UNUSED_KEYS_MIN && self.row_count() * 2 < self.index.len() {
            self.reindex();
        }
        dropped
    }

    /// Forgets the keys that no slot has any more.
    fn reindex(&mut self) {
        let keys = self.layout.key_types.len();
        let mut index = KeyIndex::new(&self.layout.key_types);
        let origins = std::mem::take(&mut self.origins).into_iter();
        self.origins = origins
            .map(|(origin, slots)| (origin, slots.reindexed(keys, &mut index)))
            .collect();
        self.index = index;
        self.named = vec![0; self.index.len()];
    }

    /// The memory held, in bytes.
    pub fn bytes(&self) -> usize {
        let slots: usize = self.origins.values().map(OfOrigin::bytes).sum();
        slots + self.index.bytes() + self.named.capacity() * size_of::<u64>()
    }

    /// The number of slots, tombstones included.
    pub fn row_count(&self) -> usize {
        self.origins.values().map(OfOrigin::row_count).sum()
    }

    /// The columns of a section.
    pub fn section_schema(&self) -> SchemaRef {
        let own = &self.schema.fields()[..self.layout.key_types.len() + 2];
        let shipped = self.partials.shipped_types().into_iter().enumerate();
        let shipped = shipped.map(|(i, data_type)| Arc::new(Field::new(format!("p{i}"), data_type, true)));
        Arc::new(Schema::new(
            own.iter().cloned().chain(shipped).collect::<Vec<_>>(),
        ))
    }

    fn expected_columns(&self) -> Vec<Expected> {
        let fields = self.section_schema();
        let expected = |field: &Arc<Field>| Expected {
            data_type: field.data_type().clone(),
            nullable: field.is_nullable(),
        };
        fields.fields().iter().map(expected).collect()
    }

    /// Whether no key is named twice.
    fn are_distinct(&mut self, keys: &[u32]) -> bool {
        self.batches += 1;
        self.named.resize(self.index.len(), 0);
        keys.iter().all(|key| {
            let named = std::mem::replace(&mut self.named[*key as usize], self.batches);
            named != self.batches
        })
    }

    /// Which foreign values are newer than what is held.
    fn judge(
        &self,
        what: &str,
        origin: OriginId,
        stamps: &[Epoch],
        keys: &[u32],
        rows: &RecordBatch,
    ) -> Result<BooleanArray> {
        let Some(held) = self
            .origins
            .get(&origin)
            .filter(|_| !self.defects.skip_duplicate_check)
        else {
            return Ok(BooleanArray::from(vec![true; keys.len()]));
        };
        let mut accepted = Vec::with_capacity(keys.len());
        let mut again = Vec::new();
        for (row, (key, stamp)) in keys.iter().zip(stamps).enumerate() {
            let place = held.place(*key);
            let known = place.map(|place| held.stamp(place));
            accepted.push(known.is_none_or(|known| known < *stamp));
            if let Some(place) = place.filter(|_| known == Some(*stamp)) {
                again.push((row as u32, place.row));
            }
        }
        let arriving: UInt32Array = again.iter().map(|(row, _)| *row).collect();
        let arriving = arrow::compute::take_record_batch(rows, &arriving).expect("rows of this batch");
        let known = held.take(&again.iter().map(|(_, row)| *row).collect::<Vec<_>>());
        let first_value = self.layout.key_types.len() + 1;
        let identity = |rows: &RecordBatch| {
            let partials = &rows.columns()[first_value + 1..];
            self.partials.identity(partials, rows.num_rows())
        };
        let (theirs, ours) = (identity(&arriving), identity(&known));
        let deleted = |rows: &RecordBatch, row: usize| boolean(rows.column(first_value)).value(row);
        for (i, (row, _)) in again.iter().enumerate() {
            if deleted(&arriving, i) != deleted(&known, i) || theirs.get(i) != ours.get(i) {
                let stamp = stamps[*row as usize].as_i64();
                let detail = format!("two different values with the stamp {stamp}");
                return Err(ReplicationError::corrupt(what, detail));
            }
        }
        Ok(accepted.into())
    }

    /// Replaces slots and tells what that changed. `keep_unknown_tombstones`: whether a tombstone of a slot that was
    /// never seen is worth keeping.
    fn write(
        &mut self,
        origin: OriginId,
        keys: &[u32],
        rows: &RecordBatch,
        keep_unknown_tombstones: bool,
    ) -> SlotDelta {
        let key_count = self.layout.key_types.len();
        let deleted = boolean(rows.column(key_count + 1));
        let schema = &self.schema;
        self.origins
            .entry(origin)
            .or_insert_with(|| OfOrigin::new(schema.clone()));
        let (mut before, mut after) = (Picks::new(&self.origins), Picks::new(&self.origins));
        for (probe, key) in keys.iter().enumerate() {
            for (number, (held_by, slots)) in self.origins.iter().enumerate() {
                let held = slots.place(*key).filter(|place| !place.deleted);
                if let Some(place) = held {
                    before.push(probe, number, place.row);
                }
                match (*held_by == origin, held) {
                    (true, _) if !deleted.value(probe) => after.push_arriving(probe),
                    (false, Some(place)) => after.push(probe, number, place.row),
                    _ => {}
                }
            }
        }
        let partials = &rows.columns()[key_count + 2..];
        let delta = SlotDelta {
            rows: keys.len(),
            keys: rows.columns()[..key_count].to_vec(),
            before: before.take(&self.origins, key_count + 2, origin, partials),
            after: after.take(&self.origins, key_count + 2, origin, partials),
        };
        let slots = self.origins.get_mut(&origin).expect("made above");
        slots.write(keys, rows, key_count, keep_unknown_tombstones);
        delta
    }
}

fn tombstones_are_null(deleted: &BooleanArray, partials: &[ArrayRef]) -> bool {
    deleted.true_count() == 0
        || partials
            .iter()
            .all(|column| (0..deleted.len()).all(|row| !deleted.value(row) || column.is_null(row)))
}
