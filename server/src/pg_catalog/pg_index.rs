//! `pg_index`: the indexes of primary keys.

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::error::Result;

use super::build::{Cell, Rows, small_integers};
use super::{Source, definitions, oids};

pub(super) fn rows(source: &Source, schema: Option<SchemaRef>) -> Result<RecordBatch> {
    let mut rows = Rows::new(
        schema,
        &[("indkey", small_integers()), ("indoption", small_integers())],
    );
    for object in source.relations() {
        let width = definitions::key_columns(object).len() as i64;
        if width == 0 {
            continue;
        }
        rows.push([
            ("indexrelid", oids::key(object.id).into()),
            ("indrelid", oids::relation(object.id).into()),
            ("indnatts", Cell::Int(width)),
            ("indnkeyatts", Cell::Int(width)),
            ("indisunique", true.into()),
            ("indisprimary", true.into()),
            ("indimmediate", true.into()),
            ("indisvalid", true.into()),
            ("indisready", true.into()),
            ("indislive", true.into()),
            ("indkey", definitions::key_numbers(object)),
            ("indoption", Cell::Ints(vec![0; width as usize])),
        ]);
    }
    rows.finish()
}
