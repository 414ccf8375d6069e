//! Rewrites queries of clients into what DataFusion plans.
//!
//! Queries over `pg_catalog` go through the compatibility parser of `datafusion-pg-catalog`, which replaces what cannot
//! be planned (some subqueries become NULL). That would be a wrong answer over a user's table, so all other queries
//! get only rewrites that keep their meaning.

use std::ops::ControlFlow;
use std::sync::LazyLock;

use datafusion::sql::sqlparser::ast::{Query, Statement, VisitMut, VisitorMut};
use datafusion_pg_catalog::sql::PostgresCompatibilityParser;
use datafusion_pg_catalog::sql::rules::{
    CurrentUserVariableToSessionUserFunctionCall, SqlStatementRewriteRule, StripCallableQualifier, StripCollate,
};

use crate::pgwire::error::{SqlError, SqlResult};
use crate::pgwire::sqlstate;

static PARSER: LazyLock<PostgresCompatibilityParser> = LazyLock::new(PostgresCompatibilityParser::new);

/// A query over the catalogs of PostgreSQL.
pub fn compatible(query: Query) -> SqlResult<Query> {
    let mut query = query;
    let _: ControlFlow<()> = query.visit(&mut NoLocks);
    let parsed = PARSER.parse(&query.to_string());
    let statements = parsed.map_err(|error| SqlError::new(sqlstate::SYNTAX_ERROR, error.to_string()))?;
    let statement = statements.into_iter().next().ok_or_else(|| SqlError::internal("a query was lost"))?;
    as_query(statement)
}

/// A query over tables and views.
pub fn plain(query: Query) -> SqlResult<Query> {
    if has_locks(&query) {
        return Err(SqlError::unsupported("SELECT … FOR UPDATE is not supported")
            .hint("transactions have snapshot isolation; a conflict gives 40001 and can be tried again"));
    }
    let rules: [&dyn SqlStatementRewriteRule; 3] =
        [&StripCallableQualifier, &StripCollate, &CurrentUserVariableToSessionUserFunctionCall];
    let statement = rules.iter().fold(Statement::Query(Box::new(query)), |statement, rule| rule.rewrite(statement));
    as_query(statement)
}

fn as_query(statement: Statement) -> SqlResult<Query> {
    match statement {
        Statement::Query(query) => Ok(*query),
        _ => Err(SqlError::internal("a query was rewritten into something else")),
    }
}

fn has_locks(query: &Query) -> bool {
    !query.locks.is_empty()
}

struct NoLocks;

impl VisitorMut for NoLocks {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        query.locks.clear();
        ControlFlow::Continue(())
    }
}
