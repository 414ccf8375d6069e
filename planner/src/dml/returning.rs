//! RETURNING: a query over the affected rows, which stand in for the table under its name.

use std::ops::ControlFlow;

use sqlparser::ast::{
    Expr, Query, SelectItem, SelectItemQualifiedWildcardKind, Visit, Visitor, WildcardAdditionalOptions,
};

use super::rewrite::{aliased, column, relation, select};
use super::target::Target;
use crate::error::{PlanError, PlanErrorKind};
use crate::parse::public_name;

/// `SELECT items FROM "table" [AS "alias"]`, wildcards spelt out as the visible columns.
pub(super) fn bind(
    items: Option<&[SelectItem]>,
    target: &Target<'_>,
) -> Result<Option<Box<Query>>, PlanError> {
    let Some(items) = items else {
        return Ok(None);
    };
    let mut projection = Vec::new();
    for item in items {
        match item {
            SelectItem::Wildcard(options) => projection.extend(all_columns(options, target)?),
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options) => {
                let name = public_name(name)?;
                if name != target.reference() {
                    let message = format!("missing FROM-clause entry for table \"{name}\"");
                    return Err(PlanError::new(PlanErrorKind::UndefinedTable, message));
                }
                projection.extend(all_columns(options, target)?);
            }
            other => {
                refuse_subquery(other, "RETURNING")?;
                projection.push(other.clone());
            }
        }
    }
    Ok(Some(select(projection, vec![relation(target)], None)))
}

fn all_columns(
    options: &WildcardAdditionalOptions,
    target: &Target<'_>,
) -> Result<Vec<SelectItem>, PlanError> {
    if *options != WildcardAdditionalOptions::default() {
        return Err(PlanError::unsupported(
            "a wildcard with options",
            "Name the columns.",
        ));
    }
    let name = |index: usize| target.table.columns[index].name.as_str();
    Ok(target
        .table
        .visible()
        .map(|index| aliased(column(target.reference(), name(index)), name(index)))
        .collect())
}

/// Refuses subqueries where the table's name stands for a few rows of it.
pub(super) fn refuse_subquery(node: &impl Visit, clause: &str) -> Result<(), PlanError> {
    struct Subqueries;
    impl Visitor for Subqueries {
        type Break = ();
        fn pre_visit_query(&mut self, _query: &Query) -> ControlFlow<()> {
            ControlFlow::Break(())
        }
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match expr {
                Expr::Subquery(_) | Expr::InSubquery { .. } | Expr::Exists { .. } => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        }
    }
    match node.visit(&mut Subqueries) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(PlanError::unsupported(
            format_args!("a subquery in {clause}"),
            "Run the subquery as a statement of its own in the same transaction.",
        )),
    }
}
