//! What a CREATE SOURCE leaves out and only the region in which it was issued can know: its own name, and the
//! columns that the files have. The statement is completed as text, before it goes to the primary.

use tributary_planner::catalog::{FILE_CONNECTOR, REGION_PLACEHOLDER};
use tributary_planner::error::{PlanError, PlanErrorKind};
use tributary_planner::parse::{self, CreateSource, Statement};

use super::columns::column_list;
use super::listing::list;
use super::{Format, arrow, parquet};

/// The statement with everything in it. Blocking: it may look at a file.
///
/// # Errors
/// Files that are not there or cannot be read, and columns whose types SQL does not have.
pub fn complete(sql: String, region: &str) -> Result<String, PlanError> {
    // What cannot be read is the planner's to refuse.
    let Ok(mut parsed) = parse::parse(&sql) else {
        return Ok(sql);
    };
    match (parsed.pop().map(|parsed| parsed.statement), parsed.is_empty()) {
        (Some(Statement::CreateSource(create)), true)
            if create.options.get("connector").map(String::as_str) == Some(FILE_CONNECTOR) =>
        {
            completed(create, region).map(|create| create.to_sql())
        }
        _ => Ok(sql),
    }
}

fn completed(mut create: CreateSource, region: &str) -> Result<CreateSource, PlanError> {
    let Some(path) = create.options.get("path").cloned() else {
        return Ok(create);
    };
    if !path.contains(REGION_PLACEHOLDER) {
        create
            .options
            .entry("region".to_owned())
            .or_insert_with(|| region.to_owned());
    }
    let format = create
        .options
        .get("format")
        .and_then(|format| Format::named(&format.to_lowercase()));
    let (None, Some(format @ (Format::Parquet | Format::Arrow))) = (&create.columns, format) else {
        return Ok(create);
    };
    let pattern = path.replace(REGION_PLACEHOLDER, region);
    let refused = |reason: String| {
        PlanError::new(PlanErrorKind::InvalidDefinition, reason)
            .with_hint("Write the columns: CREATE SOURCE name (column type, …) WITH (…).")
    };
    let files = list(&pattern).map_err(refused)?;
    let first = files
        .first()
        .ok_or_else(|| refused(format!("no file in region \"{region}\" has the path {pattern}")))?;
    let schema = match format {
        Format::Parquet => parquet::schema(first),
        _ => arrow::schema(first),
    };
    let columns = schema
        .and_then(|schema| column_list(first, &schema))
        .map_err(refused)?;
    create.columns = Some(columns);
    Ok(create)
}
