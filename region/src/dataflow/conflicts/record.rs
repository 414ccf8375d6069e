//! Who writes the table of conflicts: the step that merges the winner of a conflict, the shell that gives a log up,
//! and users that have conflicts removed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::Int64Type;
use tributary_replication::{Changed, Epoch, Hlc, MergedRows, SectionObject, TableWrites};
use tributary_storage::{ObjectId, OriginId, Position, RegionId};

use super::{
    CONFLICTS, CONFLICTS_MAX, Conflict, ConflictId, Loser, Reason, RecordedConflict, Winner, all_recorded,
    conflict, definition, describe,
};
use crate::dataflow::Dataflow;
use crate::dataflow::apply::Gathered;

/// Which losers of this region are recorded, and where the next goes.
#[derive(Default)]
pub(crate) struct Recorded {
    next: u64,
    /// What stands in each place, with its number.
    places: BTreeMap<u64, (u64, Loser)>,
    /// Each with the number of its places: more than one, when two incarnations have recorded it.
    losers: BTreeMap<Loser, u32>,
}

impl Recorded {
    fn put(&mut self, place: u64, number: u64, loser: Loser) {
        self.take(place);
        self.places.insert(place, (number, loser.clone()));
        *self.losers.entry(loser).or_default() += 1;
        self.next = self.next.max(number + 1);
    }

    fn take(&mut self, place: u64) -> Option<(u64, Loser)> {
        let (number, loser) = self.places.remove(&place)?;
        if let Some(places) = self.losers.get_mut(&loser) {
            *places -= 1;
            if *places == 0 {
                self.losers.remove(&loser);
            }
        }
        Some((number, loser))
    }

    /// Whether a conflict is recorded.
    pub(in crate::dataflow) fn has(&self, conflict: &Conflict) -> bool {
        self.losers.contains_key(&conflict.loser())
    }

    /// The oldest of those before a place, if there are more than may be.
    fn oldest_before(&self, base: u64) -> Option<u64> {
        let is_full = self.places.len() as u64 > CONFLICTS_MAX;
        let earlier = self.places.range(..base).filter(|_| is_full);
        let (place, _) = earlier.min_by_key(|(place, (number, _))| (*number, **place))?;
        Some(*place)
    }
}

/// The first of the places of an origin.
fn first_place(origin: OriginId) -> u64 {
    u64::from(origin.incarnation.saturating_sub(1)) * CONFLICTS_MAX
}

/// Rows of a region by their places, with their numbers.
type Places = BTreeMap<u64, (u64, Conflict)>;

impl Dataflow {
    /// The number of the region that this is, as soon as the catalog says so.
    pub(in crate::dataflow) fn own_region(&self) -> Option<RegionId> {
        self.origin
            .map(|origin| origin.region)
            .or_else(|| self.named().map(|origin| origin.region))
    }

    /// Of what was merged the losers that this region has to record: all that were told.
    pub(in crate::dataflow) fn note_conflicts(
        &self,
        table: ObjectId,
        merged: &MergedRows,
        gathered: &mut Gathered,
    ) {
        let Some(held) = self.tables.get(&table) else {
            return;
        };
        for (row, lost) in merged.lost.iter().enumerate() {
            let (key, text) = describe(&held.def, &merged.lost_rows, row);
            let object = self.catalog.by_id(table);
            gathered.conflicts.push(Conflict {
                table,
                table_name: object.map(|object| object.name.clone()).unwrap_or_default(),
                key,
                row: text,
                origin: lost.version.origin,
                epoch: lost.version.stamp,
                hlc: lost.hlc,
                winner: Some(Winner {
                    origin: lost.winner.origin,
                    epoch: lost.winner.stamp,
                    hlc: lost.winner_hlc,
                    deleted: lost.winner.deleted,
                }),
                reason: Reason::Concurrent,
            });
        }
    }

