//! `pg_database`: the one database.

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::error::Result;

use super::build::{Cell, Rows, texts};
use super::{Source, oids};
use crate::query::facts::DATABASE;

pub(super) fn rows(_source: &Source, schema: Option<SchemaRef>) -> Result<RecordBatch> {
    let mut rows = Rows::new(
        schema,
        &[
            ("daticulocale", DataType::Utf8),
            ("datlocprovider", DataType::Utf8),
            ("datacl", texts()),
        ],
    );
    rows.push([
        ("oid", oids::DATABASE.into()),
        ("datname", DATABASE.into()),
        ("datdba", oids::ROLE.into()),
        ("encoding", Cell::Int(6)),
        ("datcollate", "C".into()),
        ("datctype", "C".into()),
        ("datlocprovider", "c".into()),
        ("datallowconn", true.into()),
        ("datconnlimit", Cell::Int(-1)),
        ("dattablespace", Cell::Int(1663)),
    ]);
    rows.finish()
}
