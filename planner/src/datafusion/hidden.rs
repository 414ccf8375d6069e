//! Hidden columns: those that a query can name and that `*` leaves out.
//!
//! | column | of |
//! |---|---|
//! | `tributary_region` | regional tables and sources: the region of the row |
//! | hidden columns of sources (`tributary_time`) | sources |
//!
//! A relation shows them to the SELECT that names one of them, and to no other, so that the front end expands `*`
//! as if they were not there. Such a relation is marked in its name; a `*` beside a marked relation is refused.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow_schema::{DataType, Field, FieldRef};
use sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, Ident, Join, JoinConstraint, JoinOperator, ObjectName, Query, Select,
    SelectItem, TableAlias, TableFactor, VisitMut, VisitorMut,
};

use crate::catalog::{Catalog, Object, ObjectKind};
use crate::error::PlanError;
use crate::parse::{argument_relation, fold, public_name, window_function};
use crate::plan::Locality;
use crate::split::regions;

/// The region of a regional row.
const REGION: &str = "tributary_region";
/// Begins the name of a relation whose hidden columns show; no identifier holds it.
const MARK: char = '\u{1}';

/// The name of the relation, and whether its hidden columns show.
pub fn unmarked(name: &str) -> (&str, bool) {
    match name.strip_prefix(MARK) {
        Some(name) => (name, true),
        None => (name, false),
    }
}

/// The alias under which a marked relation keeps its name.
pub fn alias_of_marked(name: &str) -> Option<TableAlias> {
    let (name, marked) = unmarked(name);
    marked.then(|| alias_named(name))
}

fn alias_named(name: &str) -> TableAlias {
    TableAlias {
        explicit: true,
        name: Ident::with_quote('"', name),
        columns: Vec::new(),
        at: None,
    }
}

/// The columns of a relation, by number and with their fields; `all` are those that a query can name.
pub fn columns(object: &Object, all: bool) -> Vec<(usize, FieldRef)> {
    let schema = object.columns_arrow();
    let fields = schema.fields().iter().cloned().enumerate();
    let hidden = |index: &usize| match &object.kind {
        ObjectKind::Table(table) => table.columns[*index].hidden,
        ObjectKind::Source(source) => source.columns[*index].hidden,
        ObjectKind::View(_) | ObjectKind::MaterializedView(_) | ObjectKind::Sink(_) => false,
    };
    let is_source = matches!(object.kind, ObjectKind::Source(_));
    let mut columns: Vec<(usize, FieldRef)> = fields
        .filter(|(index, _)| !hidden(index) || (all && is_source))
        .collect();
    let has_region = object.locality() == Locality::Regional && schema.index_of(REGION).is_err();
    if all && has_region {
        columns.push((
            regions::COLUMN,
            Arc::new(Field::new(REGION, DataType::Utf8, false)),
        ));
    }
    columns
}

/// Marks the relations whose hidden columns a SELECT names.
///
/// # Errors
/// `Unsupported` for `*` beside such a relation.
pub fn mark(query: &mut Query, catalog: &Catalog) -> Result<(), PlanError> {
    let mut definitions = Definitions::default();
    let ControlFlow::Continue(()) = VisitMut::visit(query, &mut definitions);
    let mut marker = Marker {
        catalog,
        defined: definitions.0,
        scopes: Vec::new(),
    };
    match VisitMut::visit(query, &mut marker) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(*error),
    }
}

/// The names that a query defines by WITH: they hide relations, so none of them is marked.
#[derive(Default)]
struct Definitions(BTreeSet<String>);

impl VisitorMut for Definitions {
    type Break = std::convert::Infallible;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Self::Break> {
        let definitions = query.with.iter().flat_map(|with| &with.cte_tables);
        self.0
            .extend(definitions.map(|definition| fold(&definition.alias.name)));
        ControlFlow::Continue(())
    }
}

