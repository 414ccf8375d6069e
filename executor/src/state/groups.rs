//! Groups: a hash index from keys to numbers, and each aggregate's state in vectors by that number.
//!
//! ```text
//!   keys ──index──▶ group number g        rows[g], accumulators[0][g], accumulators[1][g], …
//! ```
//!
//! A batch updates its groups in place; what they held before is gathered first, for the groups that the batch
//! touches, so that the change can be told. A checkpoint gathers all groups in portions, between batches: see [`cut`].
//! Groups without rows keep their number until they are the majority; then
//! the others are numbered anew.

mod cut;

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, SchemaRef};
use tributary_planner::plan::AggregateCall;
use tributary_storage::{KeyIndex, RowsSnapshot};

use crate::aggregates::{Accumulator, Damaged};
use crate::columns::{int64_values, schema_of};
use crate::operators::groups::{Groups, partial_columns};
use crate::state::Multiset;
use cut::Cut;

/// Groups are numbered anew when more than half of them have no rows, and at least so many.
const DEAD_GROUPS_MIN: usize = 16_384;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct GroupState {
    key_types: Vec<DataType>,
    calls: Vec<AggregateCall>,
    index: KeyIndex,
    rows: Vec<i64>,
    accumulators: Vec<Accumulator>,
    multisets: Vec<Multiset>,
    /// The types of their values.
    value_types: Vec<DataType>,
    /// Per group the batch that touched it last.
    touched: Vec<u64>,
    batch: u64,
    dead: usize,
    /// Groups that have rows, but fewer than this, are counted in `small`.
    rows_min: i64,
    small: usize,
    /// A checkpoint in the making.
    cut: Option<Box<Cut>>,
}

impl GroupState {
    /// Groups by keys of these types, with the state of each call, and an ordered multiset for each of `value_types`.
    pub(crate) fn new(key_types: Vec<DataType>, calls: &[AggregateCall], value_types: Vec<DataType>) -> Self {
        Self {
            multisets: value_types.iter().map(Multiset::new).collect(),
            value_types,
            index: KeyIndex::new(&key_types),
            accumulators: calls.iter().map(|call| Accumulator::new(call, 0)).collect(),
            key_types,
            calls: calls.to_vec(),
            rows: Vec::new(),
            touched: Vec::new(),
            batch: 0,
            dead: 0,
            rows_min: 1,
            small: 0,
            cut: None,
        }
    }

    /// From how many rows on a group is not small.
    pub(crate) fn set_rows_min(&mut self, rows_min: i64) {
        self.rows_min = rows_min;
        self.count_small();
    }

    /// The groups that have rows, but too few.
    pub(crate) fn small(&self) -> usize {
        self.small
    }

    fn count_small(&mut self) {
        self.small = self.rows.iter().filter(|rows| self.is_small(**rows)).count();
    }

    fn is_small(&self, rows: i64) -> bool {
        rows > 0 && rows < self.rows_min
    }

    /// Keys, the number of rows, partial columns: a group as a row.
    pub(crate) fn schema(&self) -> SchemaRef {
        let mut types = self.key_types.clone();
        types.push(DataType::Int64);
        types.extend(partial_columns(&self.calls).0);
        schema_of(&types)
    }

    /// Keys, a value: the rows of a multiset, as many of each as it has.
    pub(crate) fn values_schema(&self, multiset: usize) -> SchemaRef {
        let mut types = self.key_types.clone();
        types.push(self.value_types[multiset].clone());
        schema_of(&types)
    }

