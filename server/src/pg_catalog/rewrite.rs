//! Rewrites queries of clients into what DataFusion plans.
//!
//! Queries over `pg_catalog` go through the compatibility parser of `datafusion-pg-catalog`, which replaces what cannot
//! be planned (some subqueries become NULL). That would be a wrong answer over a user's table, so all other queries
//! get only rewrites that keep their meaning.

use std::ops::ControlFlow;
use std::sync::LazyLock;

use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident, ObjectName,
    Query, SelectItem, SetExpr, SetOperator, SetQuantifier, Statement, TableFactor, Value, Values, VisitMut,
    VisitorMut, visit_expressions,
};
use datafusion_pg_catalog::sql::PostgresCompatibilityParser;
use datafusion_pg_catalog::sql::rules::{
    CurrentUserVariableToSessionUserFunctionCall, SqlStatementRewriteRule, StripCallableQualifier,
    StripCollate,
};

use crate::pgwire::error::{SqlError, SqlResult};
use crate::pgwire::sqlstate;

/// So many rows of one VALUES may hold subqueries: each is planned as a query of its own.
const SUBQUERY_ROWS_MAX: usize = 250;

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
    if let ControlFlow::Break(error) = query.visit(&mut Spelt) {
        return Err(error);
    }
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
/// them they are SELECTs. What the planner would pass over is refused.
struct Spelt;

impl VisitorMut for Spelt {
    type Break = SqlError;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<SqlError> {
        let spelt = match query.body.as_mut() {
            SetExpr::Values(values) if has_subquery(values) => select_rows(values).map(|selected| {
                *query.body = *selected.body;
                query.order_by = query.order_by.take().or(selected.order_by);
            }),
            body => spell(body),
        };
        match spelt {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }

    fn pre_visit_table_factor(&mut self, table: &mut TableFactor) -> ControlFlow<SqlError> {
        match table {
            TableFactor::Table { sample: Some(_), .. } => ControlFlow::Break(
                SqlError::unsupported("TABLESAMPLE is not supported")
                    .hint("WHERE random() < 0.1 takes about a tenth of the rows"),
            ),
            _ => ControlFlow::Continue(()),
        }
    }
}

fn spell(body: &mut SetExpr) -> SqlResult<()> {
    match body {
        SetExpr::SetOperation { left, right, .. } => {
            spell(left)?;
            spell(right)?;
        }
        SetExpr::Table(table) => {
            let parts = [&table.schema_name, &table.table_name];
            let name: Vec<String> = parts.into_iter().flatten().cloned().collect();
            if let Some(select) = select_body(&format!("SELECT * FROM {}", name.join("."))) {
                *body = select;
            }
        }
        SetExpr::Values(values) if has_subquery(values) => *body = *select_rows(values)?.body,
        _ => {}
    }
    Ok(())
}

fn has_subquery(values: &Values) -> bool {
    values.rows.iter().flat_map(|row| &row.content).any(is_subquery)
}

fn is_subquery(expr: &Expr) -> bool {
    let found = visit_expressions(expr, |expr| match expr {
        Expr::Subquery(_) | Expr::InSubquery { .. } | Expr::Exists { .. } => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    found.is_break()
}

/// The rows of VALUES in their order, those with subqueries as SELECTs: `SELECT column1 FROM (VALUES (7, 0) UNION ALL SELECT
/// (SELECT 1) AS column1, 1 AS column2) ORDER BY column2`.
fn select_rows(values: &mut Values) -> SqlResult<Query> {
    let rows = std::mem::take(&mut values.rows);
    let width = rows.first().map_or(0, |row| row.content.len());
    let number = |number: usize| Expr::value(Value::Number(number.to_string(), false));
    let (mut parts, mut with_subquery) = (Vec::new(), 0);
    for (place, mut row) in rows.into_iter().enumerate() {
        if row.content.len() != width {
            let message = "VALUES lists must all be the same length";
            return Err(SqlError::new(sqlstate::SYNTAX_ERROR, message));
        }
        let is_plain = !row.content.iter().any(is_subquery);
        row.content.push(number(place));
        match parts.last_mut() {
            Some(SetExpr::Values(run)) if is_plain => run.rows.push(row),
            _ if is_plain => {
                let (explicit_row, value_keyword) = (values.explicit_row, values.value_keyword);
                let rows = vec![row];
                parts.push(SetExpr::Values(Values {
                    explicit_row,
                    value_keyword,
                    rows,
                }));
            }
            _ => {
                with_subquery += 1;
                parts.extend(select_row(row.content));
            }
        }
    }
    if with_subquery > SUBQUERY_ROWS_MAX {
        let message =
            format!("{with_subquery} rows of VALUES hold subqueries; the limit is {SUBQUERY_ROWS_MAX}");
        return Err(SqlError::new(sqlstate::TOO_COMPLEX, message)
            .hint("INSERT … SELECT computes any number of rows; or run several statements"));
    }
    let columns: Vec<String> = (1..=width).map(|column| format!("column{column}")).collect();
    let place = width + 1;
    let text = format!(
        "SELECT {} FROM (SELECT 1) AS v ORDER BY column{place}",
        columns.join(", ")
    );
    let lost = || SqlError::internal("a row of VALUES was lost");
    let mut query = parsed_query(&text).ok_or_else(lost)?;
    let SetExpr::Select(select) = query.body.as_mut() else {
        return Err(lost());
    };
    let inner = select.from.first_mut().map(|table| &mut table.relation);
    let Some(TableFactor::Derived { subquery, .. }) = inner else {
        return Err(lost());
    };
    *subquery.body = united(parts).ok_or_else(lost)?;
    Ok(query)
}

/// All rows of these, as a tree that is not deeper than it must be: the planner goes down to its leaves.
fn united(mut parts: Vec<SetExpr>) -> Option<SetExpr> {
    while parts.len() > 1 {
        let mut rest = parts.into_iter();
        let mut pairs = Vec::new();
        while let Some(left) = rest.next() {
            pairs.push(match rest.next() {
                Some(right) => SetExpr::SetOperation {
                    op: SetOperator::Union,
                    set_quantifier: SetQuantifier::All,
                    left: Box::new(left),
                    right: Box::new(right),
                },
                None => left,
            });
        }
        parts = pairs;
    }
    parts.pop()
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
    Some(*parsed_query(sql)?.body)
}

fn parsed_query(sql: &str) -> Option<Query> {
    let parsed = tributary_planner::parse::parse(sql).ok()?.pop()?;
    let tributary_planner::parse::Statement::Sql(statement) = parsed.statement else {
        return None;
    };
    match *statement {
        Statement::Query(query) => Some(*query),
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
