//! What a view holds at a frontier, by the rule of invariant 8.
//!
//! The contribution of origin `o` at frontier V is its fragments over its own rows at V\[o\] and over GLOBAL rows
//! and other views *as `o` knew them at V\[o\]*; what stands above the boundaries is computed at V. An origin
//! contributes from its attach record on, and of each region the newest incarnation in V does. At a settled
//! frontier the same comes out when `o` is taken to know all of V: [`Model::view_plain`]. Only the share of a region
//! that was dropped stays as it was. Groups that residency holds back are no contribution.

use std::collections::BTreeMap;
use std::sync::Arc;

use tributary_planner::catalog::{Catalog, MaterializedViewDef, ObjectKind};
use tributary_planner::plan::{GlobalLeaf, LocalFragment, Locality, Scan};
use tributary_planner::residency::group_rows_min;
use tributary_replication::{Epoch, Frontier};
use tributary_storage::ObjectId;

use super::{LogId, Model};
use crate::evaluate::{Relation, Trouble, merged, relation, shipped};
use crate::value::Row;

/// How many results are remembered before all are forgotten.
const REMEMBERED_MAX: usize = 2_000;

/// Contributions by (view, fragment, log, epoch): once computed they never change.
type ContributionKey = (ObjectId, usize, LogId, Epoch);

/// Results that are asked for again and again.
#[derive(Default)]
pub(super) struct Memo {
    contributions: BTreeMap<ContributionKey, Arc<Relation>>,
    views: BTreeMap<(ObjectId, LogId, Frontier), Arc<Relation>>,
}

impl Memo {
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

impl Model {
    /// A view as `at` shows it at a frontier that includes its own position.
    ///
    /// # Errors
    /// When the oracle does not know a construct of its plan.
    pub fn view(&self, view: ObjectId, at: LogId, frontier: &Frontier) -> Result<Arc<Relation>, Trouble> {
        let key = (view, at, frontier.clone());
        if let Some(known) = self.memo.borrow().views.get(&key) {
            return Ok(known.clone());
        }
        let def = self.view_def(view)?;
        let mut merges = Vec::new();
        for (number, fragment) in def.plan.fragments.iter().enumerate() {
            let mut all = nothing(fragment);
            for (log, epoch) in self.contributors(view, at, frontier) {
                let part = self.contribution(&def, view, number, log, epoch)?;
                all.rows.extend(part.rows.iter().cloned());
            }
            merges.push(merged(fragment, all)?);
        }
        let result = relation(&def.plan.global, &mut |leaf| match leaf {
            GlobalLeaf::Merge(number) => Ok(merges[*number].clone()),
            GlobalLeaf::Scan(scan) => self.scan(scan, at, frontier),
        })?;
        let result = Arc::new(result);
        let mut memo = self.memo.borrow_mut();
        if memo.views.len() + memo.contributions.len() > REMEMBERED_MAX {
            memo.clear();
        }
        memo.views.insert(key, result.clone());
        Ok(result)
    }

    /// A view as one database with everything of a frontier would show it, but for regions that the catalog says
    /// were dropped.
    ///
    /// # Errors
    /// When the oracle does not know a construct of its plan.
    pub fn view_plain(
        &self,
        view: ObjectId,
        at: LogId,
        frontier: &Frontier,
        catalog: &Catalog,
    ) -> Result<Relation, Trouble> {
        let def = self.view_def(view)?;
        let plain = |scan: &Scan, own: Option<LogId>| -> Result<Relation, Trouble> {
            if self.view_def(scan.object).is_ok() {
                let rows = self.view_plain(scan.object, at, frontier, catalog)?.rows;
                return Ok(project(&rows, scan));
            }
            let rows = match own {
                Some(own) => self
                    .rows(scan.object, own, frontier)
                    .into_iter()
                    .map(|live| live.row)
                    .collect(),
                None => self.rows_of_all(scan.object, at, frontier),
            };
            Ok(project(&rows, scan))
        };
        let mut merges = Vec::new();
        for (number, fragment) in def.plan.fragments.iter().enumerate() {
            let mut all = nothing(fragment);
            for (region, (origin, epoch)) in Self::newest(frontier) {
                let Some(log) = self.log_of(origin, at) else {
                    continue;
                };
                if catalog.regions.get(&region).is_some_and(|def| def.is_member()) {
                    let part = relation(&fragment.root, &mut |scan| plain(scan, Some(log)))?;
                    let part = shipped(fragment, part, group_rows_min(catalog, fragment));
                    all.rows.extend(part.rows);
                } else if self.has_attached(log, view, epoch.0) {
                    let part = self.contribution(&def, view, number, log, epoch)?;
                    all.rows.extend(part.rows.iter().cloned());
                }
            }
            merges.push(merged(fragment, all)?);
        }
        relation(&def.plan.global, &mut |leaf| match leaf {
            GlobalLeaf::Merge(number) => Ok(merges[*number].clone()),
            GlobalLeaf::Scan(scan) => plain(scan, None),
        })
    }

