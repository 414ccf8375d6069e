//! The region's side of its links: routing of messages, the inbox, and when to cut.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use tributary_planner::catalog::{Catalog, RegionDef};
use tributary_replication::link::{
    CutRequest, LinkConfig, LinkEffect, LinkState, LinkStatus, Message, stranger,
};
use tributary_replication::{
    Changed, Epoch, Frontier, Identity, Inbox, Link, Local, Member, Offered, SectionObject, Tick,
};
use tributary_storage::{OriginId, Position, RegionId};

use crate::chunks::{Chunks, Next};
use crate::config::RegionConfig;
use crate::dataflow::Dataflow;
use crate::effect::Effect;

/// Cut times that are examined after a pause. Links cut at multiples of a tick up to this.
const TICKS_EXAMINED_MAX: u64 = 64;

/// How long a waiting bundle may wait before we say what we lack, in milliseconds.
const LACK_AFTER_MS: u64 = 200;

/// All links of a region.
pub struct Links {
    links: BTreeMap<String, Link>,
    inbox: Inbox,
    cut_tick: Tick,
    waiting_since_ms: Option<u64>,
    /// Ranges on their way in chunks, by peer.
    chunks: BTreeMap<String, Chunks>,
    /// Chunks of peers that came and are not looked at yet.
    arrived: Vec<(String, Bytes)>,
    /// Peers to which nothing is sent, since residency forbids a part of what they lack, and that part.
    withheld: BTreeMap<String, String>,
    config: LinkConfig,
}

/// The region as its links see it. `frontier` is what may be spoken of.
pub struct View<'a> {
    /// The state from which log hashes and members are taken.
    pub dataflow: &'a Dataflow,
    /// The published frontier, or for a cut that of the dataflow.
    pub frontier: &'a Frontier,
    /// The shell's time.
    pub now_ms: u64,
}

impl View<'_> {
    fn with<R>(&self, f: impl FnOnce(&Local<'_>) -> R) -> R {
        let catalog = self.dataflow.catalog();
        let member = |(id, def): (&RegionId, &RegionDef)| {
            let member = Member {
                name: def.name.clone(),
                incarnation: def.incarnation,
                dropped: !def.is_member(),
            };
            (*id, member)
        };
        let members: BTreeMap<RegionId, Member> = catalog.regions.iter().map(member).collect();
        let identity = self
            .dataflow
            .writes_as()
            .zip(catalog.cluster)
            .map(|(origin, cluster)| Identity {
                cluster: tributary_replication::ClusterId(cluster),
                region: origin.region,
                name: self.dataflow.name.clone(),
                origin,
            });
        let chain_at = |origin: OriginId, epoch: Epoch| self.dataflow.chain_at(origin, epoch);
        f(&Local {
            identity: identity.as_ref(),
            name: &self.dataflow.name,
            frontier: self.frontier,
            chain_at: &chain_at,
            members: &members,
            now_ms: self.now_ms,
        })
    }
}

/// Who agrees that no more is known of an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agreement {
    /// Somebody knows more, or nobody is connected.
    None,
    /// All that are connected; some member is not.
    Connected,
    /// Every member.
    All,
}

impl Links {
    /// Links to the configured peers, all disconnected.
    pub fn new(config: &RegionConfig) -> Self {
        let link = |peer: &String| (peer.clone(), Link::new(peer.clone(), config.link.clone()));
        let mut inbox = Inbox::default();
        inbox.set_defects(config.defects.replication);
        Self {
            links: config.peers.iter().map(link).collect(),
            inbox,
            cut_tick: Tick(0),
            waiting_since_ms: None,
            chunks: BTreeMap::new(),
            arrived: Vec::new(),
            withheld: BTreeMap::new(),
            config: config.link.clone(),
        }
    }

    /// Has a link to each member but this region, and to those that were one, so that they can be told. Nothing is
    /// known of the members before the first catalog: then the configured ones stay. `epoch`: up to where this region's own
    /// changes were told to the links there are; a new one has to find them in the runs.
    pub fn keep_to_members(&mut self, own: &str, epoch: Epoch, catalog: &Catalog, out: &mut Vec<Effect>) {
        if catalog.regions.is_empty() {
            return;
        }
        // What was withheld may be allowed or gone by now: those links begin anew.
        for (peer, _) in std::mem::take(&mut self.withheld) {
            if let Some(link) = self.links.get_mut(&peer) {
                link.drop_stage();
            }
            let reason = "the catalog changed, by which something was withheld from it".to_owned();
            out.push(Effect::Close { peer, reason });
        }
        let members: BTreeSet<&str> = catalog
            .members()
            .map(|(_, region)| region.name.as_str())
            .collect();
        let known: BTreeSet<&str> = catalog
            .regions
            .values()
            .map(|region| region.name.as_str())
            .collect();
        self.links.retain(|peer, _| known.contains(peer.as_str()));
        for &region in known.iter().filter(|region| **region != own) {
            let new = || {
                let mut link = Link::new(region.to_owned(), self.config.clone());
                link.changed(epoch, &BTreeMap::new());
                link
            };
            let link = self.links.entry(region.to_owned()).or_insert_with(new);
            if !members.contains(region) && link.status().peer.is_some() {
                // Nothing is remembered for it any more.
                *link = new();
                self.inbox.drop_peer(region);
                out.push(Effect::Close {
                    peer: region.to_owned(),
                    reason: "it was dropped from the cluster".to_owned(),
                });
            }
        }
    }

