//! `--reincarnate`: a region that lost its log, or holds an old or fenced copy of it, goes on as another incarnation.
//!
//! ```text
//!   no log ────────────────────────────────────────┐
//!   a log that others know more of, or otherwise ──┤▶ a number from the primary ─▶ aside with it ─▶ joins anew
//!   a log that was fenced ─────────────────────────┘                               └─▶ its own rows come back (salvage)
//!   a log that is as the others know it ─▶ goes on: the flag does nothing
//! ```
//!
//! What others know is asked of every peer that answers, and one that answers is needed: to take a sound region for a
//! lost one costs a copy of everything, to take a lost one for sound would let two histories loose.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use thiserror::Error;
use tributary_planner::parse::quote;
use tributary_region::Past;
use tributary_replication::Epoch;
use tributary_storage::OriginId;

use super::data_dir::SUPERSEDED;
use super::{NodeSettings, OpenError, Stored};
use crate::links::actions::{DdlReply, DdlRequest, StandingReply};

/// How long peers are waited for.
const PEERS_MAX: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_millis(500);
/// In a directory that was put aside: its rows are to be taken over yet.
pub(super) const PENDING: &str = "PENDING";

/// Why a region cannot become another incarnation.
#[derive(Debug, Error)]
pub enum ReincarnateError {
    /// Nobody could be asked.
    #[error(
        "--reincarnate: no peer answers, so it cannot be told whether this region lost anything.\n  \
         what to do: start it while at least one other region is up; or, if this data directory is whole, without the flag"
    )]
    NoPeer,
    /// The primary did not give a number.
    #[error("--reincarnate: the primary region \"{primary}\" gave no incarnation: {reason}")]
    Primary {
        /// Its name.
        primary: String,
        /// What it said.
        reason: String,
    },
    /// The region is no member any more, or never was.
    #[error(
        "--reincarnate: region \"{0}\" is no member of the cluster.\n  \
         what to do: ALTER DATABASE tributary ADD REGION {0} first, then start it with an empty data directory"
    )]
    NoMember(String),
    /// The log that is there cannot be read.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The directory cannot be put aside.
    #[error("--reincarnate: {path} cannot be put aside: {source}")]
    Aside {
        /// What was to be renamed.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Makes sure that `stored` is a log with which the region may go on: itself, or an empty one. Returns the least
/// incarnation that it may then take.
pub async fn prepare(
    stored: Stored,
    path: &Path,
    settings: &NodeSettings,
) -> Result<(Stored, u32), ReincarnateError> {
    let past = match stored.is_empty() {
        true => {
            // It stays locked meanwhile.
            let incarnation = number(&ask_all(settings).await?, None, settings).await?;
            return Ok((stored, incarnation));
        }
        false => {
            blocking({
                let settings = settings.clone();
                move || stored.look_into(&settings)
            })
            .await?
        }
    };
    let asked = ask_all(settings).await?;
    let reread = {
        let path = path.to_owned();
        move || Stored::read(&path)
    };
    if past.origin.is_none() && lacks_collected(&asked, &past) {
        // It had not joined, so nothing in it is its own.
        let incarnation = number(&asked, None, settings).await?;
        drop(past);
        let earlier = path.join(format!("{SUPERSEDED}0"));
        if earlier.exists() {
            std::fs::remove_dir_all(&earlier).map_err(|source| ReincarnateError::Aside {
                path: earlier,
                source,
            })?;
        }
        put_aside(path, 0)?;
        return Ok((blocking(reread).await?, incarnation));
    }
    if past.origin.is_none() {
        let incarnation = number(&asked, None, settings).await?;
        return Ok((blocking(reread).await?, incarnation));
    }
    if !must_go_anew(&asked, &past) {
        tracing::warn!("--reincarnate: this log is as the other regions know it; the flag does nothing");
        return Ok((blocking(reread).await?, 0));
    }
    let next = number(&asked, Some(&past), settings).await?;
    let incarnation = past.origin.map_or(0, |origin| origin.incarnation);
    drop(past);
    put_aside(path, incarnation)?;
    Ok((blocking(reread).await?, next))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, OpenError> + Send + 'static,
) -> Result<T, OpenError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(OpenError::Thread(std::io::Error::other(error))))
}

