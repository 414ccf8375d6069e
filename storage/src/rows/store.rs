//! Rows that are appended, read by number, and weighed.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch, interleave};
use arrow::datatypes::SchemaRef;

use super::SEGMENT_ROWS;
use super::segment::{Segment, held_bytes};
use super::snapshot::{Part, RowsSnapshot};
use super::spill::{Spill, SpillArea};
use super::weights::Weights;
use crate::delta::batch;
use crate::error::Result;

/// See the module's documentation.
#[derive(Debug)]
pub struct RowStore {
    schema: SchemaRef,
    sealed: Vec<Arc<Segment>>,
    /// Batches after the sealed segments, sizes falling; together fewer than [`SEGMENT_ROWS`] rows.
    tail: Vec<RecordBatch>,
    tail_rows: usize,
    weights: Vec<Weights>,
    dead: usize,
    /// The bytes of sealed segments that are in memory.
    sealed_bytes: usize,
    /// The segments before this one are spilled.
    spilled: usize,
    /// The batches of the tail before this one are spilled.
    tail_spilled: usize,
}

impl RowStore {
    /// A store without rows.
    pub fn new(schema: SchemaRef) -> Self {
        Self {
            schema,
            sealed: Vec::new(),
            tail: Vec::new(),
            tail_rows: 0,
            weights: vec![Weights::Ones],
            dead: 0,
            sealed_bytes: 0,
            spilled: 0,
            tail_spilled: 0,
        }
    }

    /// The columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The number of rows, dead ones included; the next row's id.
    pub fn len(&self) -> usize {
        self.sealed.len() * SEGMENT_ROWS + self.tail_rows
    }

    /// Whether no row was ever appended.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Rows whose weight is zero.
    pub fn dead(&self) -> usize {
        self.dead
    }

    /// Appends rows of weight 1 and returns the first one's id; the others follow.
    ///
    /// # Panics
    /// When the columns have other types than the store's, or there would be 2^32 rows.
    pub fn append(&mut self, rows: &RecordBatch) -> u32 {
        let first = u32::try_from(self.len() + rows.num_rows())
            .map(|end| end - rows.num_rows() as u32)
            .expect("a store holds fewer than 2^32 rows");
        let mut start = 0;
        while start < rows.num_rows() {
            let count = (rows.num_rows() - start).min(SEGMENT_ROWS - self.tail_rows);
            self.tail.push(rows.slice(start, count));
            self.tail_rows += count;
            start += count;
            self.settle_tail();
        }
        first
    }

    /// Keeps the tail short: batches of similar size become one, a full tail becomes a segment.
    fn settle_tail(&mut self) {
        if self.tail_rows == SEGMENT_ROWS {
            let rows = self.joined(&self.tail);
            self.sealed_bytes += held_bytes(&rows);
            self.sealed.push(Arc::new(Segment::new(rows)));
            self.weights.push(Weights::Ones);
            self.tail.clear();
            (self.tail_rows, self.tail_spilled) = (0, 0);
            return;
        }
        let mut first = self.tail.len() - 1;
        let mut sum = self.tail[first].num_rows();
        while first > 0 && self.tail[first - 1].num_rows() <= sum * 2 {
            first -= 1;
            sum += self.tail[first].num_rows();
        }
        if first + 1 < self.tail.len() {
            let merged = self.joined(&self.tail[first..]);
            self.tail.truncate(first);
            self.tail_spilled = self.tail_spilled.min(first);
            self.tail.push(merged);
        }
    }

    /// One batch with buffers of its own: a slice would keep the whole of what it was cut from.
    fn joined(&self, parts: &[RecordBatch]) -> RecordBatch {
        match parts {
            [only] if owns_its_buffers(only) => only.clone(),
            [only] => {
                let all = arrow::array::UInt32Array::from_iter_values(0..only.num_rows() as u32);
                let columns = only.columns().iter().map(|column| {
                    arrow::compute::take(column, &all, None).expect("indices lie within the batch")
                });
                batch(self.schema.clone(), columns.collect(), only.num_rows())
            }
            _ => concat_batches(&self.schema, parts).expect("a store's batches have its schema"),
        }
    }

