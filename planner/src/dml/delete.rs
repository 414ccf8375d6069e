//! DELETE FROM t [AS a] [WHERE p] [RETURNING …].

use sqlparser::ast::{self, FromTable};

use super::rewrite::{relation, select};
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
    Ok(BoundDelete {
        table: target.object.id,
        query: select(
            version_projection(&target),
            vec![relation(&target)],
            delete.selection.clone(),
        ),
        returning: returning::bind(delete.returning.as_deref(), &target)?,
    })
}

fn refuse_clauses(delete: &ast::Delete) -> Result<(), PlanError> {
    let refused = |what: &str, alternative: &str| Err(PlanError::unsupported(what, alternative));
    if delete.using.is_some() {
        return refused("DELETE … USING", "Use WHERE … IN (SELECT …).");
    }
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
