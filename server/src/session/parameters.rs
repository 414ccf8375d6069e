//! Parameters of prepared statements: which there are, of what types, and their values as constants in the statement.
//!
//! Values are put into the syntax tree as typed constants, never into text; the statement is then planned like any
//! other. So a parameter can stand wherever a constant can.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use bytes::Bytes;
use datafusion::sql::sqlparser::ast::{self, CastKind, Expr, Value, Visit, VisitMut, Visitor, VisitorMut};
use tributary_planner::parse::Statement;
use tributary_planner::types::SqlType;

use crate::pgwire::error::{SqlError, SqlResult};
use crate::pgwire::sqlstate;
use crate::pgwire::types::datetime::Zone;
use crate::pgwire::types::input::{ColumnBuilder, utf8};
use crate::pgwire::types::numeric;
use crate::pgwire::types::output::{ColumnEncoder, OutputStyle};

/// The most parameters of a statement, as in PostgreSQL.
const PARAMETERS_MAX: usize = 65_535;

/// Finds the parameters of a statement: their numbers, and the types of those that stand in a cast.
pub fn find(statement: &Statement) -> SqlResult<(usize, BTreeMap<usize, SqlType>)> {
    let mut finder = Finder::default();
    let _ = visit(statement, &mut finder);
    let count = finder.numbers.last().copied().unwrap_or(0);
    if count > PARAMETERS_MAX || finder.numbers.contains(&0) {
        return Err(SqlError::new(
            sqlstate::UNDEFINED_PARAMETER,
            format!("there is no parameter ${count}"),
        ));
    }
    Ok((count, finder.casts))
}

/// Puts constants in the place of parameters.
pub fn substitute(statement: &mut Statement, values: &[Expr]) -> SqlResult<()> {
    let mut substitution = Substitution { values };
    let done = match statement {
        Statement::Sql(sql) => sql.visit(&mut substitution),
        Statement::Insert(insert) => insert.visit(&mut substitution),
        Statement::Update(update) => update.visit(&mut substitution),
        Statement::Delete(delete) => delete.visit(&mut substitution),
        _ => ControlFlow::Continue(()),
    };
    match done {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

fn visit(statement: &Statement, visitor: &mut Finder) -> ControlFlow<()> {
    match statement {
        Statement::Sql(sql) => sql.visit(visitor),
        Statement::Insert(insert) => insert.visit(visitor),
        Statement::Update(update) => update.visit(visitor),
        Statement::Delete(delete) => delete.visit(visitor),
        _ => ControlFlow::Continue(()),
    }
}

fn number_of(expr: &Expr) -> Option<usize> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::Placeholder(name) => name.strip_prefix('$').and_then(|digits| digits.parse().ok()),
            _ => None,
        },
        Expr::Nested(inner) => number_of(inner),
        _ => None,
    }
}

#[derive(Default)]
struct Finder {
    numbers: BTreeSet<usize>,
    casts: BTreeMap<usize, SqlType>,
}

impl Visitor for Finder {
    type Break = ();

    fn pre_visit_query(&mut self, query: &ast::Query) -> ControlFlow<()> {
        let (limit, offset) = match &query.limit_clause {
            Some(ast::LimitClause::LimitOffset { limit, offset, .. }) => {
                (limit.as_ref(), offset.as_ref().map(|offset| &offset.value))
            }
            Some(ast::LimitClause::OffsetCommaLimit { offset, limit }) => (Some(limit), Some(offset)),
            None => (None, None),
        };
        let fetch = query.fetch.as_ref().and_then(|fetch| fetch.quantity.as_ref());
        for number in [limit, offset, fetch].into_iter().flatten().filter_map(number_of) {
            self.casts.entry(number).or_insert(SqlType::Int8);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if let Expr::Cast {
            expr: inner,
            data_type,
            ..
        } = expr
            && let (Some(number), Ok(sql_type)) = (number_of(inner), SqlType::from_ast(data_type))
        {
            self.casts.entry(number).or_insert(sql_type);
        }
        self.numbers.extend(number_of(expr));
        ControlFlow::Continue(())
    }
}

struct Substitution<'a> {
    values: &'a [Expr],
}

impl VisitorMut for Substitution<'_> {
    type Break = SqlError;

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<SqlError> {
        let Expr::Value(value) = &*expr else {
            return ControlFlow::Continue(());
        };
        let Value::Placeholder(name) = &value.value else {
            return ControlFlow::Continue(());
        };
        let index = name
            .strip_prefix('$')
            .and_then(|digits| digits.parse::<usize>().ok());
        match index.and_then(|number| self.values.get(number.checked_sub(1)?)) {
            Some(value) => {
                *expr = value.clone();
                ControlFlow::Continue(())
            }
            None => ControlFlow::Break(SqlError::new(
                sqlstate::UNDEFINED_PARAMETER,
                format!("there is no parameter {name}"),
            )),
        }
    }
}

/// The type for a declared OID; `None` leaves it to be inferred.
pub fn declared(oid: u32) -> SqlResult<Option<SqlType>> {
    match oid {
        0 | 705 => Ok(None),
        18 | 19 | 114 | 1042 | 3802 | 2275 => Ok(Some(SqlType::Text)),
        26 | 2205 | 2206 => Ok(Some(SqlType::Int8)),
        _ => SqlType::from_oid(oid).map(Some).ok_or_else(|| {
            SqlError::unsupported(format!("parameters of type {oid} are not supported"))
                .hint("cast from text: $1::text")
        }),
    }
}

