//! Merging in portions: a sealed stage, or a set of bundles with many rows, goes in piece by piece, and own commits are
//! stepped in between.
//!
//! ```text
//!   Bundles ──▶ its step: catalog, frontier; rows are queued, by object and origin  ─┐ nothing is published or sent
//!               Work: a portion of the queue │ own commits │ a portion │ …           ─┘ before the last one
//! ```
//!
//! Invariants: what comes after something that is queued, in the same record, is queued behind it; of each object and origin
//! the tombstones of slots go first. A replay merges everything at once. Which own commits stood between the portions
//! changes no value: slots have one writer, and a commit that writes a key which is queued, too, is refused meanwhile (the
//! sequencer's overlay). It changes the stamps of own slots, which no peer has seen.

use std::collections::VecDeque;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::{filter_record_batch, not};
use arrow::datatypes::Int64Type;
use tributary_replication::{Bundle, Epoch, Hlc, Section, SectionObject};
use tributary_storage::{ObjectId, OriginId, Position, Spill};

use super::apply::Gathered;
use super::conflicts::{CONFLICTS_MAX, Conflict};
use super::stages::{DELETED, Stage, Staged, shipped};
use super::{Dataflow, Stepped};
use crate::error::Result;
use crate::sequencer::Sealed;

/// The columns of slots and of rows that hold their stamps.
const SLOT_STAMP: &str = "stamp";
const ROW_STAMP: &str = "tributary_stamp";

/// What is being merged in portions.
pub(crate) struct Applying {
    queue: VecDeque<Queued>,
    /// Views that came with it: their jobs begin with the state after the last portion.
    pub(super) backfills: Vec<ObjectId>,
    /// Conflicts that this region has lost by it so far, to be recorded at the end: the newest [`CONFLICTS_MAX`].
    lost: VecDeque<Conflict>,
    /// Position and time of the record that brought it.
    at: (Position, Hlc),
}

/// What is still to be merged of one object and origin.
struct Queued {
    object: SectionObject,
    origin: OriginId,
    staged: Staged,
    /// What is stamped up to here is here already, or was deleted since and may be forgotten: it is left out.
    known: Epoch,
    /// Whether tombstones are merged, which come before everything else.
    deleting: bool,
    next: u32,
}

impl Applying {
    fn new(record: &Sealed) -> Self {
        Self {
            queue: VecDeque::new(),
            backfills: Vec::new(),
            lost: VecDeque::new(),
            at: record.at(),
        }
    }

    /// The rows that can be spilled.
    pub(super) fn spillable(&mut self) -> impl Iterator<Item = &mut dyn Spill> {
        let queue = self.queue.iter_mut();
        queue.flat_map(|queued| queued.staged.spillable())
    }
}

impl Queued {
    fn new(object: SectionObject, origin: OriginId, staged: Staged, known: Epoch) -> Self {
        Self {
            // Of a table each key has one row at any time.
            deleting: matches!(object, SectionObject::Slots(_)),
            object,
            origin,
            staged,
            known,
            next: 0,
        }
    }

    /// Rows that are not merged yet; while tombstones are, all of them.
    fn rows_left(&self) -> usize {
        let all = self.staged.len();
        let left = match self.deleting {
            true => all,
            false => all - self.next,
        };
        left as usize
    }

    /// The next rows to merge, of at most so many that are looked at, and how many were. `None` at the end.
    fn portion(&mut self, rows_max: usize) -> Option<(RecordBatch, usize)> {
        let end = self.staged.len();
        self.deleting &= self.staged.may_delete;
        if self.next == end && std::mem::take(&mut self.deleting) {
            self.next = 0;
        }
        if self.next == end {
            return None;
        }
        let rows_max = u32::try_from(rows_max).unwrap_or(u32::MAX);
        let rows = self.staged.rows_from(self.next, rows_max);
        let looked_at = rows.num_rows();
        self.next += looked_at as u32;
        let rows = self.beyond_known(rows);
        let rows = match &self.object {
            SectionObject::Slots(_) => {
                let deleted = rows
                    .column_by_name(DELETED)
                    .expect("slots say whether they are deleted");
                let wanted = match self.deleting {
                    true => deleted.as_boolean().clone(),
                    false => not(deleted.as_boolean()).expect("a mask can be negated"),
                };
                filter_record_batch(&rows, &wanted).expect("there is one verdict per row")
            }
            _ => rows,
        };
        Some((rows, looked_at))
    }

