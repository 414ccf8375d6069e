//! The only writer of the log: decides what is a record, in which order, and at which time.
//!
//! It seals whatever the dataflow does. Commits are checked against row versions as of *everything sealed so
//! far*: the dataflow's tables, corrected by an overlay of the keys that are sealed but not yet stepped.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use arrow::array::RecordBatch;
use bytes::Bytes;
use tributary_planner::catalog::{Catalog, CatalogChange, RegionOptions, Standing, TableDef, TableLocality};
use tributary_planner::residency::may_copy;
use tributary_replication::{Bundle, Epoch, Frontier, Hlc, HlcClock};
use tributary_storage::{ChainHash, KeyEncoder, ObjectId, OriginId, Position, Record};

use crate::commits::{self, Decided, Submission, Taken};
use crate::config::RegionConfig;
use crate::dataflow::Dataflow;
use crate::effect::Rejected;
use crate::entry::{Entry, Timed};
use crate::overlay::{Overlay, OverlayVersion};
use crate::source::SourceAppend;
use crate::tokens::{CommitToken, Tokens};
use crate::writes::{TableChange, WriteSet};

/// A record that is sealed and not yet stepped.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// Where it stands in the log.
    pub position: Position,
    /// The log's hash up to and including it.
    pub chain: ChainHash,
    /// Its content.
    pub timed: Timed,
    /// The decoded bundles of a `Bundles` or `Chunk` entry, when they are at hand; a replay decodes them again.
    pub bundles: Vec<Bundle>,
    /// The rows of a `Source` entry, when they are at hand; a replay reads them again.
    pub rows: Vec<RecordBatch>,
}

impl Sealed {
    /// Its position and time.
    pub fn at(&self) -> (Position, Hlc) {
        (self.position, self.timed.hlc)
    }
}

/// See the module's documentation.
pub struct Sequencer {
    last: Position,
    chain: ChainHash,
    clock: HlcClock,
    sealed: VecDeque<Sealed>,
    overlay: Overlay,
    catalog: Arc<Catalog>,
    frontier: Frontier,
    /// Rows consumed of each source, as of everything sealed.
    consumed: BTreeMap<ObjectId, u64>,
    /// As of everything sealed.
    tokens: Tokens,
    disk_full: bool,
}

impl Sequencer {
    /// A sequencer that goes on after `last`, with the clock not before `hlc`.
    pub fn new(
        last: Position,
        chain: ChainHash,
        hlc: Hlc,
        catalog: Arc<Catalog>,
        frontier: Frontier,
        consumed: BTreeMap<ObjectId, u64>,
        tokens: Tokens,
    ) -> Self {
        let clock = HlcClock::starting_after(hlc);
        Self {
            last,
            chain,
            clock,
            sealed: VecDeque::new(),
            overlay: Overlay::default(),
            catalog,
            frontier,
            consumed,
            tokens,
            disk_full: false,
        }
    }

    /// The last sealed position.
    pub fn last(&self) -> Position {
        self.last
    }

    /// The catalog as of everything sealed.
    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// What the frontier will be once everything sealed is stepped, as far as foreign origins go.
    pub fn frontier(&self) -> &Frontier {
        &self.frontier
    }

    /// The time no later record can be before.
    pub fn time(&self, now_ms: u64) -> Hlc {
        Hlc::from_ms(now_ms).max(self.clock.last())
    }

    /// Whether there is no room for records that can as well come later: the disk is full, or too many wait.
    pub fn is_crowded(&self, config: &RegionConfig) -> bool {
        self.disk_full || self.sealed.len() >= config.sealed_records_max
    }

    /// Whether the next record to step is one of own rows.
    pub fn is_own_next(&self) -> bool {
        let next = self.sealed.front();
        next.is_some_and(|next| !stands_alone(&next.timed.entry))
    }

    /// Whether a set of bundles waits for the dataflow.
    pub fn has_bundles(&self) -> bool {
        let mut waiting = self.sealed.iter();
        waiting.any(|sealed| matches!(sealed.timed.entry, Entry::Bundles(_)))
    }

