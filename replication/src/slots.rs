//! Slots: (fragment, key, origin) -> (stamp, partial or tombstone).
//!
//! A slot is written by its origin alone and holds the origin's *whole* value for the key, never an
//! increment. So of two values with the same origin the one with the newer stamp is right, whatever the
//! order, and however often, they arrive; equal stamps hold equal values, and anything else is corruption.
//!
//! One [`SlotSet`] holds the slots of one fragment, of all origins, in a trace:
//!
//! ```text
//! key columns ... | origin Int64 | stamp Int64 | deleted Boolean | partial columns ... (null when deleted)
//! └── trace key ─┘
//! ```
//!
//! Invariants: at most one row per (key, origin), always with weight 1; tombstones are kept, because an
//! older value of the key may still arrive through a relay. A key that its origin deletes without ever
//! having written it leaves no tombstone: nobody can have heard of it.
//!
//! Left out: merging partials (the executor's), dropping tombstones (needs causal stability).

mod found;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, UInt32Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use tributary_storage::{Delta, KeyEncoder, Layout, OriginId, RunTrace, Trace, TraceSnapshot};

use crate::changes::{Changes, to_keys};
use crate::defects::Defects;
use crate::error::{ReplicationError, Result};
use crate::frontier::Epoch;
use crate::partials::{ArrowPartials, PartialOps};
use crate::section::{
    Expected, boolean, changed_since, check_columns, check_distinct, of_origin_since, pick, stamps,
};
use found::{FoundSlots, LivePicks};

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

/// The slots of one fragment, of all origins.
pub struct SlotSet {
    layout: SlotLayout,
    partials: Arc<dyn PartialOps>,
    keys: KeyEncoder,
    trace: RunTrace,
    own: Option<OriginId>,
    own_stamp_max: Epoch,
    sealed: bool,
    defects: Defects,
}

/// Values about to be written, as columns of the trace.
struct Incoming {
    columns: Vec<ArrayRef>,
    rows: usize,
}

impl SlotSet {
    /// An empty set.
    pub fn new(layout: SlotLayout) -> Self {
        let trace = RunTrace::new(Self::trace_layout(&layout));
        Self::from_trace(layout, trace)
    }

    /// The set whose slots a checkpoint brought back.
    pub fn from_trace(layout: SlotLayout, trace: RunTrace) -> Self {
        Self {
            partials: Arc::new(ArrowPartials::new(layout.partial_types.clone())),
            keys: KeyEncoder::new(&layout.key_types),
            layout,
            trace,
            own: None,
            own_stamp_max: Epoch(0),
            sealed: true,
            defects: Defects::default(),
        }
    }

