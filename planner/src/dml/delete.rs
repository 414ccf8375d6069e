//! DELETE FROM t [AS a] [USING …] [WHERE p] [RETURNING …].

use sqlparser::ast::{self, FromTable};

use super::rewrite::{select, target_relation};
use super::target::Target;
use super::update::version_projection;
use super::{BoundDelete, returning};
use crate::catalog::Catalog;
use crate::error::PlanError;

pub(super) fn bind(delete: &ast::Delete, catalog: &Catalog) -> Result<BoundDelete, PlanError> {
    refuse_clauses(delete)?;
    let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = &delete.from;
    let [table] = from.as_slice() else {
        return Err(PlanError::unsupported(
            "DELETE from several tables",
            "Use one DELETE per table.",
        ));
    };
    let target = Target::of_from(catalog, table, "DELETE")?;
    let using = delete.using.clone().unwrap_or_default();
    let joined = !using.is_empty();
    let from = std::iter::once(target_relation(&target)).chain(using).collect();
    Ok(BoundDelete {
        table: target.object.id,
        query: select(version_projection(&target), from, delete.selection.clone()),
        joined,
        returning: returning::bind(delete.returning.as_deref(), &target)?,
    })
}

fn refuse_clauses(delete: &ast::Delete) -> Result<(), PlanError> {
    let refused = |what: &str, alternative: &str| Err(PlanError::unsupported(what, alternative));
    if delete.limit.is_some() || !delete.order_by.is_empty() {
        return refused(
            "DELETE with ORDER BY or LIMIT",
            "Use WHERE key IN (SELECT … ORDER BY … LIMIT …).",
        );
    }
    if !delete.tables.is_empty() || delete.output.is_some() || !delete.optimizer_hints.is_empty() {
        return refused("this form of DELETE", "Use DELETE FROM table WHERE condition.");
    }
    Ok(())
}
