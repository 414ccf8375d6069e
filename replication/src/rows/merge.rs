//! Taking in what other regions wrote: which versions win, and which live ones lost to a concurrent one.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch};
use tributary_storage::{Delta, Keys, OriginId, Trace};

use super::version::{Arriving, Context, Held, seen};
use super::{RowVersion, RowVersions};
use crate::error::{ReplicationError, Result};
use crate::hlc::Hlc;
use crate::section::{Expected, check_columns, check_distinct, pick};

/// A live version that lost to a concurrent one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LostVersion {
    /// The version.
    pub version: RowVersion,
    /// Its time.
    pub hlc: Hlc,
    /// The version that won.
    pub winner: RowVersion,
    /// Its time.
    pub winner_hlc: Hlc,
}

/// What merging a section changed.
#[derive(Clone, Debug)]
pub struct MergedRows {
    /// The visible change, in the table's columns.
    pub delta: Delta,
    /// How many live versions, held or arriving, lost to a concurrent one.
    pub conflicts: usize,
    /// Those of them that were asked for.
    pub lost: Vec<LostVersion>,
    /// Their rows, in the table's columns.
    pub lost_rows: RecordBatch,
    /// The greatest HLC that arrived, for the clock to observe.
    pub max_hlc: Hlc,
    /// The encoded keys whose newest version now is an arrived one.
    pub accepted: Keys,
}

/// Whether the writer of a version with this context (as it is stored) had seen what is held under its key: only then may
/// it be written over that.
///
/// # Panics
/// When the bytes are no context.
pub fn has_seen(context: &[u8], held: Option<RowVersion>) -> bool {
    let context: Context = postcard::from_bytes(context).expect("stored contexts were checked");
    match held {
        Some(held) => seen(&context, held),
        None => context.is_empty(),
    }
}

impl RowVersions {
    /// Takes in a section of another origin's rows. Versions that do not win are ignored.
    ///
    /// # Errors
    /// `Corrupt` when the table is not GLOBAL, the columns are not those of a section, a key occurs twice, or
    /// two different versions claim to be the same. Nothing is changed then.
    pub fn merge_foreign(&mut self, origin: OriginId, rows: &RecordBatch) -> Result<MergedRows> {
        self.merge_telling(origin, rows, |_| true)
    }

    /// [`RowVersions::merge_foreign`], telling of versions that lost only what those origins wrote that `is_told` picks:
    /// their rows are copied.
    ///
    /// # Errors
    /// Like those of [`RowVersions::merge_foreign`].
    pub fn merge_telling(
        &mut self,
        origin: OriginId,
        rows: &RecordBatch,
        is_told: impl Fn(OriginId) -> bool,
    ) -> Result<MergedRows> {
        let what = format!("a row section of {origin}");
        let (arriving, encoded) = self.read(&what, origin, rows)?;
        let found = self
            .trace
            .lookup(&self.key_columns(rows.columns()), rows.num_rows());
        let held = self.held(&found, rows.num_rows());
        let columns = self.section_to_trace(origin, rows);
        self.check_same(&what, &arriving, &held, &columns)?;
        let (accepted, conflicts) = self.judge(&arriving, &held);
        let (lost, lost_rows) = self.lost(&arriving, &held, &columns, &conflicts, is_told);
        let delta = self.write(&columns, &held, &accepted);
        let accepted = accepted
            .iter()
            .enumerate()
            .filter(|(_, a)| **a)
            .map(|(row, _)| encoded.get(row))
            .collect();
        let max_hlc = arriving
            .versions
            .iter()
            .map(|version| version.hlc)
            .max()
            .unwrap_or_default();
        Ok(MergedRows {
            delta,
            conflicts: conflicts.len(),
            lost,
            lost_rows,
            max_hlc,
            accepted,
        })
    }

    /// Whether a section of another origin's rows could be merged into a table like this one, as far as it tells by itself.
    ///
    /// # Errors
    /// Like those of [`RowVersions::merge_foreign`], but for versions that are held.
    pub fn check_foreign(&self, origin: OriginId, rows: &RecordBatch) -> Result<()> {
        let what = format!("a row section of {origin}");
        self.read(&what, origin, rows).map(drop)
    }

    /// A section's versions and encoded keys.
    fn read(&self, what: &str, origin: OriginId, rows: &RecordBatch) -> Result<(Arriving, Keys)> {
        if !self.global {
            return Err(ReplicationError::corrupt(
                what,
                "rows of a REGIONAL table never travel",
            ));
        }
        check_columns(what, rows, &self.expected_columns())?;
        let arriving = Arriving::read(what, origin, rows, self.columns.fields().len())?;
        self.check_values(what, rows, &arriving.deleted)?;
        let encoded = self
            .keys
            .encode_rows(&self.key_columns(rows.columns()), rows.num_rows());
        check_distinct(what, &encoded)?;
        Ok((arriving, encoded))
    }