    /// Tells which origin writes here, before its first write. Its changes can then be found from the stamps
    /// of runs alone, without reading everything.
    pub fn with_own(mut self, own: OriginId) -> Self {
        self.own = Some(own);
        self
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

    /// The layout of the trace that holds slots of this layout.
    pub fn trace_layout(layout: &SlotLayout) -> Layout {
        let keys = layout
            .key_types
            .iter()
            .enumerate()
            .map(|(i, t)| Field::new(format!("k{i}"), t.clone(), true));
        let partials = layout
            .partial_types
            .iter()
            .enumerate()
            .map(|(i, t)| Field::new(format!("p{i}"), t.clone(), true));
        let fields: Vec<Field> = keys
            .chain([
                Field::new("origin", DataType::Int64, false),
                Field::new("stamp", DataType::Int64, false),
                Field::new("deleted", DataType::Boolean, false),
            ])
            .chain(partials)
            .collect();
        Layout::keyed(
            Arc::new(Schema::new(fields)),
            (0..layout.key_types.len()).collect(),
        )
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
        assert_eq!(
            changes.deleted.null_count(),
            0,
            "every change says whether it deletes"
        );
        assert!(
            tombstones_are_null(&changes.deleted, &changes.partials),
            "a tombstone carries no partial"
        );
        let keys = self.keys.encode_rows(&changes.keys, changes.rows);
        check_distinct("own slots", &keys).expect("a step changes each key at most once");
        self.own = Some(origin);
        self.own_stamp_max = self.own_stamp_max.max(stamp);
        let stamps: ArrayRef = Arc::new(Int64Array::from(vec![stamp.as_i64(); changes.rows]));
        let incoming = self.incoming(
            origin,
            changes.rows,
            &changes.keys,
            stamps,
            &changes.deleted,
            &changes.partials,
        );
        let found = self.trace.lookup(&changes.keys, changes.rows);
        let slots = FoundSlots::new(&self.layout, &found);
        for row in 0..slots.rows() {
            let newest = slots.origin(row) != origin.as_i64() || slots.stamp(row) <= stamp.as_i64();
            assert!(
                newest,
                "{origin} writes at {stamp} a slot that it wrote at {}",
                slots.stamp(row)
            );
        }
        self.write(origin, &incoming, &slots, &vec![true; changes.rows], false)
    }

    /// Takes in a section of another origin. Values that are not newer than what is held are ignored.
    ///
    /// # Errors
    /// `Corrupt` when the columns are not those of a section, a key occurs twice, or an equal stamp comes
    /// with another value. Nothing is changed then.
    pub fn merge_foreign(&mut self, origin: OriginId, rows: &RecordBatch) -> Result<SlotDelta> {
        let what = format!("a slot section of {origin}");
        check_columns(&what, rows, &self.expected_columns())?;
        let key_count = self.layout.key_types.len();
        let keys = &rows.columns()[..key_count];
        check_distinct(&what, &self.keys.encode_rows(keys, rows.num_rows()))?;
        let stamp_column = rows.column(key_count);
        let stamps = stamps(&what, stamp_column)?;
        let deleted = boolean(rows.column(key_count + 1)).clone();
        let partials = self.partials.decode(&rows.columns()[key_count + 2..])?;
        if !tombstones_are_null(&deleted, &partials) {
            return Err(ReplicationError::corrupt(what, "a tombstone carries a partial"));
        }
        let incoming = self.incoming(
            origin,
            rows.num_rows(),
            keys,
            stamp_column.clone(),
            &deleted,
            &partials,
        );
        let found = self.trace.lookup(keys, rows.num_rows());
        let slots = FoundSlots::new(&self.layout, &found);
        let accepted = self.judge(&what, origin, &stamps, &incoming, &slots)?;
        Ok(self.write(origin, &incoming, &slots, &accepted, true))
    }

    /// The values to send: of `origin`, either the present ones of some keys or everything since an epoch.
    /// Columns: keys, stamp Int64, deleted Boolean, partials.
    ///
    /// # Panics
    /// When something was written since the last seal: a section is cut from sealed state.
    pub fn section(&self, origin: OriginId, changes: &Changes) -> RecordBatch {
        assert!(
            self.sealed,
            "a section is cut from sealed slots: seal after the step"
        );
        let origin_column = self.layout.key_types.len();
        let slots = match changes {
            Changes::Keys(set) => {
                let keys = to_keys(set);
                let found = self.trace.lookup(&self.keys.decode(&keys), keys.len());
                of_origin_since(
                    &Delta::new(found.rows, Some(found.weights)),
                    origin_column,
                    origin,
                    Epoch(0),
                )
            }
            Changes::Since(since) => changed_since(&self.trace, origin_column, self.own, origin, *since),
        };
        let key_count = self.layout.key_types.len();
        let mut columns: Vec<ArrayRef> = slots.columns()[..key_count].to_vec();
        columns.extend(slots.columns()[key_count + 1..key_count + 3].iter().cloned());
        columns.extend(self.partials.encode(&slots.columns()[key_count + 3..]));
        RecordBatch::try_new(self.section_schema(), columns).expect("slots are stored as they are shipped")
    }

    /// Makes everything written so far an immutable run that carries `stamp`: this region's log position.
    ///
    /// # Panics
    /// When own values written since the last seal are stamped later.
    pub fn seal(&mut self, stamp: u64) {
        assert!(
            self.own_stamp_max.0 <= stamp,
            "runs are sealed at or after the stamps they hold"
        );
        self.trace.seal(stamp);
        self.sealed = true;
    }

    /// What is sealed.
    pub fn snapshot(&self) -> Arc<TraceSnapshot> {
        self.trace.snapshot()
    }

    /// The memory held, in bytes.
    pub fn bytes(&self) -> usize {
        self.trace.bytes()
    }

    /// The number of slots, tombstones included; an upper bound.
    pub fn row_count(&self) -> usize {
        self.trace.row_count()
    }

    fn trace_schema(&self) -> SchemaRef {
        self.trace.layout().schema.clone()
    }

    fn section_schema(&self) -> SchemaRef {
        let trace = self.trace_schema();
        let origin = self.layout.key_types.len();
        let own = trace
            .fields()
            .iter()
            .enumerate()
            .filter(|(i, _)| *i < origin + 3 && *i != origin);
        let shipped = self.partials.shipped_types().into_iter().enumerate();
        let fields: Vec<Field> = own
            .map(|(_, field)| field.as_ref().clone())
            .chain(shipped.map(|(i, data_type)| Field::new(format!("p{i}"), data_type, true)))
            .collect();
        Arc::new(Schema::new(fields))
    }

    fn expected_columns(&self) -> Vec<Expected> {
        let fields = self.section_schema();
        let expected = |field: &Arc<Field>| Expected {
            data_type: field.data_type().clone(),
            nullable: field.is_nullable(),
        };
        fields.fields().iter().map(expected).collect()
    }

    fn incoming(
        &self,
        origin: OriginId,
        rows: usize,
        keys: &[ArrayRef],
        stamps: ArrayRef,
        deleted: &BooleanArray,
        partials: &[ArrayRef],
    ) -> Incoming {
        let mut columns = keys.to_vec();
        columns.push(Arc::new(Int64Array::from(vec![origin.as_i64(); rows])));
        columns.push(stamps);
        columns.push(Arc::new(deleted.clone()));
        columns.extend(partials.iter().cloned());
        Incoming { columns, rows }
    }

    /// Which foreign values are newer than what is held.
    fn judge(
        &self,
        what: &str,
        origin: OriginId,
        stamps: &[Epoch],
        incoming: &Incoming,
        slots: &FoundSlots,
    ) -> Result<Vec<bool>> {
        let mut accepted = vec![true; incoming.rows];
        let value_columns = self.layout.key_types.len() + 3;
        let arriving = self
            .partials
            .identity(&incoming.columns[value_columns..], incoming.rows);
        let held = self
            .partials
            .identity(&slots.columns[value_columns..], slots.rows());
        let deleted = boolean(&incoming.columns[value_columns - 1]);
        for (probe, range) in slots.by_probe(incoming.rows).into_iter().enumerate() {
            for row in range.filter(|row| slots.origin(*row) == origin.as_i64()) {
                let stamp = stamps[probe].as_i64();
                accepted[probe] = stamp > slots.stamp(row) || self.defects.skip_duplicate_check;
                let same = slots.deleted(row) == deleted.value(probe) && held.get(row) == arriving.get(probe);
                if stamp == slots.stamp(row) && !same && !self.defects.skip_duplicate_check {
                    let detail = format!("two different values with the stamp {stamp}");
                    return Err(ReplicationError::corrupt(what, detail));
                }
            }
        }
        Ok(accepted)
    }

    /// Replaces the accepted slots and tells what that changed. `keep_unknown_tombstones`: whether a
    /// tombstone of a slot that was never seen is worth keeping.
    fn write(
        &mut self,
        origin: OriginId,
        incoming: &Incoming,
        slots: &FoundSlots,
        accepted: &[bool],
        keep_unknown_tombstones: bool,
    ) -> SlotDelta {
        const HELD: usize = 0;
        const ARRIVING: usize = 1;
        let key_count = self.layout.key_types.len();
        let deleted = boolean(&incoming.columns[key_count + 2]);
        let (mut changed, mut written, mut weights) = (Vec::new(), Vec::new(), Vec::new());
        let (mut before, mut after) = (LivePicks::default(), LivePicks::default());
        for (probe, range) in slots.by_probe(incoming.rows).into_iter().enumerate() {
            if !accepted[probe] {
                continue;
            }
            let key = u32::try_from(changed.len()).expect("a step changes fewer than 2^32 keys");
            changed.push((ARRIVING, probe));
            let mut replaced = false;
            let mut placed = deleted.value(probe);
            for row in range {
                let own = slots.origin(row) == origin.as_i64();
                if own {
                    replaced = true;
                    written.push((HELD, row));
                    weights.push(-1);
                }
                if !slots.deleted(row) {
                    before.push(key, (HELD, row));
                }
                if !placed && slots.origin(row) >= origin.as_i64() {
                    after.push(key, (ARRIVING, probe));
                    placed = true;
                }
                if !own && !slots.deleted(row) {
                    after.push(key, (HELD, row));
                }
            }
            if !placed {
                after.push(key, (ARRIVING, probe));
            }
            if replaced || keep_unknown_tombstones || !deleted.value(probe) {
                written.push((ARRIVING, probe));
                weights.push(1);
            }
        }
        let sources = [slots.columns.as_slice(), incoming.columns.as_slice()];
        self.apply(pick(&sources, &written), weights);
        let mut keys = pick(&sources, &changed);
        keys.truncate(key_count);
        SlotDelta {
            rows: changed.len(),
            keys,
            before: before.take(&sources, key_count),
            after: after.take(&sources, key_count),
        }
    }

    fn apply(&mut self, columns: Vec<ArrayRef>, weights: Vec<i64>) {
        if weights.is_empty() {
            return;
        }
        let rows = RecordBatch::try_new(self.trace_schema(), columns).expect("the columns are the trace's");
        self.trace
            .apply(&Delta::new(rows, Some(Int64Array::from(weights))));
        self.sealed = false;
    }
}

fn tombstones_are_null(deleted: &BooleanArray, partials: &[ArrayRef]) -> bool {
    partials
        .iter()
        .all(|column| (0..deleted.len()).all(|row| !deleted.value(row) || column.is_null(row)))
}
