//! One step: from sealed records to changed tables, slots and catalog, and then through the views.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch};

use tributary_planner::catalog::{Catalog, ObjectKind};
use tributary_planner::residency::groups_rows_min;
use tributary_replication::{
    Bundle, Changed, Epoch, Hlc, Lattice, Section, SectionObject, SlotDelta, TableWrites,
};
use tributary_storage::{Delta, FragmentId, ObjectId, OriginId, Position, Spill};

use super::conflicts::{CONFLICTS, Conflict};
use super::{ATTACHED_BLOB, CATALOG_BLOB, Dataflow, Deltas, Slots, Stepped, Table, ViewState};
use crate::backfill::Backfill;
use crate::bundles;
use crate::entry::Entry;
use crate::error::{RegionError, Result};
use crate::sequencer::Sealed;

/// What a step has gathered before the views run.
#[derive(Default)]
pub(super) struct Gathered {
    pub(super) deltas: Deltas,
    pub(super) conflicts: Vec<Conflict>,
    pub(super) merges: BTreeMap<FragmentId, Vec<SlotDelta>>,
    pub(super) stepped: Stepped,
}

impl Dataflow {
    /// Steps over records that belong together (see `Sequencer::take_step`).
    pub fn step(&mut self, records: &[Sealed]) -> Result<Stepped> {
        let Some(last) = records.last() else {
            return Ok(Stepped::default());
        };
        let mut gathered = Gathered::default();
        if let Some(applying) = &self.applying {
            // Their jobs begin with the state after the last portion.
            gathered.stepped.backfills.clone_from(&applying.backfills);
            self.counts.beside_stages += 1;
        }
        for record in records {
            self.note_own_chain(record);
            self.apply(record, &mut gathered)?;
            self.hlc = self.hlc.max(record.timed.hlc);
        }
        self.position = last.position;
        self.chain = last.chain;
        let mut stepped = self.step_views(gathered)?;
        stepped.announced |= !stepped.changes.is_empty();
        stepped.announced &= self.joined;
        if let Some(origin) = self.origin.filter(|_| stepped.announced) {
            self.frontier.advance(origin, Epoch(self.position.0));
        }
        self.seal_traces();
        self.spill();
        match &mut self.applying {
            Some(applying) => applying.backfills = std::mem::take(&mut stepped.backfills),
            None => self.begin_backfills(&stepped.backfills)?,
        }
        self.counts.steps += 1;
        Ok(stepped)
    }

    fn note_own_chain(&mut self, record: &Sealed) {
        if let Some(origin) = self.origin {
            self.note_chain(origin, Epoch(record.position.0), record.chain);
        }
    }

    fn apply(&mut self, record: &Sealed, gathered: &mut Gathered) -> Result<()> {
        let stamp = Epoch(record.position.0);
        match &record.timed.entry {
            Entry::Catalog(changes) => {
                let is_founding = self.catalog.cluster.is_none();
                let mut catalog = (*self.catalog).clone();
                changes.iter().for_each(|change| catalog.apply(change));
                self.adopt_catalog(Arc::new(catalog), record, gathered)?;
                // Whoever founds a cluster belongs to it; one that comes back as another incarnation joins first.
                self.joined |= is_founding;
                self.identify();
                (self.catalog_origin, self.catalog_stamp) = (self.origin, stamp);
                self.note_own_chain(record);
                gathered.stepped.announced = true;
                gathered
                    .stepped
                    .changes
                    .insert(SectionObject::Blob(CATALOG_BLOB.into()), Changed::Stamped);
            }
            Entry::Joined => {
                self.joined = true;
                if let Some(origin) = self.origin {
                    self.supersede(origin, gathered);
                }
                gathered.stepped.announced = true;
            }
            Entry::Commit {
                tables,
                source,
                tokens,
            } => {
                for token in tokens {
                    self.tokens.insert(*token, record.position);
                }
                for (&table, writes) in tables {
                    self.apply_writes(table, writes, stamp, record.timed.hlc, gathered)?;
                }
                if let Some((source, consumed)) = source {
                    self.sources.insert(*source, *consumed);
                }
                gathered.stepped.announced = true;
            }
            &Entry::Source {
                source,
                from,
                to,
                mark,
            } => {
                self.apply_source(record, source, from..to, mark, gathered)?;
                gathered.stepped.announced = true;
            }
            Entry::Bundles(bytes) => {
                let decoded;
                let bundles = if record.bundles.is_empty() {
                    decoded = bundles::decode_logged(bytes)?;
                    &decoded
                } else {
                    &record.bundles
                };
                self.apply_bundles(bundles, record, gathered)?;
            }
            Entry::Chunk(bytes) => {
                match record.bundles.first() {
                    Some(chunk) => self.apply_chunk(chunk, bytes.len())?,
                    None => self.apply_chunk(&Bundle::decode(bytes)?, bytes.len())?,
                }
                self.counts.chunks += 1;
            }
            Entry::Unstage(sender) => drop(self.stages.remove(sender)),
            Entry::Lost(conflicts) => self.record_conflicts(conflicts.clone(), record.at(), gathered),
            Entry::Forget(conflicts) => self.forget_conflicts(conflicts, record.at(), gathered),
            Entry::Collect { stable } => self.collect(stable, record.timed.hlc),
            Entry::Attach(view) => {
                self.attach(*view, stamp, gathered)?;
                gathered.stepped.announced = true;
            }
        }
        Ok(())
    }