    /// Somebody else has written rows of the table: an earlier incarnation of this region, or who has removed some of
    /// its conflicts. One that was removed by who had not heard of it, since it stood in the place of another one, is
    /// recorded again.
    pub(in crate::dataflow) fn conflicts_arrived(
        &mut self,
        rows: &RecordBatch,
        merged: &MergedRows,
        gathered: &mut Gathered,
    ) {
        let own = self.own_region();
        let is_own = |region: Option<i64>| region == own.map(|own| i64::from(own.0));
        if rows.column(0).as_primitive::<Int64Type>().iter().any(is_own) {
            self.recorded = None;
        }
        let displaced = (0..merged.lost.len()).filter_map(|row| conflict(&merged.lost_rows, row));
        let displaced = displaced.filter(|recorded| Some(recorded.region) == own);
        gathered
            .conflicts
            .extend(displaced.map(|recorded| recorded.conflict));
    }

    /// Records what was lost, by the record that brought the winners: `at` is its position and time.
    pub(in crate::dataflow) fn record_conflicts(
        &mut self,
        lost: Vec<Conflict>,
        at: (Position, Hlc),
        gathered: &mut Gathered,
    ) {
        let is_to_do = !lost.is_empty() && !self.defects.lose_conflicts;
        let Some(origin) = self.origin.filter(|_| is_to_do) else {
            return;
        };
        let mut recorded = match self.recorded.take() {
            Some(recorded) => recorded,
            None => self.find_recorded(origin.region, at.0),
        };
        let first = first_place(origin);
        let (mut rows, mut gone) = (Places::new(), Places::new());
        for conflict in lost {
            let loser = conflict.loser();
            if recorded.losers.contains_key(&loser) {
                continue;
            }
            let number = recorded.next;
            let place = first + number % CONFLICTS_MAX;
            self.counts.conflicts_recorded += 1;
            self.counts.conflicts_overwritten += u64::from(recorded.places.contains_key(&place));
            recorded.put(place, number, loser);
            rows.insert(place, (number, conflict));
            while let Some(place) = recorded.oldest_before(first) {
                let (number, loser) = recorded.take(place).expect("found just now");
                self.counts.conflicts_overwritten += 1;
                gone.insert(place, (number, nothing_but(loser)));
            }
        }
        self.recorded = Some(recorded);
        self.write_conflicts(origin, origin.region, &rows, false, at, gathered);
        self.write_conflicts(origin, origin.region, &gone, true, at, gathered);
    }

    /// Removes conflicts for good, in all regions. Those that are not there any more are passed over.
    pub(in crate::dataflow) fn forget_conflicts(
        &mut self,
        named: &[ConflictId],
        at: (Position, Hlc),
        gathered: &mut Gathered,
    ) {
        let (Some(origin), Some(table)) = (self.origin, self.table_snapshot(CONFLICTS)) else {
            return;
        };
        let named: BTreeSet<ConflictId> = named.iter().copied().collect();
        let mut all = all_recorded(&table);
        // Whoever stands there twice goes twice.
        let loser = |recorded: &RecordedConflict| (recorded.region, recorded.conflict.loser());
        let is_named = |recorded: &&RecordedConflict| named.contains(&recorded.id());
        let losers: BTreeSet<(RegionId, Loser)> = all.iter().filter(is_named).map(loser).collect();
        all.retain(|recorded| losers.contains(&loser(recorded)));
        let mut gone: BTreeMap<RegionId, Places> = BTreeMap::new();
        for recorded in all {
            let places = gone.entry(recorded.region).or_default();
            places.insert(recorded.place, (recorded.number, recorded.conflict));
        }
        for (region, rows) in gone {
            self.write_conflicts(origin, region, &rows, true, at, gathered);
        }
        self.recorded = None;
    }