    /// The rows with the given ids, in that order.
    ///
    /// # Panics
    /// When an id does not exist.
    pub fn take(&self, ids: &[u32]) -> RecordBatch {
        let places = self.places(ids);
        let columns = (0..self.schema.fields().len()).map(|column| self.gather(column, &places));
        batch(self.schema.clone(), columns.collect(), ids.len())
    }

    /// Some columns of the rows with the given ids.
    ///
    /// # Panics
    /// When an id or a column does not exist.
    pub fn take_columns(&self, columns: &[usize], ids: &[u32]) -> Vec<ArrayRef> {
        let places = self.places(ids);
        columns
            .iter()
            .map(|column| self.gather(*column, &places))
            .collect()
    }

    /// For each id the batch (sealed ones first) and the row within it.
    fn places(&self, ids: &[u32]) -> Vec<(usize, usize)> {
        let sealed = self.sealed.len();
        let mut ends = Vec::with_capacity(self.tail.len());
        let mut end = 0;
        for part in &self.tail {
            end += part.num_rows();
            ends.push(end);
        }
        let place = |id: &u32| {
            let (segment, row) = (*id as usize / SEGMENT_ROWS, *id as usize % SEGMENT_ROWS);
            if segment < sealed {
                return (segment, row);
            }
            let part = ends.iter().position(|end| row < *end).expect("the id was given");
            let start = if part == 0 { 0 } else { ends[part - 1] };
            (sealed + part, row - start)
        };
        ids.iter().map(place).collect()
    }

    fn gather(&self, column: usize, places: &[(usize, usize)]) -> ArrayRef {
        let sealed = self.sealed.iter().map(|segment| segment.rows());
        let arrays: Vec<&dyn Array> = sealed
            .chain(&self.tail)
            .map(|rows| rows.column(column).as_ref())
            .collect();
        if arrays.is_empty() {
            return arrow::array::new_empty_array(self.schema.field(column).data_type());
        }
        interleave(&arrays, places).expect("a store's batches have one type per column")
    }

    /// The weight of a row.
    ///
    /// # Panics
    /// When the id does not exist.
    pub fn weight(&self, id: u32) -> i64 {
        self.weights[id as usize / SEGMENT_ROWS].get(id as usize % SEGMENT_ROWS)
    }

    /// Sets the weight of a row.
    ///
    /// # Panics
    /// When the id does not exist.
    pub fn set_weight(&mut self, id: u32, weight: i64) {
        let old = self.weight(id);
        self.dead = self.dead + usize::from(weight == 0) - usize::from(old == 0);
        self.weights[id as usize / SEGMENT_ROWS].set(id as usize % SEGMENT_ROWS, weight, SEGMENT_ROWS);
    }

    /// The ids of rows whose weight is not zero, ascending.
    pub fn live(&self) -> Vec<u32> {
        (0..self.len() as u32)
            .filter(|id| self.weight(*id) != 0)
            .collect()
    }

    /// What is there now. Cheap, and never changes afterwards.
    pub fn snapshot(&self) -> Arc<RowsSnapshot> {
        self.snapshot_as(self.schema.clone())
    }

    /// What is there now, under other names of columns of the same types.
    pub fn snapshot_as(&self, schema: SchemaRef) -> Arc<RowsSnapshot> {
        let sealed = self
            .sealed
            .iter()
            .zip(&self.weights)
            .map(|(segment, weights)| Part {
                rows: segment.clone(),
                weights: weights.clone(),
                start: 0,
            });
        let mut parts: Vec<Part> = sealed.collect();
        let mut start = 0;
        for rows in &self.tail {
            parts.push(Part {
                rows: Arc::new(Segment::new(rows.clone())),
                weights: self.weights[self.sealed.len()].clone(),
                start,
            });
            start += rows.num_rows();
        }
        Arc::new(RowsSnapshot::new(schema, parts, self.len() - self.dead))
    }