    fn apply_writes(
        &mut self,
        table_id: ObjectId,
        writes: &TableWrites,
        stamp: Epoch,
        hlc: Hlc,
        gathered: &mut Gathered,
    ) -> Result<()> {
        let origin = self
            .origin
            .ok_or_else(|| RegionError::Invariant("a commit before joining".into()))?;
        // A table dropped between the commit's seal and now takes its rows with it.
        let Some(table) = self.tables.get_mut(&table_id) else {
            return Ok(());
        };
        let delta = table.rows.write_own(origin, stamp, hlc, writes);
        gathered.deltas.push(table_id, delta);
        if table.def.is_global() {
            let keys = table.encode_keys(&writes.rows);
            let (object, changed) = (SectionObject::Rows(table_id), Changed::Keys(keys));
            match gathered.stepped.changes.get_mut(&object) {
                Some(earlier) => earlier.join(changed),
                None => drop(gathered.stepped.changes.insert(object, changed)),
            }
        }
        Ok(())
    }

    /// Applies a set of bundles as one: catalogs first, since other sections may speak of new objects.
    fn apply_bundles(&mut self, set: &[Bundle], record: &Sealed, gathered: &mut Gathered) -> Result<()> {
        for bundle in set {
            for section in &bundle.sections {
                if section.object == SectionObject::Blob(CATALOG_BLOB.into()) {
                    let catalog = bundles::decode_catalog(&section.rows)?;
                    let to = bundle.included.iter().find(|part| part.origin == section.origin);
                    let stamp = to.map_or(Epoch(0), |part| part.to);
                    if catalog.version > self.catalog.version {
                        self.adopt_catalog(Arc::new(catalog), record, gathered)?;
                        (self.catalog_origin, self.catalog_stamp) = (Some(section.origin), stamp);
                    }
                }
            }
        }
        self.queue_when_large(set, record);
        for bundle in set {
            self.apply_bundle(bundle, record, gathered)?;
            self.collected.merge(bundle.collected.clone());
            self.counts.bundles += 1;
            self.counts.relayed += u64::from(bundle.included.iter().any(|part| part.origin != bundle.sender));
        }
        self.counts.joint_applications += u64::from(set.len() > 1);
        self.prune_stages();
        self.identify();
        let lost = std::mem::take(&mut gathered.conflicts);
        self.record_conflicts(lost, record.at(), gathered);
        Ok(())
    }

