//! Questions that one region asks another outside the link: `DoAction` and its one answer.
//!
//! Everything here is plain data in postcard. Enumerations of other crates are carried as numbers of this file's
//! own tables, so that a peer's bytes can name nothing that is not in them.

use serde::{Deserialize, Serialize};
use tributary_planner::error::{PlanError, PlanErrorKind};
use tributary_region::Rejected;
use tributary_replication::Epoch;
use tributary_storage::OriginId;

use crate::session::backend::DdlError;

/// The actions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Which cluster are you in?
    Cluster,
    /// Run this DDL.
    Ddl,
    /// How does this region stand to your cluster?
    Standing,
    /// Carry out this statement.
    Forward,
    /// Carry out this COPY.
    Copy,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 5] = [
        Kind::Cluster,
        Kind::Ddl,
        Kind::Standing,
        Kind::Forward,
        Kind::Copy,
    ];

    /// The Flight action's type.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Cluster => "cluster",
            Kind::Ddl => "ddl",
            Kind::Standing => "standing",
            Kind::Forward => "forward",
            Kind::Copy => "copy",
        }
    }

    /// The inverse of [`Kind::name`].
    pub fn named(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// The answer to `cluster`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterReply {
    /// `None`: not in one yet.
    pub cluster: Option<[u8; 16]>,
}

/// The question `standing`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandingRequest {
    /// The region it is about: the one that asks.
    pub region: String,
}

/// The answer: what is known of a region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandingReply {
    /// Whether who answers belongs to a cluster.
    pub in_cluster: bool,
    /// The primary region's name.
    pub primary: Option<String>,
    /// The incarnation that counts; `None` for a region that is no member.
    pub incarnation: Option<u32>,
    /// The names of all members.
    pub members: Vec<String>,
    /// How far each of its incarnations is known.
    pub known: Vec<KnownLog>,
    /// Up to where tombstones were dropped: a log that knows less must not be continued.
    pub collected: Vec<(OriginId, Epoch)>,
}

/// How far a log is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownLog {
    /// Whose.
    pub incarnation: u32,
    /// Up to where.
    pub epoch: u64,
    /// The log's hash there.
    pub chain: Option<[u8; 16]>,
}

/// A DDL statement for the primary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DdlRequest {
    /// The region that asks.
    pub from: String,
    /// The text of one statement.
    pub sql: String,
    /// The session's time zone, to be frozen into what is created.
    pub time_zone: String,
}

/// The primary's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DdlReply {
    /// It is durable and visible at the primary.
    Made {
        /// The command tag.
        tag: String,
        /// For the client.
        notices: Vec<String>,
        /// The catalog version that shows it.
        catalog_version: u64,
    },
    /// Nothing was changed.
    Refused(DdlRefusal),
}

/// Why nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DdlRefusal {
    /// The statement is wrong.
    Plan {
        /// Index into [`PLAN_ERRORS`].
        kind: u8,
        /// The message.
        message: String,
        /// The hint.
        hint: Option<String>,
        /// The position, in characters from 1.
        position: Option<u64>,
    },
    /// The region asked is not the primary.
    NotPrimary,
    /// The primary itself has not joined yet.
    Joining,
    /// Others kept changing the catalog.
    CatalogChanged,
    /// The primary's disk is full.
    DiskFull,
    /// The primary is overloaded or stopping.
    Overloaded,
}

