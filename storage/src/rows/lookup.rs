//! Rows of a segment by the values of some columns: indexes for readers, made when they are asked for.
//!
//! ```text
//!   columns ─▶ starts: per bucket of hashes where its rows begin ─▶ rows, bucket by bucket
//! ```
//! A segment never changes, so an index of it is good for as long as the segment lives, for every snapshot that shares
//! it; four bytes a row, which stay in memory when the rows are spilled. It is made when the same columns are asked for
//! a second time: the first question costs a scan either way. What is found shares a bucket with what was asked for;
//! whoever asks compares values.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{ArrayRef, RecordBatch};

use crate::index::hash_rows;

/// Rows of a segment that is worth an index.
const ROWS_MIN: usize = 2_048;
/// Sets of columns that are indexed; further ones are answered by scans.
const SETS_MAX: usize = 4;

/// The indexes of one segment.
#[derive(Debug, Default)]
pub(super) struct Lookups(Mutex<Vec<(Vec<usize>, Option<Arc<Buckets>>)>>);

#[derive(Debug)]
struct Buckets {
    shift: u32,
    starts: Vec<u16>,
    rows: Vec<u16>,
}

impl Lookups {
    /// The rows whose values in `columns` may hash to one of `hashes`, which ascend; at least all that do, ascending.
    pub(super) fn find(&self, rows: &RecordBatch, columns: &[usize], hashes: &[u64]) -> Vec<u32> {
        match self.index(rows, columns) {
            Some(buckets) => buckets.find(hashes),
            None => {
                let of_rows = hashes_of(rows, columns);
                let is_asked = |row: &u32| hashes.binary_search(&of_rows[*row as usize]).is_ok();
                (0..rows.num_rows() as u32).filter(is_asked).collect()
            }
        }
    }

    /// The index over these columns, unless this is the first question about them.
    fn index(&self, rows: &RecordBatch, columns: &[usize]) -> Option<Arc<Buckets>> {
        if !(ROWS_MIN..=usize::from(u16::MAX)).contains(&rows.num_rows()) {
            return None;
        }
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known = lock();
        let place = match known.iter().position(|(of, _)| of == columns) {
            Some(place) => place,
            None => {
                if known.len() < SETS_MAX {
                    known.push((columns.to_vec(), None));
                }
                return None;
            }
        };
        if let Some(buckets) = &known[place].1 {
            return Some(buckets.clone());
        }
        drop(known);
        let made = Arc::new(Buckets::new(&hashes_of(rows, columns)));
        lock()[place].1 = Some(made.clone());
        Some(made)
    }
}

fn hashes_of(rows: &RecordBatch, columns: &[usize]) -> Vec<u64> {
    let columns: Vec<ArrayRef> = columns
        .iter()
        .map(|column| rows.column(*column).clone())
        .collect();
    hash_rows(&columns, rows.num_rows())
}

impl Buckets {
    /// About one row to a bucket; fewer than 2^16 rows.
    fn new(hashes: &[u64]) -> Self {
        let count = hashes.len().next_power_of_two().max(2);
        let shift = 64 - count.trailing_zeros();
        let mut starts = vec![0u16; count + 1];
        for hash in hashes {
            starts[(hash >> shift) as usize + 1] += 1;
        }
        for bucket in 0..count {
            starts[bucket + 1] += starts[bucket];
        }
        let mut next = starts.clone();
        let mut rows = vec![0u16; hashes.len()];
        for (row, hash) in hashes.iter().enumerate() {
            let place = &mut next[(hash >> shift) as usize];
            rows[usize::from(*place)] = row as u16;
            *place += 1;
        }
        Self { shift, starts, rows }
    }

    fn find(&self, hashes: &[u64]) -> Vec<u32> {
        let mut buckets: Vec<usize> = hashes.iter().map(|hash| (hash >> self.shift) as usize).collect();
        buckets.dedup();
        let rows_of = |bucket: usize| usize::from(self.starts[bucket])..usize::from(self.starts[bucket + 1]);
        let mut found: Vec<u32> = buckets
            .into_iter()
            .flat_map(|bucket| self.rows[rows_of(bucket)].iter().map(|row| u32::from(*row)))
            .collect();
        found.sort_unstable();
        found
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray, Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};

    use super::super::{RowStore, SEGMENT_ROWS};
    use super::*;
    use crate::delta::batch;

    const GROUPS: i64 = 700;

    fn rows(count: i64) -> RecordBatch {
        let groups = (0..count).map(|n| (n % 11 != 0).then_some(n % GROUPS));
        let names = (0..count).map(|n| (n % 13 != 0).then(|| format!("name {}", n % 5)));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter(groups)),
            Arc::new(StringArray::from_iter(names)),
            Arc::new(Int64Array::from_iter_values(0..count)),
        ];
        let field = |(number, column): (usize, &ArrayRef)| {
            Field::new(format!("c{number}"), column.data_type().clone(), true)
        };
        let fields: Vec<Field> = columns.iter().enumerate().map(field).collect();
        batch(Arc::new(Schema::new(fields)), columns, count as usize)
    }

    /// Of what a lookup gives, the numbers of the rows that have the values.
    fn exact(found: impl Iterator<Item = crate::Delta>, group: i64, name: Option<&str>) -> Vec<i64> {
        let mut numbers = Vec::new();
        for delta in found {
            let rows = delta.rows();
            let groups = rows.column(0).as_primitive::<Int64Type>();
            let names = rows.column(1).as_string::<i32>();
            let ids = rows.column(2).as_primitive::<Int64Type>();
            for row in 0..delta.len() {
                assert_eq!(delta.weight(row), 1);
                let is_named = name.is_none_or(|name| names.is_valid(row) && names.value(row) == name);
                if groups.is_valid(row) && groups.value(row) == group && is_named {
                    numbers.push(ids.value(row));
                }
            }
        }
        numbers
    }

    #[test]
    fn all_rows_with_the_values_are_found_however_often_they_are_asked_for() {
        let count = 2 * SEGMENT_ROWS as i64 + 3_000;
        let mut store = RowStore::new(rows(0).schema());
        store.append(&rows(count));
        let dead = [GROUPS + 5, SEGMENT_ROWS as i64 + 3];
        dead.iter().for_each(|id| store.set_weight(*id as u32, 0));
        let snapshot = store.snapshot();
        for _ in 0..4 {
            for group in [0, 5, GROUPS - 1, GROUPS] {
                let key: ArrayRef = Arc::new(Int64Array::from(vec![group]));
                let expected = |named: bool| -> Vec<i64> {
                    (0..count)
                        .filter(|n| n % 11 != 0 && n % GROUPS == group && !dead.contains(n))
                        .filter(|n| !named || (n % 13 != 0 && n % 5 == 2))
                        .collect()
                };
                let found = snapshot.lookup(&[0], std::slice::from_ref(&key), 1);
                assert_eq!(exact(found, group, None), expected(false), "group {group}");
                let name: ArrayRef = Arc::new(StringArray::from(vec!["name 2"]));
                let found = snapshot.lookup(&[0, 1], &[key, name], 1);
                assert_eq!(
                    exact(found, group, Some("name 2")),
                    expected(true),
                    "group {group}"
                );
            }
        }
        let several: ArrayRef = Arc::new(Int64Array::from(vec![3, 9]));
        let found: usize = snapshot
            .lookup(&[0], &[several], 2)
            .map(|delta| delta.len())
            .sum();
        assert!(
            (80..400).contains(&found),
            "{found} of {count} rows are read for two groups"
        );
        assert_eq!(snapshot.schema().field(0).data_type(), &DataType::Int64);
    }
}
