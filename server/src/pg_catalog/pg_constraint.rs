//! `pg_constraint`: primary keys.

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::error::Result;

use super::build::{Rows, small_integers};
use super::{Source, definitions, oids};

pub(super) fn rows(source: &Source, schema: Option<SchemaRef>) -> Result<RecordBatch> {
    let mut rows = Rows::new(
        schema,
        &[("conkey", small_integers()), ("confkey", small_integers())],
    );
    for object in source
        .relations()
        .filter(|object| !definitions::key_columns(object).is_empty())
    {
        rows.push([
            ("oid", oids::key(object.id).into()),
            ("conname", format!("{}_pkey", object.name).into()),
            ("connamespace", oids::PUBLIC.into()),
            ("contype", "p".into()),
            ("convalidated", true.into()),
            ("conrelid", oids::relation(object.id).into()),
            ("conindid", oids::key(object.id).into()),
            ("conkey", definitions::key_numbers(object)),
            ("conislocal", true.into()),
            ("connoinherit", true.into()),
        ]);
    }
    rows.finish()
}