/// Kinds of planning errors by their number on the wire. Append only.
const PLAN_ERRORS: [PlanErrorKind; 23] = [
    PlanErrorKind::Internal,
    PlanErrorKind::Syntax,
    PlanErrorKind::TooLong,
    PlanErrorKind::TooDeep,
    PlanErrorKind::Unsupported,
    PlanErrorKind::UndefinedTable,
    PlanErrorKind::UndefinedColumn,
    PlanErrorKind::UndefinedFunction,
    PlanErrorKind::AmbiguousColumn,
    PlanErrorKind::DuplicateTable,
    PlanErrorKind::DuplicateColumn,
    PlanErrorKind::DatatypeMismatch,
    PlanErrorKind::InvalidDefinition,
    PlanErrorKind::DependentObjects,
    PlanErrorKind::WrongObjectType,
    PlanErrorKind::NotNull,
    PlanErrorKind::GroupingError,
    PlanErrorKind::UndefinedObject,
    PlanErrorKind::DuplicateObject,
    PlanErrorKind::UndefinedDatabase,
    PlanErrorKind::PrerequisiteState,
    PlanErrorKind::InvalidParameter,
    PlanErrorKind::Forbidden,
];

impl DdlRefusal {
    /// What goes over the wire.
    pub fn from_error(error: DdlError) -> DdlRefusal {
        match error {
            DdlError::Plan(error) => DdlRefusal::Plan {
                kind: PLAN_ERRORS
                    .iter()
                    .position(|kind| *kind == error.kind)
                    .and_then(|index| u8::try_from(index).ok())
                    .unwrap_or(0),
                message: error.message,
                hint: error.hint,
                position: error.position.and_then(|position| u64::try_from(position).ok()),
            },
            DdlError::Unreachable { .. } => DdlRefusal::NotPrimary,
            DdlError::Rejected(Rejected::Joining) => DdlRefusal::Joining,
            DdlError::Rejected(Rejected::CatalogChanged) => DdlRefusal::CatalogChanged,
            DdlError::Rejected(Rejected::DiskFull) => DdlRefusal::DiskFull,
            DdlError::Rejected(Rejected::NotPrimary) => DdlRefusal::NotPrimary,
            DdlError::Rejected(Rejected::Unsupported(reason)) => {
                DdlRefusal::from_error(DdlError::Plan(PlanError::new(PlanErrorKind::Unsupported, reason)))
            }
            DdlError::Rejected(_) => DdlRefusal::Overloaded,
        }
    }

    /// What the asking session is told.
    pub fn into_error(self) -> DdlError {
        match self {
            DdlRefusal::Plan {
                kind,
                message,
                hint,
                position,
            } => DdlError::Plan(PlanError {
                kind: PLAN_ERRORS
                    .get(usize::from(kind))
                    .copied()
                    .unwrap_or(PlanErrorKind::Internal),
                message,
                hint,
                position: position.and_then(|position| usize::try_from(position).ok()),
            }),
            DdlRefusal::NotPrimary => DdlError::Rejected(Rejected::NotPrimary),
            DdlRefusal::Joining => DdlError::Rejected(Rejected::Joining),
            DdlRefusal::CatalogChanged => DdlError::Rejected(Rejected::CatalogChanged),
            DdlRefusal::DiskFull => DdlError::Rejected(Rejected::DiskFull),
            DdlRefusal::Overloaded => DdlError::Rejected(Rejected::Overloaded),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_planning_error_survives_the_wire() {
        for kind in PLAN_ERRORS {
            let error = PlanError::new(kind, "no").with_hint("do this").at(7);
            let bytes = postcard::to_stdvec(&DdlRefusal::from_error(DdlError::Plan(error.clone())))
                .expect("plain data");
            let refusal: DdlRefusal = postcard::from_bytes(&bytes).expect("just written");
            match refusal.into_error() {
                DdlError::Plan(read) => assert_eq!(read, error),
                other => panic!("expected a planning error, got {other:?}"),
            }
        }
    }

    #[test]
    fn an_unknown_number_is_an_internal_error() {
        let refusal = DdlRefusal::Plan {
            kind: 200,
            message: "x".into(),
            hint: None,
            position: None,
        };
        match refusal.into_error() {
            DdlError::Plan(read) => assert_eq!(read.kind, PlanErrorKind::Internal),
            other => panic!("expected a planning error, got {other:?}"),
        }
    }
}
