//! Versions of rows, and what they make of a table at a frontier.
//!
//! REGIONAL rows have one writer: the newest version up to a position counts. Of the versions of a GLOBAL row
//! that a frontier covers, the one with the greatest (time, origin) counts, where a write's time is at least
//! one more than that of the version it overwrote.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::Array;
use tributary_planner::catalog::{ObjectKind, TableDef};
use tributary_region::WriteSet;
use tributary_replication::{Epoch, Frontier, Hlc, TableWrites};
use tributary_storage::{ObjectId, OriginId};

use super::{LogId, Model};
use crate::failure::{Checked, Violation};
use crate::value::{Row, Rows, row_of, show_row};

/// A version of a row.
#[derive(Clone, Debug)]
struct Version {
    position: u64,
    hlc: Hlc,
    /// For each origin the newest version of the row that its writer had seen.
    seen: BTreeMap<OriginId, u64>,
    /// `None`: deleted.
    row: Option<Row>,
}

/// A table, and who wrote to it in which epoch.
pub type Dot = (ObjectId, OriginId, u64);

/// Per log the versions of a key, oldest first.
type OfKey = BTreeMap<LogId, Vec<Version>>;

type Keys = BTreeMap<Row, OfKey>;

/// Which log each origin stands for, and how far it is known.
type Visible = BTreeMap<LogId, (OriginId, u64)>;

/// Versions of all rows of all tables.
#[derive(Default)]
pub(super) struct Versions {
    tables: BTreeMap<ObjectId, Keys>,
}

/// A live row and the dot that wrote it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LiveRow {
    /// The row.
    pub row: Row,
    /// Who wrote it.
    pub origin: OriginId,
    /// In which epoch.
    pub epoch: Epoch,
}

impl Versions {
    pub(super) fn lose(&mut self, log: LogId, last: u64) {
        for versions in self.tables.values_mut().flat_map(BTreeMap::values_mut) {
            if let Some(own) = versions.get_mut(&log) {
                own.retain(|version| version.position <= last);
            }
        }
    }

    pub(super) fn branch(&mut self, from: LogId, to: LogId) {
        for versions in self.tables.values_mut().flat_map(BTreeMap::values_mut) {
            if let Some(own) = versions.get(&from).cloned() {
                versions.insert(to, own);
            }
        }
    }
}

/// The newest version up to a position.
fn newest(versions: &[Version], position: u64) -> Option<&Version> {
    let after = versions.partition_point(|version| version.position <= position);
    after.checked_sub(1).map(|index| &versions[index])
}

/// The winner among the versions that are visible.
fn winner<'a>(versions: &'a OfKey, visible: &Visible) -> Option<(OriginId, &'a Version)> {
    let seen = versions.iter().filter_map(|(log, versions)| {
        let (origin, epoch) = visible.get(log)?;
        newest(versions, *epoch).map(|version| (*origin, version))
    });
    seen.max_by_key(|(origin, version)| (version.hlc, *origin))
}

fn own_version<'a>(versions: &'a OfKey, at: LogId, visible: &Visible) -> Option<(OriginId, &'a Version)> {
    let (origin, epoch) = visible.get(&at)?;
    Some((*origin, newest(versions.get(&at)?, *epoch)?))
}

impl Model {
    /// The live rows of a table as a log sees it at a frontier that includes its own position.
    pub fn rows(&self, table: ObjectId, at: LogId, frontier: &Frontier) -> Vec<LiveRow> {
        let Some(keys) = self.versions.tables.get(&table) else {
            return Vec::new();
        };
        let global = self.table_is_global(table) == Some(true);
        let seen = self.visible(at, frontier);
        let visible = |versions| match global {
            true => winner(versions, &seen),
            false => own_version(versions, at, &seen),
        };
        let live = |(origin, version): (OriginId, &Version)| {
            version.row.clone().map(|row| LiveRow {
                row,
                origin,
                epoch: Epoch(version.position),
            })
        };
        keys.values()
            .filter_map(|versions| visible(versions).and_then(live))
            .collect()
    }