    /// Whether nothing waits for the dataflow.
    pub fn is_level(&self) -> bool {
        self.sealed.is_empty()
    }

    /// How much of the room for sealed records is taken, 0 to 100.
    pub fn backlog(&self, config: &RegionConfig) -> u8 {
        let percent = self.sealed.len() * 100 / config.sealed_records_max.max(1);
        u8::try_from(percent).unwrap_or(100).min(100)
    }

    /// Says whether the disk is full: while it is, commits are refused.
    pub fn set_disk_full(&mut self, full: bool) {
        self.disk_full = full;
    }

    /// The commit that carries a token, if it is in.
    pub fn find(&self, token: u64, id: &[u8; 16]) -> Decided {
        let mut decided = Decided::default();
        match self.tokens.get(id) {
            Some((position, rows)) => decided.repeated.push((token, position, rows)),
            None => decided.refused.push((token, Rejected::NotCommitted)),
        }
        decided
    }

    /// Whether the disk is full.
    pub fn is_disk_full(&self) -> bool {
        self.disk_full
    }

    /// Checks the transactions of a group, each by itself, and seals those that may be in as one record. `behind` are the
    /// connected regions, and by how many milliseconds each is behind.
    pub fn commit(
        &mut self,
        now_ms: u64,
        group: Vec<Submission>,
        behind: &[(&str, u64)],
        config: &RegionConfig,
        dataflow: &Dataflow,
    ) -> Decided {
        let mut decided = Decided::default();
        let mut admitted = Vec::with_capacity(group.len());
        let mut once = BTreeSet::new();
        let mut deletes = BTreeMap::new();
        for submission in group {
            let token = submission.writes.token;
            if let Some((position, rows)) = token.and_then(|token| self.tokens.get(&token.id)) {
                decided.repeated.push((submission.token, position, rows));
                continue;
            }
            if token.is_some_and(|token| !once.insert(token.id)) {
                // Its twin has just been taken; the next attempt will find it.
                decided.refused.push((submission.token, Rejected::Overloaded));
                continue;
            }
            let room = self
                .admit(now_ms, &submission.writes, config, dataflow)
                .and_then(|()| self.admit_lag(&submission.writes, behind))
                .and_then(|()| self.admit_deletes(&submission.writes, &mut deletes, config, dataflow));
            match room {
                Ok(()) => admitted.push(submission),
                Err(rejected) => decided.refused.push((submission.token, rejected)),
            }
        }
        let Some(origin) = dataflow.writes_as() else {
            return decided;
        };
        let gathered = commits::gather(&mut admitted, dataflow);
        let mut taken = Taken::default();
        let mut is_accepted = Vec::with_capacity(admitted.len());
        for (number, submission) in admitted.iter().enumerate() {
            let current = |table, key: &[u8], stored| self.current(origin, table, key, stored);
            let accepted = taken.accept(number, &gathered, current);
            is_accepted.push(accepted.is_ok());
            if let Err(rejected) = accepted {
                decided.refused.push((submission.token, rejected));
            }
        }
        drop(taken);
        let of_accepted = || {
            admitted
                .iter()
                .zip(&is_accepted)
                .filter(|(_, accepted)| **accepted)
        };
        let tokens: Vec<u64> = of_accepted().map(|(submission, _)| submission.token).collect();
        if tokens.is_empty() {
            return decided;
        }
        let source = of_accepted().find_map(|(submission, _)| submission.writes.source);
        let writes = commits::accepted(gathered, &is_accepted);
        let tables = writes
            .iter()
            .map(|(table, writes, _)| (*table, writes.clone()))
            .collect();
        let once: Vec<CommitToken> = of_accepted()
            .filter_map(|(submission, _)| submission.writes.token)
            .collect();
        let entry = Entry::Commit {
            tables,
            source,
            tokens: once.clone(),
        };
        let (record, hlc) = self.seal(now_ms, entry);
        let position = record.position;
        for token in once {
            self.tokens.insert(token, position);
        }
        for (table, writes, keys) in writes {
            self.overlay
                .write(position, table, keys, |row| match writes.deleted.value(row) {
                    true => OverlayVersion::Deleted(position),
                    false => OverlayVersion::Own(position),
                });
        }
        decided.sealed = Some((record, hlc, tokens));
        decided
    }

