//! Members that come and go: what the primary waits for around a change of the catalog.
//!
//! ```text
//!   DROP REGION r:  drain ──▶ r has heard of it, so it writes no more: its last epoch is known
//!                        ──▶ every other member has that epoch ──▶ drop
//! ```
//!
//! What is waited for is read from heartbeats. A statement that has waited long enough names who is missing and
//! leaves the region draining: run again, it goes on from there.

use std::time::Duration;

use tributary_planner::catalog::PlanSettings;
use tributary_planner::ddl::member;
use tributary_planner::error::{PlanError, PlanErrorKind};
use tributary_planner::parse::{AlterDatabase, RegionAction};
use tributary_region::Snapshot;
use tributary_replication::Epoch;
use tributary_replication::link::{LinkState, LinkStatus};
use tributary_storage::RegionId;

use super::Node;
use super::ddl::Made;
use crate::links::actions::{KnownLog, StandingReply};
use crate::session::backend::DdlError;

/// How long a region that leaves may take to be drained, and the others to have everything of it.
const DRAIN_MAX: Duration = Duration::from_secs(30);
/// How long the new primary region may take to hear of it.
const HAND_OVER_MAX: Duration = Duration::from_secs(10);

impl Node {
    /// Runs ALTER DATABASE at the primary.
    pub(super) async fn make_members(
        &self,
        alter: &AlterDatabase,
        sql: String,
        settings: PlanSettings,
    ) -> Result<Made, DdlError> {
        match alter.action {
            RegionAction::Drop { force: false } => self.drop_region(alter, sql, settings).await,
            RegionAction::Drop { force: true } => {
                let left_behind = self.left_behind(&alter.region)?;
                let mut made = self.make(sql, settings).await?;
                made.notices.push(left_behind);
                Ok(made)
            }
            RegionAction::MakePrimary => self.hand_over(alter, sql, settings).await,
            RegionAction::Add { .. }
            | RegionAction::Fence
            | RegionAction::Set(_)
            | RegionAction::Reset(_) => self.make(sql, settings).await,
        }
    }

    async fn drop_region(
        &self,
        alter: &AlterDatabase,
        sql: String,
        settings: PlanSettings,
    ) -> Result<Made, DdlError> {
        let region = member(&alter.region, &self.newest().catalog).map_err(DdlError::Plan)?;
        let is_leaving = |snapshot: &Snapshot| {
            let def = snapshot.catalog.regions.get(&region);
            def.is_some_and(|def| def.standing == tributary_planner::catalog::Standing::Leaving)
        };
        if !is_leaving(&self.newest()) {
            self.make(sql.clone(), settings.clone()).await?;
        }
        // Everything announced so far is at or after the drain.
        let told = self.newest().frontier.clone();
        let mut last = None;
        let received = |snapshot: &Snapshot| {
            if last.is_none()
                && let Some(status) = link_of(snapshot, region).filter(|s| s.peer_processed.covers(&told))
            {
                let origin = status.peer.and_then(|peer| peer.origin);
                last = origin.map(|origin| (origin, status.peer_frontier.get(origin)));
            }
            let Some((origin, epoch)) = last else { return false };
            lagging(snapshot, region, |frontier| frontier.get(origin) >= epoch).is_empty()
        };
        let is_drained = matches!(self.wait_until(DRAIN_MAX, received).await, Ok(Some(_)));
        if !is_leaving(&self.newest()) {
            let message = format!(
                "region \"{}\" is kept: ADD REGION was run meanwhile",
                alter.region
            );
            return Err(DdlError::Plan(PlanError::new(
                PlanErrorKind::PrerequisiteState,
                message,
            )));
        }
        if is_drained {
            let mut made = self.make(sql, settings).await?;
            if let Some((_, epoch)) = last {
                made.notices.push(format!(
                    "every region has everything of \"{}\" up to its last epoch {epoch}",
                    alter.region
                ));
            }
            return Ok(made);
        }
        let waits_for = match last {
            None => format!(
                "region \"{}\" has not confirmed that it writes no more",
                alter.region
            ),
            Some((origin, epoch)) => {
                let lagging = lagging(&self.newest(), region, |frontier| frontier.get(origin) >= epoch);
                format!(
                    "these regions do not have everything of it yet: {}",
                    lagging.join(", ")
                )
            }
        };
        let message = format!(
            "region \"{}\" is leaving, and not dropped yet: {waits_for}",
            alter.region
        );
        Err(DdlError::Plan(PlanError::new(PlanErrorKind::PrerequisiteState, message).with_hint(
            "Run the statement again to go on waiting. DROP REGION … FORCE does not wait and loses what only that \
             region has; ADD REGION keeps the region.",
        )))
    }

