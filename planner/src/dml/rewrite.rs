//! Building blocks of rewritten queries. Every name is quoted, so that none is folded twice.

use sqlparser::ast::helpers::attached_token::AttachedToken;
use sqlparser::ast::{
    CastKind, DataType as AstType, Expr, Function, FunctionArgumentList, FunctionArguments, GroupByExpr,
    Ident, ObjectName, Query, Select, SelectFlavor, SelectItem, SetExpr, TableAlias, TableFactor,
    TableWithJoins, Value,
};

use super::TARGET;
use super::target::Target;
use crate::catalog::{ColumnDef, ColumnDefault};
use crate::plan::{Literal, LiteralValue};
use crate::types::{SqlType, literal_text};

/// A name in double quotes.
pub(super) fn quoted(name: &str) -> Ident {
    Ident::with_quote('"', name)
}

/// `"relation"."column"`.
pub(super) fn column(relation: &str, name: &str) -> Expr {
    Expr::CompoundIdentifier(vec![quoted(relation), quoted(name)])
}

/// `expr AS "alias"`.
pub(super) fn aliased(expr: Expr, alias: &str) -> SelectItem {
    SelectItem::ExprWithAlias {
        expr,
        alias: quoted(alias),
    }
}

/// `CAST(expr AS type)`.
pub(super) fn cast(expr: Expr, sql_type: SqlType) -> Expr {
    cast_to(expr, sql_type.to_ast())
}

fn cast_to(expr: Expr, data_type: AstType) -> Expr {
    Expr::Cast {
        kind: CastKind::Cast,
        expr: Box::new(expr),
        data_type,
        array: false,
        format: None,
    }
}

/// `"table" [AS "alias"]`.
pub(super) fn relation(target: &Target<'_>) -> TableWithJoins {
    named_relation(&target.object.name, target.alias.as_deref())
}

/// The table as that which is written, under the name by which the statement knows it.
pub(super) fn target_relation(target: &Target<'_>) -> TableWithJoins {
    named_relation(TARGET, Some(target.reference()))
}

pub(super) fn named_relation(name: &str, alias: Option<&str>) -> TableWithJoins {
    let alias = alias.map(|alias| TableAlias {
        explicit: true,
        name: quoted(alias),
        columns: Vec::new(),
        at: None,
    });
    let relation = TableFactor::Table {
        name: ObjectName::from(vec![quoted(name)]),
        alias,
        args: None,
        with_hints: Vec::new(),
        version: None,
        with_ordinality: false,
        partitions: Vec::new(),
        json_path: None,
        sample: None,
        index_hints: Vec::new(),
    };
    TableWithJoins {
        relation,
        joins: Vec::new(),
    }
}

/// `SELECT projection FROM from WHERE selection`.
pub(super) fn select(
    projection: Vec<SelectItem>,
    from: Vec<TableWithJoins>,
    selection: Option<Expr>,
) -> Box<Query> {
    let select = Select {
        select_token: AttachedToken::empty(),
        optimizer_hints: Vec::new(),
        distinct: None,
        select_modifiers: None,
        top: None,
        top_before_distinct: false,
        projection,
        exclude: None,
        into: None,
        from,
        lateral_views: Vec::new(),
        prewhere: None,
        selection,
        connect_by: Vec::new(),
        group_by: GroupByExpr::Expressions(Vec::new(), Vec::new()),
        cluster_by: Vec::new(),
        distribute_by: Vec::new(),
        sort_by: Vec::new(),
        having: None,
        named_window: Vec::new(),
        qualify: None,
        window_before_qualify: false,
        value_table_mode: None,
        flavor: SelectFlavor::Standard,
    };
    Box::new(Query {
        with: None,
        body: Box::new(SetExpr::Select(Box::new(select))),
        order_by: None,
        limit_clause: None,
        fetch: None,
        locks: Vec::new(),
        for_clause: None,
        settings: None,
        format_clause: None,
        pipe_operators: Vec::new(),
    })
}

/// Whether an expression is the word DEFAULT, which sqlparser takes for a column's name.
pub(super) fn is_default(expr: &Expr) -> bool {
    match expr {
        Expr::Identifier(ident) => ident.quote_style.is_none() && ident.value.eq_ignore_ascii_case("default"),
        Expr::Nested(inner) => is_default(inner),
        _ => false,
    }
}

/// The value of a column where it is not given: its default, or null.
pub(super) fn column_default(column: &ColumnDef) -> Expr {
    match &column.default {
        Some(default) => default_expression(default, column.sql_type),
        None => cast(Expr::value(Value::Null), column.sql_type),
    }
}

/// A default as an expression of the column's type.
pub fn default_expression(default: &ColumnDefault, sql_type: SqlType) -> Expr {
    match default {
        ColumnDefault::Literal(literal) => cast(literal_expression(literal), sql_type),
        ColumnDefault::Now => cast(call("now"), sql_type),
        ColumnDefault::GenRandomUuid => cast(call("gen_random_uuid"), sql_type),
    }
}

fn call(function: &str) -> Expr {
    let arguments = FunctionArgumentList {
        duplicate_treatment: None,
        args: Vec::new(),
        clauses: Vec::new(),
    };
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(function)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(arguments),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

/// A constant as a literal that means the same after a CAST to its type. Bytes stand in hexadecimal, which no cast
/// has to interpret.
fn literal_expression(literal: &Literal) -> Expr {
    Expr::value(match &literal.value {
        Some(LiteralValue::Boolean(value)) => Value::Boolean(*value),
        Some(LiteralValue::Bytes(bytes)) => {
            Value::HexStringLiteral(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
        }
        _ => literal_text(literal).map_or(Value::Null, Value::SingleQuotedString),
    })
}
