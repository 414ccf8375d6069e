//! What the world should be, computed from the logs alone.
//!
//! The model reads every record that a region appends and keeps, per log: the records, how far other origins
//! were known after each of them, who wrote it and from where on it took part, and all versions of all rows with
//! the position that wrote them. From that it says what any table or view holds at any frontier, without ever
//! looking into a region.
//!
//! ```text
//!   records of all logs ──▶ versions of rows, reach of origins ──▶ rows of a table at (log, position)
//!                                                              └─▶ rows of a view at a frontier (views.rs)
//! ```
//!
//! A region's place in the world has one log after another (a wiped disk begins a new one, a restored copy branches
//! one off), and each is its own [`LogId`]. Whom a log writes as is found out as the region does it: from the
//! catalog that the log holds (identity.rs). Of several logs of one origin the one that others heard of counts.
//!
//! A crash takes records back; whatever had been acknowledged, published or sent of them is a violation.

mod identity;
pub mod rows;
mod views;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use tributary_planner::catalog::{Catalog, Object, ObjectKind};
use tributary_region::WriteSet;
use tributary_region::entry::{Entry, Timed};
use tributary_replication::{Bundle, Epoch, Frontier, Hlc};
use tributary_storage::{ChainHash, ObjectId, OriginId, Record};

use crate::failure::{Checked, Violation};
use rows::Versions;
use views::Memo;

/// A log: that of one life of a region's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogId {
    /// The number of the region's place.
    pub node: usize,
    /// How many logs the place had before.
    pub life: u32,
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.life {
            0 => write!(f, "r{}", self.node + 1),
            life => write!(f, "r{} (log {})", self.node + 1, life + 1),
        }
    }
}

/// A record as the model keeps it.
#[derive(Clone)]
struct Kept {
    chain: ChainHash,
    hlc: Hlc,
    /// How far other origins are known after it.
    reach: Arc<Frontier>,
    /// The newest catalog that is known after it.
    catalog: Arc<Catalog>,
    /// The submissions it stems from.
    tokens: Vec<u64>,
}

/// One log.
#[derive(Clone)]
struct History {
    /// The name of its region.
    name: String,
    records: Vec<Kept>,
    /// How far a sync has succeeded.
    synced: u64,
    /// Views that were attached, or (`false`) are to be computed again, in the order of positions.
    attached: Vec<(u64, ObjectId, bool)>,
    /// Whom it writes as, and from which position on that is known.
    identity: Option<(u64, OriginId)>,
    /// From where on it takes part.
    joined: Option<u64>,
    /// Whether it will never be continued.
    ended: bool,
}

/// A submission that may become a record.
pub struct Submission<'a> {
    /// Its token.
    pub token: u64,
    /// Its writes; `None` for DDL.
    pub writes: Option<&'a WriteSet>,
}

/// The world according to the logs.
#[derive(Default)]
pub struct Model {
    histories: BTreeMap<LogId, History>,
    /// Of each origin the log that counts.
    origins: BTreeMap<OriginId, LogId>,
    unheard: Vec<OriginId>,
    versions: Versions,
    /// Catalogs by the position of the record that made them.
    catalogs: BTreeMap<LogId, Vec<(u64, Arc<Catalog>)>>,
    objects: BTreeMap<ObjectId, (LogId, u64, Arc<Object>)>,
    memo: RefCell<Memo>,
}

impl Model {
    /// A new log, of the region with this name.
    pub fn begin(&mut self, log: LogId, name: String) {
        let history = History {
            name,
            records: Vec::new(),
            synced: 0,
            attached: Vec::new(),
            identity: None,
            joined: None,
            ended: false,
        };
        self.histories.insert(log, history);
    }

    /// A log that begins as a copy of another one's first records.
    pub fn branch(&mut self, from: LogId, to: LogId, last: u64) {
        let copy = self.histories[&from].clone();
        self.histories.insert(to, copy);
        self.versions.branch(from, to);
        let catalogs = self.catalogs.get(&from).cloned().unwrap_or_default();
        self.catalogs.insert(to, catalogs);
        self.lose(to, last);
    }

    /// A log that will never be continued. What others have of it stays.
    pub fn end(&mut self, log: LogId) {
        self.history(log).ended = true;
    }