    /// Whether everything that others have heard of an origin is known at `frontier`.
    pub fn agree_on(&self, origin: OriginId, frontier: &Frontier, own: &str, catalog: &Catalog) -> Agreement {
        let status = self.links.values().map(Link::status);
        let mut up = status.filter(|status| status.state == LinkState::Up).peekable();
        if up.peek().is_none() || up.any(|status| status.peer_frontier.get(origin) > frontier.get(origin)) {
            return Agreement::None;
        }
        let mut others = catalog.members().filter(|(_, member)| member.name != own);
        match others.all(|(_, member)| self.is_up(&member.name)) {
            true => Agreement::All,
            false => Agreement::Connected,
        }
    }

    /// Whether there is a working link to a region.
    pub fn is_up(&self, name: &str) -> bool {
        let link = self.links.get(name);
        link.is_some_and(|link| link.status().state == LinkState::Up)
    }

    /// The state of every link.
    pub fn status(&self) -> Vec<(String, LinkStatus)> {
        let status = |(peer, link): (&String, &Link)| {
            let mut status = link.status();
            if let Some(reason) = self.withheld.get(peer) {
                status.last_error = Some(format!("nothing is sent: {reason}"));
            }
            (peer.clone(), status)
        };
        self.links.iter().map(status).collect()
    }

    /// A bundle for a peer must not leave. Its link keeps waiting for the bundle and cuts no other one, until the catalog
    /// changes: a part of a bundle is never sent.
    pub fn withhold(&mut self, peer: String, reason: String, out: &mut Vec<Effect>) {
        self.withheld.insert(peer.clone(), reason.clone());
        out.push(Effect::Withheld { peer, reason });
    }

    /// The inbox.
    pub fn inbox(&mut self) -> &mut Inbox {
        &mut self.inbox
    }

    /// A connection is up.
    pub fn connected(&mut self, peer: &str, view: &View<'_>, out: &mut Vec<Effect>) {
        self.with_link(peer, view, out, |link, local, effects| {
            link.connected(local, effects)
        });
    }

    /// A connection is gone.
    pub fn disconnected(&mut self, peer: &str) {
        if let Some(link) = self.links.get_mut(peer) {
            link.disconnected();
        }
    }

    /// A message arrived.
    pub fn receive(&mut self, peer: &str, message: Message, view: &View<'_>, out: &mut Vec<Effect>) {
        self.with_link(peer, view, out, |link, local, effects| {
            link.receive(message, local, effects)
        });
    }

    /// The published frontier moved.
    pub fn applied(&mut self, view: &View<'_>, out: &mut Vec<Effect>) {
        for peer in self.peers() {
            self.with_link(&peer, view, out, |link, local, effects| {
                link.applied(local, effects)
            });
        }
    }

    /// Time has passed. `backlog` is how much of the room for records that wait to be computed is taken, 0 to 100. `reach`
    /// is what is sealed here: what is being merged is shown later, and need not be asked for.
    ///
    /// `is_staged`: whether an origin's changes are on their way here in chunks, so that nobody need pass them on.
    pub fn poll(
        &mut self,
        view: &View<'_>,
        reach: &Frontier,
        backlog: u8,
        is_staged: impl Fn(OriginId) -> bool,
        out: &mut Vec<Effect>,
    ) {
        let pressure = backlog.max(self.inbox.fullness());
        for peer in self.peers() {
            self.with_link(&peer, view, out, |link, local, effects| {
                link.set_pressure(pressure);
                link.poll(local, effects);
            });
        }
        let mut lacks = self.inbox.lacks(reach);
        lacks.extend(self.last_words(view, reach));
        lacks.retain(|(_, origin, _)| !is_staged(*origin));
        // Who waited for something that is sealed by now does not ask again.
        for (peer, link) in &mut self.links {
            if !lacks.iter().any(|(from, ..)| from == peer) {
                link.lacks_nothing();
            }
        }
        if lacks.is_empty() {
            self.waiting_since_ms = None;
            return;
        }
        let since = *self.waiting_since_ms.get_or_insert(view.now_ms);
        if view.now_ms.saturating_sub(since) < LACK_AFTER_MS {
            return;
        }
        self.waiting_since_ms = Some(view.now_ms);
        let mut by_peer: BTreeMap<String, Vec<(OriginId, Epoch)>> = BTreeMap::new();
        for (peer, origin, epoch) in lacks {
            by_peer.entry(peer).or_default().push((origin, epoch));
        }
        for (peer, need) in by_peer {
            self.with_link(&peer, view, out, |link, local, effects| {
                link.lack(need, local, effects)
            });
        }
    }