    fn expected_columns(&self) -> Vec<Expected> {
        let trace = self.trace_schema();
        let origin_column = self.columns.fields().len();
        let shipped = trace
            .fields()
            .iter()
            .enumerate()
            .filter(|(column, _)| *column != origin_column);
        shipped
            .map(|(column, field)| Expected {
                data_type: field.data_type().clone(),
                nullable: field.is_nullable() && !self.key.contains(&column),
            })
            .collect()
    }

    /// Live rows obey the table's NOT NULL; tombstones hold nothing beside their key.
    fn check_values(&self, what: &str, rows: &RecordBatch, deleted: &BooleanArray) -> Result<()> {
        for (i, field) in self.columns.fields().iter().enumerate() {
            let column = rows.column(i);
            for row in 0..rows.num_rows() {
                let tombstone_value = deleted.value(row) && !self.key.contains(&i) && column.is_valid(row);
                let missing = !deleted.value(row) && !field.is_nullable() && column.is_null(row);
                if tombstone_value || missing {
                    let problem = if missing {
                        "a null"
                    } else {
                        "a value of a deleted row"
                    };
                    let detail = format!("column {i} holds {problem}");
                    return Err(ReplicationError::corrupt(what, detail));
                }
            }
        }
        Ok(())
    }

    fn section_to_trace(&self, origin: OriginId, rows: &RecordBatch) -> Vec<ArrayRef> {
        let width = self.columns.fields().len();
        let mut columns = rows.columns()[..width].to_vec();
        columns.push(Arc::new(Int64Array::from(vec![origin.as_i64(); rows.num_rows()])));
        columns.extend(rows.columns()[width..].iter().cloned());
        columns
    }

    /// Two versions with the same time and origin are one version; anything else is damage.
    fn check_same(
        &self,
        what: &str,
        arriving: &Arriving,
        held: &[Option<Held<'_>>],
        columns: &[ArrayRef],
    ) -> Result<()> {
        let width = self.columns.fields().len();
        for (row, (version, held)) in arriving.versions.iter().zip(held).enumerate() {
            let Some(held) = held else { continue };
            if version.order() != held.order() || self.defects.skip_duplicate_check {
                continue;
            }
            let one = |columns: &[ArrayRef], row: usize| -> Vec<ArrayRef> {
                columns[..width]
                    .iter()
                    .map(|column| column.slice(row, 1))
                    .collect()
            };
            let same_values = self.whole.encode_rows(&one(columns, row), 1)
                == self.whole.encode_rows(&one(held.columns, held.row), 1);
            let same = version.version == held.version && version.context == held.context();
            if !(same && same_values) {
                let detail = format!("two different versions of a row at {}", version.hlc);
                return Err(ReplicationError::corrupt(what, detail));
            }
        }
        Ok(())
    }

    /// Which arriving versions win, and in which rows a live one lost to a concurrent one.
    fn judge(&self, arriving: &Arriving, held: &[Option<Held<'_>>]) -> (Vec<bool>, Vec<usize>) {
        let mut conflicts = Vec::new();
        let mut accepted = Vec::with_capacity(held.len());
        for (row, (version, held)) in arriving.versions.iter().zip(held).enumerate() {
            let Some(held) = held else {
                accepted.push(true);
                continue;
            };
            let wins = version.order() > held.order();
            let loser_is_live = if wins {
                !held.version.deleted
            } else {
                !version.version.deleted
            };
            let concurrent = version.order() != held.order()
                && !seen(&held.context(), version.version)
                && !seen(&version.context, held.version);
            conflicts.extend((concurrent && loser_is_live).then_some(row));
            accepted.push(wins || self.defects.skip_duplicate_check);
        }
        (accepted, conflicts)
    }

    /// The losers of conflicts, with their rows: those of origins that are to be told.
    fn lost(
        &self,
        arriving: &Arriving,
        held: &[Option<Held<'_>>],
        columns: &[ArrayRef],
        conflicts: &[usize],
        is_told: impl Fn(OriginId) -> bool,
    ) -> (Vec<LostVersion>, RecordBatch) {
        let width = self.columns.fields().len();
        let (mut lost, mut picks) = (Vec::new(), Vec::new());
        let mut sources = vec![&columns[..width]];
        for &row in conflicts {
            let arriving = &arriving.versions[row];
            let held = held[row].as_ref().expect("a conflict is with what is held");
            sources.resize(2, &held.columns[..width]);
            let theirs = (arriving.version, arriving.hlc);
            let ours = (held.version, held.hlc);
            let (loser, winner, pick) = match arriving.order() > held.order() {
                true => (ours, theirs, (1, held.row)),
                false => (theirs, ours, (0, row)),
            };
            if !is_told(loser.0.origin) {
                continue;
            }
            picks.push(pick);
            lost.push(LostVersion {
                version: loser.0,
                hlc: loser.1,
                winner: winner.0,
                winner_hlc: winner.1,
            });
        }
        let rows = RecordBatch::try_new(self.columns.clone(), pick(&sources, &picks));
        (lost, rows.expect("live rows have the table's columns"))
    }
}
