//! What the world should be, computed from the logs alone.
//!
//! The model reads every record that a region appends and keeps, per origin: the records, how far other origins
//! were known after each of them, and all versions of all rows with the position that wrote them. From that it
//! says what any table or view holds at any frontier, without ever looking into a region.
//!
//! ```text
//!   records of all logs ──▶ versions of rows, reach of origins ──▶ rows of a table at (origin, position)
//!                                                              └─▶ rows of a view at a frontier (views.rs)
//! ```
//!
//! A crash takes records back; whatever had been acknowledged, published or sent of them is a violation.

pub mod rows;
mod views;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use tributary_planner::catalog::{Catalog, Object, ObjectKind};
use tributary_region::WriteSet;
use tributary_region::entry::{Entry, Timed};
use tributary_replication::{Bundle, Epoch, Frontier, Hlc};
use tributary_storage::{ChainHash, ObjectId, OriginId, Record, RegionId};

use crate::failure::{Checked, Violation};
use rows::Versions;
use views::Memo;

/// A record as the model keeps it.
struct Kept {
    chain: ChainHash,
    hlc: Hlc,
    /// How far other origins are known after it.
    reach: Arc<Frontier>,
    /// The submissions it stems from.
    tokens: Vec<u64>,
}

/// One origin's log.
#[derive(Default)]
struct History {
    records: Vec<Kept>,
    /// How far a sync has succeeded.
    synced: u64,
    attached: BTreeMap<ObjectId, u64>,
}

/// A submission that may become a record.
pub struct Submission<'a> {
    /// Its token.
    pub token: u64,
    /// Its writes; `None` for DDL.
    pub writes: Option<&'a WriteSet>,
}

/// The world according to the logs.
pub struct Model {
    histories: BTreeMap<OriginId, History>,
    versions: Versions,
    primary: OriginId,
    catalogs: Vec<(u64, Arc<Catalog>)>,
    objects: BTreeMap<ObjectId, (u64, Arc<Object>)>,
    memo: RefCell<Memo>,
}

/// The origin that region number `index` writes as.
pub fn origin_of(index: usize) -> OriginId {
    OriginId::first(RegionId(u16::try_from(index + 1).expect("a handful of regions")))
}

impl Model {
    /// A world of so many regions, of which the first is the primary.
    pub fn new(regions: usize) -> Self {
        Self {
            histories: (0..regions)
                .map(|index| (origin_of(index), History::default()))
                .collect(),
            versions: Versions::default(),
            primary: origin_of(0),
            catalogs: Vec::new(),
            objects: BTreeMap::new(),
            memo: RefCell::default(),
        }
    }

    /// Takes in a record that a region has appended.
    ///
    /// # Errors
    /// When it does not follow the one before, or does not say what was submitted.
    pub fn append(&mut self, origin: OriginId, record: &Record, submissions: Vec<Submission<'_>>) -> Checked {
        let position = record.position.0;
        let last = self.last(origin);
        let broken = |detail: String| Violation::new("one log", format!("{origin} at {position}: {detail}"));
        if position != last + 1 {
            return Err(broken(format!("it follows {last}")));
        }
        let before = self.chain(origin, last);
        if before.next(record.position, &record.payload) != record.chain {
            return Err(broken("its chain hash does not continue the log's".into()));
        }
        let timed =
            Timed::decode(record.position, &record.payload).map_err(|error| broken(error.to_string()))?;
        let hlc_before = self.kept(origin, last).map_or(Hlc::default(), |kept| kept.hlc);
        if timed.hlc <= hlc_before {
            return Err(broken(format!(
                "its time {} is not after {hlc_before}",
                timed.hlc
            )));
        }
        let reach = self
            .kept(origin, last)
            .map_or_else(Arc::default, |kept| kept.reach.clone());
        let reach = self.reach_after(origin, reach, &timed.entry).map_err(broken)?;
        match &timed.entry {
            Entry::Commit { tables, .. } => {
                let writes: Option<Vec<&WriteSet>> = submissions.iter().map(|one| one.writes).collect();
                let writes = writes.filter(|writes| !writes.is_empty());
                let writes = writes.ok_or_else(|| broken("a commit that nobody submitted".into()))?;
                self.check_commit(origin, position, tables, &writes, &reach)?;
                self.write(origin, position, timed.hlc, tables, &reach)?;
            }
            Entry::Source { .. } => return Err(broken("rows of a source that nobody created".into())),
            Entry::Catalog(changes) => {
                let mut catalog = self
                    .catalog_at(position)
                    .map_or_else(Catalog::default, |c| (*c).clone());
                changes.iter().for_each(|change| catalog.apply(change));
                for (id, object) in &catalog.objects {
                    self.objects
                        .entry(*id)
                        .or_insert_with(|| (position, object.clone()));
                }
                self.catalogs.push((position, Arc::new(catalog)));
            }
            Entry::Attach(view) => {
                self.history(origin).attached.insert(*view, position);
            }
            Entry::Joined | Entry::Bundles(_) => {}
        }
        let tokens = submissions.iter().map(|submission| submission.token).collect();
        self.history(origin).records.push(Kept {
            chain: record.chain,
            hlc: timed.hlc,
            reach,
            tokens,
        });
        Ok(())
    }

