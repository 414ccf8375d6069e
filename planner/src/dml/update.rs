//! UPDATE t [AS a] SET … [FROM …] [WHERE p] [RETURNING …].

use sqlparser::ast::{self, UpdateTableFromKind};

use super::rewrite::{aliased, column, select, target_relation};
use super::target::Target;
use super::{BoundUpdate, NEW_PREFIX, ORIGIN_COLUMN, STAMP_COLUMN, assignment, returning};
use crate::catalog::Catalog;
use crate::error::PlanError;

pub(super) fn bind(update: &ast::Update, catalog: &Catalog) -> Result<BoundUpdate, PlanError> {
    refuse_clauses(update)?;
    let target = Target::of_from(catalog, &update.table, "UPDATE")?;
    let assigned = assignment::bind(&update.assignments, &target)?;
    let mut projection = version_projection(&target);
    let mut columns = Vec::with_capacity(assigned.len());
    for (index, value) in assigned {
        projection.push(aliased(
            value,
            &format!("{NEW_PREFIX}{}", target.table.columns[index].name),
        ));
        columns.push(index);
    }
    let other = match &update.from {
        None => Vec::new(),
        Some(UpdateTableFromKind::AfterSet(from) | UpdateTableFromKind::BeforeSet(from)) => from.clone(),
    };
    let joined = !other.is_empty();
    let from = std::iter::once(target_relation(&target)).chain(other).collect();
    Ok(BoundUpdate {
        table: target.object.id,
        query: select(projection, from, update.selection.clone()),
        joined,
        assigned: columns,
        returning: returning::bind(update.returning.as_deref(), &target)?,
    })
}

/// The old row and its version.
pub(super) fn version_projection(target: &Target<'_>) -> Vec<ast::SelectItem> {
    let names = target.table.columns.iter().map(|column| column.name.as_str());
    let names = names.chain([ORIGIN_COLUMN, STAMP_COLUMN]);
    names
        .map(|name| aliased(column(target.reference(), name), name))
        .collect()
}

fn refuse_clauses(update: &ast::Update) -> Result<(), PlanError> {
    let refused = |what: &str, alternative: &str| Err(PlanError::unsupported(what, alternative));
    if update.limit.is_some() || !update.order_by.is_empty() {
        return refused(
            "UPDATE with ORDER BY or LIMIT",
            "Use WHERE key IN (SELECT … ORDER BY … LIMIT …).",
        );
    }
    if update.or.is_some() || update.output.is_some() || !update.optimizer_hints.is_empty() {
        return refused(
            "this form of UPDATE",
            "Use UPDATE table SET column = value WHERE condition.",
        );
    }
    Ok(())
}