/// What the peers say of this region: all that answer, and at least one.
async fn ask_all(settings: &NodeSettings) -> Result<Vec<StandingReply>, ReincarnateError> {
    let started = Instant::now();
    loop {
        let asked = settings.clients.iter().map(|(peer, client)| async move {
            let answer = client.standing(&settings.region).await;
            if let Err(error) = &answer {
                tracing::info!(peer, %error, "cannot be asked");
            }
            answer.ok()
        });
        let answers: Vec<StandingReply> = futures::future::join_all(asked)
            .await
            .into_iter()
            .flatten()
            .collect();
        let answers: Vec<StandingReply> = answers.into_iter().filter(|answer| answer.in_cluster).collect();
        if !answers.is_empty() {
            if answers.iter().all(|answer| answer.incarnation.is_none()) {
                return Err(ReincarnateError::NoMember(settings.region.clone()));
            }
            return Ok(answers);
        }
        if started.elapsed() > PEERS_MAX {
            return Err(ReincarnateError::NoPeer);
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// The newest incarnation that a catalog names.
fn newest(asked: &[StandingReply]) -> u32 {
    asked
        .iter()
        .filter_map(|answer| answer.incarnation)
        .max()
        .unwrap_or(1)
}

/// Whether anybody has heard of an incarnation.
fn is_heard_of(asked: &[StandingReply], incarnation: u32) -> bool {
    let mut known = asked.iter().flat_map(|answer| &answer.known);
    known.any(|known| known.incarnation == incarnation && known.epoch > 0)
}

/// Whether tombstones are gone that a log has never heard of: it may hold rows that were deleted.
fn lacks_collected(asked: &[StandingReply], past: &Past) -> bool {
    let mut collected = asked.iter().flat_map(|answer| &answer.collected);
    collected.any(|(origin, epoch)| past.frontier.get(*origin) < *epoch)
}

/// Whether what others know of a log goes beyond it, or is another one.
fn must_go_anew(asked: &[StandingReply], past: &Past) -> bool {
    let Some(origin) = past.origin else { return false };
    if newest(asked) > origin.incarnation || lacks_collected(asked, past) {
        return true;
    }
    let mut known = asked.iter().flat_map(|answer| &answer.known);
    known.any(|known| {
        let same = known.incarnation == origin.incarnation;
        let is_behind = known.epoch > past.position.0;
        let ours = past.chains.get(&Epoch(known.epoch));
        let is_other = matches!((known.chain, ours), (Some(theirs), Some(ours)) if theirs != ours.0);
        same && (is_behind || is_other)
    })
}

/// Has the primary number a new incarnation, unless it has one that nobody has heard of yet. The primary region numbers
/// its own, in the first record of its new log. Returns the number, or one before it.
async fn number(
    asked: &[StandingReply],
    past: Option<&Past>,
    settings: &NodeSettings,
) -> Result<u32, ReincarnateError> {
    let newest = newest(asked);
    let superseded = past
        .and_then(|past| past.origin)
        .map_or(0, |origin: OriginId| origin.incarnation);
    if newest > superseded && !is_heard_of(asked, newest) {
        return Ok(newest);
    }
    let primary = asked
        .iter()
        .find_map(|answer| answer.primary.clone())
        .unwrap_or_default();
    if primary == settings.region {
        return Ok(newest + 1);
    }
    let refused = |reason: String| ReincarnateError::Primary {
        primary: primary.clone(),
        reason,
    };
    let client = settings.clients.get(&primary);
    let client = client.ok_or_else(|| refused("it is no configured peer: give its --peer".into()))?;
    let request = DdlRequest {
        from: settings.region.clone(),
        sql: format!(
            "ALTER DATABASE tributary FENCE REGION {}",
            quote(&settings.region)
        ),
        time_zone: "UTC".to_owned(),
    };
    match client.ddl(&request).await {
        Ok(DdlReply::Made { .. }) => Ok(newest + 1),
        Ok(DdlReply::Refused(refusal)) => Err(refused(format!("{refusal:?}"))),
        Err(error) => Err(refused(error.to_string())),
    }
}

/// Moves a log with its state out of the way; [`super::salvage`] takes its rows over later.
fn put_aside(path: &Path, incarnation: u32) -> Result<(), ReincarnateError> {
    let aside = |path: &Path| {
        let path = path.to_owned();
        move |source| ReincarnateError::Aside { path, source }
    };
    let to = path.join(format!("{SUPERSEDED}{incarnation}"));
    std::fs::create_dir_all(&to).map_err(aside(&to))?;
    let pending = to.join(PENDING);
    std::fs::write(&pending, "its rows are to be taken over yet\n").map_err(aside(&pending))?;
    // The log last: without it the directory would be taken for one that was wiped, and be asked about again.
    for name in ["sinks", "spill", "state", "log"] {
        let from = path.join(name);
        if from.exists() {
            std::fs::rename(&from, to.join(name)).map_err(aside(&from))?;
        }
    }
    std::fs::File::open(path)
        .and_then(|dir| dir.sync_all())
        .map_err(aside(path))?;
    tracing::warn!(to = %to.display(), "the superseded log was put aside");
    Ok(())
}
