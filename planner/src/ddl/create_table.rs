//! CREATE TABLE.
//!
//! The only constraints are NOT NULL and the primary key: both can be checked in the region that writes. What would
//! need to look at other regions' rows (UNIQUE, REFERENCES, sequences) is refused.

use sqlparser::ast::{
    self, ColumnOption, CreateTableOptions, Expr, IndexColumn, PrimaryKeyConstraint, TableConstraint,
};

use super::{DdlPlan, PlanSettings, check_column_names, check_name, default, new_object, table_options};
use crate::catalog::{
    Catalog, CatalogChange, ColumnDef, ColumnDefault, ObjectKind, RESERVED_PREFIX, ROW_ID, TableDef,
    TableLocality, TableOptions,
};
use crate::error::{PlanError, PlanErrorKind};
use crate::parse::{self, CreateTable, LocalityClause, Statement, fold, public_name};
use crate::types::SqlType;

const TAG: &str = "CREATE TABLE";

pub(super) fn plan(
    create: &CreateTable,
    catalog: &Catalog,
    settings: &PlanSettings,
) -> Result<DdlPlan, PlanError> {
    refuse_clauses(&create.table)?;
    let name = public_name(&create.table.name)?;
    if let Some(notice) = check_name(catalog, &name, create.table.if_not_exists)? {
        return Ok(DdlPlan::unchanged(TAG, notice));
    }
    let mut draft = Draft {
        columns: Vec::new(),
        key: None,
        notices: Vec::new(),
    };
    for column in &create.table.columns {
        draft.column(column, settings)?;
    }
    check_column_names(draft.columns.iter().map(|column| column.name.as_str()))?;
    for constraint in &create.table.constraints {
        draft.constraint(constraint, &name)?;
    }
    let locality = match &create.locality {
        None | Some(LocalityClause::RegionalByRow) => TableLocality::RegionalByRow,
        Some(LocalityClause::Global) => TableLocality::Global,
        Some(LocalityClause::RegionalByTable(region)) => {
            TableLocality::RegionalByTable(super::member(region, catalog)?)
        }
    };
    let notices = std::mem::take(&mut draft.notices);
    let object = new_object(catalog, 0, &name, ObjectKind::Table(draft.table(locality)))?;
    let mut options = TableOptions::default();
    table_options::set(&mut options, &create.options)?;
    let mut changes = Vec::new();
    if let ObjectKind::Table(table) = &object.kind {
        table_options::check(&name, table, &options)?;
    }
    let table = object.id;
    changes.push(CatalogChange::Create(object));
    if options != TableOptions::default() {
        changes.push(CatalogChange::SetOptions { table, options });
    }
    Ok(DdlPlan {
        changes,
        notices,
        tag: TAG.to_owned(),
    })
}

/// The columns of a source, from the text of a column list: names and types, nothing else.
pub(super) fn source_columns(text: &str) -> Result<Vec<ColumnDef>, PlanError> {
    let mut statements = parse::parse(&format!("CREATE TABLE source ({text})"))?;
    let Some(Statement::CreateTable(create)) = statements.pop().map(|parsed| parsed.statement) else {
        return Err(PlanError::new(
            PlanErrorKind::Syntax,
            "the column list cannot be read",
        ));
    };
    let mut draft = Draft {
        columns: Vec::new(),
        key: None,
        notices: Vec::new(),
    };
    for column in &create.table.columns {
        if let Some(option) = column.options.first() {
            return Err(PlanError::unsupported(
                format_args!("{} in a source", option.option),
                "Write names and types only; filter in a view.",
            ));
        }
        draft.column(column, &PlanSettings::default())?;
    }
    if !create.table.constraints.is_empty() {
        return Err(PlanError::unsupported(
            "a constraint of a source",
            "Write names and types only; filter in a view.",
        ));
    }
    check_column_names(draft.columns.iter().map(|column| column.name.as_str()))?;
    Ok(draft.columns)
}

