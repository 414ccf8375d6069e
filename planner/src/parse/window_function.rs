//! `TUMBLE(relation, …)`, `HOP(relation, …)` and `SESSION(relation, …)` in FROM: what is a table function by its syntax,
//! and whose first argument is the name of a relation.

use sqlparser::ast::{Expr, FunctionArg, FunctionArgExpr, ObjectName, TableAlias, TableFactor};

use super::names::fold;

/// The window functions.
const NAMES: [&str; 3] = ["tumble", "hop", "session"];

/// The function's name and arguments, if a part of FROM is one.
pub fn window_function(factor: &TableFactor) -> Option<(&'static str, &[FunctionArg])> {
    let TableFactor::Table {
        name,
        args: Some(arguments),
        with_ordinality: false,
        ..
    } = factor
    else {
        return None;
    };
    let [part] = name.0.as_slice() else {
        return None;
    };
    let written = fold(part.as_ident()?);
    let known = NAMES.into_iter().find(|known| *known == written)?;
    arguments.settings.is_none().then_some((known, &arguments.args))
}

/// The relation that a window function's first argument names.
pub fn argument_relation(argument: &Expr) -> Option<ObjectName> {
    match argument {
        Expr::Identifier(name) => Some(ObjectName::from(vec![name.clone()])),
        Expr::CompoundIdentifier(names) => Some(ObjectName::from(names.clone())),
        _ => None,
    }
}

/// The relation that a part of FROM reads through a window function.
pub(super) fn windowed_relation(factor: &TableFactor) -> Option<ObjectName> {
    match window_function(factor)?.1.first()? {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(argument)) => argument_relation(argument),
        _ => None,
    }
}

/// A relation as it stands in FROM.
pub fn table_factor(name: ObjectName, alias: Option<TableAlias>) -> TableFactor {
    TableFactor::Table {
        name,
        alias,
        args: None,
        with_hints: Vec::new(),
        version: None,
        with_ordinality: false,
        partitions: Vec::new(),
        json_path: None,
        sample: None,
        index_hints: Vec::new(),
    }
}
