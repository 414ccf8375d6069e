//! Who may talk to whom.
//!
//! Both ends say who they are, how far they are, and the hashes of the logs they know at these points. A
//! region that finds itself behind what its peer has seen *of it*, or with another history there, has lost
//! its log or runs twice: it must stop. Everything else that does not fit is refused, and only this link
//! suffers.
//!
//! A hash that is not known any more proves nothing and is passed over: the region keeps the newest ones of each log.

use tributary_storage::{ChainHash, OriginId, RegionId};

use crate::frontier::Epoch;
use crate::link::message::{Hello, LINK_FORMAT, Standing};
use crate::link::{Identity, Local, Member};

/// Why a hello is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The other end is not one to talk to.
    Refuse(String),
    /// The other end must stop; our hello tells it why.
    Outdated(String),
    /// This region must stop.
    Fatal(String),
}

/// What this region says of itself.
pub(crate) fn greet(local: &Local<'_>, session: u64, answers: Option<u64>) -> Hello {
    Hello {
        session,
        answers,
        format: LINK_FORMAT,
        name: local.name.to_string(),
        cluster: local.identity.map(|identity| identity.cluster),
        origin: local.identity.map(|identity| identity.origin),
        frontier: local.frontier.clone(),
        chains: chains(local),
        standings: local.members.iter().map(standing).collect(),
    }
}

/// The hashes of the logs that are known here, where they are known up to.
pub(crate) fn chains(local: &Local<'_>) -> Vec<(OriginId, Epoch, ChainHash)> {
    let known = |(origin, epoch)| (local.chain_at)(origin, epoch).map(|chain| (origin, epoch, chain));
    local.frontier.iter().filter_map(known).collect()
}

fn standing((region, member): (&RegionId, &Member)) -> Standing {
    Standing {
        region: *region,
        incarnation: member.incarnation,
        dropped: member.dropped,
    }
}

/// Why somebody who is no member is not talked to.
pub fn stranger(name: &str) -> String {
    format!("no member of this cluster is named {name}: ALTER DATABASE tributary ADD REGION \"{name}\" first")
}

/// Whether the catalog says that an origin's log is continued no more.
pub(crate) fn is_over(origin: OriginId, local: &Local<'_>) -> bool {
    let member = local.members.get(&origin.region);
    member.is_some_and(|member| member.dropped || member.incarnation > origin.incarnation)
}

/// Whether to talk to who sent this. `peer` is the name under which it was dialled or let in.
pub(crate) fn judge(hello: &Hello, local: &Local<'_>, peer: &str) -> Result<(), Verdict> {
    judge_names(hello, local, peer)?;
    if let (Some(ours), Some(theirs)) = (local.identity, hello.cluster)
        && ours.cluster != theirs
    {
        return refuse(format!(
            "{peer} belongs to cluster {theirs}, this region to {}",
            ours.cluster
        ));
    }
    if let Some(ours) = local.identity {
        judge_own_history(hello, local, ours, peer)?;
    }
    judge_other_histories(hello, local, peer)
}

fn judge_names(hello: &Hello, local: &Local<'_>, peer: &str) -> Result<(), Verdict> {
    if hello.format != LINK_FORMAT {
        return refuse(format!(
            "{peer} speaks link format {}, this region {LINK_FORMAT}: run the same version in every region",
            hello.format
        ));
    }
    if hello.name == local.name {
        return refuse(format!(
            "the region at the other end is also named {}",
            local.name
        ));
    }
    if hello.name != peer {
        return refuse(format!(
            "the region at the other end is named {}, not {peer}",
            hello.name
        ));
    }
    if hello.cluster.is_some() != hello.origin.is_some() {
        return refuse(format!("{peer} names a cluster or a region, but not both"));
    }
    // A region that is joining does not know the members yet: it goes by the names it was configured with.
    if local.members.is_empty() {
        return Ok(());
    }
    let mut named = local
        .members
        .iter()
        .filter(|(_, member)| member.name == hello.name);
    let Some(member) = named
        .clone()
        .find(|(_, member)| !member.dropped)
        .map(|(region, _)| *region)
    else {
        return match named.next() {
            Some(_) => outdated(format!("region {} was dropped from this cluster", hello.name)),
            None => refuse(stranger(&hello.name)),
        };
    };
    match hello.region() {
        Some(region) if region != member => refuse(format!(
            "{peer} calls itself region {}, the catalog says {}",
            region.0, member.0
        )),
        _ => Ok(()),
    }
}

