//! DEFAULT of a column: a constant, `now()` or `gen_random_uuid()`.

use sqlparser::ast::{Expr, Function, FunctionArguments, UnaryOperator, Value};

use crate::catalog::ColumnDefault;
use crate::error::{PlanError, PlanErrorKind};
use crate::parse::fold;
use crate::plan::Literal;
use crate::types::SqlType;

/// What a DEFAULT clause means; `None` for NULL.
pub(super) fn bind(
    expr: &Expr,
    sql_type: SqlType,
    time_zone: &str,
) -> Result<Option<ColumnDefault>, PlanError> {
    match expr {
        Expr::Nested(inner) => bind(inner, sql_type, time_zone),
        Expr::Function(function) => bind_function(function, sql_type).map(Some),
        _ => Ok(constant(expr, sql_type, time_zone)?.map(ColumnDefault::Literal)),
    }
}

fn bind_function(function: &Function, sql_type: SqlType) -> Result<ColumnDefault, PlanError> {
    let no_arguments = match &function.args {
        FunctionArguments::None => true,
        FunctionArguments::List(list) => list.args.is_empty() && list.clauses.is_empty(),
        FunctionArguments::Subquery(_) => false,
    };
    let plain = no_arguments && function.over.is_none() && function.filter.is_none();
    let name = function.name.to_string().to_lowercase();
    let (default, fits) = match name.strip_prefix("pg_catalog.").unwrap_or(&name) {
        "now" | "current_timestamp" | "transaction_timestamp" | "localtimestamp" if plain => {
            let fits = matches!(
                sql_type,
                SqlType::Timestamp | SqlType::TimestampTz | SqlType::Date
            );
            (ColumnDefault::Now, fits)
        }
        "current_date" if plain => (ColumnDefault::Now, sql_type == SqlType::Date),
        "gen_random_uuid" | "uuid_generate_v4" if plain => {
            (ColumnDefault::GenRandomUuid, sql_type == SqlType::Uuid)
        }
        "nextval" => {
            return Err(PlanError::unsupported(
                "nextval()",
                "Sequences do not work across regions. Use uuid DEFAULT gen_random_uuid().",
            ));
        }
        _ => return Err(not_constant(&Expr::Function(function.clone()))),
    };
    if fits {
        return Ok(default);
    }
    let message = format!("column of type {sql_type} cannot have the default {name}()");
    Err(PlanError::new(PlanErrorKind::DatatypeMismatch, message))
}

/// A constant of the column's type; `None` for NULL.
fn constant(expr: &Expr, sql_type: SqlType, time_zone: &str) -> Result<Option<Literal>, PlanError> {
    let Some(text) = constant_text(expr)? else {
        return Ok(None);
    };
    sql_type.literal(&text, time_zone).map(Some)
}

/// The text of a constant, through signs and casts.
fn constant_text(expr: &Expr) -> Result<Option<String>, PlanError> {
    match expr {
        Expr::Nested(inner) => constant_text(inner),
        Expr::Cast {
            expr: inner,
            data_type,
            format: None,
            ..
        } => {
            let Some(text) = constant_text(inner)? else {
                return Ok(None);
            };
            // The cast has to succeed, and rounds where its type does.
            let literal = SqlType::from_ast(data_type)?.literal(&text, "UTC")?;
            Ok(crate::types::literal_text(&literal))
        }
        Expr::TypedString(typed) => {
            SqlType::from_ast(&typed.data_type)?;
            value_text(&typed.value.value, expr)
        }
        Expr::Interval(interval) if interval.leading_field.is_none() => constant_text(&interval.value),
        Expr::UnaryOp {
            op: UnaryOperator::Minus,
            expr: inner,
        } => match inner.as_ref() {
            Expr::Value(value) => match &value.value {
                Value::Number(number, _) => Ok(Some(format!("-{number}"))),
                _ => Err(not_constant(expr)),
            },
            _ => Err(not_constant(expr)),
        },
        Expr::UnaryOp {
            op: UnaryOperator::Plus,
            expr: inner,
        } => constant_text(inner),
        Expr::Value(value) => value_text(&value.value, expr),
        Expr::Identifier(ident) => Err(PlanError::new(
            PlanErrorKind::InvalidDefinition,
            format!(
                "cannot use column reference \"{}\" in DEFAULT expression",
                fold(ident)
            ),
        )),
        _ => Err(not_constant(expr)),
    }
}

fn value_text(value: &Value, expr: &Expr) -> Result<Option<String>, PlanError> {
    match value {
        Value::Null => Ok(None),
        Value::Boolean(value) => Ok(Some(value.to_string())),
        Value::Number(number, _) => Ok(Some(number.to_string())),
        Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text) => Ok(Some(text.clone())),
        Value::DollarQuotedString(text) => Ok(Some(text.value.clone())),
        _ => Err(not_constant(expr)),
    }
}

fn not_constant(expr: &Expr) -> PlanError {
    PlanError::unsupported(
        format_args!("DEFAULT {expr}"),
        "Use a constant, now(), current_timestamp or gen_random_uuid().",
    )
}
