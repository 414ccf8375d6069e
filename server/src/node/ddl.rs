//! DDL: planned and logged by the primary region, forwarded there by every other one.
//!
//! ```text
//!   eu: CREATE … ── DoAction "ddl" (text, time zone) ──▶ us: parse, plan against the newest catalog, log, publish
//!   eu: wait until the local catalog has the version   ◀── tag, notices, catalog version
//! ```
//! The primary trusts nothing of what it is sent: the text is parsed and planned anew. A statement that met a
//! catalog newer than the one it was planned against is planned again.
//!
//! When the answer is lost, the statement may have been carried out; the error then is that the primary cannot be
//! reached, and `IF NOT EXISTS` makes a second attempt harmless.

use std::time::Duration;

use tributary_planner::catalog::PlanSettings;
use tributary_planner::ddl::plan_ddl_counting;
use tributary_planner::error::{PlanError, PlanErrorKind};
use tributary_planner::parse;
use tributary_region::Rejected;
use tributary_storage::Position;

use super::{Node, wall_ms};
use crate::links::actions::{DdlRefusal, DdlReply, DdlRequest};
use crate::session::backend::{DdlDone, DdlError};
use crate::source::file::complete;

const ATTEMPTS_MAX: usize = 8;
/// How long a logged change may take to be published here.
const PUBLISH_MAX: Duration = Duration::from_secs(60);
/// How long a change may take from the primary to here; after that it is made, but not seen yet.
const ARRIVE_MAX: Duration = Duration::from_secs(20);

/// A change made at the primary.
pub(super) struct Made {
    pub(super) tag: String,
    pub(super) notices: Vec<String>,
    pub(super) position: Position,
    pub(super) catalog_version: u64,
}

impl Node {
    /// Runs one DDL statement, here or at the primary, and returns when the catalog here shows it.
    pub(super) async fn run_ddl(&self, sql: String, settings: PlanSettings) -> Result<DdlDone, DdlError> {
        let region = self.region.clone();
        let sql = tokio::task::spawn_blocking(move || complete(sql, &region))
            .await
            .map_err(|error| {
                DdlError::Plan(PlanError::internal(format!("looking at files failed: {error}")))
            })?
            .map_err(DdlError::Plan)?;
        let primary = self.peers.primary();
        if primary == self.region {
            let made = self.make_any(sql, settings).await?;
            return Ok(DdlDone {
                tag: made.tag,
                notices: made.notices,
                position: made.position,
            });
        }
        let request = DdlRequest {
            from: self.region.clone(),
            sql,
            time_zone: settings.time_zone,
        };
        let unreachable = || DdlError::Unreachable {
            primary: primary.clone(),
        };
        let client = self.peers.client(&primary).ok_or_else(unreachable)?;
        let reply = client.ddl(&request).await.map_err(|error| {
            tracing::warn!(primary, %error, "DDL cannot be forwarded");
            unreachable()
        })?;
        let (tag, mut notices, version) = match reply {
            DdlReply::Made {
                tag,
                notices,
                catalog_version,
            } => (tag, notices, catalog_version),
            DdlReply::Refused(DdlRefusal::NotPrimary) => {
                return Err(DdlError::Rejected(Rejected::NotPrimary));
            }
            DdlReply::Refused(refusal) => return Err(refusal.into_error()),
        };
        let seen = self
            .wait_until(ARRIVE_MAX, |snapshot| snapshot.catalog.version >= version)
            .await;
        let position = match seen {
            Ok(Some(snapshot)) => snapshot.position,
            Ok(None) => {
                notices.push(format!(
                    "the primary region \"{}\" made the change, but it has not reached this region yet",
                    primary
                ));
                self.newest().position
            }
            Err(_) => return Err(unreachable()),
        };
        Ok(DdlDone {
            tag,
            notices,
            position,
        })
    }

    /// Answers another region's request. At the primary only.
    pub(crate) async fn answer_ddl(&self, request: DdlRequest) -> DdlReply {
        if self.peers.primary() != self.region {
            return DdlReply::Refused(DdlRefusal::NotPrimary);
        }
        let settings = PlanSettings {
            time_zone: request.time_zone,
        };
        match self.make_any(request.sql, settings).await {
            Ok(made) => DdlReply::Made {
                tag: made.tag,
                notices: made.notices,
                catalog_version: made.catalog_version,
            },
            Err(error) => DdlReply::Refused(DdlRefusal::from_error(error)),
        }
    }

    /// Runs one statement at the primary: one that changes the members may take several changes of the catalog.
    async fn make_any(&self, sql: String, settings: PlanSettings) -> Result<Made, DdlError> {
        match one_statement(&sql).map_err(DdlError::Plan)? {
            parse::Statement::AlterDatabase(alter) => self.make_members(&alter, sql, settings).await,
            _ => self.make(sql, settings).await,
        }
    }

    /// Plans, logs and publishes one statement at the primary.
    pub(super) async fn make(&self, sql: String, settings: PlanSettings) -> Result<Made, DdlError> {
        let _one_at_a_time = self.ddl.lock().await;
        for _ in 0..ATTEMPTS_MAX {
            let snapshot = self.newest();
            if snapshot.origin.is_none() {
                return Err(DdlError::Rejected(Rejected::Joining));
            }
            let catalog = snapshot.catalog.clone();
            let base_version = catalog.version;
            let (text, frozen, rows) = (sql.clone(), settings.clone(), snapshot.row_counts());
            let plan = tokio::task::spawn_blocking(move || {
                let statement = one_statement(&text)?;
                plan_ddl_counting(&statement, &catalog, &frozen, wall_ms(), &rows)
            })
            .await
            .map_err(|error| DdlError::Plan(PlanError::internal(format!("planning failed: {error}"))))?
            .map_err(DdlError::Plan)?;
            if plan.changes.is_empty() {
                return Ok(Made {
                    tag: plan.tag,
                    notices: plan.notices,
                    position: snapshot.position,
                    catalog_version: base_version,
                });
            }
            match self.submit_ddl(plan.changes, base_version).await {
                Ok(committed) => {
                    let published = self
                        .wait_until(PUBLISH_MAX, |seen| seen.position >= committed.position)
                        .await;
                    let version = match published {
                        Ok(Some(snapshot)) => snapshot.catalog.version,
                        Ok(None) | Err(_) => base_version + 1,
                    };
                    return Ok(Made {
                        tag: plan.tag,
                        notices: plan.notices,
                        position: committed.position,
                        catalog_version: version,
                    });
                }
                Err(Rejected::CatalogChanged) => {
                    // The newer catalog is sealed but not published yet; a moment later it is.
                    let newer = |seen: &tributary_region::Snapshot| seen.catalog.version > base_version;
                    let _ = self.wait_until(Duration::from_secs(1), newer).await;
                }
                Err(rejected) => return Err(DdlError::Rejected(rejected)),
            }
        }
        Err(DdlError::Rejected(Rejected::CatalogChanged))
    }
}

fn one_statement(sql: &str) -> Result<parse::Statement, PlanError> {
    let mut parsed = parse::parse(sql)?;
    match (parsed.pop(), parsed.is_empty()) {
        (Some(only), true) => Ok(only.statement),
        _ => Err(PlanError::new(
            PlanErrorKind::Syntax,
            "exactly one statement is expected here",
        )),
    }
}
