//! INSERT INTO t [AS a] [(columns)] {VALUES … | query | DEFAULT VALUES} [ON CONFLICT …] [RETURNING …].

use sqlparser::ast::{
    self, Expr, ObjectName, ObjectNamePart, Query, SelectItem, SetExpr, TableObject, Values,
};
use tributary_storage::ObjectId;

use super::rewrite::{cast, column_default, is_default};
use super::target::{Target, copy_columns};
use super::{OnConflict, on_conflict, returning};
use crate::catalog::Catalog;
use crate::error::{PlanError, PlanErrorKind};
use crate::parse::fold;

/// A bound INSERT.
#[derive(Clone, Debug, PartialEq)]
pub struct BoundInsert {
    /// The table.
    pub table: ObjectId,
    /// The columns that the source's columns go to, in the source's order. Columns that are not here get
    /// their defaults.
    pub columns: Vec<usize>,
    /// Whether the statement listed its columns. If not, a source may have fewer: see
    /// [`BoundInsert::targets`].
    pub explicit_columns: bool,
    /// The proposed rows.
    pub source: InsertSource,
    /// What happens to rows whose key exists; absent: the statement fails.
    pub on_conflict: Option<OnConflict>,
    /// A query over the affected rows, which the server registers under the table's name.
    pub returning: Option<Box<Query>>,
}

/// Where an INSERT's rows come from.
#[derive(Clone, Debug, PartialEq)]
pub enum InsertSource {
    /// A query. In VALUES each value has been cast to its column's type; the columns of any other query are to
    /// be cast to the targets' types by whoever runs it.
    Query(Box<Query>),
    /// One row of defaults.
    DefaultValues,
}

impl BoundInsert {
    /// The target columns of a source with this many columns.
    ///
    /// # Errors
    /// `Syntax` when the source has more columns than there are targets, or fewer than were listed.
    pub fn targets(&self, width: usize) -> Result<&[usize], PlanError> {
        let message = if width > self.columns.len() {
            "INSERT has more expressions than target columns"
        } else if width < self.columns.len() && self.explicit_columns {
            "INSERT has more target columns than expressions"
        } else {
            return Ok(&self.columns[..width]);
        };
        Err(PlanError::new(PlanErrorKind::Syntax, message))
    }
}

pub(super) fn bind(insert: &ast::Insert, catalog: &Catalog) -> Result<BoundInsert, PlanError> {
    refuse_clauses(insert)?;
    let TableObject::TableName(name) = &insert.table else {
        return Err(PlanError::unsupported(
            "INSERT into anything but a table",
            "Name the table.",
        ));
    };
    let alias = insert.table_alias.as_ref().map(|alias| &alias.alias);
    let target = Target::named(catalog, name, alias)?;
    let names = insert
        .columns
        .iter()
        .map(bare_name)
        .collect::<Result<Vec<_>, _>>()?;
    let mut bound = BoundInsert {
        table: target.object.id,
        columns: copy_columns(target.table, &target.object.name, &names)?,
        explicit_columns: !names.is_empty(),
        source: InsertSource::DefaultValues,
        on_conflict: insert
            .on
            .as_ref()
            .map(|on| on_conflict::bind(on, &target))
            .transpose()?,
        returning: returning::bind(insert.returning.as_deref(), &target)?,
    };
    match &insert.source {
        None => bound.columns.clear(),
        Some(query) => {
            if let Some(width) = known_width(&query.body) {
                let width = bound.targets(width)?.len();
                bound.columns.truncate(width);
            }
            let mut query = query.clone();
            fill_values(&mut query.body, &bound.columns, &target)?;
            bound.source = InsertSource::Query(query);
        }
    }
    Ok(bound)
}

fn bare_name(name: &ObjectName) -> Result<String, PlanError> {
    match name.0.as_slice() {
        [ObjectNamePart::Identifier(ident)] => Ok(fold(ident)),
        _ => Err(PlanError::unsupported(
            format_args!("the INSERT target {name}"),
            "Name the columns without the table.",
        )),
    }
}

/// The number of columns of a query, where syntax alone tells.
fn known_width(body: &SetExpr) -> Option<usize> {
    match body {
        SetExpr::Values(values) => values.rows.first().map(|row| row.content.len()),
        SetExpr::Query(query) => known_width(&query.body),
        SetExpr::SetOperation { left, .. } => known_width(left),
        SetExpr::Select(select) => {
            let plain = |item: &SelectItem| {
                matches!(
                    item,
                    SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. }
                )
            };
            select
                .projection
                .iter()
                .all(plain)
                .then_some(select.projection.len())
        }
        _ => None,
    }
}

/// Casts the values of VALUES to their columns' types and puts defaults in place of DEFAULT.
fn fill_values(body: &mut SetExpr, columns: &[usize], target: &Target<'_>) -> Result<(), PlanError> {
    let Values { rows, .. } = match body {
        SetExpr::Values(values) => values,
        SetExpr::Query(query) => return fill_values(&mut query.body, columns, target),
        _ => return Ok(()),
    };
    for row in rows {
        if row.content.len() != columns.len() {
            let message = "VALUES lists must all be the same length";
            return Err(PlanError::new(PlanErrorKind::Syntax, message));
        }
        for (value, &index) in row.content.iter_mut().zip(columns) {
            let column = &target.table.columns[index];
            let given = std::mem::replace(value, Expr::value(ast::Value::Null));
            *value = if is_default(&given) {
                column_default(column)
            } else {
                cast(given, column.sql_type)
            };
        }
    }
    Ok(())
}

fn refuse_clauses(insert: &ast::Insert) -> Result<(), PlanError> {
    let other_dialect = insert.or.is_some()
        || insert.ignore
        || insert.overwrite
        || insert.replace_into
        || insert.priority.is_some()
        || insert.partitioned.is_some()
        || insert.output.is_some()
        || insert.settings.is_some()
        || insert.format_clause.is_some()
        || insert.insert_alias.is_some()
        || insert.multi_table_insert_type.is_some()
        || !insert.assignments.is_empty()
        || !insert.after_columns.is_empty()
        || !insert.multi_table_into_clauses.is_empty()
        || !insert.multi_table_when_clauses.is_empty()
        || !insert.optimizer_hints.is_empty();
    if other_dialect {
        return Err(PlanError::unsupported(
            "this form of INSERT",
            "Use INSERT INTO table (columns) VALUES … ON CONFLICT ….",
        ));
    }
    Ok(())
}