    /// What peers know more of logs that are continued no more. Nobody else will pass it on: their writer is gone, and
    /// a peer that has nothing to say sends no bundle that would wait for it.
    fn last_words(&self, view: &View<'_>, reach: &Frontier) -> Vec<(String, OriginId, Epoch)> {
        let regions = &view.dataflow.catalog().regions;
        let is_over = |origin: &OriginId| {
            let region = regions.get(&origin.region);
            region.is_some_and(|def| !def.is_member() || def.incarnation > origin.incarnation)
        };
        let mut known: BTreeMap<OriginId, (Epoch, &str)> = BTreeMap::new();
        for (peer, link) in &self.links {
            let status = link.status();
            let all = status.peer_frontier.iter();
            let is_up = status.state == LinkState::Up;
            for (origin, epoch) in all.filter(|(origin, _)| is_up && is_over(origin)) {
                if epoch > known.get(&origin).map_or(reach.get(origin), |(most, _)| *most) {
                    known.insert(origin, (epoch, peer));
                }
            }
        }
        let ask = |(origin, (epoch, peer)): (OriginId, (Epoch, &str))| (peer.to_owned(), origin, epoch);
        known.into_iter().map(ask).collect()
    }

    /// The connected members that are behind, and by how many milliseconds, the farthest first. `held_ms`: for how long of
    /// that time nothing could leave.
    pub fn behind(&self, now_ms: u64, held_ms: impl Fn(u64) -> u64) -> Vec<(&str, u64)> {
        let lags = self.links.iter();
        let lags = lags.filter_map(|(peer, link)| {
            let lag_ms = link.lag_ms(now_ms)?;
            Some((peer.as_str(), lag_ms.saturating_sub(held_ms(lag_ms))))
        });
        let mut behind: Vec<(&str, u64)> = lags.filter(|(_, lag_ms)| *lag_ms > 0).collect();
        behind.sort_by_key(|(_, lag_ms)| std::cmp::Reverse(*lag_ms));
        behind
    }

    /// Own changes of a step.
    pub fn changed(&mut self, epoch: Epoch, changes: &BTreeMap<SectionObject, Changed>) {
        self.links
            .values_mut()
            .for_each(|link| link.changed(epoch, changes));
    }

    /// The cuts that are due now that no record before `tick` can come any more.
    pub fn cuts_due(&mut self, tick: Tick, view: &View<'_>) -> Vec<(String, Tick, CutRequest)> {
        let first = (self.cut_tick.0 + 1).max(tick.0.saturating_sub(TICKS_EXAMINED_MAX));
        let mut due = Vec::new();
        for (peer, link) in &mut self.links {
            let request = view.with(|local| {
                (first..=tick.0)
                    .find_map(|at| link.cut_due(Tick(at), local).map(|request| (Tick(at), request)))
            });
            due.extend(request.map(|(at, request)| (peer.clone(), at, request)));
        }
        self.cut_tick = self.cut_tick.max(tick);
        due
    }

    /// The chunks on their way to a peer.
    pub(crate) fn chunks_of(&self, peer: &str) -> Option<&Chunks> {
        self.chunks.get(peer)
    }

    /// Whether what a link asked for, which is too large for one bundle, has to wait: it is asked for again then.
    pub(crate) fn waits_for_seal(&mut self, peer: &str, request: &CutRequest) -> bool {
        self.links
            .get_mut(peer)
            .is_none_or(|link| link.waits_for_seal(request))
    }

    /// What a link asked for is too large for one bundle: it goes in chunks, from here on.
    pub(crate) fn stage(&mut self, peer: &str, request: &CutRequest, mut chunks: Chunks) {
        let stage = self
            .links
            .get_mut(peer)
            .and_then(|link| link.stage(request, chunks.included()));
        let Some(stage) = stage else { return };
        chunks.begin(stage, self.chunks.get(peer));
        self.chunks.insert(peer.to_owned(), chunks);
    }

