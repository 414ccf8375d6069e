//! Columns of one name in one SELECT, which PostgreSQL allows and DataFusion does not: `SELECT 1, 1`, `SELECT a, a`.
//!
//! A repeated column gets an alias of its own: the name it has for the client, then a mark and a number. What describes
//! results to clients cuts the mark off again ([`shown_name`]).

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Expr, Ident, Query, SelectItem, SetExpr, VisitMut, VisitorMut};

/// Begins the part of a name that clients do not see. It cannot be typed into SQL unnoticed.
const MARK: char = '\u{1}';

/// The name of a column as a client sees it.
pub fn shown_name(name: &str) -> &str {
    name.split(MARK).next().unwrap_or(name)
}

/// Gives repeated columns names of their own, in every SELECT of a query.
pub fn name_apart(query: &mut Query) {
    let _: ControlFlow<()> = query.visit(&mut Naming { given: 0 });
}

struct Naming {
    given: usize,
}

impl VisitorMut for Naming {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        self.body(&mut query.body);
        ControlFlow::Continue(())
    }
}

impl Naming {
    fn body(&mut self, body: &mut SetExpr) {
        match body {
            SetExpr::Select(select) => {
                let is_single = matches!(select.from.as_slice(), [table] if table.joins.is_empty());
                self.items(&mut select.projection, is_single);
            }
            SetExpr::SetOperation { left, right, .. } => {
                self.body(left);
                self.body(right);
            }
            _ => {}
        }
    }

    fn items(&mut self, items: &mut [SelectItem], is_single: bool) {
        let has_wildcard = items
            .iter()
            .any(|item| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..)));
        let mut seen = BTreeSet::new();
        for item in items {
            let (key, name, expr) = match item {
                SelectItem::UnnamedExpr(expr) => (planned_name(expr, is_single), client_name(expr), expr),
                SelectItem::ExprWithAlias { expr, alias } => {
                    (format!("AS {alias}"), alias.value.clone(), expr)
                }
                _ => continue,
            };
            // A column beside a wildcard is most likely one of the wildcard's.
            let is_column = matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_));
            if seen.insert(key) && !(has_wildcard && is_column) {
                continue;
            }
            self.given += 1;
            let alias = Ident::with_quote('"', format!("{name}{MARK}{}", self.given));
            *item = SelectItem::ExprWithAlias {
                expr: expr.clone(),
                alias,
            };
        }
    }
}

/// What expressions have in common that DataFusion gives one name: casts do not show in it, and over a single table the
/// table does not matter.
fn planned_name(expr: &Expr, is_single: bool) -> String {
    match expr {
        Expr::Cast { expr, .. } | Expr::Nested(expr) => planned_name(expr, is_single),
        Expr::CompoundIdentifier(parts) if is_single => {
            parts.last().map_or_else(String::new, Ident::to_string)
        }
        other => other.to_string(),
    }
}

/// The name PostgreSQL gives to a column without an alias.
fn client_name(expr: &Expr) -> String {
    let folded = |ident: &Ident| match ident.quote_style {
        None => ident.value.to_lowercase(),
        Some(_) => ident.value.clone(),
    };
    match expr {
        Expr::Identifier(ident) => folded(ident),
        Expr::CompoundIdentifier(parts) => parts.last().map_or_else(String::new, folded),
        Expr::Function(call) => call
            .name
            .0
            .last()
            .and_then(|part| part.as_ident())
            .map_or_else(|| "?column?".into(), folded),
        Expr::Cast { expr, .. } => client_name(expr),
        Expr::Case { .. } => "case".into(),
        _ => "?column?".into(),
    }
}

#[cfg(test)]
mod tests {
    use tributary_planner::parse::{Statement, parse};

    use super::*;

    #[test]
    fn repeated_columns_are_told_apart_and_shown_alike() {
        let Statement::Sql(statement) = parse("SELECT 1, 1, a, b, A, count(*), count(*), t.a::text FROM t")
            .expect("sql")
            .remove(0)
            .statement
        else {
            panic!("a query")
        };
        let datafusion::sql::sqlparser::ast::Statement::Query(mut query) = *statement else {
            panic!("a query")
        };
        name_apart(&mut query);
        let text = query.to_string();
        assert!(
            text.starts_with(
                "SELECT 1, 1 AS \"?column?\u{1}1\", a, b, A, count(*), count(*) AS \"count\u{1}2\""
            ),
            "{text}"
        );
        assert!(text.contains("t.a::TEXT AS \"a\u{1}3\""), "{text}");
        assert_eq!(shown_name("count\u{1}2"), "count");
    }
}
