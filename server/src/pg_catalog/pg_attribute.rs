//! `pg_attribute`: columns of relations, with their SQL types.

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::error::Result;
use tributary_planner::catalog::{Object, ObjectKind};
use tributary_planner::types::SqlType;

use super::build::{Cell, Rows};
use super::{Source, oids};
use crate::system::TABLES;

/// A column as the catalogs show it.
pub(super) struct Attribute {
    pub(super) name: String,
    pub(super) sql_type: SqlType,
    pub(super) nullable: bool,
    pub(super) default: Option<String>,
}

/// The visible columns of a relation in order; a column's number is its place, from 1.
pub(super) fn of(object: &Object) -> Vec<Attribute> {
    match &object.kind {
        ObjectKind::Table(table) => table
            .visible()
            .map(|index| &table.columns[index])
            .map(|column| Attribute {
                name: column.name.clone(),
                sql_type: column.sql_type,
                nullable: column.nullable,
                default: column
                    .default
                    .as_ref()
                    .map(|default| default.to_sql(column.sql_type)),
            })
            .collect(),
        ObjectKind::View(view) => view.columns.iter().map(plain).collect(),
        ObjectKind::MaterializedView(view) => view.columns.iter().map(plain).collect(),
        ObjectKind::Source(_) | ObjectKind::Sink(_) => Vec::new(),
    }
}

fn plain(column: &tributary_planner::catalog::ViewColumn) -> Attribute {
    Attribute {
        name: column.name.clone(),
        sql_type: column.sql_type,
        nullable: true,
        default: None,
    }
}

pub(super) fn rows(source: &Source, schema: Option<SchemaRef>) -> Result<RecordBatch> {
    let mut rows = Rows::new(schema, &[]);
    for object in source.relations() {
        push(&mut rows, oids::relation(object.id), of(object));
        let Some(table) = object.as_table() else { continue };
        let key = table
            .primary_key
            .iter()
            .map(|&column| &table.columns[column])
            .filter(|column| !column.hidden);
        let key = key.map(|column| Attribute {
            name: column.name.clone(),
            sql_type: column.sql_type,
            nullable: true,
            default: None,
        });
        push(&mut rows, oids::key(object.id), key.collect());
    }
    for (place, table) in TABLES.iter().enumerate() {
        let columns = table.columns.iter().map(|(name, sql_type)| Attribute {
            name: (*name).to_string(),
            sql_type: *sql_type,
            nullable: true,
            default: None,
        });
        push(&mut rows, oids::system(place), columns.collect());
    }
    rows.finish()
}

fn push(rows: &mut Rows, relation: u32, columns: Vec<Attribute>) {
    for (index, column) in columns.into_iter().enumerate() {
        rows.push([
            ("attrelid", relation.into()),
            ("attname", column.name.into()),
            ("atttypid", column.sql_type.oid().into()),
            ("attlen", i64::from(column.sql_type.length()).into()),
            ("attnum", Cell::Int(index as i64 + 1)),
            ("atttypmod", i64::from(column.sql_type.typmod()).into()),
            ("attnotnull", (!column.nullable).into()),
            ("atthasdef", column.default.is_some().into()),
            ("attidentity", "".into()),
            ("attgenerated", "".into()),
            ("attislocal", true.into()),
            (
                "attstorage",
                if column.sql_type.length() < 0 { "x" } else { "p" }.into(),
            ),
            ("attalign", "i".into()),
            ("attcompression", "".into()),
            ("attstattarget", Cell::Int(-1)),
        ]);
    }
}