    /// Sends each peer the chunk that is due, of states that are durable and shown.
    pub(crate) fn send_chunks(
        &mut self,
        dataflow: &Dataflow,
        persisted: Position,
        published: &Frontier,
        out: &mut Vec<Effect>,
    ) {
        let mut withheld = Vec::new();
        let links = &self.links;
        let staging = |peer: &str| links.get(peer).and_then(Link::staging);
        self.chunks.retain(|peer, chunks| {
            let staging = staging(peer).filter(|(stage, _)| *stage == chunks.stage);
            staging.is_some_and(|(_, acked)| {
                chunks.acknowledged(acked);
                true
            })
        });
        for (peer, chunks) in &mut self.chunks {
            let Some(link) = self.links.get_mut(peer) else {
                continue;
            };
            let Some(due) = link.chunk_due() else { continue };
            let is_shown = chunks.position <= persisted && published.covers(chunks.frontier());
            if !is_shown || self.withheld.contains_key(peer) {
                continue;
            }
            let may_leave = |section: &_| dataflow.may_leave(section);
            match chunks.chunk(due.1, self.config.chunk_bytes_max, may_leave) {
                Err(reason) => withheld.push((peer.clone(), reason)),
                Ok(Next::Working) => {}
                Ok(Next::End) => link.walked(due.0),
                Ok(Next::Chunk(bytes)) => {
                    let mut effects = Vec::new();
                    link.chunk_made(due, bytes, &mut effects);
                    let sent = effects.into_iter().filter_map(|effect| match effect {
                        LinkEffect::Send(message) => Some(message),
                        _ => None,
                    });
                    out.extend(sent.map(|message| Effect::Send {
                        peer: peer.clone(),
                        message,
                    }));
                }
            }
        }
        for (peer, reason) in withheld {
            self.withhold(peer, reason, out);
        }
    }

    /// Says how many chunks of a peer's stage are durable here.
    pub(crate) fn staged(
        &mut self,
        peer: &str,
        stage: u64,
        chunks: u32,
        is_full: bool,
        out: &mut Vec<Effect>,
    ) {
        let Some(link) = self.links.get_mut(peer) else {
            return;
        };
        let mut effects = Vec::new();
        link.staged(stage, chunks, is_full, &mut effects);
        for effect in effects {
            self.route(peer, effect, None, out);
        }
    }

    /// Chunks of peers that came, and bundles that seal some.
    pub(crate) fn take_arrived(&mut self) -> Vec<(String, Bytes)> {
        std::mem::take(&mut self.arrived)
    }

    /// A cut is durable and can go.
    pub fn cut_made(&mut self, cut: crate::outbound::HeldCut, out: &mut Vec<Effect>) {
        let Some(link) = self.links.get_mut(&cut.peer) else {
            return;
        };
        let mut effects = Vec::new();
        link.cut_made(cut.request, &cut.bundle, cut.bytes, &mut effects);
        for effect in effects {
            self.route(&cut.peer, effect, None, out);
        }
    }

    fn peers(&self) -> Vec<String> {
        self.links.keys().cloned().collect()
    }

    fn with_link(
        &mut self,
        peer: &str,
        view: &View<'_>,
        out: &mut Vec<Effect>,
        f: impl FnOnce(&mut Link, &Local<'_>, &mut Vec<LinkEffect>),
    ) {
        let Some(link) = self.links.get_mut(peer) else {
            let (peer, reason) = (peer.to_owned(), stranger(peer));
            let message = Message::Refuse {
                reason: reason.clone(),
            };
            out.push(Effect::Send {
                peer: peer.clone(),
                message,
            });
            out.push(Effect::Refused {
                peer: peer.clone(),
                reason: reason.clone(),
            });
            out.push(Effect::Close { peer, reason });
            return;
        };
        let mut effects = Vec::new();
        view.with(|local| f(link, local, &mut effects));
        for effect in effects {
            self.route(peer, effect, Some(view), out);
        }
    }

    fn route(&mut self, peer: &str, effect: LinkEffect, view: Option<&View<'_>>, out: &mut Vec<Effect>) {
        let peer = peer.to_owned();
        match effect {
            LinkEffect::Send(message) => out.push(Effect::Send { peer, message }),
            LinkEffect::Stage(bytes) => self.arrived.push((peer, bytes)),
            LinkEffect::Deliver(bytes) => {
                let Some(view) = view else { return };
                match self.inbox.offer(&peer, bytes, view.frontier) {
                    Ok(Offered::Stale | Offered::Waiting | Offered::Dropped) => {}
                    Err(error) => out.push(Effect::Refused {
                        peer,
                        reason: error.to_string(),
                    }),
                }
            }
            LinkEffect::Refused { reason } => out.push(Effect::Refused { peer, reason }),
            LinkEffect::Close { reason } => out.push(Effect::Close { peer, reason }),
            LinkEffect::Fatal { reason } => out.push(Effect::Stop { reason }),
        }
    }
}
