//! ON CONFLICT [(key)] DO NOTHING | DO UPDATE SET … [WHERE p].

use sqlparser::ast::{self, ConflictTarget, Expr, OnConflictAction, Query, TableWithJoins};
use sqlparser::ast::{BinaryOperator, Join, JoinConstraint, JoinOperator};

use super::returning::refuse_subquery;
use super::rewrite::{aliased, column, named_relation, relation, select};
use super::target::Target;
use super::{EXCLUDED, assignment};
use crate::error::{PlanError, PlanErrorKind};
use crate::parse::fold;

/// What happens to a proposed row whose key exists.
#[derive(Clone, Debug, PartialEq)]
pub enum OnConflict {
    /// It is left out.
    DoNothing,
    /// The existing row changes.
    DoUpdate {
        /// Over the relations of the table's name (the existing rows met) and [`EXCLUDED`] (the proposed rows,
        /// all columns of the table): yields all columns of the new rows in the table's order, hidden
        /// ones included. Existing rows that it does not yield stay as they are.
        query: Box<Query>,
        /// The columns assigned; none is of the key.
        assigned: Vec<usize>,
    },
}

pub(super) fn bind(on: &ast::OnInsert, target: &Target<'_>) -> Result<OnConflict, PlanError> {
    let ast::OnInsert::OnConflict(on) = on else {
        return Err(PlanError::unsupported(
            "ON DUPLICATE KEY UPDATE",
            "Use ON CONFLICT (key) DO UPDATE.",
        ));
    };
    check_target(on.conflict_target.as_ref(), target)?;
    match &on.action {
        OnConflictAction::DoNothing => Ok(OnConflict::DoNothing),
        OnConflictAction::DoUpdate(_) if on.conflict_target.is_none() => {
            let message = "ON CONFLICT DO UPDATE requires inference specification or constraint name";
            Err(PlanError::new(PlanErrorKind::Syntax, message).with_hint(format!(
                "For example, ON CONFLICT ({}).",
                key_names(target).join(", ")
            )))
        }
        OnConflictAction::DoUpdate(update) => do_update(update, target),
    }
}

/// The key's columns as users see them; none for a hidden key.
fn key_names<'a>(target: &Target<'a>) -> Vec<&'a str> {
    let columns = target
        .table
        .primary_key
        .iter()
        .map(|&index| &target.table.columns[index]);
    columns
        .filter(|column| !column.hidden)
        .map(|column| column.name.as_str())
        .collect()
}

/// The conflict target has to be the primary key, in any order.
fn check_target(conflict: Option<&ConflictTarget>, target: &Target<'_>) -> Result<(), PlanError> {
    let columns = match conflict {
        None => return Ok(()),
        Some(ConflictTarget::Columns(columns)) => columns,
        Some(ConflictTarget::OnConstraint(_)) => {
            return Err(PlanError::unsupported(
                "ON CONFLICT ON CONSTRAINT",
                "Name the key's columns: ON CONFLICT (…).",
            ));
        }
    };
    let mut named: Vec<String> = columns.iter().map(fold).collect();
    for name in &named {
        if target.table.column(name).is_none() {
            return Err(PlanError::new(
                PlanErrorKind::UndefinedColumn,
                format!("column \"{name}\" does not exist"),
            ));
        }
    }
    named.sort();
    named.dedup();
    let mut key = key_names(target);
    key.sort_unstable();
    if !key.is_empty() && named == key {
        return Ok(());
    }
    let hint = if key.is_empty() {
        "The table has no primary key, so no row can conflict.".to_owned()
    } else {
        format!(
            "Only the primary key can conflict: ON CONFLICT ({}).",
            key_names(target).join(", ")
        )
    };
    Err(PlanError::new(
        PlanErrorKind::InvalidDefinition,
        "there is no unique or exclusion constraint matching the ON CONFLICT specification",
    )
    .with_hint(hint))
}

fn do_update(update: &ast::DoUpdate, target: &Target<'_>) -> Result<OnConflict, PlanError> {
    for assignment in &update.assignments {
        refuse_subquery(&assignment.value, "ON CONFLICT DO UPDATE")?;
    }
    refuse_subquery(&update.selection, "ON CONFLICT DO UPDATE")?;
    if target.reference() == EXCLUDED {
        let message = "the name \"excluded\" means the proposed rows here";
        return Err(PlanError::new(PlanErrorKind::InvalidDefinition, message)
            .with_hint("Give the table an alias: INSERT INTO excluded AS e …"));
    }
    let bound = assignment::bind(&update.assignments, target)?;
    let assigned: Vec<usize> = bound.iter().map(|(index, _)| *index).collect();
    if let Some(index) = assigned
        .iter()
        .find(|index| target.table.primary_key.contains(index))
    {
        let name = &target.table.columns[*index].name;
        return Err(PlanError::unsupported(
            format_args!("ON CONFLICT DO UPDATE of key column \"{name}\""),
            "Use UPDATE, which may change keys.",
        ));
    }
    let projection = target
        .table
        .columns
        .iter()
        .enumerate()
        .map(|(index, definition)| {
            let new = bound
                .iter()
                .find(|(assigned, _)| *assigned == index)
                .map(|(_, value)| value.clone());
            let value = new.unwrap_or_else(|| column(target.reference(), &definition.name));
            aliased(value, &definition.name)
        });
    let query = select(
        projection.collect(),
        vec![joined(target)],
        update.selection.clone(),
    );
    Ok(OnConflict::DoUpdate { query, assigned })
}

/// `"table" [AS "alias"] JOIN "excluded" ON` the keys are equal.
fn joined(target: &Target<'_>) -> TableWithJoins {
    let keys = target.table.primary_key.iter().map(|&index| {
        let name = &target.table.columns[index].name;
        Expr::BinaryOp {
            left: Box::new(column(target.reference(), name)),
            op: BinaryOperator::Eq,
            right: Box::new(column(EXCLUDED, name)),
        }
    });
    let condition = keys.reduce(|left, right| Expr::BinaryOp {
        left: Box::new(left),
        op: BinaryOperator::And,
        right: Box::new(right),
    });
    let condition = condition.expect("a primary key is never empty");
    let mut from = relation(target);
    from.joins.push(Join {
        relation: named_relation(EXCLUDED, None).relation,
        global: false,
        join_operator: JoinOperator::Inner(JoinConstraint::On(condition)),
    });
    from
}
