//! `pg_settings`: the session's settings.

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::error::Result;

use super::Source;
use super::build::Rows;

pub(super) fn rows(source: &Source, schema: Option<SchemaRef>) -> Result<RecordBatch> {
    let more = ["source", "boot_val", "reset_val", "short_desc"].map(|name| (name, DataType::Utf8));
    let mut rows = Rows::new(schema, &more);
    for setting in source.settings.all() {
        let origin = if setting.value == setting.default {
            "default"
        } else {
            "session"
        };
        rows.push([
            ("name", setting.name.into()),
            ("setting", setting.value.into()),
            ("short_desc", setting.description.into()),
            ("context", "user".into()),
            ("vartype", "string".into()),
            ("source", origin.into()),
            ("boot_val", setting.default.into()),
            ("reset_val", setting.default.into()),
        ]);
    }
    rows.finish()
}
