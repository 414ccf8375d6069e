//! Statements that write in another region: sent there as text, carried out there as one commit.
//!
//! ```text
//!   eu: UPDATE t … WHERE tributary_region = 'us' ── text, settings, token ───▶ us: bind, run, commit with the token
//!   eu: waits until its own snapshot shows it    ◀── tag, rows, (us, epoch) ── a token that is known: the same answer
//! ```
//!
//! The token makes a repetition harmless: when an answer is lost the statement is sent again, and is neither run nor
//! committed twice. While it runs, and for some time after, a repetition gets the first one's answer ([`super::once`]);
//! later, or after a restart, the token in the log says how many rows it changed, and only what RETURNING gave is lost
//! (40003). Everything in the statement is evaluated where the rows are, `gateway_region()` and subqueries too, once what
//! the session wrote before is shown there.

use datafusion::arrow::array::RecordBatch;
use serde::{Deserialize, Serialize};
use tributary_planner::catalog::{Catalog, TableDef, TableLocality};
use tributary_planner::ddl::member;
use tributary_planner::dml::{pinned_region, writable_table};
use tributary_planner::parse::{Parsed, Statement, public_name};
use tributary_replication::Epoch;
use tributary_replication::bundle::{decode_rows, encode_rows};
use tributary_storage::OriginId;

use crate::pgwire::error::{SqlError, SqlResult};
use crate::pgwire::sqlstate;

/// The longest statement that is sent, with the settings that go along.
pub const STATEMENT_BYTES_MAX: usize = 15 << 20;

/// A statement for another region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardRequest {
    /// The region that asks.
    pub from: String,
    /// The session's user.
    pub user: String,
    /// The text of one INSERT, UPDATE or DELETE, or COPY.
    pub sql: String,
    /// What the session has set: the statement may be evaluated by any of it.
    pub settings: Vec<(String, String)>,
    /// The catalog by which the session knows what it writes: the region may not have heard of it yet.
    pub catalog_version: u64,
    /// Where what the session wrote before is in: the statement reads it.
    pub seen: Vec<(OriginId, Epoch)>,
    /// The same for every repetition of the statement.
    pub token: [u8; 16],
}

/// A COPY for another region, with its data as the client sent them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyRequest {
    /// The statement.
    pub statement: ForwardRequest,
    /// The data, in the format that it says.
    pub input: Vec<u8>,
}

/// What another region is to carry out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Errand {
    /// An INSERT, UPDATE or DELETE.
    Statement(ForwardRequest),
    /// A COPY with its data.
    Copy(CopyRequest),
}

impl Errand {
    /// The statement.
    pub fn statement(&self) -> &ForwardRequest {
        match self {
            Errand::Statement(statement) => statement,
            Errand::Copy(copy) => &copy.statement,
        }
    }

    /// The data of a COPY.
    pub fn input(&self) -> Option<&[u8]> {
        match self {
            Errand::Statement(_) => None,
            Errand::Copy(copy) => Some(&copy.input),
        }
    }

    /// Whether a statement is of the kind that was announced.
    pub fn is_of(&self, statement: &Statement) -> bool {
        match self {
            Errand::Statement(_) => statement.is_dml(),
            Errand::Copy(_) => matches!(statement, Statement::Copy(_)),
        }
    }
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ForwardReply {
    /// It is durable there.
    Done(Forwarded),
    /// Nothing was changed; with 40003 that is not known, or what it returned is lost.
    Refused(WireError),
}

impl ForwardReply {
    /// About how much memory it takes beyond itself.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            ForwardReply::Done(done) => {
                done.returned.as_ref().map_or(0, Vec::len)
                    + done.notices.iter().map(WireError::bytes).sum::<usize>()
            }
            ForwardReply::Refused(error) => error.bytes(),
        }
    }
}

/// A statement that was carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forwarded {
    /// Rows inserted, changed or deleted.
    pub count: u64,
    /// What RETURNING gives, as an Arrow stream.
    pub returned: Option<Vec<u8>>,
    /// What the client should know.
    pub notices: Vec<WireError>,
    /// Where it is in; `None` when nothing was changed.
    pub committed: Option<(OriginId, Epoch)>,
}

