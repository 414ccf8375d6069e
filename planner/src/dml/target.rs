//! The table that a statement writes, and its columns.

use sqlparser::ast::{Ident, ObjectName, TableFactor, TableWithJoins};

use crate::catalog::{Catalog, Object, RESERVED_PREFIX, TableDef};
use crate::error::{PlanError, PlanErrorKind};
use crate::parse::{fold, public_name};

/// The table with this (folded) name, which users may write.
///
/// # Errors
/// `UndefinedTable`; `WrongObjectType` for views, sources, and tables that a source fills.
pub fn writable_table<'a>(catalog: &'a Catalog, name: &str) -> Result<(&'a Object, &'a TableDef), PlanError> {
    let object = catalog
        .object(name)
        .ok_or_else(|| PlanError::undefined_table(name))?;
    let Some(table) = object.as_table() else {
        let message = format!("cannot write to {} \"{name}\"", object.kind_name());
        return Err(PlanError::new(PlanErrorKind::WrongObjectType, message)
            .with_hint("Write to the tables that it reads."));
    };
    if let Some(source) = catalog.source_of(object.id) {
        let message = format!("table \"{name}\" is filled by source \"{}\"", source.name);
        return Err(PlanError::new(PlanErrorKind::WrongObjectType, message)
            .with_hint("Copy its rows into a table of your own with INSERT … SELECT."));
    }
    Ok((object, table))
}

/// The target columns of a COPY or INSERT with this (folded) column list; all visible ones if it is empty.
///
/// # Errors
/// `UndefinedColumn`, `DuplicateColumn`, `WrongObjectType` for hidden columns.
pub fn copy_columns(table: &TableDef, relation: &str, names: &[String]) -> Result<Vec<usize>, PlanError> {
    if names.is_empty() {
        return Ok(table.visible().collect());
    }
    let mut columns = Vec::with_capacity(names.len());
    for name in names {
        let column = writable_column(table, relation, name)?;
        if columns.contains(&column) {
            let message = format!("column \"{name}\" specified more than once");
            return Err(PlanError::new(PlanErrorKind::DuplicateColumn, message));
        }
        columns.push(column);
    }
    Ok(columns)
}

/// The index of a column that users may write.
pub(super) fn writable_column(table: &TableDef, relation: &str, name: &str) -> Result<usize, PlanError> {
    match table.column(name) {
        Some(column) if !table.columns[column].hidden => Ok(column),
        _ if name.starts_with(RESERVED_PREFIX) => {
            let message = format!("column \"{name}\" cannot be written");
            Err(PlanError::new(PlanErrorKind::WrongObjectType, message)
                .with_hint("Columns that begin with tributary_ belong to the system."))
        }
        _ => Err(PlanError::undefined_column(name, relation)),
    }
}

/// A table to be written, as a statement names it.
pub(super) struct Target<'a> {
    pub(super) object: &'a Object,
    pub(super) table: &'a TableDef,
    /// The alias, folded.
    pub(super) alias: Option<String>,
}

impl<'a> Target<'a> {
    pub(super) fn named(
        catalog: &'a Catalog,
        name: &ObjectName,
        alias: Option<&Ident>,
    ) -> Result<Self, PlanError> {
        let (object, table) = writable_table(catalog, &public_name(name)?)?;
        Ok(Self {
            object,
            table,
            alias: alias.map(fold),
        })
    }

    /// The one table of a FROM clause.
    pub(super) fn of_from(
        catalog: &'a Catalog,
        from: &TableWithJoins,
        statement: &str,
    ) -> Result<Self, PlanError> {
        let TableFactor::Table {
            name,
            alias,
            args: None,
            sample: None,
            version: None,
            ..
        } = &from.relation
        else {
            return Err(PlanError::unsupported(
                format_args!("{statement} of anything but a table"),
                "Name the table.",
            ));
        };
        if !from.joins.is_empty() {
            return Err(PlanError::unsupported(
                format_args!("{statement} of a join"),
                "Use WHERE … IN (SELECT …) or a scalar subquery.",
            ));
        }
        if alias.as_ref().is_some_and(|alias| !alias.columns.is_empty()) {
            return Err(PlanError::unsupported(
                format_args!("{statement} with aliases of columns"),
                "Use the columns' own names.",
            ));
        }
        Self::named(catalog, name, alias.as_ref().map(|alias| &alias.name))
    }

    /// The name under which the statement's expressions know the table.
    pub(super) fn reference(&self) -> &str {
        self.alias.as_deref().unwrap_or(&self.object.name)
    }
}
