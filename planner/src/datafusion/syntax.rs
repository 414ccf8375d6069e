//! Checks and rewrites of the syntax tree before DataFusion sees it.
//!
//! Refused here: what DataFusion would accept with another meaning, or drop silently. Rewritten here: the names of
//! columns without AS, which are PostgreSQL's (`count`, `?column?`) and not DataFusion's (`count(Int64(1))`).
//! DataFusion wants them unique within a SELECT, so later ones get a suffix, which [`plain_name`] takes off.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use sqlparser::ast::{
    Distinct, Expr, FunctionArguments, GroupByExpr, Ident, ObjectName, Query, Select, SelectItem, SetExpr,
    SetOperator, SetQuantifier, TableFactor, Visit, VisitMut, Visitor, VisitorMut, WindowType,
};

use super::stubs::ROW_NUMBER;
use super::typed::functions;
use crate::error::PlanError;
use crate::parse::window_function;
use crate::types::SqlType;

/// Stands between a name and the number that makes it unique; no identifier holds it.
const SEPARATOR: char = '\u{1}';

/// Refuses what must not reach DataFusion, and names columns as PostgreSQL does.
///
/// # Errors
/// `Unsupported`, with the construct.
pub fn prepare(query: &Query) -> Result<Query, PlanError> {
    if let ControlFlow::Break(error) = query.visit(&mut Check) {
        return Err(*error);
    }
    let mut query = query.clone();
    let ControlFlow::Continue(()) = VisitMut::visit(&mut query, &mut Names);
    Ok(query)
}

/// The name as the user sees it.
pub fn plain_name(name: &str) -> &str {
    name.split(SEPARATOR).next().unwrap_or(name)
}

struct Check;

impl Check {
    fn refuse(what: impl std::fmt::Display, alternative: &str) -> ControlFlow<Box<PlanError>> {
        ControlFlow::Break(Box::new(PlanError::unsupported(what, alternative)))
    }
}

