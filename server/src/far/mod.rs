//! Rows of other regions: a query of a REGIONAL table reads every owner at the epoch in the statement's snapshot.
//!
//! ```text
//!   eu (gateway)                                        us (owner)
//!   relation.rs   one partition per region ── scan ──▶  owner.rs     the table as of that epoch (window.rs)
//!                 filters, columns, limit go along        │ filter, project, stop at the limit
//!                        ◀── opened │ rows │ rows ────────┘ a batch at a time, as it is asked for
//! ```
//!
//! What an owner shows at an epoch never changes, so the rows of all regions are of one moment: that of the gateway's
//! frontier. An owner keeps versions for a short while ([`window`]); behind it, or when an owner cannot be reached, the
//! statement fails before its first row, never with a part of the answer.
//!
//! Conditions that go along are a small language of our own ([`condition`]); the gateway checks all of them again, so
//! what an owner does not understand costs bytes and nothing else.
//!
//! Where an aggregate stands on such a scan, its first half moves to the owners ([`push`]): the request says what to
//! compute ([`partial`], [`expression`]), what comes back are states of groups instead of rows, and the gateway merges
//! them. Joins below the aggregate go along ([`join`]) where their other side is small: the request carries its rows
//! ([`side`]).

pub mod condition;
mod expression;
pub mod forward;
mod functions;
mod join;
mod memory;
pub mod once;
pub mod owner;
pub mod partial;
pub mod push;
pub mod relation;
pub mod request;
pub mod scan;
mod side;
mod states;
#[cfg(test)]
mod tests;
pub mod window;

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tributary_planner::catalog::Catalog;
use tributary_replication::Epoch;
use tributary_storage::{ObjectId, OriginId};

use crate::pgwire::error::SqlError;
use crate::pgwire::sqlstate;
use condition::Condition;
use forward::{Errand, ForwardReply};
use request::Request;

/// Rows of a region's own part of a table, as of an epoch of its log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScanRequest {
    /// The region that asks.
    pub from: String,
    /// The table.
    pub table: ObjectId,
    /// Whose rows.
    pub origin: OriginId,
    /// As of which epoch of its log.
    pub epoch: Epoch,
    /// The exposed columns that are wanted, by their place.
    pub columns: Vec<u32>,
    /// Whether hidden columns are among the exposed ones.
    pub hidden: bool,
    /// Rows for which it does not hold may be left out.
    pub condition: Option<Condition>,
    /// The values that stand in it, one column each, as an Arrow stream of one row; empty without any.
    pub values: Vec<u8>,
    /// More rows are not wanted.
    pub rows_max: Option<u64>,
}

/// An owner's first answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Opened {
    /// Rows follow.
    Rows,
    /// The version is not kept any more, or not known yet.
    Gone,
    /// Another incarnation of the region answers.
    OtherOrigin,
    /// The request makes no sense to it.
    Unreadable,
    /// Rows of the table may not leave the region.
    Resident,
}

/// What follows an owner's last rows; no Arrow stream begins like this.
pub(crate) const END_OF_SCAN: &[u8] = b"end";
/// What stands before an error that ends an answer, such as a division by zero in what an owner computes.
pub(crate) const FAILED: &[u8] = b"failed";

/// Why rows of another region cannot be read.
#[derive(Debug, Error)]
pub enum FarError {
    /// The version is gone.
    #[error("region \"{region}\" no longer has its rows as of epoch {epoch}")]
    Gone {
        /// The owner.
        region: String,
        /// The version.
        epoch: Epoch,
    },
    /// The owner cannot be reached.
    #[error("region \"{region}\" cannot be reached: {reason}")]
    Unreachable {
        /// The owner.
        region: String,
        /// Why.
        reason: String,
    },
    /// A statement was sent there, and what came of it is not known.
    #[error("whether region \"{region}\" has carried out the statement is not known: {reason}")]
    Unknown {
        /// The region.
        region: String,
        /// Why.
        reason: String,
    },
    /// The owner does not aggregate as it was asked to; it may give rows.
    #[error("region \"{region}\" does not know what it is asked to compute")]
    NotUnderstood {
        /// The owner.
        region: String,
    },
    /// A side of a join does not go along: it is too large, takes too long, or holds what must stay here.
    #[error("a side of a join is not sent to other regions")]
    SideStays,
    /// What the owner computed failed, as it would have here.
    #[error("{0}")]
    Failed(Box<SqlError>),
    /// The table's residency is enforced.
    #[error(
        "rows of region \"{region}\" may not be read in another region: residency of the table is enforced"
    )]
    Resident {
        /// The owner.
        region: String,
    },
    /// The owner broke off, or sent what cannot be read.
    #[error("reading rows of region \"{region}\" failed: {reason}")]
    Broken {
        /// The owner.
        region: String,
        /// How.
        reason: String,
    },
}