/// A table's columns with a hidden key column where there is no key.
pub(super) fn with_key(
    mut columns: Vec<ColumnDef>,
    key: Option<Vec<usize>>,
    locality: TableLocality,
) -> TableDef {
    let primary_key = key.unwrap_or_else(|| {
        columns.push(ColumnDef {
            name: ROW_ID.to_owned(),
            sql_type: SqlType::Uuid,
            nullable: false,
            default: Some(ColumnDefault::GenRandomUuid),
            hidden: true,
        });
        vec![columns.len() - 1]
    });
    for &index in &primary_key {
        columns[index].nullable = false;
    }
    TableDef {
        columns,
        primary_key,
        locality,
    }
}

/// A table in the making.
struct Draft {
    columns: Vec<ColumnDef>,
    key: Option<Vec<usize>>,
    notices: Vec<String>,
}

impl Draft {
    fn table(self, locality: TableLocality) -> TableDef {
        with_key(self.columns, self.key, locality)
    }

    fn column(&mut self, column: &ast::ColumnDef, settings: &PlanSettings) -> Result<(), PlanError> {
        let name = fold(&column.name);
        if name.starts_with(RESERVED_PREFIX) {
            let message = format!("column name \"{name}\" is reserved");
            return Err(PlanError::new(PlanErrorKind::InvalidDefinition, message)
                .with_hint("Names that begin with tributary_ belong to the system."));
        }
        let sql_type = SqlType::from_ast(&column.data_type)?;
        if SqlType::is_numeric_without_precision(&column.data_type) {
            self.notices.push(format!(
                "column \"{name}\": numeric without precision is {sql_type}"
            ));
        }
        let index = self.columns.len();
        self.columns.push(ColumnDef {
            name: name.clone(),
            sql_type,
            nullable: true,
            default: None,
            hidden: false,
        });
        let mut said_null = false;
        for option in &column.options {
            match &option.option {
                ColumnOption::Null => said_null = true,
                ColumnOption::NotNull => self.columns[index].nullable = false,
                ColumnOption::Default(expr) => {
                    self.columns[index].default = default::bind(expr, sql_type, &settings.time_zone)?;
                }
                ColumnOption::PrimaryKey(_) => self.set_key(vec![index])?,
                other => return Err(refused_option(other)),
            }
        }
        if said_null && (!self.columns[index].nullable || self.key.as_deref() == Some(&[index])) {
            let message = format!("conflicting NULL/NOT NULL declarations for column \"{name}\"");
            return Err(PlanError::new(PlanErrorKind::Syntax, message));
        }
        Ok(())
    }

    fn constraint(&mut self, constraint: &TableConstraint, table: &str) -> Result<(), PlanError> {
        let TableConstraint::PrimaryKey(PrimaryKeyConstraint {
            columns,
            index_type: None,
            ..
        }) = constraint
        else {
            return Err(refused_constraint(constraint));
        };
        let mut key = Vec::with_capacity(columns.len());
        for column in columns {
            let name = key_column(column)?;
            let index = self
                .columns
                .iter()
                .position(|column| column.name == name)
                .ok_or_else(|| {
                    let message = format!("column \"{name}\" named in key does not exist");
                    PlanError::new(PlanErrorKind::UndefinedColumn, message)
                })?;
            if key.contains(&index) {
                let message = format!("column \"{name}\" appears twice in primary key constraint");
                return Err(PlanError::new(PlanErrorKind::DuplicateColumn, message));
            }
            key.push(index);
        }
        self.set_key(key).map_err(|error| PlanError {
            message: format!("multiple primary keys for table \"{table}\" are not allowed"),
            ..error
        })
    }

    fn set_key(&mut self, key: Vec<usize>) -> Result<(), PlanError> {
        for &index in &key {
            if matches!(self.columns[index].sql_type, SqlType::Float4 | SqlType::Float8) {
                return Err(PlanError::unsupported(
                    format_args!("a primary key of type {}", self.columns[index].sql_type),
                    "Floats do not compare exactly. Use numeric.",
                ));
            }
            if self.columns[index].sql_type == SqlType::Interval {
                return Err(PlanError::unsupported(
                    "a primary key of type interval",
                    "Intervals can be equal without being the same. Use bigint or numeric seconds.",
                ));
            }
        }
        match self.key.replace(key) {
            None => Ok(()),
            Some(_) => Err(PlanError::new(
                PlanErrorKind::InvalidDefinition,
                "multiple primary keys for one table are not allowed",
            )),
        }
    }
}