    /// The version of a key as of everything sealed, given the stored one.
    fn current(
        &self,
        origin: OriginId,
        table: ObjectId,
        key: &[u8],
        stored: Option<(OriginId, Epoch)>,
    ) -> Result<Option<(OriginId, Epoch)>, Rejected> {
        match self.overlay.get(table, key) {
            None => Ok(stored),
            Some(OverlayVersion::Deleted(_)) => Ok(None),
            Some(OverlayVersion::Own(position)) => Ok(Some((origin, Epoch(position.0)))),
            Some(OverlayVersion::Foreign(_)) => Err(Rejected::Conflict { table }),
        }
    }

    /// Checks rows that were read from a source and seals their numbers.
    pub fn source(
        &mut self,
        now_ms: u64,
        append: SourceAppend,
        config: &RegionConfig,
        dataflow: &Dataflow,
    ) -> Result<(Record, Hlc), Rejected> {
        let origin = dataflow.writes_as().ok_or(Rejected::Joining)?;
        self.admit_record(origin, config)?;
        let source = append.source;
        let def = self.catalog.source(source).ok_or(Rejected::NoSuchTable(source))?;
        if !append.fits(def) {
            return Err(Rejected::SourceColumns(source));
        }
        let consumed = self.consumed.get(&source).copied().unwrap_or(0);
        if append.from != consumed {
            return Err(Rejected::SourceMoved {
                source_id: source,
                consumed,
            });
        }
        let to = append.to();
        let entry = Entry::Source {
            source,
            from: consumed,
            to,
            mark: append.mark,
        };
        let sealed = self.seal(now_ms, entry);
        self.sealed.back_mut().expect("sealed just now").rows = append.rows;
        self.consumed.insert(source, to);
        Ok(sealed)
    }

    /// Seals an entry that touches nothing but the table of conflicts.
    pub fn conflicts(
        &mut self,
        now_ms: u64,
        entry: Entry,
        config: &RegionConfig,
        dataflow: &Dataflow,
    ) -> Result<(Record, Hlc), Rejected> {
        let origin = dataflow.writes_as().ok_or(Rejected::Joining)?;
        self.admit_record(origin, config)?;
        Ok(self.seal(now_ms, entry))
    }

    /// The checks that need nothing but the region's own state.
    fn admit_record(&self, origin: OriginId, config: &RegionConfig) -> Result<(), Rejected> {
        // As of everything sealed: what is sealed after a region was told to leave would not be waited for.
        let own = self.catalog.regions.get(&origin.region);
        if own.is_some_and(|own| own.standing != Standing::Member || own.incarnation > origin.incarnation) {
            return Err(Rejected::Leaving);
        }
        if self.disk_full {
            return Err(Rejected::DiskFull);
        }
        if self.sealed.len() >= config.sealed_records_max {
            return Err(Rejected::Overloaded);
        }
        Ok(())
    }

    /// The checks that need no row.
    fn admit(
        &self,
        now_ms: u64,
        writes: &WriteSet,
        config: &RegionConfig,
        dataflow: &Dataflow,
    ) -> Result<(), Rejected> {
        let origin = dataflow.writes_as().ok_or(Rejected::Joining)?;
        self.admit_record(origin, config)?;
        let ahead_ms = self.time(now_ms).ms().saturating_sub(now_ms);
        for &table in writes.tables.keys() {
            let def = self.catalog.table(table).ok_or(Rejected::NoSuchTable(table))?;
            let truncated = self.catalog.truncated.get(&table);
            if truncated.is_some_and(|version| writes.catalog_version < *version) {
                // What it read is gone.
                return Err(Rejected::CatalogChanged);
            }
            match def.locality {
                TableLocality::Global if ahead_ms > config.clock_drift_max_ms => {
                    return Err(Rejected::ClockDrift { ahead_ms });
                }
                TableLocality::RegionalByTable(owner) if owner != origin.region => {
                    return Err(Rejected::OtherRegion(table));
                }
                _ => {}
            }
            if !dataflow.has_table(table) {
                // Sealed, not yet stepped DDL created it: no session can have read it, so nothing can be stale.
                return Err(Rejected::CatalogChanged);
            }
        }
        let mut copies = writes.copies.iter();
        match copies.all(|(from, into)| may_copy(&self.catalog, *from, *into)) {
            true => Ok(()),
            false => Err(Rejected::CatalogChanged),
        }
    }

