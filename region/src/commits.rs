//! Group commit: transactions that wait together are checked together and become one record.
//!
//! ```text
//!   submissions ─▶ rows of all, by table ─▶ keys, stored versions: once for all
//!                                           └─▶ each in turn: as expected, and no key of one before it?
//!                                                 ├─ yes ─▶ its rows are in the record
//!                                                 └─ no ──▶ refused, and nothing of it is
//! ```
//! Each transaction is in as a whole or not at all, and is answered by itself. A key that two of them write is the
//! first one's; the second is refused as one that came a record later would be, since it cannot have seen the first.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use arrow::array::{Array, BooleanArray, RecordBatch, UInt64Array};
use arrow::compute::{concat, concat_batches, take, take_record_batch};
use tributary_replication::{Epoch, Hlc, TableWrites};
use tributary_storage::{Keys, ObjectId, OriginId, Position, Record};

use crate::dataflow::Dataflow;
use crate::effect::Rejected;
use crate::writes::{TableChange, WriteSet};

/// Rows of transactions that share a record; a transaction with more has a record of its own.
const GROUP_ROWS_MAX: usize = 16_384;
/// And bytes: the rows of a group are copied together.
const GROUP_BYTES_MAX: usize = 16 << 20;

/// A transaction's writes, to be committed.
#[derive(Debug)]
pub struct Submission {
    /// Chosen by the shell; the answer carries it.
    pub token: u64,
    /// What to write.
    pub writes: WriteSet,
}

/// What became of a group.
#[derive(Debug, Default)]
pub struct Decided {
    /// The record and the tokens of the transactions in it, if any was accepted.
    pub sealed: Option<(Record, Hlc, Vec<u64>)>,
    /// Those that were in already: where, and how many rows they had changed.
    pub repeated: Vec<(u64, Position, u64)>,
    /// The others, with the reason.
    pub refused: Vec<(u64, Rejected)>,
}

/// Divides submissions, in their order, into groups that share a record each.
pub fn groups(submissions: Vec<Submission>) -> Vec<Vec<Submission>> {
    let mut groups: Vec<Vec<Submission>> = Vec::new();
    let (mut rows, mut bytes, mut open) = (0, 0, false);
    for submission in submissions {
        let more = (submission.writes.rows(), submission.writes.bytes());
        // A source's progress is a field of its record.
        let alone = submission.writes.source.is_some();
        rows += more.0;
        bytes += more.1;
        let fits = open && !alone && rows <= GROUP_ROWS_MAX && bytes <= GROUP_BYTES_MAX;
        match groups.last_mut().filter(|_| fits) {
            Some(group) => group.push(submission),
            None => {
                groups.push(vec![submission]);
                (rows, bytes) = more;
            }
        }
        open = !alone;
    }
    groups
}

type Version = Option<(OriginId, Epoch)>;

/// The rows that a group writes to one table.
pub(crate) struct Gathered {
    writes: TableWrites,
    expected: Vec<Version>,
    keys: Keys,
    stored: Vec<Version>,
    /// Per submission its rows.
    rows_of: Vec<Range<usize>>,
}

/// The rows of all submissions by table. Every table is known to the dataflow.
pub(crate) fn gather(group: &mut [Submission], dataflow: &Dataflow) -> BTreeMap<ObjectId, Gathered> {
    let mut changes: BTreeMap<ObjectId, Vec<(usize, TableChange)>> = BTreeMap::new();
    for (number, submission) in group.iter_mut().enumerate() {
        for (table, change) in std::mem::take(&mut submission.writes.tables) {
            changes.entry(table).or_default().push((number, change));
        }
    }
    let count = group.len();
    let gathered = changes.into_iter().map(|(table, parts)| {
        let mut rows_of = vec![0..0; count];
        let mut end = 0;
        for (number, change) in &parts {
            let start = end;
            end += change.writes.rows.num_rows();
            rows_of[*number] = start..end;
        }
        let TableChange { writes, expected } =
            together(parts.into_iter().map(|(_, change)| change).collect());
        let keys = dataflow
            .encode_keys(table, &writes.rows)
            .expect("submissions that write to an unknown table are refused before");
        let stored = dataflow.versions(table, &writes.rows);
        let gathered = Gathered {
            writes,
            expected,
            keys,
            stored,
            rows_of,
        };
        (table, gathered)
    });
    gathered.collect()
}

fn together(mut parts: Vec<TableChange>) -> TableChange {
    if parts.len() == 1 {
        return parts.remove(0);
    }
    let schema = parts[0].writes.rows.schema();
    let rows = concat_batches(&schema, parts.iter().map(|part| &part.writes.rows))
        .expect("rows of one table have its columns");
    let deleted: Vec<&dyn Array> = parts
        .iter()
        .map(|part| &part.writes.deleted as &dyn Array)
        .collect();
    let deleted = concat(&deleted).expect("flags are joined with flags");
    TableChange {
        writes: TableWrites {
            rows,
            deleted: booleans(&deleted),
        },
        expected: parts
            .iter()
            .flat_map(|part| part.expected.iter().copied())
            .collect(),
    }
}

