//! The first rows of each partition, in an order whose ties all columns break.
//!
//! Where rows only come, a partition is a short sorted list of the rows that are among the first, and nothing else
//! is kept: a row that falls off never returns. Where rows may go, all rows are kept, each partition as an ordered
//! map, since any of them may move up.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, SchemaRef};
use tributary_storage::{Delta, KeyEncoder, KeyIndex, RowStore, RowsSnapshot, Spill, ZSet};

use crate::canonical::{canonical, canonical_all};
use crate::columns::{batch_of, types_of};

/// A store is compacted when it has more dead rows than live ones, and at least so many.
const DEAD_ROWS_MIN: usize = 16_384;

/// What is ranked, and how.
#[derive(Debug)]
pub(crate) struct Ranking {
    /// Columns by which rows are apart.
    pub(crate) partition: Vec<usize>,
    /// Columns by which rows are ordered.
    pub(crate) order: Vec<(usize, SortOptions)>,
    /// Rows of each partition that are passed over.
    pub(crate) skip: usize,
    /// Rows of each partition that are shown.
    pub(crate) fetch: usize,
    /// Whether a row's number is appended to it.
    pub(crate) rank: bool,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Ranked {
    ranking: Ranking,
    order: KeyEncoder,
    whole: KeyEncoder,
    index: KeyIndex,
    form: Form,
}

#[derive(Debug)]
enum Form {
    Appended {
        rows: RowStore,
        firsts: Vec<Vec<Entry>>,
    },
    Weighted {
        rows: Box<ZSet>,
        all: Vec<BTreeMap<OrderKey, u32>>,
    },
}

/// An encoded order key; short ones, which are nearly all, are compared as words.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum OrderKey {
    Short([u64; 3]),
    Long(Box<[u8]>),
}

impl OrderKey {
    /// Keys of fixed width, so that padding does not make two of them equal.
    fn short(bytes: &[u8]) -> Self {
        let mut padded = [0; 24];
        padded[..bytes.len()].copy_from_slice(bytes);
        let word = |at: usize| u64::from_be_bytes(padded[at..at + 8].try_into().expect("eight bytes"));
        Self::Short([word(0), word(8), word(16)])
    }
}

#[derive(Clone, Debug)]
struct Entry {
    key: OrderKey,
    row: RowRef,
}

/// A row that is stored, or one of the batch that is being taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RowRef {
    Stored(u32),
    Arriving(u32),
}

/// The visible rows of one partition before and after a batch.
struct Shown {
    before: Vec<u32>,
    after: Vec<u32>,
}

impl Ranked {
    pub(crate) fn new(schema: SchemaRef, ranking: Ranking, append_only: bool) -> Self {
        let types = types_of(&schema);
        let partition: Vec<DataType> = ranking.partition.iter().map(|c| types[*c].clone()).collect();
        let order: Vec<(DataType, SortOptions)> = ranking
            .order
            .iter()
            .map(|(c, options)| (types[*c].clone(), *options))
            .collect();
        Self {
            order: KeyEncoder::with_order(&order),
            whole: KeyEncoder::new(&types),
            index: KeyIndex::new(&partition),
            form: match append_only {
                true => Form::Appended {
                    rows: RowStore::new(schema),
                    firsts: Vec::new(),
                },
                false => Form::Weighted {
                    rows: Box::new(ZSet::new(schema)),
                    all: Vec::new(),
                },
            },
            ranking,
        }
    }

    fn store(&self) -> &RowStore {
        match &self.form {
            Form::Appended { rows, .. } => rows,
            Form::Weighted { rows, .. } => rows.store(),
        }
    }

    pub(crate) fn schema(&self) -> &SchemaRef {
        self.store().schema()
    }

    /// The number of rows, dead ones included.
    pub(crate) fn len(&self) -> usize {
        self.store().len()
    }

    pub(crate) fn bytes(&self) -> usize {
        let lists = match &self.form {
            Form::Appended { firsts, rows } => {
                firsts.len() * size_of::<Vec<Entry>>() + (rows.len() - rows.dead()) * size_of::<Entry>()
            }
            Form::Weighted { rows, all } => {
                all.len() * size_of::<BTreeMap<OrderKey, u32>>() + rows.store().len() * 2 * size_of::<Entry>()
            }
        };
        self.store().bytes() + self.index.bytes() + lists
    }