    /// The rows that all regions together hold of a table at a frontier of a log.
    pub fn rows_of_all(&self, table: ObjectId, at: LogId, frontier: &Frontier) -> Rows {
        let of = |log: LogId| self.rows(table, log, frontier).into_iter().map(|live| live.row);
        if self.table_is_global(table) == Some(true) {
            return of(at).collect();
        }
        let newest = Self::newest(frontier);
        let logs = newest.values().filter_map(|(origin, _)| self.log_of(*origin, at));
        logs.flat_map(of).collect()
    }

    /// Whether a record holds what was submitted, one submission after the other, each key once, on the versions that
    /// the submissions expected.
    pub(super) fn check_commit(
        &self,
        (log, origin): (LogId, OriginId),
        position: u64,
        tables: &BTreeMap<ObjectId, TableWrites>,
        submitted: &[&WriteSet],
        frontier: &Frontier,
    ) -> Checked {
        let broken = |detail: String| Violation::new("commits", format!("{origin} at {position}: {detail}"));
        let written: BTreeSet<ObjectId> = submitted
            .iter()
            .flat_map(|one| one.tables.keys().copied())
            .collect();
        if !tables.keys().eq(&written) {
            return Err(broken(
                "the record writes other tables than were submitted".into(),
            ));
        }
        let visible = self.visible(log, frontier);
        for (table, writes) in tables {
            let Some(def) = self.table_def(*table) else {
                return Err(broken(format!(
                    "it writes table {table}, which was never created"
                )));
            };
            let (mut start, mut seen) = (0, BTreeSet::new());
            for change in submitted.iter().filter_map(|one| one.tables.get(table)) {
                let count = change.writes.rows.num_rows();
                if start + count > writes.rows.num_rows()
                    || writes.rows.slice(start, count).columns() != change.writes.rows.columns()
                    || writes.deleted.slice(start, count) != change.writes.deleted
                {
                    return Err(broken(format!(
                        "the record's rows of table {table} are not those submitted"
                    )));
                }
                for (row, expected) in change.expected.iter().enumerate() {
                    let key = key_of(def, writes, start + row).map_err(broken)?;
                    let current = self.version_of_key(log, *table, def, &key, &visible);
                    if current != *expected || seen.contains(&key) {
                        let key = show_row(&key);
                        let detail =
                            format!("table {table} key {key} is at {current:?}, not at {expected:?}");
                        return Err(Violation::new(
                            "no lost update",
                            format!("{origin} at {position}: {detail}"),
                        ));
                    }
                    seen.insert(key);
                }
                start += count;
            }
            if start != writes.rows.num_rows() {
                return Err(broken(format!("the record has further rows of table {table}")));
            }
        }
        Ok(())
    }

    /// The live version of a key, as a log knows it.
    fn version_of_key(
        &self,
        log: LogId,
        table: ObjectId,
        def: &TableDef,
        key: &Row,
        visible: &Visible,
    ) -> Option<(OriginId, Epoch)> {
        let versions = self.versions.tables.get(&table)?.get(key)?;
        let (origin, version) = match def.is_global() {
            true => winner(versions, visible),
            false => own_version(versions, log, visible),
        }?;
        version.row.as_ref().map(|_| (origin, Epoch(version.position)))
    }

