//! Random plans under random inserts, updates and deletes in three regions, against a naive reference.
//!
//! Every region has its own [`View`] and slot sets; slots travel as sections, as they do between real regions. After
//! each round all regions must hold the same result, equal to the batch answer: local fragments evaluated per
//! origin, their rows united, everything else by the book. Now and then a region is restored from its own state.
//! The same plans also run in one region that is alone and has no slots, in partitions whose number changes when it
//! is restored.

mod naive;
mod plans;
mod sql;
mod values;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use proptest::prelude::*;
use tributary_executor::{Defects, Inline, Saved, SavedState, Scope, View};
use tributary_planner::plan::{Boundary, GlobalLeaf, LocalFragment, Scan, ViewPlan};
use tributary_replication::{Epoch, SlotDelta, SlotSet};
use tributary_storage::{
    Delta, Layout, ObjectId, OriginId, RegionId, RowStore, RunTrace, SpillFiles, StorageError,
};

use plans::{Choices, TABLES, is_global, table_types};
use values::{Bag, Row, Value, add};

/// Regions of a world that is a cluster.
const REGIONS: usize = 3;

struct Region {
    view: View,
    slots: Vec<SlotSet>,
    /// Own rows of regional tables; the global ones are in `World`.
    tables: BTreeMap<u32, Bag>,
    result: Bag,
}

struct World {
    plan: Arc<ViewPlan>,
    regions: Vec<Region>,
    global: BTreeMap<u32, Bag>,
    epoch: u64,
    defects: Defects,
    scope: Scope,
    /// Where all rows go after each round, if anywhere.
    spill: Option<SpillFiles>,
}

fn origin(region: usize) -> OriginId {
    OriginId {
        region: RegionId(region as u16 + 1),
        incarnation: 1,
    }
}

/// Partitions of a view that is alone; a restart may come with more or fewer.
fn workers(count: usize) -> Arc<Inline> {
    Arc::new(Inline::new(count))
}

impl World {
    fn new(plan: ViewPlan, defects: Defects) -> Self {
        Self::with_scope(plan, defects, Scope::Cluster)
    }

    fn alone(plan: ViewPlan) -> Self {
        Self::with_scope(plan, Defects::default(), Scope::Alone)
    }

    fn with_scope(plan: ViewPlan, defects: Defects, scope: Scope) -> Self {
        let plan = Arc::new(plan);
        let region = |_| {
            let mut view =
                View::new(ObjectId(9), plan.clone(), scope, workers(2)).expect("random plans are supported");
            view.set_defects(defects);
            let slots = (0..plan.fragments.len())
                .map(|f| SlotSet::new(View::slot_layout(&plan, f)))
                .collect();
            let mut result = Bag::new();
            values::apply(&mut result, &view.initialize());
            view.seal(0);
            Region {
                view,
                slots,
                tables: BTreeMap::new(),
                result,
            }
        };
        let count = if scope == Scope::Alone { 1 } else { REGIONS };
        let regions = (0..count).map(region).collect();
        Self {
            plan: plan.clone(),
            regions,
            global: BTreeMap::new(),
            epoch: 0,
            defects,
            scope,
            spill: None,
        }
    }

