//! CREATE SOURCE … (columns) WITH (connector = 'file', …).
//!
//! The server has looked at the files where the statement was issued: it has written the columns into a statement
//! without, and the region that is to read. So nothing here needs a disk.

use std::collections::BTreeMap;

use super::create_source::{TAG, invalid, number};
use super::create_table::source_columns;
use super::{DdlPlan, new_object};
use crate::catalog::{
    Catalog, CatalogChange, FILE_CONNECTOR, ObjectKind, REGION_PLACEHOLDER, SourceDef, source_time,
};
use crate::error::PlanError;
use crate::parse::CreateSource;
use crate::types::SqlType;

const OPTIONS: &str =
    "path, format, order_by, rate, follow, region, paused, header, batch_rows and latency_ms";
const FORMATS: &str = "Use 'parquet', 'arrow', 'csv' or 'ndjson'.";

/// A name that the planner has checked to be free.
pub(super) fn plan(create: &CreateSource, catalog: &Catalog) -> Result<DdlPlan, PlanError> {
    let mut options = BTreeMap::new();
    for (name, value) in &create.options {
        let value = match name.as_str() {
            "connector" => continue,
            "path" | "order_by" => value.clone(),
            "format" => value.to_lowercase(),
            "rate" | "batch_rows" | "latency_ms" => number(name, value, 1)?,
            "follow" | "paused" | "header" => switch(name, value)?,
            "region" if catalog.region_named(value).is_some() => value.clone(),
            "region" => {
                return Err(invalid(format!(
                    "region \"{value}\" in option \"region\" does not exist"
                )));
            }
            _ => {
                return Err(invalid(format!("option \"{name}\" not recognized"))
                    .with_hint(format!("The options of a file source are: {OPTIONS}.")));
            }
        };
        options.insert(name.clone(), value);
    }
    let path = options
        .get("path")
        .ok_or_else(|| invalid("option \"path\" is missing").with_hint("Use path = '/dir/*.parquet'."))?;
    let everywhere = path.contains(REGION_PLACEHOLDER);
    if everywhere && options.contains_key("region") {
        return Err(invalid(
            "option \"region\" and {region} in option \"path\" exclude each other",
        ));
    }
    if !everywhere && !options.contains_key("region") {
        return Err(invalid("option \"region\" is missing"));
    }
    let format = options
        .get("format")
        .ok_or_else(|| invalid("option \"format\" is missing").with_hint(FORMATS))?;
    let columns = create.columns.as_deref().ok_or_else(|| {
        invalid(format!("a source in format {format} needs a column list"))
            .with_hint("Write CREATE SOURCE name (column type, …) WITH (…).")
    })?;
    let mut columns = source_columns(columns)?;
    if columns.is_empty() {
        return Err(invalid("a source needs at least one column"));
    }
    check_format(
        format,
        columns
            .iter()
            .map(|column| (column.name.as_str(), column.sql_type)),
        "Declare it as text and convert it in a view, or leave it out.",
    )?;
    if options.contains_key("header") && format != "csv" {
        return Err(invalid("option \"header\" is for format = 'csv'"));
    }
    if let Some(order) = options.get("order_by")
        && !columns.iter().any(|column| column.name == *order)
    {
        return Err(invalid(format!(
            "column \"{order}\" in option \"order_by\" does not exist"
        )));
    }
    columns.push(source_time());
    let source = SourceDef {
        connector: FILE_CONNECTOR.to_owned(),
        options,
        tables: Vec::new(),
        base_time_ms: 0,
        columns,
    };
    let object = new_object(catalog, 0, &create.name, ObjectKind::Source(source))?;
    Ok(DdlPlan {
        changes: vec![CatalogChange::Create(object)],
        notices: Vec::new(),
        tag: TAG.to_owned(),
    })
}

fn switch(name: &str, value: &str) -> Result<String, PlanError> {
    match value.to_lowercase().as_str() {
        "true" | "on" => Ok("true".to_owned()),
        "false" | "off" => Ok("false".to_owned()),
        _ => Err(invalid(format!(
            "option \"{name}\" must be true or false, not \"{value}\""
        ))),
    }
}

/// Refuses formats that are unknown, and columns that a format cannot hold.
pub(super) fn check_format<'a>(
    format: &str,
    mut columns: impl Iterator<Item = (&'a str, SqlType)>,
    hint: &str,
) -> Result<(), PlanError> {
    let holds: fn(SqlType) -> bool = match format {
        "arrow" => |_| true,
        "parquet" => |sql_type| sql_type != SqlType::Interval,
        "csv" | "ndjson" => {
            |sql_type| !matches!(sql_type, SqlType::Interval | SqlType::Bytea | SqlType::Uuid)
        }
        _ => {
            return Err(PlanError::unsupported(
                format_args!("format \"{format}\""),
                FORMATS,
            ));
        }
    };
    match columns.find(|(_, sql_type)| !holds(*sql_type)) {
        None => Ok(()),
        Some((name, sql_type)) => Err(PlanError::unsupported(
            format_args!("column \"{name}\" of type {sql_type} in format {format}"),
            hint,
        )),
    }
}