impl Forwarded {
    /// What RETURNING gives.
    ///
    /// # Errors
    /// For bytes that are no rows.
    pub fn rows(&self) -> SqlResult<Option<RecordBatch>> {
        let read = self.returned.as_deref().map(decode_rows).transpose();
        read.map_err(|error| SqlError::internal(format!("another region's answer: {error}")))
    }

    /// Keeps what RETURNING gives.
    pub fn with_rows(mut self, rows: Option<&RecordBatch>) -> Self {
        self.returned = rows.map(encode_rows);
        self
    }
}

/// An error or notice on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireError {
    state: String,
    message: String,
    detail: Option<String>,
    hint: Option<String>,
}

impl WireError {
    fn bytes(&self) -> usize {
        let optional = [&self.detail, &self.hint];
        let optional = optional.into_iter().flatten().map(String::len);
        self.message.len() + optional.sum::<usize>()
    }
}

impl From<SqlError> for WireError {
    fn from(error: SqlError) -> Self {
        Self {
            state: error.state.to_owned(),
            message: error.message,
            detail: error.detail,
            hint: error.hint,
        }
    }
}

impl From<WireError> for SqlError {
    fn from(error: WireError) -> Self {
        // A notice has the class of success. A peer's other texts are internal errors.
        let known = ["00000"].iter().chain(sqlstate::ALL);
        let known = known.copied().find(|known| *known == error.state);
        let mut sql = SqlError::new(known.unwrap_or(sqlstate::INTERNAL_ERROR), error.message);
        sql.detail = error.detail;
        sql.hint = error.hint;
        sql
    }
}

/// The other region that a statement writes in: the owner of its table, or the one that its condition pins.
///
/// # Errors
/// 42704 for a region that is no member; those of binding.
pub fn other_region(parsed: &Parsed, catalog: &Catalog, own: &str) -> SqlResult<Option<String>> {
    let table = match &parsed.statement {
        Statement::Insert(insert) => match &insert.table {
            datafusion::sql::sqlparser::ast::TableObject::TableName(name) => {
                Some(writable_table(catalog, &public_name(name)?)?.1)
            }
            _ => None,
        },
        statement => {
            let Some(name) = tributary_planner::dml::target_name(statement)? else {
                return Ok(None);
            };
            Some(writable_table(catalog, &name)?.1)
        }
    };
    let Some(table) = table else { return Ok(None) };
    if table.locality != TableLocality::RegionalByRow {
        return home_elsewhere(table, catalog, own);
    }
    other_member(pinned_region(&parsed.statement, catalog)?, catalog, own)
}

/// The region that a table lives in, if it is another than this one.
///
/// # Errors
/// 42704 for a region that is no member.
pub fn home_elsewhere(table: &TableDef, catalog: &Catalog, own: &str) -> SqlResult<Option<String>> {
    let home = match table.locality {
        TableLocality::RegionalByTable(region) => catalog.region_name(region).map(str::to_owned),
        TableLocality::Global | TableLocality::RegionalByRow => None,
    };
    other_member(home, catalog, own)
}

fn other_member(region: Option<String>, catalog: &Catalog, own: &str) -> SqlResult<Option<String>> {
    let Some(region) = region.filter(|region| region != own) else {
        return Ok(None);
    };
    member(&region, catalog)?;
    Ok(Some(region))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_survive_the_wire_and_strange_codes_are_internal() {
        let error = SqlError::new(sqlstate::UNIQUE_VIOLATION, "taken")
            .detail("d")
            .hint("h");
        assert_eq!(SqlError::from(WireError::from(error.clone())), error);
        for state in sqlstate::ALL {
            let error = SqlError::new(state, "x");
            assert_eq!(SqlError::from(WireError::from(error)).state, *state);
        }
        let strange = WireError {
            state: "ZZZZZ".into(),
            message: "x".into(),
            detail: None,
            hint: None,
        };
        assert_eq!(SqlError::from(strange).state, sqlstate::INTERNAL_ERROR);
    }
}
