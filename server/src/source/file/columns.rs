//! From the columns of a file to those of a source, by name. Nothing is converted that could lose anything: only
//! other layouts of the same values (views, large offsets, dictionaries, coarser units of time) are taken.

use std::path::Path;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Schema, SchemaRef, TimeUnit};
use tributary_planner::types::SqlType;

use super::in_file;

/// Where each column of a source is found in a file.
pub struct Mapping {
    target: SchemaRef,
    /// Per column of the source, the number of the file's column.
    sources: Vec<usize>,
}

impl Mapping {
    /// Finds the source's columns in a file.
    pub fn of(path: &Path, file: &Schema, target: &SchemaRef) -> Result<Mapping, String> {
        let mut sources = Vec::new();
        for column in target.fields() {
            let name = column.name();
            let exact = file.fields().iter().position(|field| field.name() == name);
            let folded = || {
                file.fields()
                    .iter()
                    .position(|field| field.name().eq_ignore_ascii_case(name))
            };
            let index = exact
                .or_else(folded)
                .ok_or_else(|| in_file(path, format_args!("there is no column \"{name}\"")))?;
            let found = file.field(index).data_type();
            if !is_same_value(found, column.data_type()) {
                return Err(in_file(
                    path,
                    format_args!(
                        "column \"{name}\" is of type {found}, the source has {}",
                        column.data_type()
                    ),
                ));
            }
            sources.push(index);
        }
        Ok(Mapping {
            target: target.clone(),
            sources,
        })
    }

    /// The file's columns that are needed, in the file's order.
    pub fn needed(&self) -> Vec<usize> {
        let mut needed = self.sources.clone();
        needed.sort_unstable();
        needed.dedup();
        needed
    }

    /// A batch of the needed columns, as the source has them.
    pub fn apply(&self, batch: &RecordBatch) -> Result<RecordBatch, String> {
        let needed = self.needed();
        let options = CastOptions {
            safe: false,
            ..CastOptions::default()
        };
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.sources.len());
        for (source, field) in self.sources.iter().zip(self.target.fields()) {
            let at = needed
                .binary_search(source)
                .expect("needed has every source column");
            let column = batch.column(at);
            columns.push(if column.data_type() == field.data_type() {
                column.clone()
            } else {
                cast_with_options(column, field.data_type(), &options).map_err(|error| error.to_string())?
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(self.target.clone(), columns, &options)
            .map_err(|error| error.to_string())
    }
}

/// Whether values of one type are values of the other in another layout.
fn is_same_value(from: &DataType, to: &DataType) -> bool {
    use DataType::{Binary, BinaryView, Dictionary, LargeBinary, LargeUtf8, Timestamp, Utf8, Utf8View};
    match (from, to) {
        _ if from == to => true,
        (Utf8View | LargeUtf8, Utf8) | (BinaryView | LargeBinary, Binary) => true,
        (Dictionary(_, values), Utf8) => is_same_value(values, to),
        (Timestamp(unit, from_zone), Timestamp(TimeUnit::Microsecond, to_zone)) => {
            *unit != TimeUnit::Nanosecond && from_zone.is_some() == to_zone.is_some()
        }
        _ => false,
    }
}

/// A column list for the columns of a file.
pub fn column_list(path: &Path, file: &Schema) -> Result<String, String> {
    let mut list = Vec::new();
    for field in file.fields() {
        let found = field.data_type();
        let sql_type = SqlType::from_arrow(match found {
            DataType::Dictionary(_, values) => values,
            other => other,
        })
        .filter(|sql_type| is_same_value(found, &sql_type.arrow()))
        .ok_or_else(|| {
            in_file(
                path,
                format_args!(
                    "column \"{}\" is of type {found}, which no SQL type holds unchanged",
                    field.name()
                ),
            )
        })?;
        list.push(format!(
            "{} {sql_type}",
            tributary_planner::parse::quote(field.name())
        ));
    }
    Ok(list.join(", "))
}