fn booleans(array: &dyn Array) -> BooleanArray {
    array
        .as_any()
        .downcast_ref::<BooleanArray>()
        .expect("made of flags")
        .clone()
}

/// Which keys the accepted submissions of a group write.
#[derive(Default)]
pub(crate) struct Taken<'k>(BTreeSet<(ObjectId, &'k [u8])>);

impl<'k> Taken<'k> {
    /// Accepts a submission whose rows are as expected; `current` is the version of a key as of everything sealed
    /// before the group, given the stored one.
    ///
    /// # Errors
    /// [`Rejected::Conflict`]; nothing is taken then.
    pub(crate) fn accept(
        &mut self,
        number: usize,
        gathered: &'k BTreeMap<ObjectId, Gathered>,
        current: impl Fn(ObjectId, &[u8], Version) -> Result<Version, Rejected>,
    ) -> Result<(), Rejected> {
        let rows = || {
            gathered.iter().flat_map(move |(table, gathered)| {
                let rows = gathered.rows_of[number].clone();
                rows.map(move |row| (*table, gathered, row))
            })
        };
        for (table, gathered, row) in rows() {
            let key = gathered.keys.get(row);
            let is_taken = self.0.contains(&(table, key));
            if is_taken || current(table, key, gathered.stored[row])? != gathered.expected[row] {
                return Err(Rejected::Conflict { table });
            }
        }
        // The keys of the last one are not asked for any more.
        let is_last = |gathered: &Gathered| number + 1 == gathered.rows_of.len();
        let keys = rows().filter(|(_, gathered, _)| !is_last(gathered));
        self.0
            .extend(keys.map(|(table, gathered, row)| (table, gathered.keys.get(row))));
        Ok(())
    }
}

/// The writes of the accepted submissions, with their keys.
pub(crate) fn accepted(
    gathered: BTreeMap<ObjectId, Gathered>,
    is_accepted: &[bool],
) -> Vec<(ObjectId, TableWrites, Keys)> {
    let kept = |gathered: Gathered| {
        if is_accepted.iter().all(|accepted| *accepted) {
            return (gathered.writes, gathered.keys);
        }
        let ranges = gathered.rows_of.iter().zip(is_accepted);
        let rows: Vec<usize> = ranges
            .filter(|(_, accepted)| **accepted)
            .flat_map(|(rows, _)| rows.clone())
            .collect();
        let keys = rows.iter().map(|row| gathered.keys.get(*row)).collect();
        let rows = UInt64Array::from_iter_values(rows.iter().map(|row| *row as u64));
        (pick(&gathered.writes, &rows), keys)
    };
    gathered
        .into_iter()
        .map(|(table, gathered)| (table, kept(gathered)))
        .filter(|(_, (writes, _))| writes.rows.num_rows() > 0)
        .map(|(table, (writes, keys))| (table, writes, keys))
        .collect()
}

fn pick(writes: &TableWrites, rows: &UInt64Array) -> TableWrites {
    let picked: RecordBatch = take_record_batch(&writes.rows, rows).expect("rows of the batch");
    let deleted = take(&writes.deleted, rows, None).expect("rows of the batch");
    TableWrites {
        rows: picked,
        deleted: booleans(&deleted),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::StringArray;
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    fn submission(token: u64, bytes: usize) -> Submission {
        let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Utf8, false)]));
        let text = StringArray::from(vec!["x".repeat(bytes)]);
        let writes = TableWrites {
            rows: RecordBatch::try_new(schema, vec![Arc::new(text)]).expect("one column"),
            deleted: BooleanArray::from(vec![false]),
        };
        let change = TableChange {
            writes,
            expected: vec![None],
        };
        Submission {
            token,
            writes: WriteSet {
                tables: BTreeMap::from([(ObjectId(1), change)]),
                ..WriteSet::default()
            },
        }
    }

    #[test]
    fn groups_are_bounded_in_bytes() {
        let sizes = [
            10,
            20,
            GROUP_BYTES_MAX,
            10,
            GROUP_BYTES_MAX / 2,
            GROUP_BYTES_MAX / 2,
            10,
        ];
        let submissions = sizes.iter().enumerate();
        let divided = groups(
            submissions
                .map(|(token, bytes)| submission(token as u64, *bytes))
                .collect(),
        );
        let tokens = |group: &Vec<Submission>| group.iter().map(|one| one.token).collect::<Vec<_>>();
        let tokens: Vec<Vec<u64>> = divided.iter().map(tokens).collect();
        assert_eq!(tokens, [vec![0, 1], vec![2], vec![3, 4], vec![5, 6]]);
    }
}