    /// One round: every region changes rows of its own, all hear of changes of global tables, then of each other.
    fn round(&mut self, choices: &mut Choices) {
        let since = Epoch(self.epoch);
        self.epoch += 1;
        let stamp = Epoch(self.epoch);
        let mut shared = BTreeMap::new();
        for table in (0..TABLES).filter(|t| is_global(*t)) {
            let rows = self.global.entry(table).or_default();
            let changes = random_changes(choices, rows, plans::is_append_only(table));
            shared.insert(ObjectId(table), changed(table, &changes));
        }
        for number in 0..self.regions.len() {
            let region = &mut self.regions[number];
            let mut inputs = shared.clone();
            for table in (0..TABLES).filter(|t| !is_global(*t)) {
                let rows = region.tables.entry(table).or_default();
                let changes = random_changes(choices, rows, plans::is_append_only(table));
                inputs.insert(ObjectId(table), changed(table, &changes));
            }
            if self.scope == Scope::Alone {
                for delta in region.view.step_alone(&inputs) {
                    values::apply(&mut region.result, &delta);
                }
                region.view.seal(self.epoch);
                region.spill(self.spill.as_ref());
                continue;
            }
            let changes = region.view.step_local(&inputs);
            let own = |(slots, changes): (&mut SlotSet, &Option<_>)| {
                changes
                    .as_ref()
                    .map(|changes| slots.write_own(origin(number), stamp, changes))
            };
            let merges: Vec<Option<SlotDelta>> = region.slots.iter_mut().zip(&changes).map(own).collect();
            region.step_global(&inputs, &merges);
            region.seal(self.epoch);
        }
        let sections: Vec<Vec<RecordBatch>> = self
            .regions
            .iter()
            .enumerate()
            .map(|(sender, region)| {
                region
                    .slots
                    .iter()
                    .map(|slots| slots.section(origin(sender), since))
                    .collect()
            })
            .collect();
        for (receiver, region) in self.regions.iter_mut().enumerate() {
            for (sender, sections) in sections
                .iter()
                .enumerate()
                .filter(|(sender, _)| *sender != receiver)
            {
                let merge = |(slots, section): (&mut SlotSet, &RecordBatch)| {
                    Some(
                        slots
                            .merge_foreign(origin(sender), section)
                            .expect("honest sections merge"),
                    )
                };
                let merges: Vec<Option<SlotDelta>> =
                    region.slots.iter_mut().zip(sections).map(merge).collect();
                region.step_global(&BTreeMap::new(), &merges);
            }
        }
        for region in &mut self.regions {
            region.seal(self.epoch);
            region.spill(self.spill.as_ref());
            if choices.one_in(4) {
                region.restart(&self.plan, self.defects, self.scope, 1 + choices.below(4));
            }
        }
    }

    /// What a batch evaluation says; and per region the number of its error entries.
    fn expected(&self) -> (Bag, Vec<i64>) {
        let mut errors = vec![0; self.regions.len()];
        let mut global_errors = 0;
        let merged: Vec<Bag> = self
            .plan
            .fragments
            .iter()
            .map(|fragment| {
                let mut united = Bag::new();
                for (region, errors) in self.regions.iter().zip(&mut errors) {
                    let leaf = |scan: &Scan| {
                        let tables = if is_global(scan.object.0) {
                            &self.global
                        } else {
                            &region.tables
                        };
                        tables.get(&scan.object.0).cloned().unwrap_or_default()
                    };
                    let evaluated = naive::evaluate(&fragment.root, (&leaf, &|scan| scan.types.clone()));
                    *errors += evaluated.errors;
                    evaluated
                        .rows
                        .into_iter()
                        .for_each(|(row, weight)| add(&mut united, row, weight));
                }
                match &fragment.boundary {
                    Boundary::MergeRows | Boundary::AppendRows => united,
                    Boundary::MergePartials { keys, aggregates } => {
                        naive::aggregate(&united, keys, aggregates, &mut global_errors)
                    }
                }
            })
            .collect();
        let leaf = |leaf: &GlobalLeaf| match leaf {
            GlobalLeaf::Scan(scan) => self.global.get(&scan.object.0).cloned().unwrap_or_default(),
            GlobalLeaf::Merge(fragment) => merged[*fragment].clone(),
        };
        let types = |leaf: &GlobalLeaf| match leaf {
            GlobalLeaf::Scan(scan) => scan.types.clone(),
            GlobalLeaf::Merge(fragment) => self.plan.fragments[*fragment].merged_types(),
        };
        let evaluated = naive::evaluate(&self.plan.global, (&leaf, &types));
        errors
            .iter_mut()
            .for_each(|own| *own += global_errors + evaluated.errors);
        (evaluated.rows, errors)
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let (expected, errors) = self.expected();
        for (region, errors) in self.regions.iter().zip(errors) {
            prop_assert_eq!(&region.result, &expected, "plan {:#?}", self.plan);
            let mut stored = Bag::new();
            region
                .view
                .result()
                .scan(7)
                .for_each(|delta| values::apply(&mut stored, &delta));
            prop_assert_eq!(&stored, &expected);
            let listed: i64 = region.view.errors().iter().map(|error| error.count).sum();
            prop_assert_eq!(
                listed,
                errors,
                "errors {:#?} plan {:#?}",
                region.view.errors(),
                self.plan
            );
        }
        Ok(())
    }
}