struct Marker<'a> {
    catalog: &'a Catalog,
    defined: BTreeSet<String>,
    /// The names of columns that each SELECT around this place uses.
    scopes: Vec<BTreeSet<String>>,
}

impl VisitorMut for Marker<'_> {
    type Break = Box<PlanError>;

    fn pre_visit_select(&mut self, _: &mut Select) -> ControlFlow<Self::Break> {
        self.scopes.push(BTreeSet::new());
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Self::Break> {
        let name = match expr {
            Expr::Identifier(name) => Some(&*name),
            Expr::CompoundIdentifier(names) => names.last(),
            _ => None,
        };
        if let (Some(name), Some(scope)) = (name, self.scopes.last_mut()) {
            scope.insert(fold(name));
        }
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<Self::Break> {
        let mut names = self.scopes.pop().expect("a SELECT ends after it began");
        let joins = select.from.iter().flat_map(|from| &from.joins);
        names.extend(joins.flat_map(using).map(|name| fold(&name)));
        let mut marked = false;
        for from in &mut select.from {
            marked |= self.factor(&mut from.relation, &names);
            for join in &mut from.joins {
                marked |= self.factor(&mut join.relation, &names);
            }
        }
        let star =
            |item: &SelectItem| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..));
        if marked && select.projection.iter().any(star) {
            return ControlFlow::Break(Box::new(PlanError::unsupported(
                "* beside a hidden column in a view",
                "Name the columns.",
            )));
        }
        ControlFlow::Continue(())
    }
}

impl Marker<'_> {
    /// Marks the relations of a part of FROM, and says whether there were any.
    fn factor(&self, factor: &mut TableFactor, names: &BTreeSet<String>) -> bool {
        if let TableFactor::NestedJoin {
            table_with_joins: nested,
            ..
        } = factor
        {
            let mut marked = self.factor(&mut nested.relation, names);
            for join in &mut nested.joins {
                marked |= self.factor(&mut join.relation, names);
            }
            return marked;
        }
        let windowed = window_function(factor).is_some();
        let TableFactor::Table {
            name, alias, args, ..
        } = factor
        else {
            return false;
        };
        let arguments = args.as_mut().map(|arguments| &mut arguments.args);
        let (relation, argument) = match arguments.and_then(|arguments| arguments.first_mut()) {
            Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))) if windowed => {
                (argument_relation(argument), Some(argument))
            }
            _ => (Some(name.clone()), None),
        };
        let Some(shown) = relation.and_then(|relation| self.with_hidden(&relation, names)) else {
            return false;
        };
        alias.get_or_insert_with(|| alias_named(&shown));
        let marked = Ident::with_quote('"', format!("{MARK}{shown}"));
        match argument {
            Some(argument) => *argument = Expr::Identifier(marked),
            None => *name = ObjectName::from(vec![marked]),
        }
        true
    }

    /// The name of a relation of the catalog, if it has hidden columns of these names.
    fn with_hidden(&self, relation: &ObjectName, names: &BTreeSet<String>) -> Option<String> {
        let name = public_name(relation).ok()?;
        if relation.0.len() == 1 && self.defined.contains(&name) {
            return None;
        }
        let object = self.catalog.object(&name)?;
        let seen = columns(object, false);
        columns(object, true)
            .iter()
            .any(|column| !seen.contains(column) && names.contains(column.1.name()))
            .then_some(name)
    }
}

/// The columns that a join names by USING.
fn using(join: &Join) -> Vec<Ident> {
    let constraint = match &join.join_operator {
        JoinOperator::Join(constraint)
        | JoinOperator::Inner(constraint)
        | JoinOperator::Left(constraint)
        | JoinOperator::LeftOuter(constraint) => constraint,
        _ => return Vec::new(),
    };
    let JoinConstraint::Using(columns) = constraint else {
        return Vec::new();
    };
    columns
        .iter()
        .filter_map(|column| column.0.last()?.as_ident().cloned())
        .collect()
}
