//! What a query's conditions fix: columns that must have one of some values, by which rows can be looked up, or a range of
//! a table's key.
//!
//! Conditions are DataFusion's, which still checks them on every row that is found: here it is enough to miss none.

use datafusion::arrow::array::{Array, ArrayRef};
use datafusion::arrow::datatypes::{DataType, Schema};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr, Operator};
use tributary_planner::catalog::TableDef;

/// What rows are looked up by.
#[derive(Clone, Debug)]
pub(super) struct Fixed {
    /// Columns, ascending; of a table those of its key, in the key's order.
    pub(super) columns: Vec<usize>,
    /// Per column its values: one, or several of the only column.
    pub(super) values: Vec<ArrayRef>,
}

impl Fixed {
    /// The number of keys.
    pub(super) fn rows(&self) -> usize {
        self.values.first().map_or(1, |values| values.len())
    }
}

/// The one key that satisfies the filters, if they fix all key columns.
pub(super) fn fixed_key(def: &TableDef, filters: &[Expr]) -> Option<Fixed> {
    let conjuncts = equalities(filters);
    let value_of = |&index: &usize| {
        let column = &def.columns[index];
        let fits = |value: &ScalarValue| value.data_type() == column.sql_type.arrow() && !value.is_null();
        let found = conjuncts
            .iter()
            .find(|(name, value)| *name == column.name && fits(value));
        found.and_then(|(_, value)| value.to_array_of_size(1).ok())
    };
    Some(Fixed {
        columns: def.primary_key.clone(),
        values: def.primary_key.iter().map(value_of).collect::<Option<_>>()?,
    })
}

/// A range of the first column of a table's key. Both bounds belong to it.
#[derive(Clone, Debug, Default)]
pub(super) struct KeyRange {
    pub(super) lower: Option<ArrayRef>,
    pub(super) upper: Option<ArrayRef>,
}

/// The range of the first key column that the filters allow; a wider one does no harm. `None` when they do not bound it.
pub(super) fn key_range(def: &TableDef, filters: &[Expr]) -> Option<KeyRange> {
    let first = &def.columns[*def.primary_key.first()?];
    let data_type = first.sql_type.arrow();
    let bound = |value: &ScalarValue| {
        let fits = is_looked_up(&data_type) && value.data_type() == data_type && !value.is_null();
        fits.then(|| value.to_array_of_size(1).ok()).flatten()
    };
    let is_first = |expr: &Expr| matches!(expr, Expr::Column(column) if column.name == first.name);
    let mut range = KeyRange::default();
    for expr in conjuncts(filters) {
        match expr {
            Expr::Between(between) if !between.negated && is_first(&between.expr) => {
                let (low, high) = (literal(&between.low), literal(&between.high));
                range.lower = range.lower.or_else(|| low.and_then(bound));
                range.upper = range.upper.or_else(|| high.and_then(bound));
            }
            Expr::BinaryExpr(binary) => {
                let (op, value) = match (literal(&binary.left), literal(&binary.right)) {
                    (None, Some(value)) if is_first(&binary.left) => (Some(binary.op), value),
                    (Some(value), None) if is_first(&binary.right) => (binary.op.swap(), value),
                    _ => continue,
                };
                let (is_lower, is_upper) = match op {
                    Some(Operator::Eq) => (true, true),
                    Some(Operator::Gt | Operator::GtEq) => (true, false),
                    Some(Operator::Lt | Operator::LtEq) => (false, true),
                    _ => continue,
                };
                if is_lower {
                    range.lower = range.lower.or_else(|| bound(value));
                }
                if is_upper {
                    range.upper = range.upper.or_else(|| bound(value));
                }
            }
            _ => {}
        }
    }
    (range.lower.is_some() || range.upper.is_some()).then_some(range)
}

/// The columns of a view that the filters fix: each to one value, or one to several.
pub(super) fn fixed_columns(schema: &Schema, filters: &[Expr]) -> Option<Fixed> {
    let place_of = |name: &str, value: &ScalarValue| {
        let (place, field) = schema.column_with_name(name)?;
        (is_looked_up(field.data_type()) && *field.data_type() == value.data_type() && !value.is_null())
            .then_some(place)
    };
    let mut fixed: Vec<(usize, &ScalarValue)> = equalities(filters)
        .into_iter()
        .filter_map(|(name, value)| Some((place_of(name, value)?, value)))
        .collect();
    // Of two values for one column no row has both, so either will do.
    fixed.sort_by_key(|(place, _)| *place);
    fixed.dedup_by_key(|(place, _)| *place);
    if !fixed.is_empty() {
        let values = fixed.iter().map(|(_, value)| value.to_array_of_size(1).ok());
        return Some(Fixed {
            columns: fixed.iter().map(|(place, _)| *place).collect(),
            values: values.collect::<Option<_>>()?,
        });
    }
    conjuncts(filters).into_iter().find_map(|expr| {
        let (name, values) = one_of(expr)?;
        let places = values.iter().map(|value| place_of(name, value));
        let place = *places.collect::<Option<Vec<usize>>>()?.first()?;
        let values = ScalarValue::iter_to_array(values.into_iter().cloned()).ok()?;
        Some(Fixed {
            columns: vec![place],
            values: vec![values],
        })
    })
}

/// Whether values of a type are equal exactly when their bits are.
fn is_looked_up(data_type: &DataType) -> bool {
    use DataType::*;
    data_type.is_integer()
        || matches!(
            data_type,
            Boolean | Utf8 | Binary | Date32 | Time64(_) | Timestamp(..) | Decimal128(..)
        )
}

/// What must hold together.
fn conjuncts(filters: &[Expr]) -> Vec<&Expr> {
    let mut parts = Vec::new();
    let mut stack: Vec<&Expr> = filters.iter().collect();
    while let Some(expr) = stack.pop() {
        match expr {
            Expr::BinaryExpr(binary) if binary.op == Operator::And => {
                stack.extend([&*binary.left, &*binary.right])
            }
            other => parts.push(other),
        }
    }
    parts
}

/// Columns and the values they must have.
fn equalities(filters: &[Expr]) -> Vec<(&str, &ScalarValue)> {
    conjuncts(filters).into_iter().filter_map(equality).collect()
}

fn equality(expr: &Expr) -> Option<(&str, &ScalarValue)> {
    let Expr::BinaryExpr(binary) = expr else {
        return None;
    };
    match (&*binary.left, &*binary.right) {
        (Expr::Column(column), Expr::Literal(value, _)) | (Expr::Literal(value, _), Expr::Column(column))
            if binary.op == Operator::Eq =>
        {
            Some((column.name.as_str(), value))
        }
        _ => None,
    }
}

fn literal(expr: &Expr) -> Option<&ScalarValue> {
    match expr {
        Expr::Literal(value, _) => Some(value),
        _ => None,
    }
}

/// The column and the values of `column IN (…)`, also where it was written out with OR.
fn one_of(expr: &Expr) -> Option<(&str, Vec<&ScalarValue>)> {
    match expr {
        Expr::InList(list) if !list.negated => {
            let Expr::Column(column) = &*list.expr else {
                return None;
            };
            let values = list.list.iter().map(literal).collect::<Option<Vec<_>>>()?;
            Some((column.name.as_str(), values))
        }
        Expr::BinaryExpr(binary) if binary.op == Operator::Or => {
            let (left, right) = (one_of(&binary.left)?, one_of(&binary.right)?);
            (left.0 == right.0).then(|| (left.0, [left.1, right.1].concat()))
        }
        other => equality(other).map(|(name, value)| (name, vec![value])),
    }
}