    /// Whether the tables' and the regions' options let something be written while regions are so far behind.
    fn admit_lag(&self, writes: &WriteSet, behind: &[(&str, u64)]) -> Result<(), Rejected> {
        for &(peer, lag_ms) in behind {
            let region = self.catalog.region_named(peer);
            let region = region.map_or_else(RegionOptions::default, |region| {
                self.catalog.region_options(region)
            });
            for &table in writes.tables.keys() {
                let limit = self.catalog.options(table).lag_limit(&region);
                if let Some(limit) = limit.filter(|limit| lag_ms > limit.max_ms) {
                    return Err(Rejected::Behind {
                        table,
                        peer: peer.to_owned(),
                        lag_ms,
                        lag_max_ms: limit.max_ms,
                        waits: limit.waits,
                    });
                }
            }
        }
        Ok(())
    }

    /// Whether the rows that are to be deleted have room for their tombstones. `deletes` counts for each table the tombstones
    /// that are held, sealed, and come with submissions that go into the same record.
    fn admit_deletes(
        &self,
        writes: &WriteSet,
        deletes: &mut BTreeMap<ObjectId, usize>,
        config: &RegionConfig,
        dataflow: &Dataflow,
    ) -> Result<(), Rejected> {
        let deleting = |(table, change): (&ObjectId, &TableChange)| {
            let is_global = self.catalog.table(*table).is_some_and(TableDef::is_global);
            let count = change.writes.deleted.true_count();
            (is_global && count > 0).then_some((*table, count))
        };
        for (table, count) in writes.tables.iter().filter_map(deleting) {
            let held = || dataflow.tombstones_of(table) + self.sealed_deletes(table);
            let so_far = deletes.entry(table).or_insert_with(held);
            let set = self.catalog.options(table).tombstones_max;
            let tombstones_max = set.map_or(config.tombstones_max, |max| {
                usize::try_from(max).unwrap_or(usize::MAX)
            });
            if *so_far + count > tombstones_max {
                return Err(Rejected::Tombstones {
                    table,
                    tombstones_max,
                    kept_by: Vec::new(),
                });
            }
            *so_far += count;
        }
        Ok(())
    }

    /// Rows of a table that are deleted by what is sealed and not stepped.
    fn sealed_deletes(&self, table: ObjectId) -> usize {
        let deletes = |sealed: &Sealed| match &sealed.timed.entry {
            Entry::Commit { tables, .. } => {
                tables.get(&table).map_or(0, |writes| writes.deleted.true_count())
            }
            _ => 0,
        };
        self.sealed.iter().map(deletes).sum()
    }

    /// Checks catalog changes and seals them.
    ///
    /// Views are built once before: what is in the log is carried out at every start, so it must be possible.
    pub fn ddl(
        &mut self,
        now_ms: u64,
        changes: Vec<CatalogChange>,
        base_version: u64,
        dataflow: &Dataflow,
    ) -> Result<(Record, Hlc), Rejected> {
        let origin = dataflow.writes_as().ok_or(Rejected::Joining)?;
        if self.catalog.primary != Some(origin.region) {
            return Err(Rejected::NotPrimary);
        }
        if self.disk_full {
            return Err(Rejected::DiskFull);
        }
        if self.catalog.version != base_version {
            return Err(Rejected::CatalogChanged);
        }
        for change in &changes {
            if let CatalogChange::Create(object) = change {
                dataflow.assert_buildable(object)?;
            }
        }
        Ok(self.seal_catalog(now_ms, changes))
    }