    fn beyond_known(&self, rows: RecordBatch) -> RecordBatch {
        let stamp = match &self.object {
            SectionObject::Rows(_) => ROW_STAMP,
            _ => SLOT_STAMP,
        };
        if self.known == Epoch(0) {
            return rows;
        }
        let stamps = rows.column_by_name(stamp).expect("what is shipped is stamped");
        let stamps = stamps.as_primitive::<Int64Type>().values().iter();
        let wanted = stamps.map(|stamp| Epoch::from_i64(*stamp).is_none_or(|stamp| stamp > self.known));
        let wanted: BooleanArray = wanted.map(Some).collect();
        filter_record_batch(&rows, &wanted).expect("there is one verdict per row")
    }
}

impl Dataflow {
    /// Whether something is not merged in full yet. What is here then is of no one moment: it must not be shown.
    pub fn is_applying(&self) -> bool {
        self.applying.is_some()
    }

    /// Rows that are queued.
    pub(crate) fn rows_to_merge(&self) -> u64 {
        let queues = self.applying.iter().flat_map(|applying| &applying.queue);
        let rows: usize = queues.map(Queued::rows_left).sum();
        rows as u64
    }

    /// Queues what a sealed stage has of `origin`, of which everything up to `known` is here.
    pub(super) fn queue_stage(&mut self, stage: &mut Stage, origin: OriginId, known: Epoch, record: &Sealed) {
        let keys = stage.rows.keys().filter(|(_, of)| *of == origin);
        let keys: Vec<_> = keys.cloned().collect();
        for key in keys {
            let staged = stage.rows.remove(&key).expect("just listed");
            let applying = self.applying.get_or_insert_with(|| Applying::new(record));
            applying
                .queue
                .push_back(Queued::new(key.0, origin, staged, known));
        }
    }

    /// Has a set of bundles merged in portions, when it has more rows than that of one.
    pub(super) fn queue_when_large(&mut self, set: &[Bundle], record: &Sealed) {
        let sections = set.iter().flat_map(|bundle| &bundle.sections);
        let rows: usize = sections.map(|section| section.rows.num_rows()).sum();
        if rows > self.apply_rows_max {
            self.applying.get_or_insert_with(|| Applying::new(record));
        }
    }

    /// Rows of a record of which something is queued are merged after that. False when nothing is.
    pub(super) fn queue_section(&mut self, section: &Section) -> bool {
        let travels_by_rows = !matches!(section.object, SectionObject::Blob(_));
        let Some(applying) = self.applying.as_mut().filter(|_| travels_by_rows) else {
            return false;
        };
        let (object, origin) = (&section.object, section.origin);
        let mut queued = applying.queue.iter_mut().rev();
        if let Some(queued) = queued.find(|queued| (&queued.object, queued.origin) == (object, origin)) {
            queued.staged.push(&section.rows);
            return true;
        }
        let Some(schema) = shipped(object, &self.catalog) else {
            // It was dropped.
            return true;
        };
        let mut staged = Staged::new(schema);
        staged.push(&section.rows);
        let queued = Queued::new(object.clone(), origin, staged, Epoch(0));
        applying.queue.push_back(queued);
        true
    }