impl Visitor for Check {
    type Break = Box<PlanError>;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Self::Break> {
        if query.with.as_ref().is_some_and(|with| with.recursive) {
            return Self::refuse("WITH RECURSIVE in a view", "Use WITH without RECURSIVE.");
        }
        if query.fetch.is_some() {
            return Self::refuse("FETCH in a view", "Use LIMIT.");
        }
        if !query.locks.is_empty() {
            return Self::refuse("FOR UPDATE or FOR SHARE in a view", "Leave it out.");
        }
        if !query.pipe_operators.is_empty() || query.settings.is_some() || query.format_clause.is_some() {
            return Self::refuse("this clause of a query", "Write standard SQL.");
        }
        check_body(&query.body)
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<Self::Break> {
        check_select(select)
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<Self::Break> {
        match factor {
            TableFactor::Table {
                args: None,
                sample: None,
                version: None,
                with_hints,
                partitions,
                ..
            } if with_hints.is_empty() && partitions.is_empty() => {}
            TableFactor::Derived {
                lateral: false,
                sample: None,
                ..
            }
            | TableFactor::NestedJoin { .. } => {}
            function if window_function(function).is_some() => {}
            TableFactor::Derived { lateral: true, .. } => {
                return Self::refuse("LATERAL in a view", "Write a join.");
            }
            TableFactor::Table { args: Some(_), .. }
            | TableFactor::Function { .. }
            | TableFactor::UNNEST { .. } => {
                return Self::refuse(
                    "a function in FROM, other than TUMBLE, HOP and SESSION,",
                    "Only tables and views can be read by a view.",
                );
            }
            _ => {
                return Self::refuse(
                    "this form of FROM",
                    "Only tables, views and subqueries can be read by a view.",
                );
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Self::Break> {
        match expr {
            Expr::AtTimeZone { .. } => Self::refuse(
                "AT TIME ZONE in a view",
                "Keep local times in a column of type timestamp.",
            ),
            Expr::AnyOp { .. } | Expr::AllOp { .. } => {
                Self::refuse("ANY or ALL in a view", "Use IN with a list.")
            }
            Expr::Collate { .. } => Self::refuse("COLLATE in a view", "Text is ordered by its bytes."),
            Expr::GroupingSets(_) | Expr::Rollup(_) | Expr::Cube(_) => Self::refuse(
                "GROUPING SETS, ROLLUP or CUBE in a view",
                "Write one view per grouping.",
            ),
            Expr::Function(function) => check_function(&function.name, function.over.as_ref()),
            _ => ControlFlow::Continue(()),
        }
    }
}

fn check_function(name: &ObjectName, over: Option<&WindowType>) -> ControlFlow<Box<PlanError>> {
    let name = name
        .0
        .last()
        .and_then(|part| part.as_ident())
        .map(|ident| ident.value.to_lowercase());
    let name = name.unwrap_or_default();
    if let Some(over) = over {
        if name == ROW_NUMBER && matches!(over, WindowType::WindowSpec(spec) if spec.window_frame.is_none()) {
            return ControlFlow::Continue(());
        }
        let alternative = "Use row_number() in a subquery and keep the first rows (WHERE n <= 10), or rank in the query \
                           that reads the view.";
        return Check::refuse(
            format_args!("the window function {name}() OVER in a view"),
            alternative,
        );
    }
    match functions::refusal(&name) {
        Some(reason) => Check::refuse(format_args!("{name}() in a view"), reason),
        None => ControlFlow::Continue(()),
    }
}

fn check_body(body: &SetExpr) -> ControlFlow<Box<PlanError>> {
    match body {
        SetExpr::Select(_) | SetExpr::Query(_) => ControlFlow::Continue(()),
        SetExpr::SetOperation {
            op,
            set_quantifier,
            left,
            right,
        } => {
            if *op != SetOperator::Union {
                let alternative = "Use a join, or LEFT JOIN … WHERE … IS NULL.";
                return Check::refuse(format_args!("{op} in a view"), alternative);
            }
            if !matches!(
                set_quantifier,
                SetQuantifier::All | SetQuantifier::Distinct | SetQuantifier::None
            ) {
                return Check::refuse("UNION BY NAME", "Name the columns in one order.");
            }
            check_body(left)?;
            check_body(right)
        }
        SetExpr::Values(_) => Check::refuse(
            "VALUES in a view",
            "Keep the rows in a table with LOCALITY GLOBAL.",
        ),
        _ => Check::refuse("this form of query in a view", "Write a SELECT."),
    }
}

fn check_select(select: &Select) -> ControlFlow<Box<PlanError>> {
    if matches!(select.distinct, Some(Distinct::On(_))) {
        return Check::refuse("SELECT DISTINCT ON in a view", "Use GROUP BY with min or max.");
    }
    if select.into.is_some() {
        return Check::refuse("SELECT INTO", "Use CREATE MATERIALIZED VIEW.");
    }
    if select.qualify.is_some() || !select.named_window.is_empty() {
        return Check::refuse(
            "a window in a view",
            "Use ORDER BY … LIMIT, or rank in the query that reads the view.",
        );
    }
    if select.from.is_empty() {
        return Check::refuse("a SELECT without FROM in a view", "Read a table.");
    }
    match &select.group_by {
        GroupByExpr::All(_) => Check::refuse("GROUP BY ALL", "Name the columns."),
        GroupByExpr::Expressions(_, modifiers) if !modifiers.is_empty() => Check::refuse(
            "GROUPING SETS, ROLLUP or CUBE in a view",
            "Write one view per grouping.",
        ),
        GroupByExpr::Expressions(..) => ControlFlow::Continue(()),
    }
}

struct Names;

impl VisitorMut for Names {
    type Break = std::convert::Infallible;

    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<Self::Break> {
        let mut taken: BTreeSet<String> = select.projection.iter().filter_map(named).collect();
        for item in &mut select.projection {
            let SelectItem::UnnamedExpr(expr) = item else {
                continue;
            };
            if matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_)) {
                continue;
            }
            let name = column_name(expr).unwrap_or_else(|| "?column?".to_owned());
            let mut unique = name.clone();
            let mut count = 1;
            while !taken.insert(unique.clone()) {
                count += 1;
                unique = format!("{name}{SEPARATOR}{count}");
            }
            *item = SelectItem::ExprWithAlias {
                expr: expr.clone(),
                alias: Ident::with_quote('"', unique),
            };
        }
        ControlFlow::Continue(())
    }
}

/// The name that an item has by itself.
fn named(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(folded(alias)),
        SelectItem::UnnamedExpr(Expr::Identifier(ident)) => Some(folded(ident)),
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(idents)) => idents.last().map(folded),
        _ => None,
    }
}

fn folded(ident: &Ident) -> String {
    if ident.quote_style.is_some() {
        ident.value.clone()
    } else {
        ident.value.to_lowercase()
    }
}

/// PostgreSQL's name for a column without AS; `None` is `?column?`.
fn column_name(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(ident) => Some(folded(ident)),
        Expr::CompoundIdentifier(idents) => idents.last().map(folded),
        Expr::Nested(inner) => column_name(inner),
        Expr::Function(function) => match (&function.args, function.name.0.last()?.as_ident()) {
            (FunctionArguments::Subquery(_), _) => None,
            (_, ident) => ident.map(folded),
        },
        Expr::Cast { expr, data_type, .. } => column_name(expr).or_else(|| {
            SqlType::from_ast(data_type)
                .ok()
                .map(|t| t.catalog_name().to_owned())
        }),
        Expr::TypedString(typed) => SqlType::from_ast(&typed.data_type)
            .ok()
            .map(|t| t.catalog_name().to_owned()),
        Expr::Case { else_result, .. } => Some(
            else_result
                .as_deref()
                .and_then(column_name)
                .unwrap_or_else(|| "case".to_owned()),
        ),
        Expr::Extract { .. } => Some("extract".to_owned()),
        Expr::Substring { .. } => Some("substring".to_owned()),
        Expr::Position { .. } => Some("position".to_owned()),
        Expr::Trim { .. } => Some("btrim".to_owned()),
        Expr::Ceil { .. } => Some("ceil".to_owned()),
        Expr::Floor { .. } => Some("floor".to_owned()),
        Expr::Interval(_) => Some("interval".to_owned()),
        Expr::Exists { .. } => Some("exists".to_owned()),
        Expr::Value(value) if matches!(value.value, sqlparser::ast::Value::Boolean(_)) => {
            Some("bool".to_owned())
        }
        _ => None,
    }
}