/// The name of a column in `PRIMARY KEY (a, b)`.
fn key_column(column: &IndexColumn) -> Result<String, PlanError> {
    let options = &column.column.options;
    match &column.column.expr {
        Expr::Identifier(ident)
            if column.operator_class.is_none() && options.asc.is_none() && options.nulls_first.is_none() =>
        {
            Ok(fold(ident))
        }
        other => Err(PlanError::unsupported(
            format_args!("the key part {other}"),
            "A primary key consists of bare columns.",
        )),
    }
}

const NO_UNIQUE: &str = "No region can see the rows of all others while it writes. Make it the primary key.";
const NO_REFERENCES: &str = "References across regions are not checked. Leave it out, and join in a view.";
const NO_CHECK: &str = "Check the value before it is written.";

fn refused_option(option: &ColumnOption) -> PlanError {
    match option {
        ColumnOption::Unique(_) => PlanError::unsupported("UNIQUE", NO_UNIQUE),
        ColumnOption::ForeignKey(_) => PlanError::unsupported("REFERENCES", NO_REFERENCES),
        ColumnOption::Check(_) => PlanError::unsupported("CHECK", NO_CHECK),
        ColumnOption::Generated { .. } => PlanError::unsupported(
            "GENERATED",
            "Compute the column in a view, or use uuid DEFAULT gen_random_uuid().",
        ),
        ColumnOption::Identity(_) => {
            PlanError::unsupported("IDENTITY", "Use uuid DEFAULT gen_random_uuid().")
        }
        ColumnOption::Collation(_) => PlanError::unsupported("COLLATE", "Text is ordered by its bytes."),
        other => PlanError::unsupported(
            format_args!("column option {other}"),
            "Supported: NOT NULL, DEFAULT, PRIMARY KEY.",
        ),
    }
}

fn refused_constraint(constraint: &TableConstraint) -> PlanError {
    match constraint {
        TableConstraint::Unique(_) => PlanError::unsupported("UNIQUE", NO_UNIQUE),
        TableConstraint::ForeignKey(_) => PlanError::unsupported("FOREIGN KEY", NO_REFERENCES),
        TableConstraint::Check(_) => PlanError::unsupported("CHECK", NO_CHECK),
        other => PlanError::unsupported(
            format_args!("constraint {other}"),
            "Supported: PRIMARY KEY (columns).",
        ),
    }
}

/// Refuses clauses that a table of ours does not have.
fn refuse_clauses(table: &ast::CreateTable) -> Result<(), PlanError> {
    let clauses = [
        (
            table.or_replace,
            "CREATE OR REPLACE TABLE",
            "Drop the table first.",
        ),
        (
            table.temporary,
            "CREATE TEMPORARY TABLE",
            "Use a table and drop it, or a WITH clause.",
        ),
        (
            table.query.is_some(),
            "CREATE TABLE AS",
            "Use CREATE TABLE, then INSERT … SELECT.",
        ),
        (
            table.like.is_some() || table.clone.is_some(),
            "CREATE TABLE LIKE",
            "Name the columns.",
        ),
        (
            table.partition_by.is_some() || table.partition_of.is_some() || table.for_values.is_some(),
            "partitioning",
            "LOCALITY REGIONAL BY ROW places rows by region.",
        ),
        (table.inherits.is_some(), "INHERITS", "Use a view with UNION ALL."),
        (table.on_commit.is_some(), "ON COMMIT", "Leave it out."),
        (
            table.table_options != CreateTableOptions::None,
            "a storage option",
            "Leave it out.",
        ),
    ];
    for (given, what, alternative) in clauses {
        if given {
            return Err(PlanError::unsupported(what, alternative));
        }
    }
    // Whatever else a dialect knows would show in the printed form.
    let plain = ast::helpers::stmt_create_table::CreateTableBuilder::new(table.name.clone())
        .if_not_exists(table.if_not_exists)
        .columns(table.columns.clone())
        .constraints(table.constraints.clone())
        .build();
    if plain.to_string() != table.to_string() {
        return Err(PlanError::unsupported(
            "this form of CREATE TABLE",
            "Use CREATE TABLE name (columns) LOCALITY … WITH (…).",
        ));
    }
    if table.columns.is_empty() {
        return Err(PlanError::unsupported(
            "a table without columns",
            "Name at least one column.",
        ));
    }
    Ok(())
}
