//! Prepared `INSERT INTO t (…) VALUES ($1, …)`: the parameters are the rows.
//!
//! Such a statement needs no query: values are read straight into columns of the table. That holds when each value is a
//! parameter of its own, of its column's very type; everything else goes the way of all statements. Rows of several
//! executions can be collected and inserted at once, see `pgwire/pipeline.rs`.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use datafusion::arrow::array::ArrayRef;
use datafusion::sql::sqlparser::ast::{Expr, SetExpr, Value};
use tributary_planner::catalog::{Catalog, TableLocality};
use tributary_planner::dml::{BoundDml, bind_dml};
use tributary_planner::parse::Statement;
use tributary_planner::types::SqlType;
use tributary_storage::ObjectId;

use super::statement::{dml::read_only, load};
use super::{Scope, Session};
use crate::pgwire::error::{SqlError, SqlResult};
use crate::pgwire::types::datetime::Zone;
use crate::pgwire::types::input::{ColumnBuilder, utf8};
use crate::query::dml::GivenRows;

/// What of a prepared INSERT is known without a catalog.
#[derive(Debug)]
pub struct PlainInsert {
    /// Of each value of each row in turn, the number of its parameter, from 0.
    parameters: Vec<usize>,
    /// Values of a row.
    width: usize,
    /// Where the rows go, by the last catalog that was asked.
    bound: Mutex<Option<Arc<Bound>>>,
}

/// Where the rows go by one catalog.
#[derive(Debug)]
struct Bound {
    catalog_version: u64,
    /// `None`: the statement is not plain by this catalog.
    target: Option<(ObjectId, Vec<usize>)>,
}

/// Values of parameters, read.
pub struct PlainRows {
    zone: Zone,
    builders: Vec<ColumnBuilder>,
    /// The number of rows.
    pub count: usize,
}

impl PlainInsert {
    /// The statement as a plain INSERT, if it is one.
    pub fn of(statement: &Statement, parameters: usize) -> Option<Self> {
        let Statement::Insert(insert) = statement else {
            return None;
        };
        if insert.on.is_some() || insert.returning.is_some() {
            return None;
        }
        let query = insert.source.as_ref()?;
        let is_bare = query.with.is_none()
            && query.order_by.is_none()
            && query.limit_clause.is_none()
            && query.fetch.is_none()
            && query.locks.is_empty();
        let SetExpr::Values(values) = query.body.as_ref() else {
            return None;
        };
        let width = values.rows.first()?.content.len();
        let mut numbers = Vec::new();
        for row in &values.rows {
            if row.content.len() != width {
                return None;
            }
            for value in &row.content {
                numbers.push(parameter(value)?);
            }
        }
        let mut seen = vec![false; parameters];
        let is_new = |number: &usize| {
            seen.get_mut(*number)
                .is_some_and(|seen| !std::mem::replace(seen, true))
        };
        (is_bare && width > 0 && numbers.len() == parameters && numbers.iter().all(is_new)).then_some(Self {
            parameters: numbers,
            width,
            bound: Mutex::default(),
        })
    }

    /// Reads the values of one execution.
    ///
    /// # Errors
    /// Those of the first value that is wrong; the rows are of no use then.
    pub fn read(
        &self,
        types: &[SqlType],
        values: &[Option<Bytes>],
        formats: &[i16],
        rows: &mut PlainRows,
    ) -> SqlResult<()> {
        for (at, &number) in self.parameters.iter().enumerate() {
            let is_first_row = rows.count == 0 && at < self.width;
            if is_first_row {
                rows.builders.push(ColumnBuilder::new(types[number], rows.zone));
            }
            let builder = &mut rows.builders[at % self.width];
            let format = formats.get(if formats.len() == 1 { 0 } else { number });
            let read = match &values[number] {
                None => {
                    builder.append_null();
                    Ok(())
                }
                Some(bytes) if format == Some(&1) => builder.append_binary(bytes),
                Some(bytes) => utf8(bytes).and_then(|text| builder.append_text(text)),
            };
            read.map_err(|error| error.context(format!("parameter ${}", number + 1)))?;
        }
        rows.count += self.parameters.len() / self.width;
        Ok(())
    }

