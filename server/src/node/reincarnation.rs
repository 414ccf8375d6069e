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

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use thiserror::Error;
use tributary_planner::parse::quote;
use tributary_region::Past;
use tributary_replication::Epoch;
use tributary_storage::OriginId;

use super::{NodeSettings, OpenError, Stored, aside};
use crate::links::actions::{DdlReply, DdlRequest, StandingReply};

/// How long peers are waited for.
const PEERS_MAX: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_millis(500);

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
    /// The log that is there cannot be read, or not be put aside.
    #[error(transparent)]
    Open(#[from] OpenError),
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
        aside::put(path, aside::NOT_JOINED).map_err(OpenError::from)?;
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
    aside::put(path, incarnation).map_err(OpenError::from)?;
    Ok((blocking(reread).await?, next))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, OpenError> + Send + 'static,
) -> Result<T, OpenError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(OpenError::Thread(std::io::Error::other(error))))
}

/// What peers say of this region, by their names.
type Answers = BTreeMap<String, StandingReply>;

/// What the peers say of this region: all that answer, and at least one.
async fn ask_all(settings: &NodeSettings) -> Result<Answers, ReincarnateError> {
    let started = Instant::now();
    loop {
        let asked = settings.clients.iter().map(|(peer, client)| async move {
            let answer = client.standing(&settings.region).await;
            if let Err(error) = &answer {
                tracing::info!(peer, %error, "cannot be asked");
            }
            answer.ok().map(|answer| (peer.clone(), answer))
        });
        let answers = futures::future::join_all(asked).await.into_iter().flatten();
        let answers: Answers = answers.filter(|(_, answer)| answer.in_cluster).collect();
        if !answers.is_empty() {
            if answers.values().all(|answer| answer.incarnation.is_none()) {
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
fn newest(asked: &Answers) -> u32 {
    asked
        .values()
        .filter_map(|answer| answer.incarnation)
        .max()
        .unwrap_or(1)
}

/// Whether every other member answered, and none has heard of an incarnation: then it was never used.
fn is_fresh(asked: &Answers, incarnation: u32, own: &str) -> bool {
    let mut known = asked.values().flat_map(|answer| &answer.known);
    let is_heard_of = known.any(|known| known.incarnation == incarnation && known.epoch > 0);
    let mut members = asked.values().flat_map(|answer| &answer.members);
    !is_heard_of && members.all(|member| member == own || asked.contains_key(member))
}

/// Whether tombstones are gone that a log has never heard of: it may hold rows that were deleted.
fn lacks_collected(asked: &Answers, past: &Past) -> bool {
    let mut collected = asked.values().flat_map(|answer| &answer.collected);
    collected.any(|(origin, epoch)| past.frontier.get(*origin) < *epoch)
}

/// Whether what others know of a log goes beyond it, or is another one.
fn must_go_anew(asked: &Answers, past: &Past) -> bool {
    let Some(origin) = past.origin else { return false };
    if newest(asked) > origin.incarnation || lacks_collected(asked, past) {
        return true;
    }
    let mut known = asked.values().flat_map(|answer| &answer.known);
    known.any(|known| {
        let same = known.incarnation == origin.incarnation;
        let is_behind = known.epoch > past.position.0;
        let ours = past.chains.get(&Epoch(known.epoch));
        let is_other = matches!((known.chain, ours), (Some(theirs), Some(ours)) if theirs != ours.0);
        same && (is_behind || is_other)
    })
}

/// Has the primary number a new incarnation, unless it has one that was surely never used. The primary region numbers
/// its own, in the first record of its new log. Returns the number, or one before it.
async fn number(
    asked: &Answers,
    past: Option<&Past>,
    settings: &NodeSettings,
) -> Result<u32, ReincarnateError> {
    let newest = newest(asked);
    let superseded = past
        .and_then(|past| past.origin)
        .map_or(0, |origin: OriginId| origin.incarnation);
    if newest > superseded && is_fresh(asked, newest, &settings.region) {
        return Ok(newest);
    }
    let primary = asked
        .values()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::links::actions::KnownLog;

    fn answer(members: &[&str], known: &[(u32, u64)]) -> StandingReply {
        let known = known.iter().map(|&(incarnation, epoch)| KnownLog {
            incarnation,
            epoch,
            chain: None,
        });
        StandingReply {
            in_cluster: true,
            primary: Some("us".to_owned()),
            incarnation: Some(2),
            members: members.iter().map(|name| (*name).to_owned()).collect(),
            known: known.collect(),
            collected: Vec::new(),
        }
    }

    #[test]
    fn a_number_is_fresh_only_when_every_member_says_so() {
        let members = ["us", "eu", "ap"];
        let unheard = || answer(&members, &[(1, 90), (2, 0)]);
        let mut asked: Answers = [("us".to_owned(), unheard())].into();
        assert!(!is_fresh(&asked, 2, "eu"), "ap may have heard of it");
        asked.insert("ap".to_owned(), unheard());
        assert!(is_fresh(&asked, 2, "eu"));
        asked.insert("ap".to_owned(), answer(&members, &[(2, 5)]));
        assert!(!is_fresh(&asked, 2, "eu"));
        asked.insert("ap".to_owned(), answer(&["us", "eu", "ap", "br"], &[]));
        assert!(!is_fresh(&asked, 2, "eu"), "br was not asked");
    }
}
