//! The one region whose rows an UPDATE or DELETE is about, where it says so.

use sqlparser::ast::{BinaryOperator, Expr, TableFactor, Value};

use super::target::Target;
use crate::catalog::Catalog;
use crate::error::PlanError;
use crate::parse::{Statement, fold, public_name};

/// The hidden column that names the region of a row.
const REGION_COLUMN: &str = "tributary_region";

/// The region that the condition `tributary_region = 'r'` of an UPDATE or DELETE names, among what must hold together.
///
/// # Errors
/// As [`super::bind_dml`].
pub fn pinned_region(statement: &Statement, catalog: &Catalog) -> Result<Option<String>, PlanError> {
    let (target, selection) = match statement {
        Statement::Update(update) => (
            Target::of_from(catalog, &update.table, "UPDATE")?,
            update.selection.as_ref(),
        ),
        Statement::Delete(delete) => {
            use sqlparser::ast::FromTable::{WithFromKeyword, WithoutKeyword};
            let (WithFromKeyword(from) | WithoutKeyword(from)) = &delete.from;
            let [table] = from.as_slice() else { return Ok(None) };
            (
                Target::of_from(catalog, table, "DELETE")?,
                delete.selection.as_ref(),
            )
        }
        _ => return Ok(None),
    };
    Ok(selection.and_then(|selection| named(selection, target.reference())))
}

/// The (folded) name of the table that an UPDATE or DELETE writes.
///
/// # Errors
/// `Unsupported` for names that no table has.
pub fn target_name(statement: &Statement) -> Result<Option<String>, PlanError> {
    use sqlparser::ast::FromTable::{WithFromKeyword, WithoutKeyword};
    let table = match statement {
        Statement::Update(update) => &update.table,
        Statement::Delete(delete) => {
            let (WithFromKeyword(from) | WithoutKeyword(from)) = &delete.from;
            match from.as_slice() {
                [table] => table,
                _ => return Ok(None),
            }
        }
        _ => return Ok(None),
    };
    match &table.relation {
        TableFactor::Table { name, .. } => public_name(name).map(Some),
        _ => Ok(None),
    }
}

fn named(condition: &Expr, target: &str) -> Option<String> {
    match condition {
        Expr::Nested(inner) => named(inner, target),
        Expr::BinaryOp { left, op, right } => match op {
            BinaryOperator::And => named(left, target).or_else(|| named(right, target)),
            BinaryOperator::Eq if is_region(left, target) => text(right),
            BinaryOperator::Eq if is_region(right, target) => text(left),
            _ => None,
        },
        _ => None,
    }
}

fn is_region(expr: &Expr, target: &str) -> bool {
    match expr {
        Expr::Identifier(name) => fold(name) == REGION_COLUMN,
        Expr::CompoundIdentifier(parts) => match parts.as_slice() {
            [relation, name] => fold(relation) == target && fold(name) == REGION_COLUMN,
            _ => false,
        },
        _ => false,
    }
}

fn text(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text) => Some(text.clone()),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use tributary_storage::RegionId;

    use super::*;
    use crate::catalog::{CatalogChange, PlanSettings};
    use crate::ddl::plan_ddl;
    use crate::parse::parse;

    fn pinned(sql: &str) -> Option<String> {
        let mut catalog = Catalog::default();
        catalog.apply(&CatalogChange::Found {
            cluster: [1; 16],
            regions: vec![(RegionId(1), "us".into())],
            primary: RegionId(1),
        });
        let create = parse("CREATE TABLE t (id int PRIMARY KEY, v int)")
            .expect("valid")
            .remove(0);
        let plan = plan_ddl(&create.statement, &catalog, &PlanSettings::default(), 0).expect("valid");
        plan.changes.iter().for_each(|change| catalog.apply(change));
        let statement = parse(sql).expect("valid").remove(0).statement;
        pinned_region(&statement, &catalog).expect("valid")
    }

    #[test]
    fn a_region_is_pinned_by_what_must_hold() {
        for sql in [
            "DELETE FROM t WHERE tributary_region = 'eu'",
            "UPDATE t SET v = 1 WHERE v > 2 AND ('eu' = t.tributary_region)",
            "UPDATE t AS x SET v = 1 WHERE x.tributary_region = 'eu' AND id = 1",
        ] {
            assert_eq!(pinned(sql).as_deref(), Some("eu"), "{sql}");
        }
        for sql in [
            "DELETE FROM t WHERE tributary_region = 'eu' OR id = 1",
            "DELETE FROM t WHERE tributary_region <> 'eu'",
            "UPDATE t SET v = 1 WHERE tributary_region = gateway_region()",
            "INSERT INTO t VALUES (1, 2)",
        ] {
            assert_eq!(pinned(sql), None, "{sql}");
        }
    }
}