    /// Keeps the versions that a record writes.
    pub(super) fn write(
        &mut self,
        (log, origin): (LogId, OriginId),
        position: u64,
        hlc: Hlc,
        tables: &BTreeMap<ObjectId, TableWrites>,
        frontier: &Frontier,
    ) -> Checked {
        let broken = |detail: String| Violation::new("commits", format!("{origin} at {position}: {detail}"));
        let visible = self.visible(log, frontier);
        for (table, writes) in tables {
            let Some(def) = self.table_def(*table).cloned() else {
                continue;
            };
            let keys = self.versions.tables.entry(*table).or_default();
            for row in 0..writes.rows.num_rows() {
                let key = key_of(&def, writes, row).map_err(broken)?;
                let deleted = writes.deleted.is_valid(row) && writes.deleted.value(row);
                let content = row_of(&writes.rows, row, def.columns.len()).map_err(broken)?;
                let versions = keys.entry(key).or_default();
                let held = match def.is_global() {
                    true => winner(versions, &visible),
                    false => own_version(versions, log, &visible),
                };
                if deleted && held.is_none_or(|(_, version)| version.row.is_none()) {
                    // Nothing is deleted, so nothing is written.
                    continue;
                }
                let mut seen = BTreeMap::new();
                if let Some((origin, version)) = held.filter(|_| def.is_global()) {
                    seen = version.seen.clone();
                    seen.insert(origin, version.position);
                }
                let overwritten = held
                    .filter(|_| def.is_global())
                    .map(|(_, version)| version.hlc.successor());
                let hlc = overwritten.map_or(hlc, |overwritten| hlc.max(overwritten));
                let version = Version {
                    position,
                    hlc,
                    seen,
                    row: (!deleted).then_some(content),
                };
                versions.entry(log).or_default().push(version);
            }
        }
        Ok(())
    }

    /// A live version of a GLOBAL row that was lost silently at a frontier: it is not the row now, nor `reported`, nor seen by
    /// who wrote one that is, or one that deleted the row. What a log had written that will never be continued may be lost,
    /// and with it what it had overwritten.
    pub fn lost_silently(&self, at: LogId, frontier: &Frontier, reported: &BTreeSet<Dot>) -> Option<Dot> {
        let visible = self.visible(at, frontier);
        let tables = self.versions.tables.iter();
        let global = tables.filter(|(table, _)| self.table_is_global(**table) == Some(true));
        for (table, versions) in global.flat_map(|(table, keys)| keys.values().map(move |of| (table, of))) {
            let dot = |origin: OriginId, version: &Version| (*table, origin, version.position);
            let known: Vec<(OriginId, &Version)> = versions
                .iter()
                .filter_map(|(log, versions)| Some((visible.get(log)?, versions)))
                .flat_map(|((origin, epoch), versions)| {
                    let known = versions.iter().filter(|version| version.position <= *epoch);
                    known.map(|version| (*origin, version))
                })
                .collect();
            let holds = winner(versions, &visible).map(|(origin, version)| (origin, version.position));
            let accounted = |(origin, version): &(OriginId, &Version)| {
                let goes_on = self
                    .log_of(*origin, at)
                    .is_some_and(|log| !self.has_ended(log) && !self.is_superseded(log));
                version.row.is_none()
                    || !goes_on
                    || Some((*origin, version.position)) == holds
                    || reported.contains(&dot(*origin, version))
            };
            let roots: Vec<&(OriginId, &Version)> = known.iter().filter(|one| accounted(one)).collect();
            let silent = known.iter().find(|(origin, version)| {
                let sees = |(_, root): &&(OriginId, &Version)| {
                    root.seen
                        .get(origin)
                        .is_some_and(|seen| *seen >= version.position)
                };
                !accounted(&(*origin, version)) && !roots.iter().any(sees)
            });
            if let Some((origin, version)) = silent {
                return Some(dot(*origin, version));
            }
        }
        None
    }

    /// Whether a version was written, and lives.
    pub fn is_live_version(&self, at: LogId, (table, origin, epoch): Dot) -> bool {
        let log = self.log_of(origin, at);
        let keys = self
            .versions
            .tables
            .get(&table)
            .into_iter()
            .flat_map(BTreeMap::values);
        let mut mine = keys.filter_map(|versions| versions.get(&log?)).flatten();
        mine.any(|version| version.position == epoch && version.row.is_some())
    }

    fn table_def(&self, table: ObjectId) -> Option<&TableDef> {
        match &self.objects.get(&table)?.2.kind {
            ObjectKind::Table(def) => Some(def),
            _ => None,
        }
    }
}

fn key_of(def: &TableDef, writes: &TableWrites, row: usize) -> Result<Row, String> {
    let keys = def.primary_key.iter();
    keys.map(|&column| crate::value::cell(writes.rows.column(column), row))
        .collect()
}