    /// The number of groups, empty ones included.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        let (types, _) = partial_columns(&self.calls);
        let width: usize = types.iter().map(|t| t.primitive_width().unwrap_or(32)).sum();
        let multisets: usize = self.multisets.iter().map(Multiset::bytes).sum();
        self.index.bytes() + self.rows.capacity() * (2 * size_of::<i64>() + width) + multisets
    }

    /// The group of each row; new keys get new groups.
    pub(crate) fn groups_of(&mut self, keys: &[ArrayRef], rows: usize) -> Vec<u32> {
        let groups = self.index.insert(keys, rows);
        let len = self.index.len();
        if len > self.rows.len() {
            self.dead += len - self.rows.len();
            self.rows.resize(len, 0);
            self.touched.resize(len, 0);
            self.accumulators
                .iter_mut()
                .for_each(|accumulator| accumulator.grow(len));
            self.multisets.iter_mut().for_each(|multiset| multiset.grow(len));
        }
        groups
    }

    /// The groups that occur, each once, in the order of their first row. Comes before any change of them: what a
    /// checkpoint wants of them is kept here.
    pub(crate) fn distinct(&mut self, groups: &[u32]) -> Vec<u32> {
        self.batch += 1;
        let mut distinct = Vec::new();
        for group in groups {
            let touched = &mut self.touched[*group as usize];
            if *touched != self.batch {
                *touched = self.batch;
                distinct.push(*group);
            }
        }
        self.keep_for_cut(&distinct);
        distinct
    }

    /// The keys of some groups.
    pub(crate) fn keys(&self, groups: &[u32]) -> Vec<ArrayRef> {
        self.index.columns(groups)
    }

    /// The state of some groups.
    pub(crate) fn gather(&self, groups: &[u32]) -> Groups {
        Groups {
            rows: groups.iter().map(|group| self.rows[*group as usize]).collect(),
            accumulators: self.accumulators.iter().map(|a| a.gather(groups)).collect(),
            damaged: Damaged::default(),
        }
    }

    /// Counts rows into their groups.
    ///
    /// # Panics
    /// When there is a cut, and a group was not told before, see [`GroupState::distinct`].
    pub(crate) fn count_rows(&mut self, groups: &[u32], weights: Option<&[i64]>) {
        if self.cut.is_some() {
            let is_told = |group: &u32| self.touched[*group as usize] == self.batch;
            assert!(groups.iter().all(is_told), "a group that changes was told");
        }
        match weights {
            None => groups.iter().for_each(|group| self.rows[*group as usize] += 1),
            Some(weights) => {
                for (group, weight) in groups.iter().zip(weights) {
                    self.rows[*group as usize] += weight;
                }
            }
        }
    }

    /// The accumulators, by call.
    pub(crate) fn accumulators(&mut self) -> &mut [Accumulator] {
        &mut self.accumulators
    }

    /// The ordered multisets, by number.
    pub(crate) fn multisets(&mut self) -> &mut [Multiset] {
        &mut self.multisets
    }

    /// Sets the extremes of some groups, of the call at `call`, to what a multiset now says.
    pub(crate) fn read_extremes(&mut self, call: usize, multiset: usize, groups: &[u32], last: bool) {
        let values = self.multisets[multiset].extremes(groups, last);
        self.accumulators[call].set(groups, &values);
    }

    /// Keeps account of groups that lost their last row or gained a first one, and drops empty groups when they are
    /// the majority. Group numbers may change.
    pub(crate) fn settle(&mut self, before: &[i64], after: &[i64]) {
        for (before, after) in before.iter().zip(after) {
            self.dead = self.dead + usize::from(*after == 0) - usize::from(*before == 0);
            let (is, was) = (self.is_small(*after), self.is_small(*before));
            self.small = self.small + usize::from(is) - usize::from(was);
        }
        if self.cut.is_none() && self.dead >= DEAD_GROUPS_MIN && self.dead * 2 > self.len() {
            let live = self.live();
            let keys = self.keys(&live);
            let Groups {
                rows, accumulators, ..
            } = self.gather(&live);
            self.index = KeyIndex::new(&self.key_types);
            self.index.insert(&keys, live.len());
            self.touched = vec![0; live.len()];
            self.rows = rows;
            self.accumulators = accumulators;
            self.multisets
                .iter_mut()
                .for_each(|multiset| multiset.retain(&live));
            self.dead = 0;
        }
    }

    fn live(&self) -> Vec<u32> {
        (0..self.len() as u32)
            .filter(|group| self.rows[*group as usize] != 0)
            .collect()
    }

    /// Takes in a multiset that was saved, after the groups.
    pub(crate) fn restore_values(&mut self, multiset: usize, saved: &Arc<RowsSnapshot>) {
        let keys = self.key_types.len();
        for rows in saved.scan(1 << 16) {
            let columns = rows.rows().columns();
            let groups = self.groups_of(&columns[..keys], rows.len());
            let weights = rows.weights().map(|weights| &weights.values()[..]);
            self.multisets[multiset].add(&groups, &columns[keys], weights);
        }
    }

    /// Takes in the groups that were saved.
    pub(crate) fn restore(&mut self, saved: &Arc<RowsSnapshot>) {
        let keys = self.key_types.len();
        self.index.reserve(saved.row_count());
        for rows in saved.scan(1 << 16) {
            let columns = rows.rows().columns();
            let groups = self.groups_of(&columns[..keys], rows.len());
            let counts = int64_values(&columns[keys]);
            self.count_rows(&groups, Some(counts));
            let mut damaged = Damaged::default();
            let (_, ranges) = partial_columns(&self.calls);
            for (accumulator, range) in self.accumulators.iter_mut().zip(ranges) {
                accumulator.add_partials(&groups, &columns[keys + 1..][range], &mut damaged);
            }
            assert!(
                damaged.groups().next().is_none(),
                "own state is never damaged: the disk is checked"
            );
        }
        self.dead = 0;
        self.count_small();
    }
}
