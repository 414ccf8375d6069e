//! From lines of fields to rows of the table.

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use tributary_planner::catalog::{Object, TableDef};
use tributary_planner::dml::{copy_columns, writable_table};
use tributary_planner::parse::{CopyOptions, CopyStatement};
use tributary_region::Snapshot;
use tributary_storage::ObjectId;

use super::{Line, parse};
use crate::pgwire::error::{SqlError, SqlResult};
use crate::pgwire::sqlstate;
use crate::pgwire::types::datetime::Zone;
use crate::pgwire::types::input::ColumnBuilder;
use crate::query::dml::complete_rows;

/// Where the rows of a COPY go.
#[derive(Clone)]
pub struct CopyTarget {
    /// The table.
    pub table: ObjectId,
    object: Arc<Object>,
    columns: Vec<usize>,
    options: CopyOptions,
}

impl CopyTarget {
    /// Resolves the table and the columns of a COPY.
    pub fn bind(copy: &CopyStatement, snapshot: &Snapshot) -> SqlResult<Self> {
        let (object, table) = writable_table(&snapshot.catalog, &copy.table)?;
        let columns = copy_columns(table, &object.name, &copy.columns)?;
        Ok(Self {
            table: object.id,
            object: Arc::new(object.clone()),
            columns,
            options: copy.options.clone(),
        })
    }

    /// The number of columns in the data.
    pub fn width(&self) -> usize {
        self.columns.len()
    }

    fn def(&self) -> &TableDef {
        self.object.as_table().expect("a COPY target is a table")
    }
}

/// Reads the whole input as rows with all columns of the table; defaults for columns not in the data.
pub fn rows(target: &CopyTarget, input: &[u8], zone: Zone, started_ns: i64) -> SqlResult<RecordBatch> {
    let def = target.def();
    let name = &target.object.name;
    let types: Vec<_> = target
        .columns
        .iter()
        .map(|&column| def.columns[column].sql_type)
        .collect();
    let mut builders: Vec<ColumnBuilder> = types
        .iter()
        .map(|sql_type| ColumnBuilder::new(*sql_type, zone))
        .collect();
    let mut count = 0;
    let parsed = parse(input, &target.options, |line| {
        take_line(target, &mut builders, &line)?;
        count += 1;
        Ok(())
    });
    parsed.map_err(|error| {
        let place = error
            .context
            .clone()
            .map_or_else(|| format!("COPY {name}"), |place| format!("COPY {name}, {place}"));
        error.context(place)
    })?;
    let arrays: Vec<_> = builders.into_iter().map(ColumnBuilder::finish).collect();
    complete_rows(def, &target.columns, &arrays, count, started_ns)
}

fn take_line(target: &CopyTarget, builders: &mut [ColumnBuilder], line: &Line) -> SqlResult<()> {
    let def = target.def();
    let at = |column: usize| format!("line {}, column {}", line.number, def.columns[column].name);
    let bad = |message: String| SqlError::new(sqlstate::BAD_COPY_FORMAT, message);
    if let Some(missing) = target.columns.get(line.fields.len()) {
        let name = &def.columns[*missing].name;
        return Err(
            bad(format!("missing data for column \"{name}\"")).context(format!("line {}", line.number))
        );
    }
    if line.fields.len() > target.columns.len() {
        return Err(
            bad("extra data after last expected column".into()).context(format!("line {}", line.number))
        );
    }
    for ((builder, &column), field) in builders.iter_mut().zip(&target.columns).zip(&line.fields) {
        let definition = &def.columns[column];
        match field {
            Some(text) => {
                check_length(definition.sql_type, text).map_err(|error| error.context(at(column)))?;
                builder
                    .append_text(text)
                    .map_err(|error| error.context(at(column)))?;
            }
            None if definition.nullable => builder.append_null(),
            None => {
                let message = format!(
                    "null value in column \"{}\" of relation \"{}\" violates not-null constraint",
                    definition.name, target.object.name
                );
                return Err(SqlError::new(sqlstate::NOT_NULL_VIOLATION, message).context(at(column)));
            }
        }
    }
    Ok(())
}

fn check_length(sql_type: tributary_planner::types::SqlType, text: &str) -> SqlResult<()> {
    match sql_type {
        tributary_planner::types::SqlType::Varchar(Some(length))
            if text.chars().count() > length as usize =>
        {
            Err(SqlError::new(
                sqlstate::STRING_TRUNCATION,
                format!("value too long for type {sql_type}"),
            ))
        }
        _ => Ok(()),
    }
}
