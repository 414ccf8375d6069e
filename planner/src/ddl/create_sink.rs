//! CREATE SINK … FROM view WITH (connector = 'file' | 'blackhole', …).
//!
//! The options are checked and completed here, so that the catalog says everything that a region needs for writing.
//! Whether a directory can be written to is found out by each region and shown in `tributary.sinks`.

use std::collections::BTreeMap;

use super::create_file_source::check_format;
use super::create_source::{invalid, number};
use super::{DdlPlan, check_name, new_object};
use crate::catalog::{
    BLACKHOLE_CONNECTOR, Catalog, CatalogChange, FILE_CONNECTOR, ObjectKind, SINK_INTERVAL_MS_DEFAULT,
    SINK_OP, SINK_POSITION, SinkDef, ViewColumn,
};
use crate::error::{PlanError, PlanErrorKind};
use crate::parse::CreateSink;

const TAG: &str = "CREATE SINK";
const CONNECTORS: &str = "Use connector = 'file' or connector = 'blackhole'.";
const FORMATS: &str = "Use 'ndjson', 'csv' or 'parquet'.";

pub(super) fn plan(create: &CreateSink, catalog: &Catalog) -> Result<DdlPlan, PlanError> {
    if let Some(notice) = check_name(catalog, &create.name, create.if_not_exists)? {
        return Ok(DdlPlan::unchanged(TAG, notice));
    }
    let object = catalog
        .object(&create.from)
        .ok_or_else(|| PlanError::undefined_table(&create.from))?;
    let ObjectKind::MaterializedView(view) = &object.kind else {
        let message = format!(
            "\"{}\" is a {} and not a materialized view",
            object.name,
            object.kind_name()
        );
        return Err(
            PlanError::new(PlanErrorKind::WrongObjectType, message).with_hint(format!(
                "A sink writes the changes of a materialized view: CREATE MATERIALIZED VIEW … AS SELECT … FROM {}.",
                object.name
            )),
        );
    };
    let mut given = create.options.clone();
    let connector = given
        .remove("connector")
        .ok_or_else(|| invalid("option \"connector\" is missing").with_hint(CONNECTORS))?;
    let is_file = match connector.as_str() {
        FILE_CONNECTOR => true,
        BLACKHOLE_CONNECTOR => false,
        other => {
            return Err(PlanError::unsupported(
                format_args!("connector \"{other}\""),
                CONNECTORS,
            ));
        }
    };
    let options = complete(given, is_file, catalog)?;
    if let Some(format) = options.get("format") {
        check_columns(format, &view.columns)?;
    }
    let sink = SinkDef {
        connector,
        options,
        view: object.id,
    };
    let object = new_object(catalog, 0, &create.name, ObjectKind::Sink(sink))?;
    Ok(DdlPlan {
        changes: vec![CatalogChange::Create(object)],
        notices: Vec::new(),
        tag: TAG.to_owned(),
    })
}

/// The options with defaults: `path` and `format` of files, `interval_ms`, `region` (absent: every region writes).
fn complete(
    given: BTreeMap<String, String>,
    is_file: bool,
    catalog: &Catalog,
) -> Result<BTreeMap<String, String>, PlanError> {
    let mut options = BTreeMap::new();
    options.insert("interval_ms".to_owned(), SINK_INTERVAL_MS_DEFAULT.to_string());
    for (name, value) in given {
        let value = match name.as_str() {
            "path" if is_file => value,
            "format" if is_file => value.to_lowercase(),
            "interval_ms" => number(&name, &value, 1)?,
            "region" if catalog.region_named(&value).is_some() => value,
            "region" => {
                return Err(invalid(format!(
                    "region \"{value}\" in option \"region\" does not exist"
                )));
            }
            _ => {
                let known = match is_file {
                    true => "The options of a file sink are: path, format, interval_ms and region.",
                    false => "The options of a blackhole sink are: interval_ms and region.",
                };
                return Err(invalid(format!("option \"{name}\" not recognized")).with_hint(known));
            }
        };
        options.insert(name, value);
    }
    if !is_file {
        return Ok(options);
    }
    let path = options
        .get("path")
        .ok_or_else(|| invalid("option \"path\" is missing").with_hint("Use path = '/directory'."))?;
    if !path.starts_with('/') {
        return Err(invalid(format!(
            "option \"path\" must be an absolute path, not \"{path}\""
        ))
        .with_hint("Name a directory that exists in every region that writes: path = '/directory'."));
    }
    if !options.contains_key("format") {
        return Err(invalid("option \"format\" is missing").with_hint(FORMATS));
    }
    Ok(options)
}

fn check_columns(format: &str, columns: &[ViewColumn]) -> Result<(), PlanError> {
    if !matches!(format, "ndjson" | "csv" | "parquet") {
        return Err(PlanError::unsupported(
            format_args!("format \"{format}\""),
            FORMATS,
        ));
    }
    for own in [SINK_OP, SINK_POSITION] {
        if columns.iter().any(|column| column.name == own) {
            return Err(invalid(format!(
                "the view has a column \"{own}\", which a sink adds itself"
            ))
            .with_hint("Give the view's column another name with AS."));
        }
    }
    check_format(
        format,
        columns
            .iter()
            .map(|column| (column.name.as_str(), column.sql_type)),
        "Convert it to text in the view, or leave it out.",
    )
}