/// A null of a type, for planning before there are values.
pub fn null_of(sql_type: SqlType) -> Expr {
    cast(Expr::value(Value::Null), sql_type)
}

/// A value as a constant.
pub fn constant(value: Option<&Bytes>, is_binary: bool, sql_type: SqlType, zone: Zone) -> SqlResult<Expr> {
    let Some(bytes) = value else {
        return Ok(null_of(sql_type));
    };
    if matches!(sql_type, SqlType::Numeric { .. }) {
        let text = if is_binary {
            numeric::binary_to_text(bytes)?
        } else {
            utf8(bytes)?.trim().to_string()
        };
        return decimal(&text);
    }
    let mut builder = ColumnBuilder::new(sql_type, zone);
    if is_binary {
        builder.append_binary(bytes)?;
    } else {
        builder.append_text(utf8(bytes)?)?;
    }
    let array = builder.finish();
    let style = OutputStyle {
        zone: Zone::UTC,
        bytea_hex: true,
    };
    let mut text = String::new();
    ColumnEncoder::new(&array, style, false)?.write_text(0, &mut text)?;
    Ok(match sql_type {
        SqlType::Bool => Expr::value(Value::Boolean(text == "t")),
        SqlType::Int2 | SqlType::Int4 | SqlType::Int8 => {
            cast(Expr::value(Value::Number(text, false)), sql_type)
        }
        SqlType::Text | SqlType::Varchar(_) => Expr::value(Value::SingleQuotedString(text)),
        _ => cast(Expr::value(Value::SingleQuotedString(text)), sql_type),
    })
}

/// A decimal keeps the scale it was written with.
fn decimal(text: &str) -> SqlResult<Expr> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let is_plain = unsigned.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
        && unsigned.bytes().filter(|byte| *byte == b'.').count() <= 1
        && unsigned.bytes().any(|byte| byte.is_ascii_digit())
        && unsigned.len() <= 38;
    if !is_plain {
        // Checked for its own error; exponents go through the cast.
        numeric::parse(text, 38, 10)?;
        return Ok(cast(
            Expr::value(Value::SingleQuotedString(text.to_string())),
            SqlType::NUMERIC,
        ));
    }
    let scale = unsigned.split_once('.').map_or(0, |(_, fraction)| fraction.len());
    let sql_type = SqlType::Numeric {
        precision: 38,
        scale: scale as i8,
    };
    Ok(cast(
        Expr::value(Value::SingleQuotedString(text.to_string())),
        sql_type,
    ))
}

fn cast(expr: Expr, sql_type: SqlType) -> Expr {
    let data_type = sql_type.to_ast();
    Expr::Cast {
        kind: CastKind::Cast,
        expr: Box::new(expr),
        data_type,
        array: false,
        format: None,
    }
}

/// The query of a statement whose analysis can tell types of parameters.
pub fn query_of(statement: &Statement) -> Option<&ast::Query> {
    match statement {
        Statement::Sql(sql) => match sql.as_ref() {
            ast::Statement::Query(query) => Some(query),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use tributary_planner::parse::parse;

    use super::*;

    fn statement(sql: &str) -> Statement {
        parse(sql).expect("it parses").remove(0).statement
    }

    #[test]
    fn parameters_are_found_with_the_types_of_their_casts() {
        let (count, casts) = find(&statement(
            "SELECT $2::int, ($1)::text FROM t WHERE a = $3 LIMIT $4 OFFSET $5",
        ))
        .expect("parameters");
        assert_eq!(count, 5);
        let expected = [
            (1, SqlType::Text),
            (2, SqlType::Int4),
            (4, SqlType::Int8),
            (5, SqlType::Int8),
        ];
        assert_eq!(casts, BTreeMap::from(expected));
        assert!(find(&statement("SELECT $0")).is_err());
    }

    #[test]
    fn values_are_constants_whatever_they_hold() {
        let mut parsed = statement("SELECT $1, $2");
        let text = constant(
            Some(&Bytes::from_static(b"'; DROP TABLE t; --")),
            false,
            SqlType::Text,
            Zone::UTC,
        );
        let number = constant(
            Some(&Bytes::from_static(&[0, 0, 0, 7])),
            true,
            SqlType::Int4,
            Zone::UTC,
        );
        substitute(&mut parsed, &[text.expect("text"), number.expect("a number")]).expect("two values");
        let Statement::Sql(sql) = parsed else {
            panic!("a query")
        };
        assert_eq!(
            sql.to_string(),
            "SELECT '''; DROP TABLE t; --', CAST(7 AS INTEGER)"
        );
    }

    #[test]
    fn wrong_values_are_refused() {
        let wrong = |bytes: &'static [u8], is_binary, sql_type| {
            constant(Some(&Bytes::from_static(bytes)), is_binary, sql_type, Zone::UTC)
                .expect_err("wrong")
                .state
        };
        assert_eq!(wrong(b"x", false, SqlType::Int4), "22P02");
        assert_eq!(wrong(b"x", true, SqlType::Int4), "22P03");
        assert_eq!(wrong(b"\xff", false, SqlType::Text), "22021");
        assert_eq!(wrong(b"1.2.3", false, SqlType::NUMERIC), "22P02");
    }
}
