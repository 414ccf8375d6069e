//! Where the rows of a COPY go, and the rows that came.

use std::sync::Arc;

use datafusion::arrow::array::ArrayRef;
use tributary_planner::catalog::{Catalog, Object, TableDef};
use tributary_planner::dml::{copy_columns, writable_table};
use tributary_planner::parse::{CopyFormat, CopyOptions, CopyStatement};
use tributary_region::Snapshot;
use tributary_storage::ObjectId;
use tributary_wire::copy::CopyData;

use crate::far::forward::home_elsewhere;
use crate::pgwire::error::SqlResult;
use crate::pgwire::types::datetime::Zone;
use crate::query::dml::GivenRows;

/// Where the rows of a COPY go.
#[derive(Clone)]
pub struct CopyTarget {
    /// The table.
    pub table: ObjectId,
    object: Arc<Object>,
    columns: Vec<usize>,
    options: CopyOptions,
    /// The statement.
    text: String,
}

impl CopyTarget {
    /// Resolves the table and the columns of a COPY with this text.
    pub fn bind(copy: &CopyStatement, text: &str, snapshot: &Snapshot) -> SqlResult<Self> {
        let (object, table) = writable_table(&snapshot.catalog, &copy.table)?;
        let columns = copy_columns(table, &object.name, &copy.columns)?;
        Ok(Self {
            table: object.id,
            object: Arc::new(object.clone()),
            columns,
            options: copy.options.clone(),
            text: text.to_owned(),
        })
    }

    /// The region that the table lives in, if it is another than this one.
    pub fn other_region(&self, catalog: &Catalog, own: &str) -> SqlResult<Option<String>> {
        home_elsewhere(self.def(), catalog, own)
    }

    /// The statement.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The number of columns in the data.
    pub fn width(&self) -> usize {
        self.columns.len()
    }

    /// Whether the data are in the binary format.
    pub fn is_binary(&self) -> bool {
        self.options.format == CopyFormat::Binary
    }

    /// Reads the whole input.
    ///
    /// # Errors
    /// Those of the first row that is wrong, with its place.
    pub fn read(&self, input: &[u8], zone: Zone) -> SqlResult<CopyRows<'_>> {
        let def = self.def();
        let data = CopyData {
            relation: &self.object.name,
            columns: self.columns.iter().map(|&column| &def.columns[column]).collect(),
            options: &self.options,
            zone,
        };
        let (values, count) = data.read(input)?;
        Ok(CopyRows {
            columns: &self.columns,
            values,
            count,
        })
    }

    fn def(&self) -> &TableDef {
        self.object.as_table().expect("a COPY target is a table")
    }
}

/// The rows of a whole input, in the columns that the COPY names.
pub struct CopyRows<'a> {
    columns: &'a [usize],
    values: Vec<ArrayRef>,
    /// The number of rows.
    pub count: usize,
}

impl CopyRows<'_> {
    /// The rows, for the table.
    pub fn given(&self) -> GivenRows<'_> {
        GivenRows {
            columns: self.columns.into(),
            values: &self.values,
            count: self.count,
        }
    }
}
