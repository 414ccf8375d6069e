//! The views' part of a step, and how a view comes to life.

use std::collections::{BTreeMap, BTreeSet};

use tributary_executor::{Scope, View};
use tributary_replication::{Changed, Epoch, SectionObject, SlotChanges, SlotDelta};
use tributary_storage::{Delta, FragmentId, ObjectId, Spill};

use super::apply::{Gathered, fragment_number};
use super::{ATTACHED_BLOB, Dataflow, Slots, Stepped};
use crate::backfill::{Backfill, Pending};
use crate::error::{RegionError, Result};

/// A materialized view in this region.
pub enum ViewState {
    /// Its state is being computed from rows that were there before it.
    Backfilling(Box<Backfill>),
    /// It moves with every step.
    Attached(Box<View>),
}

impl ViewState {
    /// The rows that can be spilled.
    pub(super) fn spillable(&mut self) -> Vec<&mut dyn Spill> {
        match self {
            Self::Backfilling(backfill) => backfill.view_mut().spillable().collect(),
            Self::Attached(view) => view.spillable().collect(),
        }
    }
}

impl Dataflow {
    /// Runs every view over what the step has gathered.
    pub(super) fn step_views(&mut self, gathered: Gathered) -> Result<Stepped> {
        let Gathered {
            deltas,
            mut merges,
            mut stepped,
            ..
        } = gathered;
        let mut inputs = deltas.merged();
        for delta in inputs.values() {
            let retracted = delta
                .weights()
                .map_or(0, |weights| weights.values().iter().filter(|w| **w < 0).count());
            self.counts.retractions += u64::try_from(retracted).expect("a count fits");
        }
        let scope = self.scope();
        let read_by_views: BTreeSet<ObjectId> = self
            .views
            .keys()
            .filter_map(|view| self.catalog.materialized_view(*view))
            .flat_map(|def| def.plan.inputs())
            .collect();
        for (&id, state) in &mut self.views {
            let def = self
                .catalog
                .materialized_view(id)
                .expect("views are created and dropped with the catalog");
            let fragments = def.plan.fragments.len();
            let mine: BTreeMap<ObjectId, Delta> = def
                .plan
                .inputs()
                .into_iter()
                .filter_map(|input| inputs.get(&input).map(|delta| (input, delta.clone())))
                .collect();
            let foreign: Vec<Vec<SlotDelta>> = (0..fragments)
                .map(|number| merges.remove(&fragment(id, number)).unwrap_or_default())
                .collect();
            if mine.is_empty() && foreign.iter().all(Vec::is_empty) {
                continue;
            }
            if stepped.backfills.contains(&id) {
                // Its job begins with the state after this step, which holds these changes already.
                continue;
            }
            match state {
                ViewState::Backfilling(backfill) => backfill.pend(Pending {
                    inputs: mine,
                    merges: foreign,
                }),
                ViewState::Attached(view) if scope == Scope::Alone => {
                    let result = view.step_alone(&mine);
                    if read_by_views.contains(&id) {
                        let result = Delta::concat(view.schema().clone(), &result);
                        if !result.is_empty() {
                            inputs.insert(id, result);
                        }
                    }
                }
                ViewState::Attached(view) => {
                    let own = view.step_local(&mine);
                    let origin = self
                        .origin
                        .ok_or_else(|| RegionError::Invariant("a view before joining".into()))?;
                    let stamp = Epoch(self.position.0);
                    let mut rounds = foreign;
                    for (number, changes) in own.into_iter().enumerate() {
                        let Some(changes) = changes.filter(|changes| changes.rows > 0) else {
                            continue;
                        };
                        let at = fragment(id, number);
                        let slots = self
                            .slots
                            .get_mut(&at)
                            .expect("slots are created with their view");
                        rounds[number].push(slots.set.write_own(origin, stamp, &changes));
                        stepped.changes.insert(SectionObject::Slots(at), Changed::Stamped);
                    }
                    let result = step_global(view, &mine, rounds);
                    if !result.is_empty() {
                        inputs.insert(id, result);
                    }
                }
            }
        }
        Ok(stepped)
    }

