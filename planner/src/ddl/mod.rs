//! From CREATE and DROP to changes of the catalog.
//!
//! Planning is done once, by the primary region, against its newest catalog; the result is logged and applied
//! everywhere. A statement that changes nothing (IF NOT EXISTS, IF EXISTS) gives no changes and a notice.
//!
//! Ids are taken upwards from the catalog's `next_object`, so a plan is only valid for the catalog's
//! version that it was made for.

mod alter_database;
mod alter_source;
mod alter_table;
mod create_file_source;
mod create_materialized_view;
mod create_sink;
mod create_source;
mod create_table;
mod create_view;
mod default;
mod drop;
mod region_options;
mod table_options;
mod truncate;
mod view_options;

use std::collections::BTreeSet;

use tributary_storage::ObjectId;

use crate::catalog::{Catalog, CatalogChange, HIDDEN_PREFIX, Object, ObjectKind, ViewColumn};
use crate::error::{PlanError, PlanErrorKind};
use crate::parse::Statement;

pub use crate::catalog::PlanSettings;
pub use crate::split::sides::RowCounts;
pub use alter_database::{DATABASE, member};
pub use create_materialized_view::explain;
pub use create_source::{NEXMARK_RATE_DEFAULT, NEXMARK_TABLES};

/// PostgreSQL's limit on names; longer ones would be cut there.
const NAME_BYTES_MAX: usize = 63;
/// PostgreSQL's limit on columns.
const COLUMNS_MAX: usize = 1_600;

/// What a DDL statement does.
#[derive(Clone, Debug, PartialEq)]
pub struct DdlPlan {
    /// Changes, to be applied in order as one.
    pub changes: Vec<CatalogChange>,
    /// What the user is told.
    pub notices: Vec<String>,
    /// The command tag.
    pub tag: String,
}

impl DdlPlan {
    fn unchanged(tag: &str, notice: String) -> Self {
        Self {
            changes: Vec::new(),
            notices: vec![notice],
            tag: tag.to_owned(),
        }
    }
}

/// As [`plan_ddl_counting`] where nothing is known of the sizes of relations.
///
/// # Errors
/// As [`plan_ddl_counting`].
pub fn plan_ddl(
    statement: &Statement,
    catalog: &Catalog,
    settings: &PlanSettings,
    now_ms: u64,
) -> Result<DdlPlan, PlanError> {
    plan_ddl_counting(statement, catalog, settings, now_ms, &RowCounts::default())
}

/// Plans a CREATE, ALTER or DROP. `now_ms` (since 1970) is the base time of sources; `rows` are what the planning region
/// holds of relations, for `merge = 'smaller'`.
///
/// # Errors
/// `DuplicateTable`, `UndefinedTable`, `DependentObjects`, `InvalidDefinition`, `Unsupported`, and those of planning a
/// view; `Internal` for other statements.
pub fn plan_ddl_counting(
    statement: &Statement,
    catalog: &Catalog,
    settings: &PlanSettings,
    now_ms: u64,
    rows: &RowCounts,
) -> Result<DdlPlan, PlanError> {
    match statement {
        Statement::CreateTable(create) => create_table::plan(create, catalog, settings),
        Statement::CreateView(create) => create_view::plan(create, catalog, settings),
        Statement::CreateMaterializedView(create) => {
            create_materialized_view::plan(create, catalog, settings, rows)
        }
        Statement::CreateSource(create) => create_source::plan(create, catalog, now_ms),
        Statement::CreateSink(create) => create_sink::plan(create, catalog),
        Statement::AlterSource(alter) => alter_source::plan(alter, catalog),
        Statement::AlterTable(alter) => alter_table::plan(alter, catalog),
        Statement::AlterDatabase(alter) => alter_database::plan(alter, catalog),
        Statement::Truncate(truncate) => truncate::plan(truncate, catalog),
        Statement::Drop(drop) => drop::plan(drop, catalog),
        _ => Err(PlanError::internal("only CREATE, ALTER and DROP are DDL")),
    }
}

/// Whether a name is free. `Ok(Some(notice))`: it is taken, and IF NOT EXISTS makes that no error.
fn check_name(catalog: &Catalog, name: &str, if_not_exists: bool) -> Result<Option<String>, PlanError> {
    if name.len() > NAME_BYTES_MAX || name.is_empty() {
        let message = format!("the name \"{name}\" does not have 1 to {NAME_BYTES_MAX} bytes");
        return Err(PlanError::new(PlanErrorKind::InvalidDefinition, message));
    }
    if name.starts_with(HIDDEN_PREFIX) && catalog.object(name).is_none() {
        let message = format!("the name \"{name}\" is reserved");
        return Err(
            PlanError::new(PlanErrorKind::InvalidDefinition, message).with_hint(format!(
                "Names that begin with {HIDDEN_PREFIX} are those of merged sides of joins."
            )),
        );
    }
    if catalog.object(name).is_none() {
        return Ok(None);
    }
    if if_not_exists {
        return Ok(Some(format!("relation \"{name}\" already exists, skipping")));
    }
    Err(PlanError::new(
        PlanErrorKind::DuplicateTable,
        format!("relation \"{name}\" already exists"),
    ))
}

/// The `number`-th new object of a plan.
fn new_object(catalog: &Catalog, number: u32, name: &str, kind: ObjectKind) -> Result<Object, PlanError> {
    let id = catalog
        .next_object
        .checked_add(number)
        .ok_or_else(|| PlanError::internal("object ids are used up"))?;
    Ok(Object {
        id: ObjectId(id),
        name: name.to_owned(),
        kind,
    })
}

/// Refuses names of columns that occur twice or are too long, and too many columns.
fn check_column_names<'a>(names: impl Iterator<Item = &'a str>) -> Result<(), PlanError> {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            let message = format!("column \"{name}\" specified more than once");
            return Err(PlanError::new(PlanErrorKind::DuplicateColumn, message));
        }
        if name.len() > NAME_BYTES_MAX {
            let message = format!("the name \"{name}\" has more than {NAME_BYTES_MAX} bytes");
            return Err(PlanError::new(PlanErrorKind::InvalidDefinition, message));
        }
    }
    if seen.len() > COLUMNS_MAX {
        let message = format!("a relation can have at most {COLUMNS_MAX} columns");
        return Err(PlanError::new(PlanErrorKind::InvalidDefinition, message));
    }
    Ok(())
}

/// Gives a view's first columns the names listed in its definition.
fn rename_columns(view: &str, columns: &mut [ViewColumn], names: &[String]) -> Result<(), PlanError> {
    if names.len() > columns.len() {
        let message = format!("view \"{view}\" has more column names than columns");
        return Err(PlanError::new(PlanErrorKind::Syntax, message));
    }
    for (column, name) in columns.iter_mut().zip(names) {
        column.name.clone_from(name);
    }
    if columns.is_empty() {
        return Err(PlanError::new(
            PlanErrorKind::InvalidDefinition,
            format!("view \"{view}\" has no columns"),
        ));
    }
    check_column_names(columns.iter().map(|column| column.name.as_str())).map_err(|error| match error.kind {
        PlanErrorKind::DuplicateColumn => error.with_hint("Name the columns apart with AS."),
        _ => error,
    })
}

#[cfg(test)]
mod tests;
