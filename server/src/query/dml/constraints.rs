//! Constraints of single rows: NOT NULL and the length of varchar.

use datafusion::arrow::array::{Array, AsArray, RecordBatch};
use tributary_planner::catalog::TableDef;
use tributary_planner::types::SqlType;

use crate::pgwire::error::{SqlError, SqlResult};
use crate::pgwire::sqlstate;

/// Checks rows in the table's columns; the error names the first row that breaks a constraint.
pub fn check(table: &TableDef, relation: &str, rows: &RecordBatch) -> SqlResult<()> {
    for (index, column) in table.columns.iter().enumerate() {
        let values = rows.column(index);
        if !column.nullable && values.null_count() > 0 {
            return Err(SqlError::new(
                sqlstate::NOT_NULL_VIOLATION,
                format!(
                    "null value in column \"{}\" of relation \"{relation}\" violates not-null constraint",
                    column.name
                ),
            ));
        }
        if let SqlType::Varchar(Some(length)) = column.sql_type {
            let texts = values.as_string::<i32>();
            // A text of at most `length` bytes has no more characters.
            let is_long = |text: &str| text.len() > length as usize && text.chars().count() > length as usize;
            if texts.iter().flatten().any(is_long) {
                let message = format!("value too long for type {}", column.sql_type);
                return Err(SqlError::new(sqlstate::STRING_TRUNCATION, message)
                    .detail(format!("Column \"{}\".", column.name)));
            }
        }
    }
    Ok(())
}
