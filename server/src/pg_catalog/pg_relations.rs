//! `pg_tables`, `pg_views`, `pg_matviews` and `pg_roles`: the catalogs' views for people.

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::error::Result;
use tributary_planner::catalog::ObjectKind;

use super::build::{Cell, Rows};
use super::{Source, definitions, oids};

pub(super) fn tables(source: &Source, schema: Option<SchemaRef>) -> Result<RecordBatch> {
    let mut rows = Rows::new(schema, &[]);
    for object in source.relations().filter(|object| object.as_table().is_some()) {
        rows.push([
            ("schemaname", "public".into()),
            ("tablename", object.name.as_str().into()),
            ("tableowner", source.user.as_str().into()),
            (
                "hasindexes",
                (!definitions::key_columns(object).is_empty()).into(),
            ),
        ]);
    }
    rows.finish()
}

pub(super) fn views(source: &Source, schema: Option<SchemaRef>) -> Result<RecordBatch> {
    let mut rows = Rows::new(schema, &[("definition", DataType::Utf8)]);
    for object in source.relations() {
        let ObjectKind::View(view) = &object.kind else {
            continue;
        };
        rows.push([
            ("schemaname", "public".into()),
            ("viewname", object.name.as_str().into()),
            ("viewowner", source.user.as_str().into()),
            ("definition", view.sql.as_str().into()),
        ]);
    }
    rows.finish()
}

pub(super) fn matviews(source: &Source, schema: Option<SchemaRef>) -> Result<RecordBatch> {
    let mut rows = Rows::new(
        schema,
        &[("definition", DataType::Utf8), ("ispopulated", DataType::Boolean)],
    );
    for object in source.relations() {
        let ObjectKind::MaterializedView(view) = &object.kind else {
            continue;
        };
        let ready = source
            .snapshot
            .views
            .get(&object.id)
            .is_some_and(|view| view.missing.is_empty());
        rows.push([
            ("schemaname", "public".into()),
            ("matviewname", object.name.as_str().into()),
            ("matviewowner", source.user.as_str().into()),
            ("hasindexes", false.into()),
            ("ispopulated", ready.into()),
            ("definition", view.sql.as_str().into()),
        ]);
    }
    rows.finish()
}

pub(super) fn roles(source: &Source, schema: Option<SchemaRef>) -> Result<RecordBatch> {
    let mut rows = Rows::new(schema, &[]);
    rows.push([
        ("oid", oids::ROLE.into()),
        ("rolname", source.user.as_str().into()),
        ("rolsuper", true.into()),
        ("rolinherit", true.into()),
        ("rolcreaterole", true.into()),
        ("rolcreatedb", true.into()),
        ("rolcanlogin", true.into()),
        ("rolconnlimit", Cell::Int(-1)),
    ]);
    rows.finish()
}