    /// The table and its columns that the rows go to; `None` when the statement is not plain by this catalog.
    fn bind(&self, statement: &Statement, types: &[SqlType], catalog: &Catalog) -> Option<Arc<Bound>> {
        let mut known = self.bound.lock().unwrap_or_else(PoisonError::into_inner);
        let bound = match known.as_ref() {
            Some(bound) if bound.catalog_version == catalog.version => Arc::clone(bound),
            _ => {
                let bound = Arc::new(Bound {
                    catalog_version: catalog.version,
                    target: self.target(statement, types, catalog),
                });
                *known = Some(Arc::clone(&bound));
                bound
            }
        };
        bound.target.is_some().then_some(bound)
    }

    fn target(
        &self,
        statement: &Statement,
        types: &[SqlType],
        catalog: &Catalog,
    ) -> Option<(ObjectId, Vec<usize>)> {
        let Ok(BoundDml::Insert(insert)) = bind_dml(statement, catalog) else {
            return None;
        };
        let table = catalog.by_id(insert.table)?.as_table()?;
        if matches!(table.locality, TableLocality::RegionalByTable(_)) {
            // Its rows may have to go elsewhere.
            return None;
        }
        let columns = insert.targets(self.width).ok()?;
        let fits = |(at, &number): (usize, &usize)| {
            types[number] == table.columns[columns[at % self.width]].sql_type
        };
        self.parameters
            .iter()
            .enumerate()
            .all(fits)
            .then(|| (insert.table, columns.to_vec()))
    }
}

impl PlainRows {
    /// None yet; `zone` is where timestamps without a zone are read.
    pub fn new(zone: Zone) -> Self {
        Self {
            zone,
            builders: Vec::new(),
            count: 0,
        }
    }
}

/// The number of a bare parameter, from 0.
fn parameter(value: &Expr) -> Option<usize> {
    let Expr::Value(value) = value else { return None };
    let Value::Placeholder(name) = &value.value else {
        return None;
    };
    name.strip_prefix('$')?.parse::<usize>().ok()?.checked_sub(1)
}

impl Session {
    /// Whether the plain INSERT can be run with values of these types: by the catalog that it would see.
    pub async fn runs_plainly(
        &self,
        plain: &PlainInsert,
        statement: &Statement,
        types: &[SqlType],
    ) -> SqlResult<bool> {
        let catalog = match &self.transaction {
            Some(transaction) => Arc::clone(&transaction.snapshot.catalog),
            None => Arc::clone(&self.newest_snapshot().await?.catalog),
        };
        Ok(!self.is_failed && plain.bind(statement, types, &catalog).is_some())
    }

    /// Inserts rows: all of them or none. An error does not fail the transaction; see [`Session::fail`].
    pub async fn insert_plain(
        &mut self,
        plain: &PlainInsert,
        statement: &Statement,
        types: &[SqlType],
        rows: PlainRows,
        scope: Scope,
    ) -> SqlResult<()> {
        let is_read_only = match &self.transaction {
            Some(transaction) => transaction.is_read_only,
            None => self.with_settings(|settings| settings.is_on("default_transaction_read_only")),
        };
        if is_read_only {
            return Err(read_only());
        }
        let count = rows.count;
        let values: Vec<ArrayRef> = rows.builders.into_iter().map(ColumnBuilder::finish).collect();
        load::run(self, scope, |catalog| {
            let bound = plain.bind(statement, types, catalog);
            let Some((table, columns)) = bound.and_then(|bound| bound.target.clone()) else {
                return Err(SqlError::new(
                    crate::pgwire::sqlstate::SERIALIZATION_FAILURE,
                    "the catalog changed concurrently",
                )
                .hint("run the transaction again"));
            };
            let given = GivenRows {
                columns: columns.into(),
                values: &values,
                count,
            };
            Ok((table, given))
        })
        .await
    }
}