impl Region {
    fn step_global(&mut self, inputs: &BTreeMap<ObjectId, Delta>, merges: &[Option<SlotDelta>]) {
        let delta = self.view.step_global(inputs, merges);
        values::apply(&mut self.result, &delta);
    }

    fn spill(&mut self, area: Option<&SpillFiles>) {
        let Some(area) = area else { return };
        for rows in self
            .view
            .spillable()
            .chain(self.slots.iter_mut().flat_map(SlotSet::spillable))
        {
            rows.spill_all(area).expect("there is room");
        }
    }

    fn seal(&mut self, stamp: u64) {
        self.view.seal(stamp);
    }

    fn restart(&mut self, plan: &Arc<ViewPlan>, defects: Defects, scope: Scope, count: usize) {
        let mut saved = AllSaved(self.view.save());
        let restored = View::restore(ObjectId(9), plan.clone(), scope, workers(count), &mut saved);
        self.view = restored.expect("the state is all there");
        self.view.set_defects(defects);
    }
}

/// A checkpoint of one view, in memory.
struct AllSaved(BTreeMap<String, Saved>);

impl SavedState for AllSaved {
    fn trace(&mut self, name: &str, layout: Layout) -> Result<Option<RunTrace>, StorageError> {
        Ok(match self.0.get(name) {
            Some(Saved::Trace(trace)) => Some(RunTrace::from_runs(layout, trace.runs().to_vec())),
            _ => None,
        })
    }

    fn rows(&mut self, name: &str, schema: SchemaRef) -> Result<Option<RowStore>, StorageError> {
        Ok(match self.0.get(name) {
            Some(Saved::Rows(rows)) => {
                assert_eq!(
                    *rows.schema(),
                    schema,
                    "rows of {name} come back as they were saved"
                );
                Some(rows.to_store())
            }
            _ => None,
        })
    }
}

/// Inserts and deletes, applied to `rows`; an update is one of each.
fn random_changes(choices: &mut Choices, rows: &mut Bag, append_only: bool) -> Vec<(Row, i64)> {
    let mut changes: Vec<(Row, i64)> = Vec::new();
    for _ in 0..choices.below(8) {
        let delete = !append_only && !rows.is_empty() && choices.below(5) < 2;
        let (row, weight) = if delete {
            let place = choices.below(rows.len());
            (rows.keys().nth(place).expect("within the rows").clone(), -1)
        } else {
            (random_row(choices), 1)
        };
        add(rows, row.clone(), weight);
        changes.push((row, weight));
    }
    changes
}

/// Changes of a table as a delta, without weights where rows only come.
fn changed(table: u32, changes: &[(Row, i64)]) -> Delta {
    let delta = values::delta(&table_types(), changes);
    match plans::is_append_only(table) {
        true => Delta::inserts(delta.into_parts().0),
        false => delta,
    }
}

fn random_row(choices: &mut Choices) -> Row {
    let number = |choices: &mut Choices| match choices.below(5) {
        0 => Value::Null,
        n => Value::Int(n as i64 - 2),
    };
    let (a, b) = (number(choices), number(choices));
    let quarters = if choices.one_in(5) {
        Value::Null
    } else {
        Value::Quarters(choices.below(5) as i64 - 2)
    };
    let text = if choices.one_in(5) {
        Value::Null
    } else {
        Value::Text(["x", "y", ""][choices.below(3)].into())
    };
    vec![a, b, quarters, text]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn views_equal_the_batch_answer(seed in any::<u64>()) {
        let mut choices = Choices::new(seed);
        let mut world = World::new(plans::plan(&mut choices), Defects::default());
        world.check()?;
        for _ in 0..4 {
            world.round(&mut choices);
            world.check()?;
        }
    }

    #[test]
    fn views_of_a_region_that_is_alone_equal_the_batch_answer(seed in any::<u64>()) {
        let mut choices = Choices::new(seed);
        let mut world = World::alone(plans::plan(&mut choices));
        world.check()?;
        for _ in 0..6 {
            world.round(&mut choices);
            world.check()?;
        }
    }
}