    fn contribution(
        &self,
        def: &MaterializedViewDef,
        view: ObjectId,
        number: usize,
        log: LogId,
        epoch: Epoch,
    ) -> Result<Arc<Relation>, Trouble> {
        let key = (view, number, log, epoch);
        if let Some(known) = self.memo.borrow().contributions.get(&key) {
            return Ok(known.clone());
        }
        let known_there = self.frontier(log, epoch.0);
        let fragment = &def.plan.fragments[number];
        let part = relation(&fragment.root, &mut |scan| self.scan(scan, log, &known_there))?;
        // What a view was computed by cannot be changed while the view is there.
        let rows_min = self
            .kept(log, epoch.0)
            .map_or(1, |kept| group_rows_min(&kept.catalog, fragment));
        let result = Arc::new(shipped(fragment, part, rows_min));
        self.memo.borrow_mut().contributions.insert(key, result.clone());
        Ok(result)
    }

    /// What a scan reads at a log: its own rows of a REGIONAL table, GLOBAL rows and views as it knows them.
    fn scan(&self, scan: &Scan, at: LogId, frontier: &Frontier) -> Result<Relation, Trouble> {
        if self.view_def(scan.object).is_ok() {
            // Until its own backfill is done a view has no rows here.
            let own = self.origin_of(at).map_or(Epoch(0), |origin| frontier.get(origin));
            if !self.has_attached(at, scan.object, own.0) {
                return Ok(Relation {
                    width: scan.columns.len(),
                    rows: Vec::new(),
                });
            }
            return Ok(project(&self.view(scan.object, at, frontier)?.rows, scan));
        }
        let regional = self.table_is_global(scan.object) == Some(false);
        if regional != (scan.locality == Locality::Regional) {
            return Err(Trouble::Unknown(format!(
                "a scan of table {} under another locality",
                scan.object
            )));
        }
        let rows: Vec<Row> = self
            .rows(scan.object, at, frontier)
            .into_iter()
            .map(|live| live.row)
            .collect();
        Ok(project(&rows, scan))
    }

    /// The logs that contribute to a view at a frontier, and how far they are known.
    fn contributors(&self, view: ObjectId, at: LogId, frontier: &Frontier) -> Vec<(LogId, Epoch)> {
        let newest = Self::newest(frontier).into_values();
        newest
            .filter_map(|(origin, epoch)| Some((self.log_of(origin, at)?, epoch)))
            .filter(|(log, epoch)| self.has_attached(*log, view, epoch.0))
            .collect()
    }

    /// Whether a log had a view attached at a position.
    pub(super) fn has_attached(&self, log: LogId, view: ObjectId, position: u64) -> bool {
        let attached = self.histories.get(&log).map(|history| history.attached.iter());
        let known = attached.into_iter().flatten().rev();
        let mut known = known.filter(|(at, of, _)| *of == view && *at <= position);
        known.next().is_some_and(|(_, _, attached)| *attached)
    }

    fn view_def(&self, view: ObjectId) -> Result<MaterializedViewDef, Trouble> {
        match self.objects.get(&view).map(|(_, _, object)| &object.kind) {
            Some(ObjectKind::MaterializedView(def)) => Ok(def.clone()),
            _ => Err(Trouble::Unknown(format!("view {view}"))),
        }
    }
}

fn nothing(fragment: &LocalFragment) -> Relation {
    let width = fragment.root.types(&|scan: &Scan| scan.types.clone()).len();
    Relation {
        width,
        rows: Vec::new(),
    }
}

fn project(rows: &[Row], scan: &Scan) -> Relation {
    let pick = |row: &Row| scan.columns.iter().map(|&column| row[column].clone()).collect();
    Relation {
        width: scan.columns.len(),
        rows: rows.iter().map(pick).collect(),
    }
}
