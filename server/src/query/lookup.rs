//! `SELECT columns FROM relation WHERE column = constant AND …`: answered without a plan.
//!
//! Planning such a query costs ten times what finding its rows does. It is recognised by its shape: one table with all
//! columns of its key fixed, or one materialized view with some of its columns fixed, and nothing but columns in the list.
//! Constants are integers, texts and booleans that have the column's very type. Whatever is not recognised is planned, and
//! answered alike: this is no second dialect, so when in doubt the answer here is none.

use std::sync::{Arc, LazyLock};

use datafusion::arrow::array::{ArrayRef, BooleanArray, Int16Array, Int32Array, Int64Array, StringArray};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::sql::sqlparser::ast::{
    self, BinaryOperator, Expr, Ident, LimitClause, SelectItem, SetExpr, TableFactor, UnaryOperator, Value,
};
use tributary_planner::catalog::Object;
use tributary_planner::parse::{Statement, fold, parse, public_name, table_factor};
use tributary_planner::types::SqlType;
use tributary_region::Snapshot;

use super::fixed::Fixed;
use super::relation::Relation;

/// A query that is a lookup.
pub struct Lookup {
    /// The relation.
    pub object: Arc<Object>,
    key: Fixed,
    columns: Vec<usize>,
    names: Vec<String>,
    rows_max: usize,
}

/// The columns that are fixed, as they are named, and to what.
struct Condition<'a> {
    column: String,
    value: &'a Expr,
}

/// A select with nothing but a list, FROM and WHERE: what differs from it elsewhere asks for more.
static BARE: LazyLock<Option<Box<ast::Select>>> = LazyLock::new(|| {
    let Statement::Sql(statement) = parse("SELECT 1 FROM t WHERE a = 1").ok()?.pop()?.statement else {
        return None;
    };
    match *statement {
        ast::Statement::Query(query) => match *query.body {
            SetExpr::Select(select) => Some(select),
            _ => None,
        },
        _ => None,
    }
});

impl Lookup {
    /// The query as a lookup in a snapshot, if it is one.
    pub fn of(query: &ast::Query, snapshot: &Snapshot) -> Option<Self> {
        let rows_max = bound(query)?;
        let SetExpr::Select(select) = query.body.as_ref() else {
            return None;
        };
        let [from] = select.from.as_slice() else {
            return None;
        };
        let condition = select.selection.as_ref()?;
        if !from.joins.is_empty() || !is_bare(select) {
            return None;
        }
        let (object, alias) = relation(&from.relation, snapshot)?;
        let mut conditions = Vec::new();
        conjuncts(condition, &alias, &mut conditions)?;
        let key = fixed(&object, &conditions)?;
        let (columns, names) = list(&select.projection, &object, &alias)?;
        Some(Self {
            object,
            key,
            columns,
            names,
            rows_max,
        })
    }

    /// The columns of the result, of rows of the relation.
    pub fn schema(&self, relation: &Relation) -> SchemaRef {
        relation.shown_as(&self.columns, &self.names)
    }

    /// Its rows, found as they are asked for.
    pub fn rows(self, relation: &Relation) -> SendableRecordBatchStream {
        let schema = self.schema(relation);
        relation.lookup(self.key, self.columns, schema, self.rows_max)
    }
}

/// How many rows a query asks for at most, if it has no other clauses.
fn bound(query: &ast::Query) -> Option<usize> {
    let ast::Query {
        with: None,
        body: _,
        order_by: None,
        limit_clause,
        fetch: None,
        locks,
        for_clause: None,
        settings: None,
        format_clause: None,
        pipe_operators,
    } = query
    else {
        return None;
    };
    if !locks.is_empty() || !pipe_operators.is_empty() {
        return None;
    }
    match limit_clause {
        None => Some(usize::MAX),
        Some(LimitClause::LimitOffset {
            limit: Some(limit),
            offset: None,
            limit_by,
        }) if limit_by.is_empty() => integer(limit).and_then(|rows| usize::try_from(rows).ok()),
        Some(_) => None,
    }
}