    /// What is known to be lost when a region is dropped as it is.
    fn left_behind(&self, name: &str) -> Result<String, DdlError> {
        let snapshot = self.newest();
        let region = member(name, &snapshot.catalog).map_err(DdlError::Plan)?;
        let Some(origin) = snapshot.known_as(region) else {
            return Ok(format!("nothing of \"{name}\" has ever arrived"));
        };
        let mut heard: Vec<String> = vec![format!("{}: {}", self.name(), snapshot.frontier.get(origin))];
        for (peer, status) in snapshot.links.iter().filter(|(peer, _)| peer != name) {
            let epoch = status.peer_frontier.get(origin);
            if epoch > Epoch(0) {
                heard.push(format!("{peer}: {epoch}"));
            }
        }
        let announced =
            link_of(&snapshot, region).map_or(Epoch(0), |status| status.peer_frontier.get(origin));
        let lost = match announced > snapshot.frontier.get(origin) {
            true => format!("it has announced epoch {announced}"),
            false => "what it wrote after that is lost".to_owned(),
        };
        Ok(format!(
            "of \"{name}\" the regions have heard these epochs: {}; {lost}",
            heard.join(", ")
        ))
    }

    async fn hand_over(
        &self,
        alter: &AlterDatabase,
        sql: String,
        settings: PlanSettings,
    ) -> Result<Made, DdlError> {
        let snapshot = self.newest();
        let region = member(&alter.region, &snapshot.catalog).map_err(DdlError::Plan)?;
        let is_own = snapshot.catalog.primary == Some(region);
        let is_up = link_of(&snapshot, region).is_some_and(|status| status.state == LinkState::Up);
        if !is_own && !is_up {
            let message = format!(
                "region \"{}\" is not connected with the primary region",
                alter.region
            );
            return Err(DdlError::Plan(
                PlanError::new(PlanErrorKind::PrerequisiteState, message)
                    .with_hint("Both have to be up: the hand-over is a record of the old primary region."),
            ));
        }
        let mut made = self.make(sql, settings).await?;
        if is_own {
            return Ok(made);
        }
        let told = self.newest().frontier.clone();
        let heard = |snapshot: &Snapshot| {
            link_of(snapshot, region).is_some_and(|status| status.peer_processed.covers(&told))
        };
        if !matches!(self.wait_until(HAND_OVER_MAX, heard).await, Ok(Some(_))) {
            made.notices.push(format!(
                "region \"{}\" has not heard yet that it is the primary region; until then nobody runs DDL",
                alter.region
            ));
        }
        Ok(made)
    }
}

impl Node {
    /// What is known here of a region.
    pub(crate) fn answer_standing(&self, region: &str) -> StandingReply {
        let snapshot = self.newest();
        let catalog = &snapshot.catalog;
        let id = catalog.region_named(region);
        let known = snapshot
            .frontier
            .iter()
            .filter(|(origin, _)| Some(origin.region) == id);
        StandingReply {
            in_cluster: catalog.cluster.is_some() && snapshot.origin.is_some(),
            primary: catalog
                .primary
                .and_then(|primary| catalog.region_name(primary))
                .map(str::to_owned),
            incarnation: id.map(|id| catalog.regions[&id].incarnation),
            members: catalog.members().map(|(_, def)| def.name.clone()).collect(),
            known: known
                .map(|(origin, epoch)| KnownLog {
                    incarnation: origin.incarnation,
                    epoch: epoch.0,
                    chain: snapshot.heads.get(&origin).map(|chain| chain.0),
                })
                .collect(),
            collected: snapshot.collected.iter().collect(),
        }
    }
}

/// The link to a member.
fn link_of(snapshot: &Snapshot, region: RegionId) -> Option<&LinkStatus> {
    let name = snapshot.catalog.region_name(region)?;
    let mut links = snapshot.links.iter();
    links.find(|(peer, _)| peer == name).map(|(_, status)| status)
}

/// The members other than `region` whose frontier is not as far.
fn lagging(
    snapshot: &Snapshot,
    region: RegionId,
    is_as_far: impl Fn(&tributary_replication::Frontier) -> bool,
) -> Vec<String> {
    let own = snapshot.origin.map(|origin| origin.region);
    let mut lagging = Vec::new();
    for (id, def) in snapshot.catalog.members().filter(|(id, _)| *id != region) {
        let reached = match own == Some(id) {
            true => is_as_far(&snapshot.frontier),
            false => link_of(snapshot, id).is_some_and(|status| is_as_far(&status.peer_frontier)),
        };
        if !reached {
            lagging.push(def.name.clone());
        }
    }
    lagging
}
