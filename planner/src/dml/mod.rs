//! From INSERT, UPDATE and DELETE to queries that yield what to write.
//!
//! ```text
//!  INSERT ─▶ a query that yields new rows ─────────────────────┐
//!  UPDATE ─▶ SELECT old row, its version, new values WHERE p ──┼─▶ the server runs it at a snapshot ─▶ a WriteSet
//!  DELETE ─▶ SELECT old row, its version WHERE p ──────────────┘
//! ```
//!
//! Binding is a pure rewriting of syntax trees: names of targets are resolved against the catalog, everything
//! else is left to the analysis of the query. Each value goes through a CAST to its column's type, the
//! form that an assignment takes here; the length of `varchar(n)`, NOT NULL, and keys are checked on the rows
//! by whoever runs the query. In all queries names are folded and quoted.
//!
//! In UPDATE and DELETE the table that is written stands under the name [`TARGET`]: of it only the rows that can be written
//! are read, with their versions; wherever else the statement names the table, it is all of it.
//!
//! Left out, and refused by name: ON CONFLICT ON CONSTRAINT, several tables in one
//! statement, and subqueries in ON CONFLICT or RETURNING (their relations stand for a few rows there, not for
//! the table).

mod assignment;
mod delete;
mod insert;
mod on_conflict;
mod pinned;
mod returning;
mod rewrite;
mod target;
mod update;

use sqlparser::ast;
use tributary_storage::ObjectId;

use crate::catalog::Catalog;
use crate::error::PlanError;
use crate::parse::Statement;
pub use insert::{BoundInsert, InsertSource};
pub use on_conflict::OnConflict;
pub use pinned::{pinned_region, target_name};
pub use rewrite::default_expression;
pub use target::{copy_columns, writable_table};

/// The relation that an UPDATE or DELETE writes.
pub const TARGET: &str = "tributary_target";
/// The column that holds a row version's origin, as `OriginId::as_i64`.
pub const ORIGIN_COLUMN: &str = "tributary_origin";
/// The column that holds a row version's epoch.
pub const STAMP_COLUMN: &str = "tributary_stamp";
/// What comes before a column's name in the alias of its new value.
pub const NEW_PREFIX: &str = "new:";
/// The relation of the rows proposed for insertion, in ON CONFLICT DO UPDATE.
pub const EXCLUDED: &str = "excluded";

/// A bound statement.
#[derive(Clone, Debug, PartialEq)]
pub enum BoundDml {
    /// INSERT.
    Insert(BoundInsert),
    /// UPDATE.
    Update(BoundUpdate),
    /// DELETE.
    Delete(BoundDelete),
}

/// A bound UPDATE.
#[derive(Clone, Debug, PartialEq)]
pub struct BoundUpdate {
    /// The table.
    pub table: ObjectId,
    /// Yields, for each row to change: all columns of the table (hidden ones too) as they are,
    /// [`ORIGIN_COLUMN`], [`STAMP_COLUMN`], then for each of `assigned` its new value as `new:<column>`.
    pub query: Box<ast::Query>,
    /// Whether a row may come several times, for each row of FROM that it meets: the first counts.
    pub joined: bool,
    /// The columns that get new values, in the order of the query. Key columns may be among them.
    pub assigned: Vec<usize>,
    /// See [`BoundInsert::returning`].
    pub returning: Option<Box<ast::Query>>,
}

/// A bound DELETE.
#[derive(Clone, Debug, PartialEq)]
pub struct BoundDelete {
    /// The table.
    pub table: ObjectId,
    /// Yields, for each row to delete: all columns of the table (hidden ones too), [`ORIGIN_COLUMN`],
    /// [`STAMP_COLUMN`].
    pub query: Box<ast::Query>,
    /// Whether a row may come several times, for each row of USING that it meets.
    pub joined: bool,
    /// See [`BoundInsert::returning`]; over the rows as they were.
    pub returning: Option<Box<ast::Query>>,
}

/// Binds an INSERT, UPDATE or DELETE.
///
/// # Errors
/// `UndefinedTable`, `UndefinedColumn`, `WrongObjectType` for what is no table, `Unsupported`, `Syntax` for
/// expressions that do not match the targets in number; `Internal` for other statements.
pub fn bind_dml(statement: &Statement, catalog: &Catalog) -> Result<BoundDml, PlanError> {
    match statement {
        Statement::Insert(insert) => insert::bind(insert, catalog).map(BoundDml::Insert),
        Statement::Update(update) => update::bind(update, catalog).map(BoundDml::Update),
        Statement::Delete(delete) => delete::bind(delete, catalog).map(BoundDml::Delete),
        _ => Err(PlanError::internal("only INSERT, UPDATE and DELETE are bound")),
    }
}

#[cfg(test)]
mod tests;
