//! Statements that would copy rows of an enforced table to where others can read them.
//!
//! INSERT … SELECT and UPDATE … FROM write what they read. So a statement that reads an enforced table anywhere, also in
//! a condition or through views, may write only tables that are enforced at least as strictly. What comes out of a
//! materialized view has left already and is free.
//!
//! A statement is judged by the catalog of its snapshot, and what its transaction copies again by the newest one when the
//! commit is sealed ([`may_copy`]): residency may have been enforced since.

use std::collections::BTreeSet;

use sqlparser::ast::TableObject;
use tributary_storage::ObjectId;

use crate::catalog::{Catalog, ObjectKind};
use crate::dml::target_name;
use crate::error::{PlanError, PlanErrorKind};
use crate::parse::{Statement, public_name, relation_names_in};

/// From which tables into which values are copied, whatever their residency.
pub type Copies = BTreeSet<(ObjectId, ObjectId)>;

/// Refuses a statement that would copy values out of an enforced table. Tells what it copies, to be judged again when it
/// is committed.
///
/// # Errors
/// `Forbidden`, naming both tables.
pub fn check_statement(catalog: &Catalog, statement: &Statement) -> Result<Copies, PlanError> {
    let Some(target) = target(catalog, statement)? else {
        return Ok(Copies::new());
    };
    let mut copies = Copies::new();
    for read in inputs(catalog, statement) {
        if read == target {
            continue;
        }
        if may_copy(catalog, read, target) {
            copies.insert((read, target));
            continue;
        }
        let name = |id: ObjectId| catalog.by_id(id).map_or("?", |object| object.name.as_str());
        let (read_name, target_name) = (name(read), name(target));
        let message = format!(
            "residency of table \"{read_name}\" is enforced: what is read from it cannot be written into \"{target_name}\""
        );
        let hint = match catalog.table(target).is_some_and(|table| table.is_global()) {
            true => "Rows of a GLOBAL table are in every region. Write into a REGIONAL table with residency = 'enforced', \
                     or count and sum in a materialized view."
                .to_owned(),
            false => format!(
                "ALTER TABLE {target_name} SET (residency = 'enforced') with a min_group_size that is not below that of \
                 {read_name}; or count and sum in a materialized view."
            ),
        };
        return Err(PlanError::new(PlanErrorKind::Forbidden, message).with_hint(hint));
    }
    Ok(copies)
}

/// Whether what is read from one table may be written into another. What was read from a table that is gone may not: how it
/// was protected is not known any more.
pub fn may_copy(catalog: &Catalog, from: ObjectId, into: ObjectId) -> bool {
    let is_there = catalog.table(from).is_some();
    is_there && (!catalog.is_resident(from) || is_as_strict(catalog, into, from))
}

/// Refuses, where it is to be carried out, a statement of another region whose answer would hold rows of an enforced
/// table. Tells whether the statement touches such a table at all: then the texts of errors may hold values.
///
/// # Errors
/// `Forbidden`.
pub fn check_forwarded(catalog: &Catalog, statement: &Statement) -> Result<bool, PlanError> {
    if !catalog.has_resident_tables() {
        return Ok(false);
    }
    let target = target(catalog, statement)?.filter(|target| catalog.is_resident(*target));
    let returning = match statement {
        Statement::Insert(insert) => insert.returning.is_some(),
        Statement::Update(update) => update.returning.is_some(),
        Statement::Delete(delete) => delete.returning.is_some(),
        _ => false,
    };
    let touched: Vec<ObjectId> = target
        .into_iter()
        .chain(
            inputs(catalog, statement)
                .into_iter()
                .filter(|read| catalog.is_resident(*read)),
        )
        .collect();
    if let (Some(first), true) = (touched.first(), returning) {
        let name = catalog.by_id(*first).map_or("?", |object| object.name.as_str());
        let message = format!(
            "residency of table \"{name}\" is enforced: its rows cannot be returned to another region"
        );
        return Err(PlanError::new(PlanErrorKind::Forbidden, message)
            .with_hint("Leave RETURNING out, or run the statement in the region that owns the rows."));
    }
    Ok(!touched.is_empty())
}

fn target(catalog: &Catalog, statement: &Statement) -> Result<Option<ObjectId>, PlanError> {
    let name = match statement {
        Statement::Insert(insert) => match &insert.table {
            TableObject::TableName(name) => Some(public_name(name)?),
            _ => None,
        },
        Statement::Copy(copy) => Some(copy.table.clone()),
        other => target_name(other)?,
    };
    Ok(name
        .and_then(|name| catalog.object(&name))
        .map(|object| object.id))
}

/// The REGIONAL tables that a statement reads, also through views: residency can be enforced of no other.
fn inputs(catalog: &Catalog, statement: &Statement) -> BTreeSet<ObjectId> {
    let names = match statement {
        Statement::Insert(insert) => relation_names_in(insert.as_ref()),
        Statement::Update(update) => relation_names_in(update.as_ref()),
        Statement::Delete(delete) => relation_names_in(delete.as_ref()),
        _ => BTreeSet::new(),
    };
    let named = names.iter().filter_map(|name| catalog.object(name));
    let mut left: Vec<ObjectId> = named.map(|object| object.id).collect();
    let (mut seen, mut read) = (BTreeSet::new(), BTreeSet::new());
    while let Some(id) = left.pop() {
        if !seen.insert(id) {
            continue;
        }
        if catalog.table(id).is_some_and(|table| !table.is_global()) {
            read.insert(id);
        }
        if catalog
            .by_id(id)
            .is_some_and(|object| matches!(object.kind, ObjectKind::View(_)))
        {
            left.extend(catalog.dependencies(id));
        }
    }
    read
}

/// Whether whatever may not leave `read` may not leave `target` either.
fn is_as_strict(catalog: &Catalog, target: ObjectId, read: ObjectId) -> bool {
    let (target, read) = (catalog.options(target), catalog.options(read));
    let size_is_kept = match (target.min_group_size, read.min_group_size) {
        (None, _) => true,
        (Some(target), Some(read)) => target >= read,
        (Some(_), None) => false,
    };
    target.is_resident() && size_is_kept
}