/// What the peer has seen of us must be a part of our log.
fn judge_own_history(hello: &Hello, local: &Local<'_>, ours: &Identity, peer: &str) -> Result<(), Verdict> {
    let seen = hello.frontier.get(ours.origin);
    let reached = local.frontier.get(ours.origin);
    if seen > reached {
        return Err(Verdict::Fatal(format!(
            "{peer} has seen this region ({}) at epoch {seen}, but its log ends at {reached}: \
             it was restored from an old copy or lost its disk; start it with --reincarnate",
            ours.origin
        )));
    }
    judge_own_chain(&hello.chains, local, ours, peer)?;
    let mut standings = hello.standings.iter();
    let standing = standings.find(|standing| standing.region == ours.origin.region);
    if standing.is_some_and(|standing| standing.dropped) {
        return Err(Verdict::Fatal(format!(
            "{peer} says that this region ({}) was dropped from the cluster",
            ours.origin
        )));
    }
    let known = hello.frontier.iter().map(|(origin, _)| origin);
    let known = known.filter(|origin| origin.region == ours.origin.region);
    let newest = known.map(|origin| origin.incarnation);
    let newest = newest.chain(standing.map(|standing| standing.incarnation)).max();
    match newest.filter(|newest| *newest > ours.origin.incarnation) {
        Some(newer) => Err(Verdict::Fatal(format!(
            "{peer} knows this region as incarnation {newer}: {} was fenced or superseded and must not write. \
             If no other copy runs, start it with --reincarnate: its own rows are kept",
            ours.origin
        ))),
        None => Ok(()),
    }
}

/// What both have seen of anybody must be the same, and the peer must not be behind what we saw of it.
fn judge_other_histories(hello: &Hello, local: &Local<'_>, peer: &str) -> Result<(), Verdict> {
    if let Some(theirs) = hello.origin {
        let (seen, reached) = (local.frontier.get(theirs), hello.frontier.get(theirs));
        if seen > reached {
            return outdated(format!(
                "{peer} ({theirs}) is at epoch {reached}, but was seen here at {seen}: it lost a part of its log"
            ));
        }
        let known = local.frontier.iter().map(|(origin, _)| origin);
        let known = known.filter(|origin| origin.region == theirs.region);
        let named = local.members.get(&theirs.region).map(|member| member.incarnation);
        let newest = known.map(|origin| origin.incarnation).chain(named).max();
        if let Some(newer) = newest.filter(|newest| *newest > theirs.incarnation) {
            return outdated(format!(
                "{peer} ({theirs}) was fenced or superseded: incarnation {newer} counts"
            ));
        }
    }
    judge_other_chains(&hello.chains, local, hello.origin, peer)
}

/// Whether what the peer holds of each log is what is held here. Two processes of one region may reach different regions at the
/// same time, and be believed by both: so this is asked again with every heartbeat of the peer, which is `theirs`.
pub(crate) fn judge_chains(
    chains: &[(OriginId, Epoch, ChainHash)],
    local: &Local<'_>,
    theirs: Option<OriginId>,
    peer: &str,
) -> Result<(), Verdict> {
    if let Some(ours) = local.identity {
        judge_own_chain(chains, local, ours, peer)?;
    }
    judge_other_chains(chains, local, theirs, peer)
}

fn judge_own_chain(
    chains: &[(OriginId, Epoch, ChainHash)],
    local: &Local<'_>,
    ours: &Identity,
    peer: &str,
) -> Result<(), Verdict> {
    for (origin, epoch, chain) in chains {
        let known = (local.chain_at)(*origin, *epoch);
        if *origin == ours.origin && known.is_some_and(|known| known != *chain) {
            return Err(Verdict::Fatal(format!(
                "{peer} has seen another history of this region ({origin}) at epoch {epoch}: \
                 it runs twice or was restored; stop all copies but one, or start it with --reincarnate"
            )));
        }
    }
    Ok(())
}

fn judge_other_chains(
    chains: &[(OriginId, Epoch, ChainHash)],
    local: &Local<'_>,
    theirs: Option<OriginId>,
    peer: &str,
) -> Result<(), Verdict> {
    for (origin, epoch, chain) in chains {
        if (local.chain_at)(*origin, *epoch).is_some_and(|known| known != *chain) {
            let remedy = match theirs == Some(*origin) {
                true => "",
                false => {
                    ": that region ran twice, and both were believed; FENCE the regions on one side, and start them with \
                     --reincarnate"
                }
            };
            return refuse(format!(
                "{peer} holds another history of {origin} at epoch {epoch}{remedy}"
            ));
        }
    }
    Ok(())
}

fn outdated(reason: String) -> Result<(), Verdict> {
    Err(Verdict::Outdated(reason))
}

fn refuse(reason: String) -> Result<(), Verdict> {
    Err(Verdict::Refuse(reason))
}
