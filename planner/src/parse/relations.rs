//! The relations that a query names.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use sqlparser::ast::{ObjectName, Query, TableFactor, Visit, Visitor};

use super::names::{fold, queried_name};
use super::window_function::windowed_relation;

/// The folded names of the relations of schema `public` that a query reads, anywhere in it. A name defined by
/// WITH means that definition, but only where it is in scope: in `WITH t AS (SELECT * FROM t) …` the inner
/// `t` is the relation.
pub fn relation_names(query: &Query) -> BTreeSet<String> {
    let mut collector = Collector::default();
    let done: ControlFlow<()> = query.visit(&mut collector);
    debug_assert!(done.is_continue(), "the collector never stops early");
    collector.names
}

/// As [`relation_names`] for a statement that writes; the table that it writes may be among them.
pub fn relation_names_in(statement: &impl Visit) -> BTreeSet<String> {
    let mut collector = Collector::default();
    let done: ControlFlow<()> = statement.visit(&mut collector);
    debug_assert!(done.is_continue(), "the collector never stops early");
    collector.names
}

/// The relations that a query reads through window functions, names that its WITH clauses define left out.
pub fn windowed_relations(query: &Query) -> Vec<ObjectName> {
    let mut collector = Collector::default();
    let done: ControlFlow<()> = query.visit(&mut collector);
    debug_assert!(done.is_continue(), "the collector never stops early");
    collector.windowed
}

/// One query being visited.
struct Scope {
    /// The queries of its WITH clause, by address, and the names they define.
    definitions: Vec<(*const Query, String)>,
    /// The names in scope by now.
    defined: BTreeSet<String>,
}

#[derive(Default)]
struct Collector {
    scopes: Vec<Scope>,
    names: BTreeSet<String>,
    windowed: Vec<ObjectName>,
}

impl Collector {
    /// Whether a relation is a name that a WITH clause defines.
    fn is_defined(&self, relation: &ObjectName) -> bool {
        relation.0.len() == 1
            && queried_name(relation)
                .is_some_and(|name| self.scopes.iter().any(|scope| scope.defined.contains(&name)))
    }
}

impl Visitor for Collector {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let mut scope = Scope {
            definitions: Vec::new(),
            defined: BTreeSet::new(),
        };
        if let Some(with) = &query.with {
            scope.definitions = with
                .cte_tables
                .iter()
                .map(|cte| (std::ptr::from_ref(cte.query.as_ref()), fold(&cte.alias.name)))
                .collect();
            if with.recursive {
                scope.defined = scope.definitions.iter().map(|(_, name)| name.clone()).collect();
            }
        }
        self.scopes.push(scope);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        self.scopes.pop();
        // A definition is in scope from its end on.
        if let Some(outer) = self.scopes.last_mut() {
            let ended = outer.definitions.iter().find(|(at, _)| std::ptr::eq(*at, query));
            outer.defined.extend(ended.map(|(_, name)| name.clone()));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        if !self.is_defined(relation) {
            self.names.extend(queried_name(relation));
        }
        ControlFlow::Continue(())
    }

    /// The first argument of a window function is a relation as well.
    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        let Some(relation) = windowed_relation(factor) else {
            return ControlFlow::Continue(());
        };
        if !self.is_defined(&relation) && !self.windowed.contains(&relation) {
            self.windowed.push(relation.clone());
        }
        self.pre_visit_relation(&relation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sqlparser::dialect::PostgreSqlDialect;
    use sqlparser::parser::Parser;

    fn names(sql: &str) -> Vec<String> {
        let mut parser = Parser::new(&PostgreSqlDialect {})
            .try_with_sql(sql)
            .expect("it tokenizes");
        relation_names(&parser.parse_query().expect("it is a query"))
            .into_iter()
            .collect()
    }

    #[test]
    fn windowed_relations_are_those_that_are_stored() {
        let sql = "WITH w AS (SELECT * FROM HOP(\"U\", a, b, c)) SELECT * FROM t, TUMBLE(w, a, b), TUMBLE(public.s, a, b), \
                   TUMBLE(public.s, x, y)";
        let mut parser = Parser::new(&PostgreSqlDialect {})
            .try_with_sql(sql)
            .expect("it tokenizes");
        let query = parser.parse_query().expect("it is a query");
        let found: Vec<String> = windowed_relations(&query)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(found, ["\"U\"", "public.s"]);
    }

    #[test]
    fn names_in_scope_of_with_are_not_relations() {
        assert_eq!(
            names("SELECT * FROM A, public.b, pg_catalog.c, \"D\""),
            ["D", "a", "b"]
        );
        assert_eq!(names("WITH t AS (SELECT * FROM u) SELECT * FROM t"), ["u"]);
        assert_eq!(names("WITH t AS (SELECT * FROM t) SELECT * FROM t"), ["t"]);
        assert_eq!(names("WITH t AS (SELECT 1) SELECT * FROM public.t"), ["t"]);
        assert_eq!(
            names("WITH RECURSIVE t AS (SELECT 1 UNION ALL SELECT * FROM t) SELECT * FROM t"),
            [""; 0]
        );
        assert_eq!(
            names("SELECT (SELECT max(x) FROM s) FROM (WITH w AS (SELECT 1) SELECT * FROM w) q, w"),
            ["s", "w"]
        );
        assert_eq!(
            names("SELECT * FROM t WHERE a IN (SELECT b FROM u WHERE EXISTS (SELECT 1 FROM v))"),
            ["t", "u", "v"]
        );
        assert_eq!(
            names(
                "WITH w AS (SELECT * FROM u) SELECT * FROM TUMBLE(t, a, b), HOP(public.s, a, b, c), TUMBLE(w, a, b)"
            ),
            ["hop", "s", "t", "tumble", "u"]
        );
    }
}