    fn apply_bundle(&mut self, bundle: &Bundle, record: &Sealed, gathered: &mut Gathered) -> Result<()> {
        let mut stage = None;
        if bundle.chunk.is_sealing() {
            let is_here = self
                .stage(bundle.sender)
                .is_some_and(|stage| stage.head.id == bundle.chunk.stage);
            // What was cut again after it was taken in has none.
            stage = is_here.then(|| self.stages.remove(&bundle.sender)).flatten();
            self.counts.stages += u64::from(stage.is_some());
        }
        for part in &bundle.included {
            if Some(part.origin) == self.origin {
                continue;
            }
            let known = self.frontier.get(part.origin);
            if part.to <= known && !self.defects.replication.skip_duplicate_check {
                continue;
            }
            if known == Epoch(0) {
                self.supersede(part.origin, gathered);
            }
            if let Some(stage) = &mut stage {
                self.queue_stage(stage, part.origin, known, record);
            }
            let sections = bundle.sections.iter();
            for section in sections.filter(|section| section.origin == part.origin) {
                // Of other bundles, too: a later state of an origin must not be overtaken by the stage's.
                if !self.queue_section(section) {
                    self.apply_section(part.to, section, gathered)?;
                }
            }
            self.frontier.advance(part.origin, part.to);
            self.note_chain(part.origin, part.to, part.chain);
        }
        Ok(())
    }

    fn apply_section(&mut self, to: Epoch, section: &Section, gathered: &mut Gathered) -> Result<()> {
        let origin = section.origin;
        match &section.object {
            SectionObject::Blob(name) if name == ATTACHED_BLOB && !self.is_superseded(origin) => {
                let views = bundles::decode_attached(&section.rows)?;
                self.attached.insert(origin, (to, views));
                Ok(())
            }
            object => self.merge_section(origin, object, &section.rows, gathered),
        }
    }

    /// Merges rows of a table or slots of a fragment.
    pub(super) fn merge_section(
        &mut self,
        origin: OriginId,
        object: &SectionObject,
        rows: &RecordBatch,
        gathered: &mut Gathered,
    ) -> Result<()> {
        let own = self.own_region();
        match object {
            SectionObject::Rows(id) => {
                let Some(table) = self.tables.get_mut(id) else {
                    return Ok(());
                };
                // The region of a loser tells of it.
                let is_told = |loser: OriginId| Some(loser.region) == own;
                let merged = table.rows.merge_telling(origin, rows, is_told)?;
                if *id == CONFLICTS {
                    self.conflicts_arrived(rows, &merged, gathered);
                    return Ok(());
                }
                self.counts.conflicts += merged.conflicts as u64;
                self.note_conflicts(*id, &merged, gathered);
                gathered.deltas.push(*id, merged.delta);
            }
            SectionObject::Slots(id) if !self.is_superseded(origin) => {
                let Some(slots) = self.slots.get_mut(id) else {
                    return Ok(());
                };
                let delta = slots.set.merge_foreign(origin, rows)?;
                if delta.rows > 0 {
                    gathered.merges.entry(*id).or_default().push(delta);
                }
            }
            SectionObject::Slots(_) | SectionObject::Blob(_) => {}
        }
        Ok(())
    }

    /// Makes the catalog the current one: creates what is new in it, drops what is gone.
    fn adopt_catalog(
        &mut self,
        catalog: Arc<Catalog>,
        record: &Sealed,
        gathered: &mut Gathered,
    ) -> Result<()> {
        self.truncate(&catalog, record, gathered);
        let kept: BTreeSet<ObjectId> = catalog.objects.keys().copied().collect();
        self.tables.retain(|id, _| kept.contains(id) || *id == CONFLICTS);
        self.views.retain(|id, _| kept.contains(id));
        self.slots.retain(|id, _| kept.contains(&id.view));
        self.sources.retain(|id, _| kept.contains(id));
        self.source_logs.retain(|id, _| kept.contains(id));
        // Of several catalogs in one step a later one may drop what an earlier one created.
        gathered.stepped.backfills.retain(|id| kept.contains(id));
        for (_, views) in self.attached.values_mut() {
            views.retain(|view| kept.contains(view));
        }
        let scope = super::scope_of(&catalog);
        if scope != self.scope() && !self.catalog.regions.is_empty() {
            // A region that was alone has company now: its views are computed again, with slots.
            self.views.clear();
            self.slots.clear();
            self.attached.clear();
        }
        for (&id, object) in &catalog.objects {
            match &object.kind {
                ObjectKind::Table(def) if !self.tables.contains_key(&id) => {
                    let table = Table::new(id, Arc::new(def.clone()), self.defects, &mut |_, _| Ok(None))?;
                    self.tables.insert(id, table);
                }
                ObjectKind::MaterializedView(def) if !self.views.contains_key(&id) => {
                    for number in 0..def.plan.fragments.len() {
                        let fragment = FragmentId {
                            view: id,
                            number: fragment_number(number),
                        };
                        let slots = Slots::new(fragment, &def.plan, self.defects);
                        self.slots.insert(fragment, slots);
                    }
                    let backfill =
                        Backfill::new(id, def.plan.clone(), scope, self.workers.clone(), self.defects)?;
                    let rows_min = groups_rows_min(&catalog, &def.plan);
                    let backfill = backfill.holding_back(&rows_min);
                    self.views.insert(id, ViewState::Backfilling(Box::new(backfill)));
                    gathered.stepped.backfills.push(id);
                }
                _ => {}
            }
        }
        self.catalog = catalog;
        Ok(())
    }

