//! `pg_namespace`: schemas.

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::error::Result;

use super::build::{Rows, texts};
use super::{Source, oids};

pub(super) fn rows(_source: &Source, schema: Option<SchemaRef>) -> Result<RecordBatch> {
    let mut rows = Rows::new(schema, &[("nspacl", texts())]);
    let schemas = [
        (oids::PG_CATALOG, "pg_catalog"),
        (oids::PUBLIC, "public"),
        (oids::INFORMATION_SCHEMA, "information_schema"),
        (oids::TRIBUTARY, "tributary"),
    ];
    for (oid, name) in schemas {
        rows.push([
            ("oid", oid.into()),
            ("nspname", name.into()),
            ("nspowner", oids::ROLE.into()),
        ]);
    }
    rows.finish()
}
