//! Rewrites queries of clients into what DataFusion plans.
//!
//! Queries over `pg_catalog` go through the compatibility parser of `datafusion-pg-catalog`, which replaces what cannot
//! be planned (some subqueries become NULL). That would be a wrong answer over a user's table, so all other queries
//! get only rewrites that keep their meaning.

use std::ops::ControlFlow;
use std::sync::LazyLock;

use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident, ObjectName,
    Query, SelectItem, SetExpr, SetOperator, SetQuantifier, Statement, Value, Values, VisitMut, VisitorMut,
    visit_expressions,
};
use datafusion_pg_catalog::sql::PostgresCompatibilityParser;
use datafusion_pg_catalog::sql::rules::{
    CurrentUserVariableToSessionUserFunctionCall, SqlStatementRewriteRule, StripCallableQualifier,
    StripCollate,
};

use crate::pgwire::error::{SqlError, SqlResult};
use crate::pgwire::sqlstate;

static PARSER: LazyLock<PostgresCompatibilityParser> = LazyLock::new(PostgresCompatibilityParser::new);

/// A query over the catalogs of PostgreSQL, and the text it came from if that is at hand (known queries of clients are
/// recognized by their very tokens).
pub fn compatible(query: Query, text: Option<&str>) -> SqlResult<Query> {
    let parsed = match text {
        Some(text) => PARSER.parse(text),
        None => PARSER.parse(&query.to_string()),
    };
    let statements = parsed.map_err(|error| SqlError::new(sqlstate::SYNTAX_ERROR, error.to_string()))?;
    let statement = statements
        .into_iter()
        .next()
        .ok_or_else(|| SqlError::internal("a query was lost"))?;
    let mut query = as_query(statement)?;
    let _: ControlFlow<()> = query.visit(&mut Simplified);
    Ok(query)
}

/// A query over tables and views.
pub fn plain(query: Query) -> SqlResult<Query> {
    if has_locks(&query) {
        return Err(SqlError::unsupported("SELECT … FOR UPDATE is not supported")
            .hint("transactions have snapshot isolation; a conflict gives 40001 and can be tried again"));
    }
    let mut query = query;
    let _: ControlFlow<()> = query.visit(&mut Spelt);
    let rules: [&dyn SqlStatementRewriteRule; 3] = [
        &StripCallableQualifier,
        &StripCollate,
        &CurrentUserVariableToSessionUserFunctionCall,
    ];
    let statement = rules
        .iter()
        .fold(Statement::Query(Box::new(query)), |statement, rule| {
            rule.rewrite(statement)
        });
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

/// `TABLE t` is `SELECT * FROM t`. VALUES are computed while they are planned, when no subquery has a value: with subqueries in
/// them they are SELECTs.
struct Spelt;

impl VisitorMut for Spelt {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        spell(&mut query.body);
        ControlFlow::Continue(())
    }
}

fn spell(body: &mut SetExpr) {
    match body {
        SetExpr::SetOperation { left, right, .. } => {
            spell(left);
            spell(right);
        }
        SetExpr::Table(table) => {
            let parts = [&table.schema_name, &table.table_name];
            let name: Vec<String> = parts.into_iter().flatten().cloned().collect();
            if let Some(select) = select_body(&format!("SELECT * FROM {}", name.join("."))) {
                *body = select;
            }
        }
        SetExpr::Values(values) if has_subquery(values) => {
            let rows = std::mem::take(&mut values.rows).into_iter();
            let selects = rows.filter_map(|row| select_row(row.content));
            let united = selects.reduce(|left, right| SetExpr::SetOperation {
                op: SetOperator::Union,
                set_quantifier: SetQuantifier::All,
                left: Box::new(left),
                right: Box::new(right),
            });
            if let Some(united) = united {
                *body = united;
            }
        }
        _ => {}
    }
}

fn has_subquery(values: &Values) -> bool {
    let found = visit_expressions(values, |expr| match expr {
        Expr::Subquery(_) | Expr::InSubquery { .. } | Expr::Exists { .. } => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    found.is_break()
}

/// A row of VALUES as a SELECT, with the names that its columns have there.
fn select_row(row: Vec<Expr>) -> Option<SetExpr> {
    let mut body = select_body("SELECT 1")?;
    let SetExpr::Select(select) = &mut body else {
        return None;
    };
    let columns = row.into_iter().enumerate();
    select.projection = columns
        .map(|(number, expr)| SelectItem::ExprWithAlias {
            expr,
            alias: Ident::new(format!("column{}", number + 1)),
        })
        .collect();
    Some(body)
}

/// What a text selects, if it is a query.
fn select_body(sql: &str) -> Option<SetExpr> {
    let parsed = tributary_planner::parse::parse(sql).ok()?.pop()?;
    let tributary_planner::parse::Statement::Sql(statement) = parsed.statement else {
        return None;
    };
    match *statement {
        Statement::Query(query) => Some(*query.body),
        _ => None,
    }
}

/// What is left of clients' habits that DataFusion does not plan. Over catalogs only: arrays made from subqueries (of
/// privileges, members of roles) become null.
struct Simplified;

impl VisitorMut for Simplified {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        query.locks.clear();
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::Function(call) if matches!(call.args, FunctionArguments::Subquery(_)) => {
                *expr = Expr::value(Value::Null);
            }
            Expr::Like { escape_char, .. } | Expr::ILike { escape_char, .. } => *escape_char = None,
            Expr::Subquery(query) => at_most_one(query),
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// A scalar subquery gives one row or none, so the smallest of its rows is its row: a form that DataFusion can
/// decorrelate.
fn at_most_one(query: &mut Query) {
    let SetExpr::Select(select) = query.body.as_mut() else {
        return;
    };
    let [SelectItem::UnnamedExpr(expr)] = select.projection.as_mut_slice() else {
        return;
    };
    if matches!(expr, Expr::Function(_) | Expr::Value(_)) || select.from.is_empty() {
        return;
    }
    query.limit_clause = None;
    let argument = FunctionArg::Unnamed(FunctionArgExpr::Expr(expr.clone()));
    let arguments = FunctionArgumentList {
        duplicate_treatment: None,
        args: vec![argument],
        clauses: Vec::new(),
    };
    *expr = Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new("min")]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(arguments),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    });
}
