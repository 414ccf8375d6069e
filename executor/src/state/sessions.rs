//! Rows by key and time, and the sessions they form: runs of rows of one key, each less than the gap after the one
//! before it.
//!
//! A row that comes or goes moves the bounds of the sessions beside it only. So of each key a batch touches, the rows
//! are walked from each touched time outwards, up to a gap that neither the old rows nor the new ones bridge; what lies
//! between is divided into sessions twice, as it was and as it is, and the rows whose bounds differ are the change.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, SchemaRef};
use tributary_storage::{Delta, KeyIndex, RowStore, RowsSnapshot, Spill, ZSet};

use crate::canonical::canonical_all;
use crate::columns::{batch_of, downcast, types_of};

/// What makes a session.
#[derive(Debug)]
pub(crate) struct Sessionizing {
    /// Columns by which rows are apart.
    pub(crate) partition: Vec<usize>,
    /// The time column.
    pub(crate) column: usize,
    /// A row this much later than the one before it, or more, begins a session; microseconds, positive.
    pub(crate) gap_us: i64,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Sessions {
    by: Sessionizing,
    index: KeyIndex,
    rows: Rows,
    /// Of each key the times of its rows, each with the row's id.
    times: Vec<BTreeSet<(i64, u32)>>,
}

/// Rows that only come are not looked for again.
#[derive(Debug)]
enum Rows {
    Appended(RowStore),
    Weighted(Box<ZSet>),
}

impl Rows {
    fn store(&self) -> &RowStore {
        match self {
            Self::Appended(rows) => rows,
            Self::Weighted(rows) => rows.store(),
        }
    }

    /// Takes in a delta: the id of each of its rows, and how weights changed.
    fn apply(&mut self, delta: &Delta) -> (Vec<u32>, Weighed) {
        match self {
            Self::Appended(rows) => {
                assert!(delta.weights().is_none(), "rows that never go have no weights");
                let first = rows.append(delta.rows());
                (
                    (first..first + delta.len() as u32).collect(),
                    Weighed::From(first),
                )
            }
            Self::Weighted(rows) => {
                let ids = rows.apply(delta).ids;
                let changes = ids.iter().enumerate();
                let mut changes: Vec<(u32, i64)> =
                    changes.map(|(row, id)| (*id, delta.weight(row))).collect();
                changes.sort_unstable();
                changes.dedup_by(|next, sum| {
                    let is_same = next.0 == sum.0;
                    sum.1 += if is_same { next.1 } else { 0 };
                    is_same
                });
                (ids, Weighed::By(changes))
            }
        }
    }
}

/// How a batch changed weights.
enum Weighed {
    /// Ids from here on are new, and their weight is 1.
    From(u32),
    /// The ids that it touched, ascending, and by how much.
    By(Vec<(u32, i64)>),
}

impl Weighed {
    fn change(&self, id: u32) -> i64 {
        match self {
            Self::From(first) => i64::from(id >= *first),
            Self::By(changes) => {
                let place = changes.binary_search_by_key(&id, |change| change.0);
                place.map_or(0, |place| changes[place].1)
            }
        }
    }
}

/// Rows with the bounds of their sessions, and weights.
#[derive(Default)]
struct Change {
    ids: Vec<u32>,
    weights: Vec<i64>,
    starts: Vec<i64>,
    ends: Vec<i64>,
}

impl Change {
    fn push(&mut self, id: u32, weight: i64, (start, end): (i64, i64)) {
        self.ids.push(id);
        self.weights.push(weight);
        self.starts.push(start);
        self.ends.push(end);
    }
}

impl Sessions {
    pub(crate) fn new(schema: SchemaRef, by: Sessionizing, append_only: bool) -> Self {
        let types = types_of(&schema);
        let partition: Vec<DataType> = by.partition.iter().map(|c| types[*c].clone()).collect();
        Self {
            index: KeyIndex::new(&partition),
            rows: match append_only {
                true => Rows::Appended(RowStore::new(schema)),
                false => Rows::Weighted(Box::new(ZSet::new(schema))),
            },
            times: Vec::new(),
            by,
        }
    }

