//! Whom a log writes as, and which of several logs of a region counts.
//!
//! A region finds its number and incarnation in the catalog, by its name, and takes them when nobody it knows of has
//! heard of that incarnation. It takes part from its `Joined` record on. At any frontier, of each region the newest
//! incarnation counts of which something is known there.

use std::collections::BTreeMap;

use tributary_planner::catalog::{Catalog, ObjectKind};
use tributary_replication::{Epoch, Frontier};
use tributary_storage::{ObjectId, OriginId, RegionId};

use super::{LogId, Model};
use crate::failure::{Checked, Violation};

impl Model {
    /// Whom a log has an identity as, if it does.
    pub fn origin_of(&self, log: LogId) -> Option<OriginId> {
        self.histories.get(&log)?.identity.map(|(_, origin)| origin)
    }

    /// As whom a log takes part at a position; `None` while it is joining.
    pub fn writes_as(&self, log: LogId, position: u64) -> Option<OriginId> {
        let history = self.histories.get(&log)?;
        let (identified, origin) = history.identity?;
        (identified <= position && history.joined? <= position).then_some(origin)
    }

    /// Whether it is this record with which a log begins to take part.
    pub fn has_joined_at(&self, log: LogId, position: u64) -> bool {
        self.histories[&log].joined == Some(position)
    }

    /// The log of an origin, as seen from a log: itself, or the one that others heard of.
    pub fn log_of(&self, origin: OriginId, at: LogId) -> Option<LogId> {
        if self.origin_of(at) == Some(origin) {
            return Some(at);
        }
        self.origins.get(&origin).copied()
    }

    /// Whether others know a log as its origin's.
    pub fn counts(&self, log: LogId) -> bool {
        let origin = self.origin_of(log);
        origin.is_some_and(|origin| self.origins.get(&origin) == Some(&log))
    }

    /// Whether a log will never be continued.
    pub(super) fn has_ended(&self, log: LogId) -> bool {
        self.histories.get(&log).is_none_or(|history| history.ended)
    }

    /// Takes the origins whose logs nobody had heard of when another log took their place.
    pub fn take_unheard(&mut self) -> Vec<OriginId> {
        std::mem::take(&mut self.unheard)
    }

    /// How far an origin is known in any log that goes on, other than those of a place.
    pub fn heard_elsewhere(&self, origin: OriginId, node: usize) -> Epoch {
        let others = self
            .histories
            .iter()
            .filter(|(log, history)| log.node != node && !history.ended);
        let known = others.filter_map(|(_, history)| history.records.last());
        known.map(|kept| kept.reach.get(origin)).max().unwrap_or_default()
    }

    /// Whether any catalog says that a log's origin is to be continued no more.
    pub fn is_superseded(&self, log: LogId) -> bool {
        let Some(origin) = self.origin_of(log) else {
            return false;
        };
        let all = self.catalogs.values().flatten();
        all.filter_map(|(_, catalog)| catalog.regions.get(&origin.region))
            .any(|region| region.incarnation > origin.incarnation || !region.is_member())
    }

    /// Of each region the newest incarnation of which something is known.
    pub(super) fn newest(frontier: &Frontier) -> BTreeMap<RegionId, (OriginId, Epoch)> {
        let all = frontier.iter();
        // In the order of incarnations.
        all.map(|(origin, epoch)| (origin.region, (origin, epoch)))
            .collect()
    }

    /// Which log each origin in a frontier stands for, and how far.
    pub(super) fn visible(&self, at: LogId, frontier: &Frontier) -> BTreeMap<LogId, (OriginId, u64)> {
        let all = frontier.iter();
        all.filter_map(|(origin, epoch)| Some((self.log_of(origin, at)?, (origin, epoch.0))))
            .collect()
    }

    /// Finds out whom a log writes as, once it is known.
    pub(super) fn identify(&mut self, log: LogId, position: u64) -> Checked {
        let history = &self.histories[&log];
        if history.identity.is_some() {
            return Ok(());
        }
        let kept = self.kept(log, position).expect("appended just now");
        let region = kept.catalog.region_named(&history.name);
        let Some(origin) = region.and_then(|region| kept.catalog.origin_of(region)) else {
            return Ok(());
        };
        if kept.reach.get(origin) > Epoch(0) {
            return Ok(());
        }
        if let Some(other) = self.origins.get(&origin).copied() {
            let heard = self.heard_elsewhere(origin, log.node);
            if heard > Epoch(0) {
                let detail = format!("{log} takes {origin}, of which others know {heard} from {other}");
                return Err(Violation::new("an incarnation has one log", detail));
            }
            // Nobody has heard of it, so it never was.
            self.lose(other, 0);
            self.unheard.push(origin);
        }
        self.history(log).identity = Some((position, origin));
        self.origins.insert(origin, log);
        Ok(())
    }

    /// A log takes part from here on: all its views are computed, so that its first bundle brings everything. Left out are
    /// views over views that others have not computed as far as is known here: nobody can read those.
    pub(super) fn join(&mut self, log: LogId, position: u64, catalog: &Catalog) -> Checked {
        let views = catalog.objects.values();
        let mut views = views.filter(|object| matches!(object.kind, ObjectKind::MaterializedView(_)));
        let is_missing = |view: &ObjectId| {
            !self.has_attached(log, *view, position) && !self.waits_for_others(log, *view, position, catalog)
        };
        if let Some(view) = views.find(|view| is_missing(&view.id)) {
            let detail = format!(
                "{log} joins at {position}, and view {} is not computed",
                view.name
            );
            return Err(Violation::new("a region joins with all its views", detail));
        }
        self.history(log).joined = Some(position);
        Ok(())
    }

    /// Whether a view reads one that another member has not computed, as far as a log knows.
    fn waits_for_others(&self, log: LogId, view: ObjectId, position: u64, catalog: &Catalog) -> bool {
        // The record itself is not kept yet, and brings nothing of others.
        let others: Vec<(LogId, Epoch)> = Self::newest(&self.reach(log, position.saturating_sub(1)))
            .into_iter()
            .filter(|(region, _)| catalog.members().any(|(member, _)| member == *region))
            .filter_map(|(_, (origin, epoch))| Some((self.log_of(origin, log)?, epoch)))
            .filter(|(other, _)| *other != log)
            .collect();
        let inputs = catalog.materialized_view(view).map(|def| def.plan.inputs());
        let mut views = inputs.into_iter().flatten();
        views.any(|input| {
            let lacks = |(other, epoch): &(LogId, Epoch)| !self.has_attached(*other, input, epoch.0);
            (has_fragments(catalog, input) && others.iter().any(lacks))
                || self.waits_for_others(log, input, position, catalog)
        })
    }
}

/// Whether a view, or one that it reads, has local fragments, so that every region contributes to it.
fn has_fragments(catalog: &Catalog, view: ObjectId) -> bool {
    catalog.materialized_view(view).is_some_and(|def| {
        let mut inputs = def.plan.inputs().into_iter();
        !def.plan.fragments.is_empty() || inputs.any(|input| has_fragments(catalog, input))
    })
}
