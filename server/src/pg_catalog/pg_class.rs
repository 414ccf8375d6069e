//! `pg_class`: relations and the indexes of their keys.

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::error::Result;
use tributary_planner::catalog::ObjectKind;

use super::build::{Cell, Rows, texts};
use super::{Source, oids};
use crate::query::schema::PublicSchema;
use crate::system::TABLES;

pub(super) fn rows(source: &Source, schema: Option<SchemaRef>) -> Result<RecordBatch> {
    let mut rows = Rows::new(schema, &[("relacl", texts()), ("reloptions", texts())]);
    for object in source.relations() {
        let key = object.as_table().filter(|table| {
            table
                .primary_key
                .iter()
                .any(|&column| !table.columns[column].hidden)
        });
        let (kind, method) = match object.kind {
            ObjectKind::View(_) => ("v", 0),
            ObjectKind::MaterializedView(_) => ("m", 2),
            _ => ("r", 2),
        };
        let width = PublicSchema::visible_columns(object).fields().len() as i64;
        relation(
            &mut rows,
            oids::relation(object.id),
            &object.name,
            oids::PUBLIC,
            kind,
            method,
            width,
            key.is_some(),
        );
        if let Some(table) = key {
            let name = format!("{}_pkey", object.name);
            let width = table.primary_key.len() as i64;
            relation(
                &mut rows,
                oids::key(object.id),
                &name,
                oids::PUBLIC,
                "i",
                403,
                width,
                false,
            );
        }
    }
    for (place, table) in TABLES.iter().enumerate() {
        relation(
            &mut rows,
            oids::system(place),
            table.name,
            oids::TRIBUTARY,
            "r",
            2,
            table.columns.len() as i64,
            false,
        );
    }
    rows.finish()
}

#[allow(clippy::too_many_arguments)]
fn relation(
    rows: &mut Rows,
    oid: u32,
    name: &str,
    schema: u32,
    kind: &str,
    method: u32,
    width: i64,
    has_index: bool,
) {
    rows.push([
        ("oid", oid.into()),
        ("relname", name.into()),
        ("relnamespace", schema.into()),
        ("relowner", oids::ROLE.into()),
        ("relam", method.into()),
        ("relfilenode", oid.into()),
        ("relpages", Cell::Int(1)),
        ("reltuples", Cell::Int(-1)),
        ("relhasindex", has_index.into()),
        ("relpersistence", "p".into()),
        ("relkind", kind.into()),
        ("relnatts", width.into()),
        ("relispopulated", true.into()),
        ("relreplident", "d".into()),
    ]);
}