    /// Whether the rows that are kept are just those that are shown.
    pub(crate) fn keeps_what_it_shows(&self) -> bool {
        matches!(self.form, Form::Appended { .. }) && self.ranking.skip == 0 && !self.ranking.rank
    }

    /// The rows that are kept, under the names of a view's columns.
    pub(crate) fn kept(&self, schema: SchemaRef) -> Arc<RowsSnapshot> {
        self.store().snapshot_as(schema)
    }

    /// Takes in a delta and gives the change of the rows that are shown.
    pub(crate) fn apply(&mut self, delta: &Delta, schema: &SchemaRef) -> Delta {
        let columns = delta.rows().columns();
        let column = |c: &usize| columns[*c].clone();
        let partition = canonical_all(&self.ranking.partition.iter().map(column).collect::<Vec<_>>());
        let order: Vec<ArrayRef> = self
            .ranking
            .order
            .iter()
            .map(|(c, _)| canonical(&columns[*c]))
            .collect();
        let groups = self.index.insert(&partition, delta.len());
        let shown = match &self.form {
            Form::Appended { .. } => self.append(delta, &groups, &order),
            Form::Weighted { .. } => self.apply_weighted(delta, &groups, &order),
        };
        let change = self.change(&shown, schema);
        self.compact_if_due();
        change
    }

    /// The order keys of a batch.
    fn order_keys(&self, order: &[ArrayRef], rows: usize) -> Vec<OrderKey> {
        let keys = self.order.encode_rows(order, rows);
        let fixed = order
            .iter()
            .all(|column| column.data_type().primitive_width().is_some());
        match keys.iter().next() {
            Some(first) if fixed && first.len() <= 24 => keys.iter().map(OrderKey::short).collect(),
            _ => keys.iter().map(|key| OrderKey::Long(key.into())).collect(),
        }
    }

    /// The order keys of a batch, and after each the whole row.
    fn whole_keys(&self, order: &[ArrayRef], rows: &RecordBatch) -> Vec<OrderKey> {
        let keys = self.order.encode_rows(order, rows.num_rows());
        let whole = self.whole.encode_rows(rows.columns(), rows.num_rows());
        let pairs = keys.iter().zip(whole.iter());
        pairs
            .map(|(key, whole)| OrderKey::Long([key, whole].concat().into()))
            .collect()
    }

    fn append(&mut self, delta: &Delta, groups: &[u32], order: &[ArrayRef]) -> Vec<Shown> {
        assert!(
            delta.weights().is_none(),
            "a top-k whose rows never go takes no weights"
        );
        let keys = self.order_keys(order, delta.len());
        let limit = self.ranking.skip + self.ranking.fetch;
        let Form::Appended { rows, firsts } = &mut self.form else {
            unreachable!("the caller has looked");
        };
        firsts.resize_with(self.index.len(), Vec::new);
        let mut before: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        let whole = &self.whole;
        for (row, (group, key)) in groups.iter().zip(keys).enumerate() {
            let list = &mut firsts[*group as usize];
            let is_full = list.len() == limit;
            if is_full && list.last().is_none_or(|last| key > last.key) {
                continue;
            }
            let arriving = RowRef::Arriving(row as u32);
            let place = list.partition_point(|entry| match entry.key.cmp(&key) {
                std::cmp::Ordering::Equal => {
                    compare(whole, rows, delta.rows(), entry.row, arriving) != std::cmp::Ordering::Greater
                }
                other => other == std::cmp::Ordering::Less,
            });
            if place == limit {
                continue;
            }
            before.entry(*group).or_insert_with(|| stored(list));
            list.insert(place, Entry { key, row: arriving });
            list.truncate(limit);
        }
        self.keep_survivors(delta.rows(), before)
    }