    /// Merges about so many rows of what is queued.
    ///
    /// Operators count on what holds in every state of an origin, as one row per key. What is left out of such a state
    /// breaks none of it, what is mixed of two does. So of each fragment and origin all that is gone goes first: what is
    /// there then is a part of the earlier state, and from there on a part of the later one.
    pub fn apply_portion(&mut self, rows_max: usize) -> Result<Stepped> {
        let mut left = rows_max.max(1);
        let mut all = Stepped::default();
        let mut begun = Vec::new();
        while left > 0
            && let Some(applying) = &mut self.applying
        {
            let mut gathered = Gathered::default();
            gathered.stepped.backfills.clone_from(&applying.backfills);
            let Some(queued) = applying.queue.front_mut() else {
                begun = self.end_applying(&mut all);
                break;
            };
            let Some((rows, looked_at)) = queued.portion(left) else {
                applying.queue.pop_front();
                continue;
            };
            left -= looked_at;
            let (object, origin) = (queued.object.clone(), queued.origin);
            if rows.num_rows() > 0 {
                self.merge_section(origin, &object, &rows, &mut gathered)?;
            }
            self.keep_lost(std::mem::take(&mut gathered.conflicts));
            join_changes(&mut all, self.step_views(gathered)?);
        }
        all.announced = !all.changes.is_empty() && self.joined;
        if let Some(origin) = self.origin.filter(|_| all.announced) {
            self.frontier.advance(origin, Epoch(self.position.0));
        }
        // What the jobs read are sealed runs.
        self.seal_traces();
        self.spill();
        self.begin_backfills(&begun)?;
        Ok(all)
    }

    /// Keeps conflicts until the end: those that would be overwritten by then go.
    fn keep_lost(&mut self, lost: Vec<Conflict>) {
        let Some(applying) = &mut self.applying else {
            return;
        };
        applying.lost.extend(lost);
        let max = usize::try_from(CONFLICTS_MAX).unwrap_or(usize::MAX);
        if applying.lost.len() <= max {
            return;
        }
        if let Some(recorded) = &self.recorded {
            applying.lost.retain(|conflict| !recorded.has(conflict));
        }
        let over = applying.lost.len().saturating_sub(max);
        applying.lost.drain(..over);
        self.counts.conflicts_recorded += over as u64;
        self.counts.conflicts_overwritten += over as u64;
    }

    /// Ends the merging. Returns the views whose jobs begin with the state after it.
    fn end_applying(&mut self, all: &mut Stepped) -> Vec<ObjectId> {
        let Some(done) = self.applying.take() else {
            return Vec::new();
        };
        let mut gathered = Gathered::default();
        self.record_conflicts(done.lost.into(), done.at, &mut gathered);
        join_changes(all, gathered.stepped);
        done.backfills
    }
}

/// Adds what one step changed to what others before it did.
fn join_changes(all: &mut Stepped, stepped: Stepped) {
    for (object, changed) in stepped.changes {
        match all.changes.get_mut(&object) {
            Some(earlier) => earlier.join(changed),
            None => drop(all.changes.insert(object, changed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array};
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    #[test]
    fn what_was_known_by_then_is_not_merged_again() {
        let int = |name: &str| Field::new(name, DataType::Int64, false);
        let schema = Arc::new(Schema::new(vec![int("id"), int(ROW_STAMP)]));
        let column = |values: [i64; 3]| Arc::new(Int64Array::from(values.to_vec())) as ArrayRef;
        let rows = RecordBatch::try_new(schema.clone(), vec![column([1, 2, 3]), column([5, 11, 12])]);
        let rows = rows.expect("two columns");
        let merged = |known: u64| {
            let mut staged = Staged::new(schema.clone());
            staged.push(&rows);
            let object = SectionObject::Rows(ObjectId(7));
            let mut queued = Queued::new(
                object,
                OriginId::first(tributary_storage::RegionId(1)),
                staged,
                Epoch(known),
            );
            let mut ids = Vec::new();
            while let Some((rows, _)) = queued.portion(2) {
                ids.extend(rows.column(0).as_primitive::<Int64Type>().values().to_vec());
            }
            ids
        };
        assert_eq!(merged(0), [1, 2, 3]);
        assert_eq!(
            merged(11),
            [3],
            "1 may have been deleted by somebody else, and that be forgotten"
        );
        assert_eq!(merged(12), Vec::<i64>::new());
    }
}
