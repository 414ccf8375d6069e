//! DataFusion's errors as the planner's own.
//!
//! Only the front end's errors get here. What they are about is in their type where DataFusion has one, and
//! otherwise in the text, of which a few stable beginnings are known.

use datafusion_common::{DataFusionError, SchemaError};

use crate::error::{PlanError, PlanErrorKind};

/// The planner's error for one of DataFusion's front end.
pub fn plan_error(error: &DataFusionError) -> PlanError {
    match error {
        DataFusionError::External(inner) => match inner.downcast_ref::<PlanError>() {
            Some(own) => own.clone(),
            None => PlanError::internal(inner.to_string()),
        },
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => plan_error(inner),
        DataFusionError::Shared(inner) => plan_error(inner),
        DataFusionError::Collection(errors) => match errors.first() {
            Some(first) => plan_error(first),
            None => PlanError::internal("planning failed without an error"),
        },
        DataFusionError::SchemaError(inner, _) => schema_error(inner),
        DataFusionError::NotImplemented(message) => {
            PlanError::new(PlanErrorKind::Unsupported, lower_first(message))
                .with_hint("Apply it in the query that reads the view.")
        }
        DataFusionError::SQL(inner, _) => PlanError::new(PlanErrorKind::Syntax, inner.to_string()),
        DataFusionError::Plan(message) => plan_message(message),
        other => PlanError::internal(other.strip_backtrace()),
    }
}

fn schema_error(error: &SchemaError) -> PlanError {
    match error {
        SchemaError::AmbiguousReference { field } => {
            let message = format!("column reference \"{}\" is ambiguous", field.name);
            PlanError::new(PlanErrorKind::AmbiguousColumn, message).with_hint("Write table.column.")
        }
        SchemaError::FieldNotFound { field, valid_fields } => {
            let message = format!("column \"{}\" does not exist", field.flat_name().replace('"', ""));
            let error = PlanError::new(PlanErrorKind::UndefinedColumn, message);
            let close = |name: &str| name.eq_ignore_ascii_case(&field.name);
            match valid_fields.iter().find(|valid| close(&valid.name)) {
                Some(valid) => error.with_hint(format!("Perhaps you meant \"{}\".", valid.name)),
                None => error,
            }
        }
        SchemaError::DuplicateQualifiedField { name, .. }
        | SchemaError::DuplicateUnqualifiedField { name } => {
            let message = format!("column \"{name}\" specified more than once");
            PlanError::new(PlanErrorKind::DuplicateColumn, message).with_hint("Name it with AS.")
        }
    }
}

fn plan_message(message: &str) -> PlanError {
    let first = message.lines().next().unwrap_or(message);
    if let Some(name) = first
        .strip_prefix("Invalid function '")
        .and_then(|rest| rest.split('\'').next())
    {
        let message = format!("function {name} does not exist in views");
        return PlanError::new(PlanErrorKind::UndefinedFunction, message)
            .with_hint("docs/sql.md lists the functions of views.");
    }
    if first.contains("must appear in the GROUP BY clause") {
        let column = first
            .split("column \"")
            .nth(1)
            .and_then(|rest| rest.split('"').next())
            .unwrap_or("?");
        let message = format!(
            "column \"{column}\" must appear in the GROUP BY clause or be used in an aggregate function"
        );
        return PlanError::new(PlanErrorKind::GroupingError, message);
    }
    if first.contains("unique expression names") {
        return PlanError::new(PlanErrorKind::DuplicateColumn, "two columns have the same name")
            .with_hint("Name them with AS.");
    }
    if first.contains("non-boolean predicate") {
        return PlanError::new(
            PlanErrorKind::DatatypeMismatch,
            "argument of WHERE must be type boolean",
        );
    }
    let kind = if first.contains("ggregate function") {
        PlanErrorKind::GroupingError
    } else if first.contains("coerce") || first.contains("type") {
        PlanErrorKind::DatatypeMismatch
    } else {
        PlanErrorKind::InvalidDefinition
    };
    PlanError::new(kind, lower_first(first))
}

fn lower_first(message: &str) -> String {
    let mut characters = message.chars();
    match characters.next() {
        Some(first) => first.to_lowercase().chain(characters).collect(),
        None => String::new(),
    }
}
