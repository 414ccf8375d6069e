//! Who depends on whom.
//!
//! A view depends on the relations that its text names and on those that its plan reads (a materialized view over
//! a plain view reads the latter's tables); a table filled by a source is part of it. Nothing is stored for
//! this: the texts are read when something is to be dropped, which is rare.

use std::collections::{BTreeMap, BTreeSet};

use tributary_storage::ObjectId;

use super::{Catalog, Object, ObjectKind};
use crate::parse;
use crate::plan::ViewPlan;

impl Catalog {
    /// The objects that directly depend on this one, in ascending order: views that read it, sinks that write
    /// it, and the source that it is a table of.
    pub fn dependents(&self, id: ObjectId) -> Vec<ObjectId> {
        let depends = |other: &&ObjectId| **other != id && self.dependencies(**other).contains(&id);
        self.objects.keys().filter(depends).copied().collect()
    }

    /// The objects that this one directly depends on.
    pub fn dependencies(&self, id: ObjectId) -> BTreeSet<ObjectId> {
        let Some(object) = self.by_id(id) else {
            return BTreeSet::new();
        };
        match &object.kind {
            ObjectKind::Table(_) => BTreeSet::new(),
            ObjectKind::Source(source) => source.tables.iter().copied().collect(),
            ObjectKind::Sink(sink) => BTreeSet::from([sink.view]),
            ObjectKind::View(view) => self.named_in(&view.sql),
            ObjectKind::MaterializedView(view) => {
                let mut inputs = self.named_in(&view.sql);
                inputs.extend(view.plan.inputs());
                inputs
            }
        }
    }

    /// The views of users that read a hidden view, directly or through other hidden ones, in ascending order of their
    /// ids.
    pub fn views_over(&self, hidden: ObjectId) -> Vec<&Object> {
        let mut found: BTreeMap<ObjectId, &Object> = BTreeMap::new();
        let mut left = vec![hidden];
        while let Some(id) = left.pop() {
            let readers = self.objects.values().filter(|object| match &object.kind {
                ObjectKind::MaterializedView(view) => view.plan.inputs().contains(&id),
                _ => false,
            });
            for reader in readers {
                match reader.is_hidden() {
                    true => left.push(reader.id),
                    false => drop(found.insert(reader.id, reader)),
                }
            }
        }
        found.into_values().collect()
    }

    /// The hidden views that a plan reads, also through other hidden ones, in ascending order of their ids.
    pub fn hidden_below(&self, plan: &ViewPlan) -> Vec<&Object> {
        let mut found: BTreeMap<ObjectId, &Object> = BTreeMap::new();
        let mut left = plan.inputs();
        while let Some(id) = left.pop() {
            let Some(object) = self.by_id(id).filter(|object| object.is_hidden()) else {
                continue;
            };
            if found.insert(id, object).is_none() {
                left.extend(self.dependencies(id));
            }
        }
        found.into_values().collect()
    }

    /// What users are told an object is called: of a hidden view, the views that it is a part of.
    pub fn name_for_users(&self, object: &Object) -> String {
        if !object.is_hidden() {
            return object.name.clone();
        }
        let names = self
            .views_over(object.id)
            .into_iter()
            .map(|view| view.name.as_str());
        names.collect::<Vec<_>>().join(", ")
    }

    /// The source that fills this table.
    pub fn source_of(&self, table: ObjectId) -> Option<&Object> {
        self.objects
            .values()
            .map(AsRef::as_ref)
            .find(|object| match &object.kind {
                ObjectKind::Source(source) => source.tables.contains(&table),
                _ => false,
            })
    }

    /// The objects named by a stored query. A text that does not parse names nothing; what stands in the
    /// catalog was parsed before it was stored.
    fn named_in(&self, sql: &str) -> BTreeSet<ObjectId> {
        let Ok(query) = parse::parse_query(sql) else {
            return BTreeSet::new();
        };
        let names = parse::relation_names(&query);
        names
            .iter()
            .filter_map(|name| self.object(name))
            .map(|object| object.id)
            .collect()
    }
}