    /// Begins the jobs of these views with the state as it is, after a step.
    ///
    /// A view that reads other views begins once all of those can be read here: from its attach record on its region's
    /// contribution counts, and one that was computed from half of another view would be no answer to anything. Until then
    /// nothing is kept for it.
    pub(crate) fn begin_backfills(&mut self, views: &[ObjectId]) -> Result<()> {
        for &id in views {
            if self.inputs_are_readable(id) {
                self.begin_backfill(id)?;
            }
        }
        Ok(())
    }

    fn begin_backfill(&mut self, id: ObjectId) -> Result<()> {
        let def = self
            .catalog
            .materialized_view(id)
            .expect("created by this step")
            .clone();
        let mut sources = Vec::new();
        for input in def.plan.inputs() {
            if let Some(table) = self.table_snapshot(input) {
                let rows = table.rows.row_count() as u64;
                sources.push((
                    input,
                    rows,
                    Box::new(table.scan_rows(crate::backfill::SCAN_ROWS).map(Ok)) as _,
                ));
            } else if let Some(ViewState::Attached(view)) = self.views.get(&input) {
                let result = view.result();
                let rows = result.row_count() as u64;
                sources.push((
                    input,
                    rows,
                    Box::new(result.scan(crate::backfill::SCAN_ROWS).map(Ok)) as _,
                ));
            } else {
                sources.extend(self.source_again(input));
            }
        }
        let mut merges: Vec<Vec<SlotDelta>> = Vec::new();
        for number in 0..def.plan.fragments.len() {
            let slots = &self.slots[&fragment(id, number)];
            merges.push(self.slots_so_far(slots)?);
        }
        if let Some(ViewState::Backfilling(backfill)) = self.views.get_mut(&id) {
            backfill.begin(sources, merges);
        }
        Ok(())
    }

    /// Begins what can begin, and feeds a portion to each job; returns the views that are ready to be attached.
    pub(crate) fn poll_backfills(&mut self, rows_max: usize) -> Result<Vec<ObjectId>> {
        let is_due = |id: &ObjectId| self.job(*id).is_some_and(|job| !job.has_begun());
        let due: Vec<ObjectId> = self.views.keys().copied().filter(is_due).collect();
        self.begin_backfills(&due)?;
        let mut ready = Vec::new();
        for (&id, state) in &mut self.views {
            if let ViewState::Backfilling(backfill) = state
                && backfill.poll(rows_max)
                && backfill.is_ready_to_seal()
            {
                ready.push(id);
            }
        }
        Ok(ready)
    }

    /// Whether a backfill would go on at once.
    pub(crate) fn has_backfill_work(&self) -> bool {
        self.views.keys().any(|&id| {
            let job = self.job(id).filter(|job| job.failure().is_none());
            job.is_some_and(|job| job.has_begun() || self.inputs_are_readable(id))
        })
    }

    /// Whether every view is computed, as far as it can be from what is known here: one whose inputs wait for another
    /// region need not be waited for.
    pub(crate) fn is_caught_up(&self) -> bool {
        self.views.keys().all(|&id| match self.job(id) {
            _ if self.defects.join_early => true,
            None => true,
            Some(job) => job.failure().is_some() || (!job.has_begun() && !self.inputs_are_readable(id)),
        })
    }

    /// The job of a view that is not attached.
    fn job(&self, view: ObjectId) -> Option<&Backfill> {
        match self.views.get(&view) {
            Some(ViewState::Backfilling(job)) => Some(job),
            Some(ViewState::Attached(_)) | None => None,
        }
    }

    /// Whether all views that a view reads can be read here.
    fn inputs_are_readable(&self, view: ObjectId) -> bool {
        let below = self.views_below(view);
        if below.is_empty() {
            return true;
        }
        let missing = self.missing_of_all();
        below
            .iter()
            .all(|input| missing.get(input).is_none_or(Vec::is_empty))
    }