    /// Takes in a record that a region has appended.
    ///
    /// # Errors
    /// When it does not follow the one before, or does not say what was submitted.
    pub fn append(&mut self, log: LogId, record: &Record, submissions: Vec<Submission<'_>>) -> Checked {
        let position = record.position.0;
        let last = self.last(log);
        let broken = |detail: String| Violation::new("one log", format!("{log} at {position}: {detail}"));
        if position != last + 1 {
            return Err(broken(format!("it follows {last}")));
        }
        let before = self.chain(log, last);
        if before.next(record.position, &record.payload) != record.chain {
            return Err(broken("its chain hash does not continue the log's".into()));
        }
        let timed =
            Timed::decode(record.position, &record.payload).map_err(|error| broken(error.to_string()))?;
        let hlc_before = self.kept(log, last).map_or(Hlc::default(), |kept| kept.hlc);
        if timed.hlc <= hlc_before {
            return Err(broken(format!(
                "its time {} is not after {hlc_before}",
                timed.hlc
            )));
        }
        let known = self.kept(log, last);
        let reach = known.map_or_else(Arc::default, |kept| kept.reach.clone());
        let catalog_before = known.map_or_else(Arc::default, |kept| kept.catalog.clone());
        let (reach, heard) = self.reach_after(log, reach, &timed.entry).map_err(broken)?;
        let mut catalog = newest_of(&catalog_before, heard);
        match &timed.entry {
            Entry::Commit { tables, .. } => {
                let origin = self
                    .writes_as(log, last)
                    .ok_or_else(|| broken("a commit before it has joined".into()))?;
                let writes: Option<Vec<&WriteSet>> = submissions.iter().map(|one| one.writes).collect();
                let writes = writes.filter(|writes| !writes.is_empty());
                let writes = writes.ok_or_else(|| broken("a commit that nobody submitted".into()))?;
                let mut frontier = (*reach).clone();
                frontier.set(origin, Epoch(last));
                self.check_commit((log, origin), position, tables, &writes, &frontier)?;
                frontier.set(origin, Epoch(position));
                self.write((log, origin), position, timed.hlc, tables, &frontier)?;
            }
            Entry::Source { .. } => return Err(broken("rows of a source that nobody created".into())),
            Entry::Catalog(changes) => {
                let mut changed = (*catalog).clone();
                changes.iter().for_each(|change| changed.apply(change));
                for (id, object) in &changed.objects {
                    self.objects
                        .entry(*id)
                        .or_insert_with(|| (log, position, object.clone()));
                }
                catalog = Arc::new(changed);
                let made = self.catalogs.entry(log).or_default();
                made.push((position, catalog.clone()));
                if catalog_before.cluster.is_none() {
                    // Whoever founds a cluster belongs to it.
                    self.history(log).joined = Some(position);
                }
            }
            Entry::Attach(view) => self.history(log).attached.push((position, *view, true)),
            Entry::Joined => self.join(log, position, &catalog)?,
            // Nothing that can be seen changes.
            Entry::Bundles(_)
            | Entry::Chunk(_)
            | Entry::Unstage(_)
            | Entry::Collect { .. }
            | Entry::Lost(_)
            | Entry::Forget(_) => {}
        }
        if catalog_before.regions.len() == 1 && catalog.regions.len() > 1 {
            // Views of a region that was alone are computed again when it gets company.
            let history = self.history(log);
            let views = history.attached.iter().map(|(_, view, _)| *view);
            let views: Vec<ObjectId> = views.collect();
            let gone = views.into_iter().map(|view| (position, view, false));
            history.attached.extend(gone);
        }
        let tokens = submissions.iter().map(|submission| submission.token).collect();
        self.history(log).records.push(Kept {
            chain: record.chain,
            hlc: timed.hlc,
            reach,
            catalog,
            tokens,
        });
        self.identify(log, position)
    }

    /// Notes that a sync has made everything up to `position` durable.
    pub fn synced(&mut self, log: LogId, position: u64) {
        let history = self.history(log);
        history.synced = history.synced.max(position);
    }

    /// How far a sync has succeeded.
    pub fn durable(&self, log: LogId) -> u64 {
        self.histories.get(&log).map_or(0, |history| history.synced)
    }

    /// The last position of a log.
    pub fn last(&self, log: LogId) -> u64 {
        self.histories
            .get(&log)
            .map_or(0, |history| history.records.len() as u64)
    }

    /// The log hash at a position; genesis before the first.
    pub fn chain(&self, log: LogId, position: u64) -> ChainHash {
        self.kept(log, position)
            .map_or(ChainHash::GENESIS, |kept| kept.chain)
    }

    /// The time of a record.
    pub fn hlc(&self, log: LogId, position: u64) -> Option<Hlc> {
        self.kept(log, position).map(|kept| kept.hlc)
    }

