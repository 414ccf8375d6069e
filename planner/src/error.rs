//! The planner's one error: what is wrong with a statement, where, and what to do instead.
//!
//! Everything here is the user's fault except [`PlanErrorKind::Internal`]. Kinds are as fine as the SQLSTATEs
//! that the server maps them to, and no finer; the mapping itself is the server's.

use std::fmt;

/// Why a statement was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanError {
    /// The class of the error.
    pub kind: PlanErrorKind,
    /// One sentence in PostgreSQL's manner: lower case, no full stop.
    pub message: String,
    /// What the user can do instead.
    pub hint: Option<String>,
    /// Where in the text of the statement, in characters from 1.
    pub position: Option<usize>,
}

/// Classes of errors, one per SQLSTATE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PlanErrorKind {
    /// The text is not SQL (42601).
    Syntax,
    /// The text, or the number of its tokens, is beyond the limit (54000).
    TooLong,
    /// Nesting or a chain of operators is beyond the limit (54001).
    TooDeep,
    /// SQL, but not (yet) ours (0A000).
    Unsupported,
    /// No such table or view (42P01).
    UndefinedTable,
    /// No such column (42703).
    UndefinedColumn,
    /// No such function (42883).
    UndefinedFunction,
    /// A column name fits several tables (42702).
    AmbiguousColumn,
    /// The name is taken (42P07).
    DuplicateTable,
    /// A column is named twice (42701).
    DuplicateColumn,
    /// Types do not fit (42804).
    DatatypeMismatch,
    /// A definition contradicts itself or what exists (42P16, 42P10).
    InvalidDefinition,
    /// Others depend on what is to be dropped (2BP01).
    DependentObjects,
    /// The object is of another kind (42809).
    WrongObjectType,
    /// A null for a NOT NULL column (23502).
    NotNull,
    /// A column is neither grouped nor aggregated (42803).
    GroupingError,
    /// No such region (42704).
    UndefinedObject,
    /// The region is there already (42710).
    DuplicateObject,
    /// No such database (3D000).
    UndefinedDatabase,
    /// Not in the state it is in (55000).
    PrerequisiteState,
    /// An option or value that does not exist (22023).
    InvalidParameter,
    /// Forbidden by a rule that somebody has set, residency above all (42501).
    Forbidden,
    /// A broken invariant of ours (XX000).
    Internal,
}

impl PlanError {
    /// An error without hint and position.
    pub fn new(kind: PlanErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            hint: None,
            position: None,
        }
    }

    /// A construct that is SQL but not supported; the hint names an alternative.
    pub fn unsupported(what: impl fmt::Display, alternative: impl Into<String>) -> Self {
        Self::new(PlanErrorKind::Unsupported, format!("{what} is not supported")).with_hint(alternative)
    }

    /// A relation that does not exist.
    pub fn undefined_table(name: &str) -> Self {
        Self::new(
            PlanErrorKind::UndefinedTable,
            format!("relation \"{name}\" does not exist"),
        )
    }

    /// A column that a relation does not have.
    pub fn undefined_column(column: &str, relation: &str) -> Self {
        let message = format!("column \"{column}\" of relation \"{relation}\" does not exist");
        Self::new(PlanErrorKind::UndefinedColumn, message)
    }

    /// A broken invariant.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(PlanErrorKind::Internal, message)
    }

    /// The same error with a hint.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same error at a position (characters, from 1) of the statement's text.
    pub fn at(mut self, position: usize) -> Self {
        self.position = Some(position);
        self
    }
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, " (hint: {hint})")?;
        }
        Ok(())
    }
}

impl std::error::Error for PlanError {}
