//! The data of a COPY to columns.
//!
//! ```text
//!   input ─▶ fields (text.rs, csv.rs, binary.rs) ─▶ builders of columns (columns.rs)
//! ```
//! A field goes from the input to its column's builder as a slice; only one with escapes is copied in between. Errors
//! name the line and the column (`line 3, column a`); in binary data a row counts as a line.

mod binary;
mod columns;
mod csv;
#[cfg(test)]
mod tests;
mod text;

use datafusion::arrow::array::ArrayRef;
use tributary_planner::catalog::ColumnDef;
use tributary_planner::parse::{CopyFormat, CopyOptions};

use crate::error::SqlResult;
use crate::types::datetime::Zone;
use crate::types::input::utf8;
use columns::Columns;

/// What the data are: the columns of a table, and how they are written.
pub struct CopyData<'a> {
    /// The table's name, for errors.
    pub relation: &'a str,
    /// The columns, in the order of the data.
    pub columns: Vec<&'a ColumnDef>,
    /// How they are written.
    pub options: &'a CopyOptions,
    /// Where timestamps without a zone are read.
    pub zone: Zone,
}

impl CopyData<'_> {
    /// Reads a whole input: the columns, and the number of rows.
    ///
    /// # Errors
    /// Those of the first row that is wrong, with its place.
    pub fn read(&self, input: &[u8]) -> SqlResult<(Vec<ArrayRef>, usize)> {
        let mut columns = Columns::new(self);
        let read = match self.options.format {
            CopyFormat::Text => {
                valid_text(input).and_then(|input| text::read(input, self.options, &mut columns))
            }
            CopyFormat::Csv => {
                valid_text(input).and_then(|input| csv::read(input, self.options, &mut columns))
            }
            CopyFormat::Binary => binary::read(input, &mut columns),
        };
        read.map_err(|error| {
            let relation = self.relation;
            let place = match &error.context {
                Some(place) => format!("COPY {relation}, {place}"),
                None => format!("COPY {relation}"),
            };
            error.context(place)
        })?;
        Ok(columns.finish())
    }
}

/// Takes the fields of rows, from the first to the last.
trait Fields {
    /// A row begins, at this line.
    fn begin(&mut self, line: usize);

    /// The next field of the row as text; `None` is null. What is wrong with a value is told when the row ends.
    fn text(&mut self, field: Option<&str>);

    /// The row is complete.
    fn end(&mut self) -> SqlResult<()>;
}

/// The input as text; the error says in which line it is none.
fn valid_text(input: &[u8]) -> SqlResult<&str> {
    utf8(input).map_err(|error| {
        let valid = std::str::from_utf8(input)
            .err()
            .map_or(input.len(), |error| error.valid_up_to());
        let line = 1 + input[..valid].iter().filter(|byte| **byte == b'\n').count();
        error.context(format!("line {line}"))
    })
}