    /// The foreign slots of a fragment as if they arrived now.
    fn slots_so_far(&self, slots: &Slots) -> Result<Vec<SlotDelta>> {
        let mut scratch = tributary_replication::SlotSet::new(slots.layout.clone());
        let mut deltas = Vec::new();
        for (origin, _) in self.frontier.iter() {
            if Some(origin) != self.origin {
                let section = slots.set.section(origin, Epoch(0));
                let delta = scratch.merge_foreign(origin, &section)?;
                if delta.rows > 0 {
                    deltas.push(delta);
                }
            }
        }
        Ok(deltas)
    }

    /// Ends a view's backfill: its own slots get this step's stamp, and from here on it moves with each step.
    pub(super) fn attach(&mut self, id: ObjectId, stamp: Epoch, gathered: &mut Gathered) -> Result<()> {
        let origin = self
            .origin
            .ok_or_else(|| RegionError::Invariant("an attach before joining".into()))?;
        if self.job(id).is_some_and(|job| !job.has_begun()) {
            // A replay: it began somewhere before this record, and what is here now comes to the same (RFC 0002).
            self.begin_backfill(id)?;
        }
        let Some(state) = self.views.remove(&id) else {
            return Ok(());
        };
        let ViewState::Backfilling(backfill) = state else {
            return Err(RegionError::Invariant(format!("view {id} is attached twice")));
        };
        let done = backfill
            .finish()
            .map_err(|reason| self.backfill_failed(id, reason))?;
        let mut view = done.view;
        let fragments = done.own.len();
        for (number, changes) in done.own.into_iter().enumerate() {
            let at = fragment(id, number);
            for change in &changes {
                let delta = self.write_backfilled(at, origin, stamp, change, &mut gathered.stepped);
                let mut round: Vec<Vec<SlotDelta>> = (0..fragments).map(|_| Vec::new()).collect();
                round[number].push(delta);
                step_global(&mut view, &BTreeMap::new(), round);
            }
        }
        if self.is_read_by_views(id) {
            for delta in view.result().scan(crate::backfill::SCAN_ROWS) {
                gathered.deltas.push(id, delta);
            }
        }
        self.views.insert(id, ViewState::Attached(Box::new(view)));
        let attached = self.attached.entry(origin).or_default();
        attached.0 = stamp;
        attached.1.insert(id);
        gathered
            .stepped
            .changes
            .insert(SectionObject::Blob(ATTACHED_BLOB.into()), Changed::Stamped);
        Ok(())
    }

    fn is_read_by_views(&self, id: ObjectId) -> bool {
        let reads = |other: &ObjectId| {
            self.catalog
                .materialized_view(*other)
                .is_some_and(|def| def.plan.inputs().contains(&id))
        };
        self.views.keys().any(reads)
    }

    fn write_backfilled(
        &mut self,
        at: FragmentId,
        origin: tributary_storage::OriginId,
        stamp: Epoch,
        changes: &SlotChanges,
        stepped: &mut Stepped,
    ) -> SlotDelta {
        let slots = self
            .slots
            .get_mut(&at)
            .expect("slots are created with their view");
        stepped.changes.insert(SectionObject::Slots(at), Changed::Stamped);
        slots.set.write_own(origin, stamp, changes)
    }
}

/// The id of a view's fragment.
pub(crate) fn fragment(view: ObjectId, number: usize) -> FragmentId {
    FragmentId {
        view,
        number: fragment_number(number),
    }
}

/// Feeds the global fragment: the inputs once, then the slot changes of each fragment one after the other.
///
/// The operators are incremental, so the sum of several evaluations is the change of the whole.
pub(crate) fn step_global(
    view: &mut View,
    inputs: &BTreeMap<ObjectId, Delta>,
    mut rounds: Vec<Vec<SlotDelta>>,
) -> Delta {
    rounds.iter_mut().for_each(|deltas| deltas.reverse());
    let mut take = || -> Vec<Option<SlotDelta>> { rounds.iter_mut().map(Vec::pop).collect() };
    let mut parts = vec![view.step_global(inputs, &take())];
    let nothing = BTreeMap::new();
    loop {
        let round = take();
        if round.iter().all(Option::is_none) {
            break;
        }
        parts.push(view.step_global(&nothing, &round));
    }
    if parts.len() == 1 {
        return parts.remove(0);
    }
    Delta::concat(parts[0].schema(), &parts)
}