fn is_bare(select: &ast::Select) -> bool {
    let Some(bare) = BARE.as_ref() else {
        return false;
    };
    let mut expected = bare.clone();
    expected.projection.clone_from(&select.projection);
    expected.from.clone_from(&select.from);
    expected.selection.clone_from(&select.selection);
    expected.select_token = select.select_token.clone();
    *expected == *select
}

/// The relation, and the name by which its columns may be qualified.
fn relation(factor: &TableFactor, snapshot: &Snapshot) -> Option<(Arc<Object>, String)> {
    let TableFactor::Table { name, alias, .. } = factor else {
        return None;
    };
    if *factor != table_factor(name.clone(), alias.clone()) {
        return None;
    }
    let folded = public_name(name).ok()?;
    name.0
        .iter()
        .all(|part| part.as_ident().and_then(known).is_some())
        .then_some(())?;
    let object = snapshot.catalog.object(&folded)?;
    let alias = match alias {
        None => folded.clone(),
        Some(alias) if alias.columns.is_empty() => known(&alias.name)?,
        Some(_) => return None,
    };
    // Clients' queries over catalogs are rewritten before they are planned.
    (!folded.starts_with("pg_")).then(|| (Arc::clone(object), alias))
}

/// A name as it is known. Letters beyond ASCII are folded in more than one way, unless they are quoted.
fn known(name: &Ident) -> Option<String> {
    (name.quote_style.is_some() || name.value.is_ascii()).then(|| fold(name))
}

/// The column that an expression is.
fn column(expr: &Expr, alias: &str) -> Option<String> {
    match expr {
        Expr::Identifier(name) => known(name),
        Expr::CompoundIdentifier(names) => match names.as_slice() {
            [qualifier, name] if known(qualifier)? == alias => known(name),
            _ => None,
        },
        _ => None,
    }
}

/// What must hold together; `None` when some of it is no equality.
fn conjuncts<'a>(condition: &'a Expr, alias: &str, found: &mut Vec<Condition<'a>>) -> Option<()> {
    match condition {
        Expr::Nested(inner) => conjuncts(inner, alias, found),
        Expr::BinaryOp {
            left,
            op: BinaryOperator::And,
            right,
        } => {
            conjuncts(left, alias, found)?;
            conjuncts(right, alias, found)
        }
        Expr::BinaryOp {
            left,
            op: BinaryOperator::Eq,
            right,
        } => {
            let (column, value) = match column(left, alias) {
                Some(column) => (column, right),
                None => (column(right, alias)?, left),
            };
            found.push(Condition { column, value });
            Some(())
        }
        _ => None,
    }
}

/// What rows are looked up by: of a table the whole key and nothing else, of a materialized view any columns.
fn fixed(object: &Object, conditions: &[Condition]) -> Option<Fixed> {
    let columns = visible(object);
    let place = |name: &str| columns.iter().position(|(_, column, _)| *column == name);
    let mut values: Vec<(usize, ArrayRef)> = Vec::with_capacity(conditions.len());
    for condition in conditions {
        let (at, _, sql_type) = &columns[place(&condition.column)?];
        values.push((*at, constant(condition.value, *sql_type)?));
    }
    match object.as_table() {
        Some(table) => {
            let key = &table.primary_key;
            let value = |column: &usize| Some(values.iter().find(|(at, _)| at == column)?.1.clone());
            (values.len() == key.len()).then_some(())?;
            Some(Fixed {
                columns: key.clone(),
                values: key.iter().map(value).collect::<Option<_>>()?,
            })
        }
        None => {
            values.sort_by_key(|(at, _)| *at);
            let is_twice = values.windows(2).any(|pair| pair[0].0 == pair[1].0);
            let (columns, values) = values.into_iter().unzip();
            (!is_twice).then_some(Fixed { columns, values })
        }
    }
}

