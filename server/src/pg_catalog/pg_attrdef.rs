//! `pg_attrdef`: defaults of columns. `adbin` holds the SQL text, which `pg_get_expr` gives back.

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::error::Result;

use super::build::{Cell, Rows};
use super::{Source, oids, pg_attribute};

pub(super) fn rows(source: &Source, schema: Option<SchemaRef>) -> Result<RecordBatch> {
    let mut rows = Rows::new(schema, &[("adbin", DataType::Utf8)]);
    for object in source.relations() {
        for (index, column) in pg_attribute::of(object).into_iter().enumerate() {
            let Some(default) = column.default else { continue };
            let oid = oids::relation(object.id)
                .wrapping_mul(31)
                .wrapping_add(index as u32)
                & 0x3fff_ffff;
            rows.push([
                ("oid", oid.into()),
                ("adrelid", oids::relation(object.id).into()),
                ("adnum", Cell::Int(index as i64 + 1)),
                ("adbin", default.into()),
            ]);
        }
    }
    rows.finish()
}