    fn write_conflicts(
        &mut self,
        origin: OriginId,
        region: RegionId,
        rows: &Places,
        are_deleted: bool,
        at: (Position, Hlc),
        gathered: &mut Gathered,
    ) {
        let Some(table) = self.tables.get_mut(&CONFLICTS).filter(|_| !rows.is_empty()) else {
            return;
        };
        let (position, hlc) = at;
        let writes = writes(region, hlc, rows, are_deleted);
        table.rows.write_own(origin, Epoch(position.0), hlc, &writes);
        let changed = Changed::Keys(table.encode_keys(&writes.rows));
        let object = SectionObject::Rows(CONFLICTS);
        match gathered.stepped.changes.get_mut(&object) {
            Some(earlier) => earlier.join(changed),
            None => drop(gathered.stepped.changes.insert(object, changed)),
        }
    }

    /// What the table says, that which has come in this step included.
    fn find_recorded(&mut self, own: RegionId, position: Position) -> Recorded {
        if let Some(table) = self.tables.get_mut(&CONFLICTS) {
            table.rows.seal(position.0);
        }
        let mut recorded = Recorded::default();
        let all = self.table_snapshot(CONFLICTS).map(|table| all_recorded(&table));
        for mine in all.unwrap_or_default() {
            if mine.region == own {
                recorded.put(mine.place, mine.number, mine.conflict.loser());
            }
        }
        recorded
    }
}

/// A conflict of which only the key of its row counts.
fn nothing_but((table, key, origin, epoch): Loser) -> Conflict {
    Conflict {
        table,
        table_name: String::new(),
        key,
        row: String::new(),
        origin,
        epoch,
        hlc: Hlc::default(),
        winner: None,
        reason: Reason::Concurrent,
    }
}

/// Conflicts of a region by their places, as they are written or deleted.
fn writes(region: RegionId, at: Hlc, rows: &Places, are_deleted: bool) -> TableWrites {
    let all = || rows.values().map(|(_, conflict)| conflict);
    let ints = |value: &dyn Fn(&Conflict) -> Option<i64>| -> ArrayRef {
        Arc::new(all().map(value).collect::<Int64Array>())
    };
    let texts = |value: &dyn Fn(&Conflict) -> String| -> ArrayRef {
        Arc::new(
            all()
                .map(|conflict| Some(value(conflict)))
                .collect::<StringArray>(),
        )
    };
    let number = |number: u64| i64::try_from(number).expect("a region has fewer than 2^63 conflicts");
    let columns: Vec<ArrayRef> = vec![
        ints(&|_| Some(i64::from(region.0))),
        Arc::new(Int64Array::from_iter_values(
            rows.keys().map(|place| number(*place)),
        )),
        Arc::new(Int64Array::from_iter_values(
            rows.values().map(|(n, _)| number(*n)),
        )),
        ints(&|conflict| Some(i64::from(conflict.table.0))),
        texts(&|conflict| conflict.table_name.clone()),
        texts(&|conflict| conflict.key.clone()),
        texts(&|conflict| conflict.row.clone()),
        ints(&|conflict| Some(conflict.origin.as_i64())),
        ints(&|conflict| Some(conflict.epoch.as_i64())),
        ints(&|conflict| Some(conflict.hlc.as_i64())),
        ints(&|conflict| conflict.winner.map(|winner| winner.origin.as_i64())),
        ints(&|conflict| conflict.winner.map(|winner| winner.epoch.as_i64())),
        ints(&|conflict| conflict.winner.map(|winner| winner.hlc.as_i64())),
        Arc::new(
            all()
                .map(|conflict| conflict.winner.map(|winner| winner.deleted))
                .collect::<BooleanArray>(),
        ),
        ints(&|_| Some(at.as_i64())),
        texts(&|conflict| conflict.reason.as_str().to_owned()),
    ];
    TableWrites {
        deleted: BooleanArray::from(vec![are_deleted; rows.len()]),
        rows: RecordBatch::try_new(definition().schema(), columns).expect("the columns are the table's"),
    }
}