    /// Notes that a sync has made everything up to `position` durable.
    pub fn synced(&mut self, origin: OriginId, position: u64) {
        let history = self.history(origin);
        history.synced = history.synced.max(position);
    }

    /// How far a sync has succeeded.
    pub fn durable(&self, origin: OriginId) -> u64 {
        self.histories.get(&origin).map_or(0, |history| history.synced)
    }

    /// The last position of an origin's log.
    pub fn last(&self, origin: OriginId) -> u64 {
        self.histories
            .get(&origin)
            .map_or(0, |history| history.records.len() as u64)
    }

    /// The log hash at a position; genesis before the first.
    pub fn chain(&self, origin: OriginId, position: u64) -> ChainHash {
        self.kept(origin, position)
            .map_or(ChainHash::GENESIS, |kept| kept.chain)
    }

    /// The time of a record.
    pub fn hlc(&self, origin: OriginId, position: u64) -> Option<Hlc> {
        self.kept(origin, position).map(|kept| kept.hlc)
    }

    /// Whether a record stems from a submission.
    pub fn holds(&self, origin: OriginId, position: u64, token: u64) -> bool {
        self.kept(origin, position)
            .is_some_and(|kept| kept.tokens.contains(&token))
    }

    /// Takes back the records after `last`, which a crash has lost. They were never synced.
    pub fn lose(&mut self, origin: OriginId, last: u64) {
        let history = self.history(origin);
        history
            .records
            .truncate(usize::try_from(last).expect("a log that fits in memory"));
        history.synced = last;
        history.attached.retain(|_, position| *position <= last);
        self.versions.lose(origin, last);
        if origin == self.primary {
            self.catalogs.retain(|(position, _)| *position <= last);
            self.objects.retain(|_, (position, _)| *position <= last);
        }
        self.memo.get_mut().clear();
    }

    /// What is known at a position of an origin's log: others as far as they were heard, itself up to there.
    pub fn frontier(&self, origin: OriginId, position: u64) -> Frontier {
        let mut frontier = self
            .kept(origin, position)
            .map_or_else(Frontier::default, |kept| (*kept.reach).clone());
        frontier.set(origin, Epoch(position));
        frontier
    }

    /// The first origin in a frontier whose own knowledge at that epoch the frontier lacks, with what it lacks.
    pub fn missing_cause(&self, frontier: &Frontier) -> Option<(OriginId, OriginId, Epoch)> {
        for (origin, epoch) in frontier.iter() {
            let Some(kept) = self.kept(origin, epoch.0) else {
                return Some((origin, origin, epoch));
            };
            let missing = kept
                .reach
                .iter()
                .find(|(cause, known)| frontier.get(*cause) < *known);
            if let Some((cause, known)) = missing {
                return Some((origin, cause, known));
            }
        }
        None
    }

    /// The catalog at a frontier.
    pub fn catalog(&self, frontier: &Frontier) -> Option<Arc<Catalog>> {
        self.catalog_at(frontier.get(self.primary).0)
    }

    fn catalog_at(&self, position: u64) -> Option<Arc<Catalog>> {
        let known = self.catalogs.iter().rev().find(|(at, _)| *at <= position);
        known.map(|(_, catalog)| catalog.clone())
    }

    fn history(&mut self, origin: OriginId) -> &mut History {
        self.histories.entry(origin).or_default()
    }

    fn kept(&self, origin: OriginId, position: u64) -> Option<&Kept> {
        let index = usize::try_from(position.checked_sub(1)?).ok()?;
        self.histories.get(&origin)?.records.get(index)
    }

    fn reach_after(
        &self,
        origin: OriginId,
        before: Arc<Frontier>,
        entry: &Entry,
    ) -> Result<Arc<Frontier>, String> {
        let Entry::Bundles(bundles) = entry else {
            return Ok(before);
        };
        let mut reach = (*before).clone();
        for bytes in bundles {
            let header = Bundle::decode_header(bytes).map_err(|error| error.to_string())?;
            for part in header.included.iter().filter(|part| part.origin != origin) {
                reach.advance(part.origin, part.to);
            }
        }
        Ok(Arc::new(reach))
    }

    fn table_is_global(&self, table: ObjectId) -> Option<bool> {
        match &self.objects.get(&table)?.1.kind {
            ObjectKind::Table(def) => Some(def.is_global()),
            _ => None,
        }
    }
}