    /// Stores the rows that are still among the first when the batch has been taken in.
    fn keep_survivors(&mut self, arriving: &RecordBatch, before: BTreeMap<u32, Vec<u32>>) -> Vec<Shown> {
        let Form::Appended { rows, firsts } = &mut self.form else {
            unreachable!("the caller has looked");
        };
        let mut next = rows.len() as u32;
        let mut kept = Vec::new();
        for group in before.keys() {
            for entry in &mut firsts[*group as usize] {
                if let RowRef::Arriving(row) = entry.row {
                    kept.push(row);
                    entry.row = RowRef::Stored(next);
                    next += 1;
                }
            }
        }
        let survivors = Delta::inserts(arriving.clone()).take(&UInt32Array::from(kept));
        rows.append(survivors.rows());
        let visible = |ids: &[u32]| ids.iter().skip(self.ranking.skip).copied().collect();
        let mut shown = Vec::with_capacity(before.len());
        for (group, before) in before {
            let after = stored(&firsts[group as usize]);
            for gone in before.iter().filter(|id| !after.contains(id)) {
                rows.set_weight(*gone, 0);
            }
            shown.push(Shown {
                before: visible(&before),
                after: visible(&after),
            });
        }
        shown
    }

    fn apply_weighted(&mut self, delta: &Delta, groups: &[u32], order: &[ArrayRef]) -> Vec<Shown> {
        let keys = self.whole_keys(order, delta.rows());
        let Form::Weighted { rows, all } = &mut self.form else {
            unreachable!("the caller has looked");
        };
        all.resize_with(self.index.len(), BTreeMap::new);
        let mut touched = groups.to_vec();
        touched.sort_unstable();
        touched.dedup();
        let first = |rows: &ZSet, all: &[BTreeMap<OrderKey, u32>], group: &u32| {
            first_rows(
                rows.store(),
                &all[*group as usize],
                self.ranking.skip,
                self.ranking.fetch,
            )
        };
        let before: Vec<Vec<u32>> = touched.iter().map(|group| first(rows, all, group)).collect();
        let applied = rows.apply(delta);
        for ((id, group), key) in applied.ids.iter().zip(groups).zip(keys) {
            if rows.store().weight(*id) == 0 {
                all[*group as usize].remove(&key);
            } else {
                all[*group as usize].insert(key, *id);
            }
        }
        let shown = touched.iter().zip(before).map(|(group, before)| Shown {
            before,
            after: first(rows, all, group),
        });
        shown.collect()
    }

    /// Rows that are no longer shown, retracted, and those that now are. With ranks, a row that moved is both.
    fn change(&self, shown: &[Shown], schema: &SchemaRef) -> Delta {
        let (mut ids, mut ranks, mut weights) = (Vec::new(), Vec::new(), Vec::new());
        for Shown { before, after } in shown {
            if self.ranking.rank {
                for place in 0..before.len().max(after.len()) {
                    let (was, is) = (before.get(place), after.get(place));
                    if was != is {
                        let rank = (self.ranking.skip + place + 1) as i64;
                        for (id, weight) in was.map(|id| (id, -1)).into_iter().chain(is.map(|id| (id, 1))) {
                            ids.push(*id);
                            ranks.push(rank);
                            weights.push(weight);
                        }
                    }
                }
            } else {
                differences(before, after, |id, weight| {
                    ids.push(id);
                    weights.push(weight);
                });
            }
        }
        let mut columns = self.store().take(&ids).columns().to_vec();
        if self.ranking.rank {
            columns.push(Arc::new(Int64Array::from(ranks)));
        }
        let rows = batch_of(schema.clone(), columns, ids.len());
        let all_inserts = weights.iter().all(|weight| *weight == 1);
        Delta::new(rows, (!all_inserts).then(|| Int64Array::from(weights)))
    }

    fn compact_if_due(&mut self) {
        match &mut self.form {
            Form::Appended { rows, firsts } => {
                if rows.dead() < DEAD_ROWS_MIN || rows.dead() * 2 < rows.len() {
                    return;
                }
                let live = rows.live();
                let mut compact = RowStore::new(rows.schema().clone());
                for portion in live.chunks(1 << 16) {
                    compact.append(&rows.take(portion));
                }
                *rows = compact;
                for entry in firsts.iter_mut().flatten() {
                    if let RowRef::Stored(id) = &mut entry.row {
                        *id = live.binary_search(id).expect("a row that is listed is alive") as u32;
                    }
                }
            }
            Form::Weighted { rows, all } => {
                if let Some(renumbered) = rows.compact_if_due() {
                    for id in all.iter_mut().flat_map(BTreeMap::values_mut) {
                        *id = renumbered.now(*id);
                    }
                }
            }
        }
    }