    pub(crate) fn schema(&self) -> &SchemaRef {
        self.rows.store().schema()
    }

    /// The number of rows, dead ones included.
    pub(crate) fn len(&self) -> usize {
        self.rows.store().len()
    }

    pub(crate) fn bytes(&self) -> usize {
        let rows = match &self.rows {
            Rows::Appended(rows) => rows.bytes(),
            Rows::Weighted(rows) => rows.bytes(),
        };
        let store = self.rows.store();
        let times = (store.len() - store.dead()) * size_of::<(i64, u32)>();
        rows + self.index.bytes() + times + self.times.len() * size_of::<BTreeSet<(i64, u32)>>()
    }

    /// Takes in rows, each with a time whose session's end can be told, and gives the change of the rows with the bounds
    /// of their sessions, in `schema`.
    pub(crate) fn apply(&mut self, delta: &Delta, schema: &SchemaRef) -> Delta {
        let columns = delta.rows().columns();
        let groups = groups(&mut self.index, &self.by.partition, columns, delta.len());
        self.times.resize_with(self.index.len(), BTreeSet::new);
        let times = times_of(&delta.rows().columns()[self.by.column]);
        let (ids, weighed) = self.rows.apply(delta);
        let mut touched: Vec<(u32, i64)> = Vec::with_capacity(ids.len());
        for ((group, time), id) in groups.iter().zip(times.values()).zip(&ids) {
            self.times[*group as usize].insert((*time, *id));
            touched.push((*group, *time));
        }
        touched.sort_unstable();
        touched.dedup();
        let mut change = Change::default();
        let mut walked: Option<(u32, i64)> = None;
        for (group, time) in touched {
            // Up to here the key's rows were walked for an earlier time.
            if walked.is_some_and(|(other, until)| other == group && time <= until) {
                continue;
            }
            let run = run_around(&self.times[group as usize], time, self.by.gap_us);
            walked = run.last().map(|(last, _)| (group, *last));
            differences(self.rows.store(), &weighed, &run, self.by.gap_us, &mut change);
        }
        let rows = self.rows.store();
        for ((group, time), id) in groups.iter().zip(times.values()).zip(&ids) {
            if rows.weight(*id) == 0 {
                self.times[*group as usize].remove(&(*time, *id));
            }
        }
        let delta = self.with_bounds(change, schema);
        self.compact_if_due();
        delta
    }

    fn with_bounds(&self, change: Change, schema: &SchemaRef) -> Delta {
        let Change {
            ids,
            weights,
            starts,
            ends,
        } = change;
        let mut columns = self.rows.store().take(&ids).columns().to_vec();
        let time = columns[self.by.column].data_type().clone();
        for bounds in [starts, ends] {
            let bounds: ArrayRef = Arc::new(Int64Array::from(bounds));
            columns.push(cast(&bounds, &time).expect("microseconds are integers"));
        }
        let rows = batch_of(schema.clone(), columns, ids.len());
        let all_inserts = weights.iter().all(|weight| *weight == 1);
        Delta::new(rows, (!all_inserts).then(|| Int64Array::from(weights)))
    }

    /// Dead rows go, and keys without rows with them.
    fn compact_if_due(&mut self) {
        if let Rows::Weighted(rows) = &mut self.rows
            && rows.compact_if_due().is_some()
        {
            self.enter_all();
        }
    }

    /// Finds the keys and the times of all rows again.
    fn enter_all(&mut self) {
        let store = self.rows.store();
        let types = types_of(store.schema());
        let partition: Vec<DataType> = self.by.partition.iter().map(|c| types[*c].clone()).collect();
        let mut index = KeyIndex::new(&partition);
        let mut all: Vec<BTreeSet<(i64, u32)>> = Vec::new();
        for (ids, rows) in store.live_batches() {
            let groups = groups(&mut index, &self.by.partition, rows.columns(), ids.len());
            all.resize_with(index.len(), BTreeSet::new);
            let times = times_of(rows.column(self.by.column));
            for ((id, group), time) in ids.into_iter().zip(groups).zip(times.values()) {
                all[group as usize].insert((*time, id));
            }
        }
        self.index = index;
        self.times = all;
    }

