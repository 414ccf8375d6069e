//! EXPLAIN CREATE MATERIALIZED VIEW …, EXPLAIN MATERIALIZED VIEW v, and EXPLAIN of a query.

use sqlparser::ast;

use super::create_materialized_view::parse_view;
use super::statement::Statement;
use super::tokens::Tokens;
use crate::error::PlanError;

pub(super) fn parse(mut tokens: Tokens<'_>) -> Result<Statement, PlanError> {
    if tokens.peek_is(&["explain", "create", "materialized", "view"]) {
        tokens.take(&["explain", "create"]);
        return Ok(Statement::ExplainCreateMaterializedView(Box::new(parse_view(
            tokens,
        )?)));
    }
    if tokens.take(&["explain", "materialized", "view"]) {
        let name = tokens.object_name()?;
        tokens.end()?;
        return Ok(Statement::ExplainMaterializedView(name));
    }
    let position = tokens.position();
    let statement = tokens.parse_rest(|parser| parser.parse_statement())?;
    match &statement {
        ast::Statement::Explain {
            statement: explained, ..
        } if matches!(explained.as_ref(), ast::Statement::Query(_)) => {
            Ok(Statement::Sql(Box::new(statement)))
        }
        _ => Err(PlanError::unsupported(
            "EXPLAIN of this statement",
            "EXPLAIN a query, EXPLAIN CREATE MATERIALIZED VIEW …, or EXPLAIN MATERIALIZED VIEW name.",
        )
        .at(position)),
    }
}