impl From<FarError> for SqlError {
    fn from(error: FarError) -> Self {
        match &error {
            FarError::Gone { .. } => SqlError::new(sqlstate::SERIALIZATION_FAILURE, error.to_string())
                .hint("run the statement, or its transaction, again: versions are kept for a few seconds"),
            FarError::Unreachable { .. } => SqlError::new(sqlstate::CANNOT_CONNECT_NOW, error.to_string()).hint(
                "SET regional_reads = 'local' reads this region's rows only; a materialized view can be read all the time",
            ),
            FarError::Unknown { .. } => SqlError::new(sqlstate::COMPLETION_UNKNOWN, error.to_string())
                .hint("read the rows before you run it again"),
            FarError::Failed(error) => (**error).clone(),
            FarError::NotUnderstood { .. } | FarError::SideStays | FarError::Broken { .. } => {
                SqlError::new(sqlstate::CANNOT_CONNECT_NOW, error.to_string()).hint("run the statement again")
            }
            FarError::Resident { .. } => SqlError::new(sqlstate::INSUFFICIENT_PRIVILEGE, error.to_string()).hint(
                "SET regional_reads = 'local' reads this region's rows only; a materialized view can count and sum all rows",
            ),
        }
    }
}

/// Rows as they arrive.
pub type FarRows = BoxStream<'static, Result<Arrived, FarError>>;

/// A batch from another region.
#[derive(Clone, Debug)]
pub struct Arrived {
    /// Its rows.
    pub rows: RecordBatch,
    /// What it took on the wire.
    pub bytes: usize,
}

/// The road to other regions.
#[async_trait]
pub trait FarReads: Send + Sync {
    /// Begins a scan in a region, or an aggregation over one; its version is safe once this returns.
    async fn open(&self, region: &str, request: &Request) -> Result<FarRows, FarError>;

    /// Has a region carry out a statement; one whose answer was lost is sent again, and is carried out once.
    async fn forward(&self, region: &str, errand: &Errand) -> Result<ForwardReply, FarError>;

    /// Whether residency of a table is enforced, by the newest catalog that is known here.
    fn is_resident(&self, table: ObjectId) -> bool;
}

/// The regions whose rows of a table a snapshot knows of, the own one left out: name, origin, epoch.
pub(crate) fn owners(
    snapshot: &tributary_region::Snapshot,
    only: Option<tributary_storage::RegionId>,
) -> Vec<Owner> {
    let catalog: &Catalog = &snapshot.catalog;
    let own = snapshot.origin.map(|origin| origin.region);
    let wanted = |region: &tributary_storage::RegionId| {
        Some(*region) != own && only.is_none_or(|only| only == *region)
    };
    let members = catalog.members().filter(|(region, _)| wanted(region));
    let owner = |(region, def): (_, &tributary_planner::catalog::RegionDef)| {
        // Of a region from which nothing has come there is nothing to read at this frontier.
        let origin = snapshot.known_as(region)?;
        Some(Owner {
            region: def.name.clone(),
            origin,
            epoch: snapshot.frontier.get(origin),
        })
    };
    members.filter_map(owner).collect()
}

/// One region's part of a table.
#[derive(Clone, Debug)]
pub(crate) struct Owner {
    pub region: String,
    pub origin: OriginId,
    pub epoch: Epoch,
}
