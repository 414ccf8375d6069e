//! `SET a = 1, (b, c) = (2, DEFAULT)`.

use sqlparser::ast::{Assignment, AssignmentTarget, Expr, ObjectName, ObjectNamePart};

use super::rewrite::{cast, column_default, is_default};
use super::target::{Target, writable_column};
use crate::error::{PlanError, PlanErrorKind};
use crate::parse::fold;

/// The columns assigned and their new values, each cast to the column's type, in the order written.
pub(super) fn bind(assignments: &[Assignment], target: &Target<'_>) -> Result<Vec<(usize, Expr)>, PlanError> {
    let mut bound: Vec<(usize, Expr)> = Vec::new();
    for assignment in assignments {
        for (name, value) in pairs(assignment)? {
            let index = assigned_column(name, target)?;
            let column = &target.table.columns[index];
            if bound.iter().any(|(other, _)| *other == index) {
                let message = format!("multiple assignments to same column \"{}\"", column.name);
                return Err(PlanError::new(PlanErrorKind::Syntax, message));
            }
            let value = if is_default(value) {
                column_default(column)
            } else {
                cast(value.clone(), column.sql_type)
            };
            bound.push((index, value));
        }
    }
    Ok(bound)
}

/// One target and one value per column.
fn pairs(assignment: &Assignment) -> Result<Vec<(&ObjectName, &Expr)>, PlanError> {
    let names = match &assignment.target {
        AssignmentTarget::ColumnName(name) => return Ok(vec![(name, &assignment.value)]),
        AssignmentTarget::Tuple(names) => names,
    };
    let values: &[Expr] = match &assignment.value {
        Expr::Tuple(values) => values,
        Expr::Nested(value) => std::slice::from_ref(value),
        _ => {
            return Err(PlanError::unsupported(
                "assignment of a row or subquery to several columns",
                "Assign each column by itself: SET a = …, b = …",
            ));
        }
    };
    if names.len() != values.len() {
        let message = "number of columns does not match number of values";
        return Err(PlanError::new(PlanErrorKind::Syntax, message));
    }
    Ok(names.iter().zip(values).collect())
}

fn assigned_column(name: &ObjectName, target: &Target<'_>) -> Result<usize, PlanError> {
    let [ObjectNamePart::Identifier(ident)] = name.0.as_slice() else {
        let message = format!("SET target {name} is not the bare name of a column");
        return Err(PlanError::new(PlanErrorKind::UndefinedColumn, message)
            .with_hint("SET target columns cannot be qualified with the relation name."));
    };
    writable_column(target.table, &target.object.name, &fold(ident))
}