    /// The store that a snapshot, read back, describes: segments and the weights of their rows. A segment that is full
    /// and starts where one does is taken as it is; the rows of others are copied.
    ///
    /// # Panics
    /// When a part does not have the store's columns.
    pub fn restored(schema: SchemaRef, parts: Vec<(Segment, Option<Int64Array>)>) -> Self {
        let mut store = Self::new(schema);
        for (segment, weights) in parts {
            let count = segment.rows().num_rows();
            let own = segment.rows().schema() == store.schema;
            if own && store.tail_rows == 0 && count == SEGMENT_ROWS && owns_its_buffers(segment.rows()) {
                store.adopt(segment, weights.as_ref().map(|weights| &weights.values()[..]));
                continue;
            }
            let rows = batch(store.schema.clone(), segment.rows().columns().to_vec(), count);
            let first = store.append(&rows);
            for (row, weight) in weights
                .iter()
                .flat_map(|weights| weights.values().iter().enumerate())
            {
                store.set_weight(first + row as u32, *weight);
            }
        }
        store
    }

    fn adopt(&mut self, segment: Segment, weights: Option<&[i64]>) {
        u32::try_from(self.len() + SEGMENT_ROWS).expect("a store holds fewer than 2^32 rows");
        self.sealed_bytes += held_bytes(segment.rows());
        self.sealed.push(Arc::new(segment));
        let tail = self.weights.pop().expect("the tail has weights");
        let own = weights.map_or_else(Weights::default, |weights| Weights::of(weights, SEGMENT_ROWS));
        self.weights.extend([own, tail]);
        self.dead += weights.map_or(0, |weights| weights.iter().filter(|w| **w == 0).count());
    }

    /// The rows in their order, dead ones included: batches, each with its first row's id.
    pub fn batches(&self) -> impl Iterator<Item = (u32, &RecordBatch)> {
        let sealed = self.sealed.iter().map(|segment| segment.rows());
        let mut next = 0;
        sealed.chain(&self.tail).map(move |rows| {
            let first = next;
            next += rows.num_rows() as u32;
            (first, rows)
        })
    }

    /// The rows whose weight is not zero, in their order: batches, and the id of each row.
    pub fn live_batches(&self) -> impl Iterator<Item = (Vec<u32>, RecordBatch)> {
        self.batches().map(|(first, rows)| {
            let (segment, start) = (first as usize / SEGMENT_ROWS, first as usize % SEGMENT_ROWS);
            let ids = first..first + rows.num_rows() as u32;
            match self.weights[segment].live(start, rows.num_rows()) {
                Some(live) if live.true_count() < live.len() => {
                    let rows = filter_record_batch(rows, &live).expect("there is one verdict per row");
                    let live = ids.zip(live.values()).filter(|(_, live)| *live);
                    (live.map(|(id, _)| id).collect(), rows)
                }
                _ => (ids.collect(), rows.clone()),
            }
        })
    }

    /// The memory held, in bytes; spilled rows are not in it.
    pub fn bytes(&self) -> usize {
        let tail: usize = self.tail.iter().map(held_bytes).sum();
        let weights: usize = self.weights.iter().map(Weights::bytes).sum();
        self.sealed_bytes + tail + weights
    }
}

impl Spill for RowStore {
    fn resident_bytes(&self) -> usize {
        self.sealed_bytes
    }

    fn spill(&mut self, area: &dyn SpillArea, bytes: usize) -> Result<usize> {
        let mut freed = 0;
        while freed < bytes && self.spilled < self.sealed.len() {
            let segment = &mut self.sealed[self.spilled];
            let held = held_bytes(segment.rows());
            *segment = Arc::new(segment.moved(area.store(segment.rows())?));
            self.spilled += 1;
            self.sealed_bytes = self.sealed_bytes.saturating_sub(held);
            freed += held;
        }
        Ok(freed)
    }

    fn spill_all(&mut self, area: &dyn SpillArea) -> Result<()> {
        self.spill(area, usize::MAX)?;
        for rows in &mut self.tail[self.tail_spilled..] {
            *rows = area.store(rows)?;
            self.tail_spilled += 1;
        }
        Ok(())
    }
}

/// Whether a batch holds little more memory than its rows need.
fn owns_its_buffers(rows: &RecordBatch) -> bool {
    let used: usize = rows
        .columns()
        .iter()
        .map(|column| {
            column
                .to_data()
                .get_slice_memory_size()
                .unwrap_or(usize::MAX / 64)
        })
        .sum();
    held_bytes(rows) <= used.saturating_mul(2)
}
