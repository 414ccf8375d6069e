//! DROP: refuses to take away what others read, unless told to take them too.

use std::collections::{BTreeMap, BTreeSet};

use tributary_storage::ObjectId;

use super::DdlPlan;
use crate::catalog::{Catalog, CatalogChange, Object, ObjectKind};
use crate::error::{PlanError, PlanErrorKind};
use crate::parse::{Drop, DropKind};

pub(super) fn plan(drop: &Drop, catalog: &Catalog) -> Result<DdlPlan, PlanError> {
    let mut notices = Vec::new();
    let mut dropped: BTreeSet<ObjectId> = BTreeSet::new();
    for name in &drop.names {
        match catalog.object(name) {
            Some(object) => {
                check_kind(object, drop.kind)?;
                dropped.insert(object.id);
            }
            None if drop.if_exists => {
                notices.push(format!("{} \"{name}\" does not exist, skipping", drop.kind))
            }
            None => {
                let message = format!("{} \"{name}\" does not exist", drop.kind);
                return Err(PlanError::new(PlanErrorKind::UndefinedTable, message));
            }
        }
    }
    own_tables(catalog, &mut dropped)?;
    let order = with_dependents(catalog, &dropped);
    let others: Vec<&Object> = order
        .iter()
        .filter(|id| !dropped.contains(id))
        .filter_map(|id| catalog.by_id(*id))
        .map(AsRef::as_ref)
        .filter(|object| !object.is_hidden())
        .collect();
    if !others.is_empty() && !drop.cascade {
        return Err(dependents_exist(&drop.names, drop.kind, &others));
    }
    notices.extend(
        others
            .iter()
            .map(|object| format!("drop cascades to {} {}", object.kind_name(), object.name)),
    );
    let changes = if order.is_empty() {
        Vec::new()
    } else {
        vec![CatalogChange::Drop(order)]
    };
    Ok(DdlPlan {
        changes,
        notices,
        tag: format!("DROP {}", drop.kind.to_string().to_uppercase()),
    })
}

fn check_kind(object: &Object, wanted: DropKind) -> Result<(), PlanError> {
    let kind = match &object.kind {
        ObjectKind::Table(_) => DropKind::Table,
        ObjectKind::View(_) => DropKind::View,
        ObjectKind::MaterializedView(_) => DropKind::MaterializedView,
        ObjectKind::Source(_) => DropKind::Source,
        ObjectKind::Sink(_) => DropKind::Sink,
    };
    if kind == wanted {
        return Ok(());
    }
    let message = format!("\"{}\" is not a {wanted}", object.name);
    Err(
        PlanError::new(PlanErrorKind::WrongObjectType, message).with_hint(format!(
            "Use DROP {} to remove a {kind}.",
            kind.to_string().to_uppercase()
        )),
    )
}

/// A source goes with its tables; one of its tables does not go alone.
fn own_tables(catalog: &Catalog, dropped: &mut BTreeSet<ObjectId>) -> Result<(), PlanError> {
    for id in dropped.clone() {
        match catalog.by_id(id).map(|object| &object.kind) {
            Some(ObjectKind::Source(source)) => dropped.extend(&source.tables),
            Some(ObjectKind::Table(_)) => {
                if let Some(source) = catalog
                    .source_of(id)
                    .filter(|source| !dropped.contains(&source.id))
                {
                    let name = catalog.by_id(id).map_or("", |object| &object.name);
                    let message = format!(
                        "cannot drop table {name} because source {} requires it",
                        source.name
                    );
                    return Err(PlanError::new(PlanErrorKind::DependentObjects, message)
                        .with_hint(format!("You can drop source {} instead.", source.name)));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// The objects and all that directly or indirectly depend on them, dependents first, with the hidden views that nothing
/// reads any more.
fn with_dependents(catalog: &Catalog, dropped: &BTreeSet<ObjectId>) -> Vec<ObjectId> {
    let mut readers: BTreeMap<ObjectId, Vec<ObjectId>> = BTreeMap::new();
    for id in catalog.objects.keys() {
        for input in catalog.dependencies(*id) {
            readers.entry(input).or_default().push(*id);
        }
    }
    let mut reached = dropped.clone();
    let mut waiting: Vec<ObjectId> = dropped.iter().copied().collect();
    while let Some(id) = waiting.pop() {
        waiting.extend(
            readers
                .get(&id)
                .into_iter()
                .flatten()
                .filter(|reader| reached.insert(**reader)),
        );
    }
    // The newest first, since a hidden view may be read by another one.
    for hidden in catalog.objects.values().rev().filter(|object| object.is_hidden()) {
        let left = readers.get(&hidden.id).into_iter().flatten();
        if left.copied().all(|reader| reached.contains(&reader)) {
            reached.insert(hidden.id);
        }
    }
    // Whoever depends on something was created after it.
    reached.into_iter().rev().collect()
}

fn dependents_exist(names: &[String], kind: DropKind, others: &[&Object]) -> PlanError {
    let dependents: Vec<String> = others
        .iter()
        .map(|object| format!("{} {}", object.kind_name(), object.name))
        .collect();
    let message = format!(
        "cannot drop {kind} {} because other objects depend on it: {}",
        names.join(", "),
        dependents.join(", ")
    );
    PlanError::new(PlanErrorKind::DependentObjects, message)
        .with_hint("Use DROP ... CASCADE to drop the dependent objects too.")
}
