//! Who depends on whom.
//!
//! A view depends on the relations that its text names and on those that its plan reads (a materialized view over
//! a plain view reads the latter's tables); a table filled by a source is part of it. Nothing is stored for
//! this: the texts are read when something is to be dropped, which is rare.

use std::collections::BTreeSet;

use tributary_storage::ObjectId;

use super::{Catalog, Object, ObjectKind};
use crate::parse;

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
