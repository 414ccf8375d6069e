//! `*` when hidden columns are exposed: spelt out, so that it means the visible columns only.
//!
//! A statement that names a `tributary_` column is planned over relations that have the hidden columns. Its wildcards
//! over tables are replaced here by their visible columns; wildcards over subqueries and WITH queries stay, since
//! those have exactly the columns that were written in them.
//!
//! Left out: wildcards over joins with USING and NATURAL joins, which merge columns; they are refused with a hint.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Ident, JoinConstraint, JoinOperator, ObjectName, Query, Select, SelectItem,
    SelectItemQualifiedWildcardKind, SetExpr, TableFactor, TableWithJoins, VisitMut, VisitorMut,
    WildcardAdditionalOptions,
};
use tributary_planner::catalog::Catalog;
use tributary_planner::parse::{fold, public_name};

use crate::pgwire::error::{SqlError, SqlResult};

/// Spells out the wildcards of a query.
pub fn expand(query: &mut Query, catalog: &Catalog) -> SqlResult<()> {
    match query.visit(&mut Expansion {
        catalog,
        defined: BTreeSet::new(),
    }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

struct Expansion<'a> {
    catalog: &'a Catalog,
    /// Names that WITH clauses define, anywhere: such a name is taken for the definition.
    defined: BTreeSet<String>,
}

impl VisitorMut for Expansion<'_> {
    type Break = SqlError;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<SqlError> {
        if let Some(with) = &query.with {
            self.defined
                .extend(with.cte_tables.iter().map(|cte| fold(&cte.alias.name)));
        }
        match self.body(&mut query.body) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}

impl Expansion<'_> {
    fn body(&self, body: &mut SetExpr) -> SqlResult<()> {
        match body {
            SetExpr::Select(select) => self.select(select),
            SetExpr::SetOperation { left, right, .. } => {
                self.body(left)?;
                self.body(right)
            }
            // Nested queries are visited by themselves.
            _ => Ok(()),
        }
    }

    fn select(&self, select: &mut Select) -> SqlResult<()> {
        let mut projection = Vec::with_capacity(select.projection.len());
        for item in std::mem::take(&mut select.projection) {
            match item {
                SelectItem::Wildcard(options) => {
                    for from in &select.from {
                        projection.extend(self.columns_of(from, &options)?);
                    }
                }
                SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options) => {
                    let mut factors = select.from.iter().flat_map(factors);
                    let found =
                        factors.find(|factor| factor_name(factor).is_some_and(|own| own == bare(&name)));
                    match found {
                        Some(factor) => projection.extend(self.columns_of_factor(factor, &options)),
                        None => projection.push(SelectItem::QualifiedWildcard(
                            SelectItemQualifiedWildcardKind::ObjectName(name),
                            options,
                        )),
                    }
                }
                other => projection.push(other),
            }
        }
        select.projection = projection;
        Ok(())
    }

    fn columns_of(
        &self,
        from: &TableWithJoins,
        options: &WildcardAdditionalOptions,
    ) -> SqlResult<Vec<SelectItem>> {
        let merges = from.joins.iter().any(|join| match &join.join_operator {
            JoinOperator::Join(constraint)
            | JoinOperator::Inner(constraint)
            | JoinOperator::Left(constraint)
            | JoinOperator::LeftOuter(constraint)
            | JoinOperator::Right(constraint)
            | JoinOperator::RightOuter(constraint)
            | JoinOperator::FullOuter(constraint) => {
                matches!(constraint, JoinConstraint::Using(_) | JoinConstraint::Natural)
            }
            _ => false,
        });
        if merges {
            return Err(SqlError::unsupported(
                "* over a join with USING beside a tributary_ column is not supported",
            )
            .hint("name the columns"));
        }
        Ok(factors(from)
            .flat_map(|factor| self.columns_of_factor(factor, options))
            .collect())
    }

    /// The visible columns of a table, or the wildcard of anything else.
    fn columns_of_factor(
        &self,
        factor: &TableFactor,
        options: &WildcardAdditionalOptions,
    ) -> Vec<SelectItem> {
        let Some(reference) = factor_name(factor) else {
            return vec![SelectItem::Wildcard(options.clone())];
        };
        let table = match factor {
            TableFactor::Table { name, args: None, .. } => public_name(name)
                .ok()
                .filter(|name| !self.defined.contains(name))
                .and_then(|name| self.catalog.object(&name).cloned()),
            _ => None,
        };
        match table.as_ref().and_then(|object| object.as_table()) {
            Some(table) => table
                .visible()
                .map(|index| {
                    let column = Ident::with_quote('"', &table.columns[index].name);
                    let relation = Ident::with_quote('"', &reference);
                    SelectItem::UnnamedExpr(Expr::CompoundIdentifier(vec![relation, column]))
                })
                .collect(),
            None => {
                let name = ObjectName::from(vec![Ident::with_quote('"', reference)]);
                let kind = SelectItemQualifiedWildcardKind::ObjectName(name);
                vec![SelectItem::QualifiedWildcard(kind, options.clone())]
            }
        }
    }
}