    /// Whether a record stems from a submission.
    pub fn holds(&self, log: LogId, position: u64, token: u64) -> bool {
        self.kept(log, position)
            .is_some_and(|kept| kept.tokens.contains(&token))
    }

    /// Takes back the records after `last`, which are lost. Nobody has seen them.
    pub fn lose(&mut self, log: LogId, last: u64) {
        let history = self.history(log);
        history
            .records
            .truncate(usize::try_from(last).expect("a log that fits in memory"));
        history.synced = last;
        history.attached.retain(|(position, ..)| *position <= last);
        history.joined = history.joined.filter(|position| *position <= last);
        let identity = history.identity;
        history.identity = identity.filter(|(position, _)| *position <= last);
        if let Some((_, origin)) = identity.filter(|_| history.identity.is_none())
            && self.origins.get(&origin) == Some(&log)
        {
            self.origins.remove(&origin);
        }
        self.versions.lose(log, last);
        if let Some(catalogs) = self.catalogs.get_mut(&log) {
            catalogs.retain(|(position, _)| *position <= last);
        }
        self.objects
            .retain(|_, (made_in, position, _)| *made_in != log || *position <= last);
        self.memo.get_mut().clear();
    }

    /// What is known at a position of a log: others as far as they were heard, itself up to there once it takes part.
    pub fn frontier(&self, log: LogId, position: u64) -> Frontier {
        let mut frontier = self.reach(log, position);
        if let Some(origin) = self.writes_as(log, position) {
            frontier.set(origin, Epoch(position));
        }
        frontier
    }

    /// The first origin in a frontier whose own knowledge at that epoch the frontier lacks, with what it lacks. The
    /// frontier is one of this log.
    pub fn missing_cause(&self, at: LogId, frontier: &Frontier) -> Option<(OriginId, OriginId, Epoch)> {
        for (origin, epoch) in frontier.iter() {
            let log = self.log_of(origin, at);
            let Some(kept) = log.and_then(|log| self.kept(log, epoch.0)) else {
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

    /// The catalog at a position of a log: the newest that is known there.
    pub fn catalog(&self, log: LogId, position: u64) -> Option<Arc<Catalog>> {
        self.kept(log, position).map(|kept| kept.catalog.clone())
    }

    fn reach(&self, log: LogId, position: u64) -> Frontier {
        self.kept(log, position)
            .map_or_else(Frontier::default, |kept| (*kept.reach).clone())
    }

    fn history(&mut self, log: LogId) -> &mut History {
        self.histories
            .get_mut(&log)
            .expect("a log begins before it is written")
    }

    fn kept(&self, log: LogId, position: u64) -> Option<&Kept> {
        let index = usize::try_from(position.checked_sub(1)?).ok()?;
        self.histories.get(&log)?.records.get(index)
    }

    /// How far others are known after an entry, and the newest catalog that it brings.
    fn reach_after(
        &self,
        log: LogId,
        before: Arc<Frontier>,
        entry: &Entry,
    ) -> Result<(Arc<Frontier>, Option<Arc<Catalog>>), String> {
        let Entry::Bundles(bundles) = entry else {
            return Ok((before, None));
        };
        let own = self.histories[&log].identity.map(|(_, origin)| origin);
        let mut reach = (*before).clone();
        let mut catalog: Option<Arc<Catalog>> = None;
        for bytes in bundles {
            let header = Bundle::decode_header(bytes).map_err(|error| error.to_string())?;
            for part in header.included.iter().filter(|part| Some(part.origin) != own) {
                reach.advance(part.origin, part.to);
                let made = self
                    .log_of(part.origin, log)
                    .and_then(|log| self.catalogs.get(&log));
                let made = made.into_iter().flatten().rev();
                let newest = made
                    .filter(|(position, _)| *position <= part.to.0)
                    .map(|(_, c)| c)
                    .next();
                if let Some(newest) = newest {
                    let current = catalog.clone().unwrap_or_default();
                    catalog = Some(newest_of(&current, Some(newest.clone())));
                }
            }
        }
        Ok((Arc::new(reach), catalog))
    }

    fn table_is_global(&self, table: ObjectId) -> Option<bool> {
        match &self.objects.get(&table)?.2.kind {
            ObjectKind::Table(def) => Some(def.is_global()),
            _ => None,
        }
    }
}

/// The one of two catalogs that more changes made.
fn newest_of(current: &Arc<Catalog>, heard: Option<Arc<Catalog>>) -> Arc<Catalog> {
    heard
        .filter(|heard| heard.version > current.version)
        .unwrap_or_else(|| current.clone())
}
