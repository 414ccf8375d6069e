//! The columns of a COPY while they grow.

use datafusion::arrow::array::ArrayRef;
use tributary_planner::catalog::ColumnDef;
use tributary_planner::types::SqlType;

use super::{CopyData, Fields};
use crate::error::{SqlError, SqlResult};
use crate::sqlstate;
use crate::types::input::{ColumnBuilder, utf8};

/// The columns while they grow.
pub(super) struct Columns<'a> {
    relation: &'a str,
    columns: Vec<&'a ColumnDef>,
    builders: Vec<ColumnBuilder>,
    count: usize,
    line: usize,
    /// Fields of the row so far.
    fields: usize,
    /// What is wrong with the row. It is told at the row's end: that there are too many fields comes before.
    wrong: Option<SqlError>,
}

impl<'a> Columns<'a> {
    pub(super) fn new(data: &CopyData<'a>) -> Self {
        let builder = |column: &&ColumnDef| ColumnBuilder::new(column.sql_type, data.zone);
        Self {
            relation: data.relation,
            builders: data.columns.iter().map(builder).collect(),
            columns: data.columns.clone(),
            count: 0,
            line: 0,
            fields: 0,
            wrong: None,
        }
    }

    /// The columns and the number of rows.
    pub(super) fn finish(self) -> (Vec<ArrayRef>, usize) {
        (
            self.builders.into_iter().map(ColumnBuilder::finish).collect(),
            self.count,
        )
    }

    /// The number of columns of the data.
    pub(super) fn width(&self) -> usize {
        self.columns.len()
    }

    /// The next field of the row in the binary form; `None` is null.
    pub(super) fn binary(&mut self, field: Option<&[u8]>) -> SqlResult<()> {
        self.append(field, |builder, column, bytes| {
            if let SqlType::Varchar(Some(_)) = column.sql_type {
                check_length(column.sql_type, utf8(bytes)?)?;
            }
            builder.append_binary(bytes)
        });
        match self.wrong.take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// The place of the field after those appended, for a context.
    pub(super) fn place(&self) -> String {
        match self.columns.get(self.fields) {
            Some(column) => format!("line {}, column {}", self.line, column.name),
            None => format!("line {}", self.line),
        }
    }

    #[inline]
    fn append<T: ?Sized>(
        &mut self,
        field: Option<&T>,
        append: impl FnOnce(&mut ColumnBuilder, &ColumnDef, &T) -> SqlResult<()>,
    ) {
        let at = self.fields;
        if let (Some(builder), Some(column), None) =
            (self.builders.get_mut(at), self.columns.get(at), &self.wrong)
        {
            let appended = match field {
                Some(value) => append(builder, column, value),
                None if column.nullable => {
                    builder.append_null();
                    Ok(())
                }
                None => Err(missing(column, self.relation)),
            };
            if let Err(error) = appended {
                self.wrong = Some(error.context(self.place()));
            }
        }
        self.fields += 1;
    }
}

impl Fields for Columns<'_> {
    fn begin(&mut self, line: usize) {
        self.line = line;
        self.fields = 0;
    }

    #[inline]
    fn text(&mut self, field: Option<&str>) {
        self.append(field, |builder, column, text| {
            check_length(column.sql_type, text)?;
            builder.append_text(text)
        });
    }

    #[inline]
    fn end(&mut self) -> SqlResult<()> {
        if self.fields != self.columns.len() || self.wrong.is_some() {
            return Err(self.row_error());
        }
        self.count += 1;
        Ok(())
    }
}

impl Columns<'_> {
    #[cold]
    fn row_error(&mut self) -> SqlError {
        let bad = |message: String| {
            SqlError::new(sqlstate::BAD_COPY_FORMAT, message).context(format!("line {}", self.line))
        };
        if self.fields > self.columns.len() {
            return bad("extra data after last expected column".into());
        }
        if let Some(error) = self.wrong.take() {
            return error;
        }
        let name = &self.columns[self.fields].name;
        bad(format!("missing data for column \"{name}\""))
    }
}

#[cold]
fn missing(column: &ColumnDef, relation: &str) -> SqlError {
    let message = format!(
        "null value in column \"{}\" of relation \"{relation}\" violates not-null constraint",
        column.name
    );
    SqlError::new(sqlstate::NOT_NULL_VIOLATION, message)
}

#[inline]
fn check_length(sql_type: SqlType, text: &str) -> SqlResult<()> {
    match sql_type {
        // A text of at most `length` bytes has no more characters.
        SqlType::Varchar(Some(length))
            if text.len() > length as usize && text.chars().count() > length as usize =>
        {
            Err(SqlError::new(
                sqlstate::STRING_TRUNCATION,
                format!("value too long for type {sql_type}"),
            ))
        }
        _ => Ok(()),
    }
}