fn factors(from: &TableWithJoins) -> impl Iterator<Item = &TableFactor> {
    std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation))
}

/// The name under which a factor's columns are known, folded.
fn factor_name(factor: &TableFactor) -> Option<String> {
    match factor {
        TableFactor::Table {
            alias: Some(alias), ..
        }
        | TableFactor::Derived {
            alias: Some(alias), ..
        }
        | TableFactor::TableFunction {
            alias: Some(alias), ..
        } => Some(fold(&alias.name)),
        TableFactor::Table {
            name, alias: None, ..
        } => Some(bare(name)),
        _ => None,
    }
}

fn bare(name: &ObjectName) -> String {
    name.0
        .last()
        .and_then(|part| part.as_ident())
        .map_or_else(String::new, fold)
}

#[cfg(test)]
mod tests {
    use tributary_planner::catalog::{CatalogChange, ColumnDef, Object, ObjectKind, TableDef, TableLocality};
    use tributary_planner::parse::{Statement, parse};
    use tributary_planner::types::SqlType;
    use tributary_storage::ObjectId;

    use super::*;

    fn expanded(sql: &str) -> SqlResult<String> {
        let column = |name: &str, hidden| ColumnDef {
            name: name.into(),
            sql_type: SqlType::Int8,
            nullable: true,
            default: None,
            hidden,
        };
        let columns = vec![
            column("a", false),
            column("b", false),
            column("tributary_row_id", true),
        ];
        let table = TableDef {
            columns,
            primary_key: vec![2],
            locality: TableLocality::RegionalByRow,
        };
        let mut catalog = Catalog::default();
        for (id, name) in [(1, "t"), (2, "u")] {
            let kind = ObjectKind::Table(table.clone());
            catalog.apply(&CatalogChange::Create(Object {
                id: ObjectId(id),
                name: name.into(),
                kind,
            }));
        }
        let parsed = parse(sql).expect("it parses").remove(0);
        let Statement::Sql(statement) = parsed.statement else {
            panic!("a query")
        };
        let datafusion::sql::sqlparser::ast::Statement::Query(mut query) = *statement else {
            panic!("a query")
        };
        expand(&mut query, &catalog).map(|()| query.to_string())
    }

    #[test]
    fn wildcards_over_tables_are_spelt_out() {
        for (sql, expected) in [
            (
                "SELECT *, tributary_region FROM t",
                r#"SELECT "t"."a", "t"."b", tributary_region FROM t"#,
            ),
            (
                "SELECT x.*, y.tributary_region FROM t AS x, u AS y",
                r#"SELECT "x"."a", "x"."b", y.tributary_region FROM t AS x, u AS y"#,
            ),
            (
                "SELECT * FROM (SELECT a, tributary_region FROM t) AS s",
                r#"SELECT "s".* FROM (SELECT a, tributary_region FROM t) AS s"#,
            ),
            (
                "WITH t AS (SELECT 1) SELECT * FROM t",
                r#"WITH t AS (SELECT 1) SELECT "t".* FROM t"#,
            ),
        ] {
            assert_eq!(expanded(sql).expect(sql), expected);
        }
        assert_eq!(
            expanded("SELECT * FROM t JOIN u USING (a)")
                .expect_err("merged columns")
                .state,
            "0A000"
        );
    }
}