    /// Seals catalog changes that are known to be right.
    pub fn seal_catalog(&mut self, now_ms: u64, changes: Vec<CatalogChange>) -> (Record, Hlc) {
        let mut catalog = (*self.catalog).clone();
        for change in &changes {
            catalog.apply(change);
        }
        self.catalog = Arc::new(catalog);
        self.seal(now_ms, Entry::Catalog(changes))
    }

    /// Seals a set of bundles that was found applicable and valid.
    ///
    /// `rows` are the keys of GLOBAL rows in it, `catalog` the newest catalog among it.
    pub fn bundles(
        &mut self,
        now_ms: u64,
        set: crate::bundles::ValidSet,
        encoders: impl Fn(ObjectId) -> Option<(Arc<KeyEncoder>, Vec<usize>)>,
    ) -> Record {
        self.clock.observe(set.time);
        let (record, _) = self.seal(now_ms, Entry::Bundles(set.bytes));
        self.sealed.back_mut().expect("sealed just now").bundles = set.bundles;
        let position = record.position;
        for (table, rows) in &set.rows {
            let Some((encoder, key)) = encoders(*table) else {
                continue;
            };
            let columns: Vec<_> = key.iter().map(|&column| rows.column(column).clone()).collect();
            let keys = encoder.encode_rows(&columns, rows.num_rows());
            self.overlay
                .write(position, *table, keys, |_| OverlayVersion::Foreign(position));
        }
        if let Some(catalog) = set.catalog {
            self.catalog = catalog;
        }
        for (origin, to) in &set.advances {
            self.frontier.advance(*origin, *to);
        }
        record
    }

    /// Seals a chunk of a stage that was found to be the next one, and right.
    pub fn chunk(&mut self, now_ms: u64, bytes: Bytes, decoded: Bundle) -> Record {
        let (record, _) = self.seal(now_ms, Entry::Chunk(bytes));
        self.sealed.back_mut().expect("sealed just now").bundles = vec![decoded];
        record
    }

    /// Puts an entry at the end of the log.
    pub fn seal(&mut self, now_ms: u64, entry: Entry) -> (Record, Hlc) {
        let hlc = self.clock.now(now_ms);
        let timed = Timed { hlc, entry };
        let payload = timed.encode();
        let position = Position(self.last.0 + 1);
        let chain = self.chain.next(position, &payload);
        self.last = position;
        self.chain = chain;
        self.sealed.push_back(Sealed {
            position,
            chain,
            timed,
            bundles: Vec::new(),
            rows: Vec::new(),
        });
        (
            Record {
                position,
                chain,
                payload,
            },
            hlc,
        )
    }

    /// Takes the oldest sealed records that can be stepped at once: those of one tick, up to [`STEP_ROWS_MAX`] rows,
    /// and catalog changes and bundles that may carry one on their own.
    pub fn take_step(&mut self, tick_ms: u64) -> Vec<Sealed> {
        let mut step: Vec<Sealed> = Vec::new();
        let mut rows = 0;
        while let Some(next) = self.sealed.front() {
            rows += next.timed.entry.rows();
            if let Some(first) = step.first() {
                let same_tick = first.timed.hlc.tick(tick_ms) == next.timed.hlc.tick(tick_ms);
                if !same_tick
                    || rows > STEP_ROWS_MAX
                    || stands_alone(&first.timed.entry)
                    || stands_alone(&next.timed.entry)
                {
                    break;
                }
            }
            step.extend(self.sealed.pop_front());
        }
        step
    }

    /// Forgets the versions of keys up to a stepped position: the tables know them now.
    pub fn stepped(&mut self, position: Position) {
        self.overlay.stepped(position);
    }
}

/// The rows of one step, unless a single record has more. Larger steps retract and insert a group that changes often
/// once instead of several times; beyond this the rows no longer fit the caches. Measured in docs/performance.md.
const STEP_ROWS_MAX: u64 = 262_144;

/// Whether an entry is stepped alone: those that may change which tables and views exist.
pub fn stands_alone(entry: &Entry) -> bool {
    !matches!(entry, Entry::Commit { .. } | Entry::Source { .. })
}