/// The same with all rows in a file after each round.
#[test]
fn views_whose_rows_are_spilled_equal_the_batch_answer() {
    let folder = tempfile::tempdir().expect("a folder");
    for seed in 0..60 {
        for scope in [Scope::Cluster, Scope::Alone] {
            let mut choices = Choices::new(seed);
            let mut world = World::with_scope(plans::plan(&mut choices), Defects::default(), scope);
            world.spill = Some(SpillFiles::new(folder.path(), 0));
            for round in 0..4 {
                world.round(&mut choices);
                let checked = world.check();
                assert!(
                    checked.is_ok(),
                    "seed {seed}, round {round}, {scope:?}: {checked:?}"
                );
            }
        }
    }
}

/// Each operator by itself, over long histories of small tables.
#[test]
fn every_operator_equals_its_reference() {
    for number in 0..plans::SINGLES {
        for seed in 0..20 {
            for scope in [Scope::Cluster, Scope::Alone] {
                let mut choices = Choices::new(seed);
                let plan = plans::single(&mut choices, number);
                let mut world = World::with_scope(plan, Defects::default(), scope);
                for round in 0..8 {
                    world.round(&mut choices);
                    let checked = world.check();
                    assert!(
                        checked.is_ok(),
                        "operator {number}, seed {seed}, round {round}, {scope:?}: {checked:?}"
                    );
                }
            }
        }
    }
}

/// The same oracle with the named defect switched on must fail, or it could not see double counting.
#[test]
fn merging_by_adding_is_caught() {
    let agrees = |seed: u64, defects: Defects| {
        let mut choices = Choices::new(seed);
        let mut world = World::new(plans::counts_per_key(), defects);
        (0..4).all(|_| {
            world.round(&mut choices);
            world.check().is_ok()
        })
    };
    for seed in 0..20 {
        assert!(
            agrees(seed, Defects::default()),
            "seed {seed} agrees without the defect"
        );
        assert!(
            !agrees(
                seed,
                Defects {
                    merge_by_adding: true
                }
            ),
            "seed {seed} does not catch the defect"
        );
    }
}

/// An oracle over empty results would prove nothing: counts what the random plans exercise.
#[test]
fn random_plans_are_worth_checking() {
    let (mut shown, mut failing, mut merging) = (0, 0, 0);
    for seed in 0..100 {
        let mut choices = Choices::new(seed);
        let plan = plans::plan(&mut choices);
        let merges = |fragment: &LocalFragment| match &fragment.boundary {
            Boundary::MergePartials { aggregates, .. } => !aggregates.is_empty(),
            Boundary::MergeRows | Boundary::AppendRows => false,
        };
        merging += usize::from(plan.fragments.iter().any(merges));
        let mut world = World::new(plan, Defects::default());
        (0..4).for_each(|_| world.round(&mut choices));
        shown += usize::from(!world.regions[0].result.is_empty());
        failing += usize::from(
            world
                .regions
                .iter()
                .any(|region| !region.view.errors().is_empty()),
        );
    }
    println!("of 100 plans {shown} show rows, {failing} have errors, {merging} merge partials");
    assert!(
        shown >= 50 && failing >= 5 && merging >= 30,
        "{shown} show rows, {failing} fail, {merging} merge"
    );
}

/// Two worlds with the same history hold the same state, row by row.
#[test]
fn the_same_history_gives_the_same_state() {
    for seed in 0..20 {
        let world = || {
            let mut choices = Choices::new(seed);
            let mut world = World::new(plans::plan(&mut choices), Defects::default());
            (0..3).for_each(|_| world.round(&mut choices));
            world
        };
        for (mut left, mut right) in world().regions.into_iter().zip(world().regions) {
            let (left, right) = (left.view.save(), right.view.save());
            assert_eq!(left.keys().collect::<Vec<_>>(), right.keys().collect::<Vec<_>>());
            for (left, right) in left.values().zip(right.values()) {
                let rows = |saved: &Saved| -> Vec<Delta> {
                    match saved {
                        Saved::Trace(trace) => trace.scan(1 << 20).collect(),
                        Saved::Rows(rows) => rows.scan(1 << 20).collect(),
                    }
                };
                assert_eq!(rows(left), rows(right));
            }
        }
    }
}