/// The visible columns of a table or materialized view: where they are, their names and types.
fn visible(object: &Object) -> Vec<(usize, &str, SqlType)> {
    use tributary_planner::catalog::ObjectKind::*;
    match &object.kind {
        Table(table) => {
            let columns = table
                .columns
                .iter()
                .enumerate()
                .filter(|(_, column)| !column.hidden);
            columns
                .map(|(at, column)| (at, column.name.as_str(), column.sql_type))
                .collect()
        }
        MaterializedView(view) => {
            let columns = view.columns.iter().enumerate();
            columns
                .map(|(at, column)| (at, column.name.as_str(), column.sql_type))
                .collect()
        }
        View(_) | Source(_) | Sink(_) => Vec::new(),
    }
}

/// The list as places among the visible columns, and the names of the result's. `None` when it has something else than
/// columns, or one name twice.
fn list(items: &[SelectItem], object: &Object, alias: &str) -> Option<(Vec<usize>, Vec<String>)> {
    let visible = visible(object);
    let place = |name: &str| visible.iter().position(|(_, column, _)| *column == name);
    let mut columns = Vec::with_capacity(items.len());
    let mut names: Vec<String> = Vec::with_capacity(items.len());
    let mut add = |column: &str, name: Option<&Ident>| {
        columns.push(place(column)?);
        names.push(match name {
            None => column.to_owned(),
            Some(name) => known(name)?,
        });
        Some(())
    };
    for item in items {
        match item {
            SelectItem::UnnamedExpr(expr) => add(&column(expr, alias)?, None)?,
            SelectItem::ExprWithAlias { expr, alias: name } => add(&column(expr, alias)?, Some(name))?,
            SelectItem::Wildcard(options) if *options == ast::WildcardAdditionalOptions::default() => {
                for (_, column, _) in &visible {
                    add(column, None)?;
                }
            }
            _ => return None,
        }
    }
    let is_twice = (1..names.len()).any(|at| names[..at].contains(&names[at]));
    (!is_twice && !names.is_empty()).then_some((columns, names))
}

/// A constant as a value of a column's type; `None` where the types are not the same, or not among those known here.
fn constant(value: &Expr, sql_type: SqlType) -> Option<ArrayRef> {
    let text = |value: &Expr| match value {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => Some(text.clone()),
            _ => None,
        },
        _ => None,
    };
    Some(match sql_type {
        SqlType::Int2 => Arc::new(Int16Array::from(vec![i16::try_from(integer(value)?).ok()?])),
        SqlType::Int4 => Arc::new(Int32Array::from(vec![i32::try_from(integer(value)?).ok()?])),
        SqlType::Int8 => Arc::new(Int64Array::from(vec![integer(value)?])),
        SqlType::Text | SqlType::Varchar(_) => Arc::new(StringArray::from(vec![text(value)?])),
        SqlType::Bool => match value {
            Expr::Value(value) => match value.value {
                Value::Boolean(is_true) => Arc::new(BooleanArray::from(vec![is_true])),
                _ => return None,
            },
            _ => return None,
        },
        _ => return None,
    })
}

/// A constant that is an integer, and fits the type that it is cast to.
fn integer(value: &Expr) -> Option<i64> {
    match value {
        Expr::Value(value) => match &value.value {
            Value::Number(digits, false) => digits.parse().ok(),
            _ => None,
        },
        Expr::UnaryOp {
            op: UnaryOperator::Minus,
            expr,
        } if matches!(**expr, Expr::Value(_)) => integer(expr)?.checked_neg(),
        Expr::Cast {
            kind: ast::CastKind::Cast | ast::CastKind::DoubleColon,
            expr,
            data_type,
            array: false,
            format: None,
        } => {
            let number = integer(expr)?;
            let fits = match SqlType::from_ast(data_type).ok()? {
                SqlType::Int2 => i16::try_from(number).is_ok(),
                SqlType::Int4 => i32::try_from(number).is_ok(),
                SqlType::Int8 => true,
                _ => false,
            };
            fits.then_some(number)
        }
        _ => None,
    }
}