    pub(crate) fn spillable(&mut self) -> &mut dyn Spill {
        match &mut self.rows {
            Rows::Appended(rows) => rows,
            Rows::Weighted(rows) => &mut **rows,
        }
    }

    pub(crate) fn save(&self) -> Arc<RowsSnapshot> {
        self.rows.store().snapshot()
    }

    /// Takes in the rows that were saved, as they are.
    pub(crate) fn restore(&mut self, saved: RowStore) {
        self.rows = match self.rows {
            Rows::Appended(_) => Rows::Appended(saved),
            Rows::Weighted(_) => Rows::Weighted(Box::new(ZSet::from_store(saved))),
        };
        self.enter_all();
    }
}

/// The number of each row's key.
fn groups(index: &mut KeyIndex, partition: &[usize], columns: &[ArrayRef], rows: usize) -> Vec<u32> {
    let partition: Vec<ArrayRef> = partition.iter().map(|c| columns[*c].clone()).collect();
    index.insert(&canonical_all(&partition), rows)
}

fn times_of(column: &ArrayRef) -> &TimestampMicrosecondArray {
    let times = downcast::<TimestampMicrosecondArray>(column);
    assert_eq!(times.null_count(), 0, "a row without a time is in no session");
    times
}

/// The rows around a time, in their order, of which each is less than the gap after the one before it.
fn run_around(times: &BTreeSet<(i64, u32)>, time: i64, gap_us: i64) -> Vec<(i64, u32)> {
    // Two times can be further apart than 64 bits with a sign can tell.
    let is_near = |earlier: i64, later: i64| later.abs_diff(earlier) < gap_us.unsigned_abs();
    let mut run: Vec<(i64, u32)> = Vec::new();
    let mut nearest = time;
    for entry in times.range(..(time, 0)).rev() {
        if !is_near(entry.0, nearest) {
            break;
        }
        nearest = entry.0;
        run.push(*entry);
    }
    run.reverse();
    nearest = time;
    for entry in times.range((time, 0)..) {
        if !is_near(nearest, entry.0) {
            break;
        }
        nearest = entry.0;
        run.push(*entry);
    }
    run
}

/// The change of a run's rows with the bounds of their sessions.
fn differences(rows: &RowStore, weighed: &Weighed, run: &[(i64, u32)], gap_us: i64, change: &mut Change) {
    let weights: Vec<(i64, i64)> = run
        .iter()
        .map(|(_, id)| {
            let now = rows.weight(*id);
            (now - weighed.change(*id), now)
        })
        .collect();
    let before = sessions(run, |row| weights[row].0 != 0, gap_us);
    let after = sessions(run, |row| weights[row].1 != 0, gap_us);
    for (row, (_, id)) in run.iter().enumerate() {
        let (was, is) = weights[row];
        if before[row] == after[row] {
            if was != is {
                change.push(
                    *id,
                    is - was,
                    after[row].expect("a weight that changed was or is not zero"),
                );
            }
            continue;
        }
        for (bounds, weight) in [(before[row], -was), (after[row], is)] {
            if let Some(bounds) = bounds {
                change.push(*id, weight, bounds);
            }
        }
    }
}

/// The bounds of the session of each row that is there, in the order of times.
fn sessions(run: &[(i64, u32)], is_there: impl Fn(usize) -> bool, gap_us: i64) -> Vec<Option<(i64, i64)>> {
    let mut bounds = vec![None; run.len()];
    let mut session: Vec<usize> = Vec::new();
    let mut close = |session: &mut Vec<usize>| {
        if let (Some(first), Some(last)) = (session.first(), session.last()) {
            let own = (run[*first].0, run[*last].0 + gap_us);
            session.drain(..).for_each(|row| bounds[row] = Some(own));
        }
    };
    for row in (0..run.len()).filter(|row| is_there(*row)) {
        if session
            .last()
            .is_some_and(|last| run[row].0.abs_diff(run[*last].0) >= gap_us.unsigned_abs())
        {
            close(&mut session);
        }
        session.push(row);
    }
    close(&mut session);
    bounds
}

#[cfg(test)]
mod tests;