    /// Drops own rows of tables that a newer catalog has truncated.
    fn truncate(&mut self, catalog: &Catalog, record: &Sealed, gathered: &mut Gathered) {
        let Some(origin) = self.origin else { return };
        for (id, version) in &catalog.truncated {
            if self.catalog.truncated.get(id) == Some(version) {
                continue;
            }
            let Some(rows) = self.table_snapshot(*id).filter(|table| !table.def.is_global()) else {
                continue;
            };
            let parts: Vec<Delta> = rows.scan_rows(crate::backfill::SCAN_ROWS).collect();
            let Some(first) = parts.first() else { continue };
            let rows = Delta::concat(first.schema(), &parts).into_parts().0;
            let deleted = BooleanArray::from(vec![true; rows.num_rows()]);
            let writes = TableWrites { rows, deleted };
            if let Some(table) = self.tables.get_mut(id) {
                let stamp = Epoch(record.position.0);
                let delta = table.rows.write_own(origin, stamp, record.timed.hlc, &writes);
                gathered.deltas.push(*id, delta);
                gathered.stepped.announced = true;
            }
        }
    }

    /// Moves rows of views and slots out of memory when there are more than the budget allows, and somewhat more than
    /// needed, so that not every step moves some.
    pub(super) fn spill(&mut self) {
        let Some(area) = self.spill.clone() else {
            return;
        };
        let views = self.views.values_mut().flat_map(ViewState::spillable);
        let slots = self.slots.values_mut().flat_map(|slots| slots.set.spillable());
        let stages = self.stages.values_mut().flat_map(super::Stage::spillable);
        let applying = self
            .applying
            .iter_mut()
            .flat_map(super::portions::Applying::spillable);
        let mut rows: Vec<&mut dyn Spill> = views.chain(slots).chain(stages).chain(applying).collect();
        if area.budget() == 0 {
            let moved = rows.iter_mut().try_for_each(|rows| rows.spill_all(&*area));
            self.counts.spills += u64::from(moved.is_ok());
            return;
        }
        let resident: usize = rows.iter().map(|rows| rows.resident_bytes()).sum();
        let Some(over) = resident.checked_sub(area.budget()).filter(|over| *over > 0) else {
            return;
        };
        let needed = over + area.budget() / 8;
        let mut freed = 0;
        rows.sort_by_key(|rows| std::cmp::Reverse(rows.resident_bytes()));
        for rows in rows {
            match rows.spill(&*area, needed - freed.min(needed)) {
                Ok(bytes) => {
                    freed += bytes;
                    self.counts.spills += u64::from(bytes > 0);
                }
                // Without room rows stay where they are; the area tells its owner.
                Err(_) => return,
            }
        }
    }

    pub(super) fn seal_traces(&mut self) {
        let stamp = self.position.0;
        self.tables.values_mut().for_each(|table| table.rows.seal(stamp));
        for view in self.views.values_mut() {
            if let ViewState::Attached(view) = view {
                view.seal(stamp);
            }
        }
    }

    /// After a restart: every position of the log counts as announced, since one of them was the last epoch
    /// that peers have heard of.
    pub fn announce_recovered(&mut self) {
        if let Some(origin) = self.origin.filter(|_| self.joined)
            && self.position > Position(0)
        {
            self.frontier.advance(origin, Epoch(self.position.0));
            self.note_chain(origin, Epoch(self.position.0), self.chain);
        }
    }
}

/// A fragment's number; plans have far fewer fragments than the type can count.
pub(crate) fn fragment_number(number: usize) -> u16 {
    u16::try_from(number).expect("a plan has fewer than 65,536 fragments")
}