    pub(crate) fn spillable(&mut self) -> &mut dyn Spill {
        match &mut self.form {
            Form::Appended { rows, .. } => rows,
            Form::Weighted { rows, .. } => &mut **rows,
        }
    }

    pub(crate) fn save(&self) -> Arc<RowsSnapshot> {
        self.store().snapshot()
    }

    /// Takes in the rows that were saved, as they are, and puts each where it ranks.
    pub(crate) fn restore(&mut self, saved: RowStore) {
        let weighted = matches!(self.form, Form::Weighted { .. });
        let (mut firsts, mut all) = (Vec::new(), Vec::new());
        for (ids, rows) in saved.live_batches() {
            let columns = rows.columns();
            let column = |c: &usize| columns[*c].clone();
            let partition = canonical_all(&self.ranking.partition.iter().map(column).collect::<Vec<_>>());
            let order = self.ranking.order.iter();
            let order: Vec<ArrayRef> = order.map(|(c, _)| canonical(&columns[*c])).collect();
            let groups = self.index.insert(&partition, ids.len());
            if weighted {
                all.resize_with(self.index.len(), BTreeMap::new);
                let keys = self.whole_keys(&order, &rows);
                for ((id, group), key) in ids.into_iter().zip(groups).zip(keys) {
                    all[group as usize].insert(key, id);
                }
            } else {
                firsts.resize_with(self.index.len(), Vec::new);
                let keys = self.order_keys(&order, ids.len());
                for ((id, group), key) in ids.into_iter().zip(groups).zip(keys) {
                    let row = RowRef::Stored(id);
                    firsts[group as usize].push(Entry { key, row });
                }
            }
        }
        if weighted {
            let rows = Box::new(ZSet::from_store(saved));
            self.form = Form::Weighted { rows, all };
            return;
        }
        let nothing = RecordBatch::new_empty(saved.schema().clone());
        for list in firsts.iter_mut().filter(|list| list.len() > 1) {
            list.sort_by(|a, b| {
                let ties = || compare(&self.whole, &saved, &nothing, a.row, b.row);
                a.key.cmp(&b.key).then_with(ties)
            });
        }
        self.form = Form::Appended { rows: saved, firsts };
    }
}

/// The stored rows of a list, in order.
fn stored(list: &[Entry]) -> Vec<u32> {
    list.iter()
        .filter_map(|entry| match entry.row {
            RowRef::Stored(id) => Some(id),
            RowRef::Arriving(_) => None,
        })
        .collect()
}

/// Compares two rows by all columns; called for ties only.
fn compare(
    whole: &KeyEncoder,
    rows: &RowStore,
    arriving: &RecordBatch,
    a: RowRef,
    b: RowRef,
) -> std::cmp::Ordering {
    let key = |row: RowRef| {
        let row = match row {
            RowRef::Stored(id) => rows.take(&[id]),
            RowRef::Arriving(row) => arriving.slice(row as usize, 1),
        };
        whole.encode_rows(row.columns(), 1)
    };
    key(a).get(0).cmp(key(b).get(0))
}

/// The rows from `skip` on, at most `fetch`, of an ordered partition; a row of weight 3 stands there three times.
fn first_rows(rows: &RowStore, all: &BTreeMap<OrderKey, u32>, skip: usize, fetch: usize) -> Vec<u32> {
    let times = |id: &u32| {
        let weight = usize::try_from(rows.weight(*id)).unwrap_or(0);
        std::iter::repeat_n(*id, weight.min(skip.saturating_add(fetch)))
    };
    all.values().flat_map(times).skip(skip).take(fetch).collect()
}

/// Calls `each` with the ids whose number differs, and by how much.
fn differences(before: &[u32], after: &[u32], mut each: impl FnMut(u32, i64)) {
    let (mut before, mut after) = (before.to_vec(), after.to_vec());
    before.sort_unstable();
    after.sort_unstable();
    let count = |ids: &[u32], id: u32| {
        ids.partition_point(|other| *other <= id) - ids.partition_point(|other| *other < id)
    };
    let mut all = before.clone();
    all.extend(&after);
    all.sort_unstable();
    all.dedup();
    for id in all {
        let difference = count(&after, id) as i64 - count(&before, id) as i64;
        if difference != 0 {
            each(id, difference);
        }
    }
}
