//! Names: case folding and the one schema that users have.

use sqlparser::ast::{Ident, ObjectName, ObjectNamePart};

use crate::error::{PlanError, PlanErrorKind};

/// The schema of everything that users create.
const PUBLIC: &str = "public";
/// Schemas whose relations the server provides.
const SYSTEM_SCHEMAS: [&str; 3] = ["tributary", "pg_catalog", "information_schema"];

/// An identifier as the catalog spells it: quoted ones as they are, others in lower case.
pub fn fold(ident: &Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    }
}

/// The folded name of an object of schema `public`, written with or without the schema.
///
/// # Errors
/// `WrongObjectType` for names in system schemas, `UndefinedTable` for other schemas.
pub fn public_name(name: &ObjectName) -> Result<String, PlanError> {
    let mut parts = Vec::new();
    for part in &name.0 {
        match part {
            ObjectNamePart::Identifier(ident) => parts.push(fold(ident)),
            ObjectNamePart::Function(_) => {
                return Err(PlanError::unsupported(
                    "a function in place of a name",
                    "Write the name itself.",
                ));
            }
        }
    }
    match parts.as_slice() {
        [object] => Ok(object.clone()),
        [schema, object] if schema == PUBLIC => Ok(object.clone()),
        [schema, object] if SYSTEM_SCHEMAS.contains(&schema.as_str()) => {
            let message = format!("\"{schema}.{object}\" is a system relation and cannot be changed");
            Err(PlanError::new(PlanErrorKind::WrongObjectType, message)
                .with_hint("System relations can only be read with SELECT."))
        }
        [schema, _] => Err(PlanError::new(
            PlanErrorKind::UndefinedTable,
            format!("schema \"{schema}\" does not exist"),
        )
        .with_hint("Everything is in schema public; leave the schema out.")),
        _ => Err(PlanError::unsupported(
            format_args!("the name {name} (cross-database references)"),
            "Leave the database out: a cluster has one.",
        )),
    }
}

/// The folded name of a relation in a query, `None` for one that is not of schema `public`.
pub(super) fn queried_name(name: &ObjectName) -> Option<String> {
    let parts: Option<Vec<String>> = name
        .0
        .iter()
        .map(|part| match part {
            ObjectNamePart::Identifier(ident) => Some(fold(ident)),
            ObjectNamePart::Function(_) => None,
        })
        .collect();
    match parts?.as_slice() {
        [object] => Some(object.clone()),
        [.., schema, object] if schema == PUBLIC => Some(object.clone()),
        _ => None,
    }
}
