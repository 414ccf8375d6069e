//! The link to one peer: both directions, as a pure state machine.
//!
//! ```text
//!            hello ⇄ hello                      who are you, how far are you, is it the same history
//!   sender ── bundle us 7->9 ──▶ receiver       from = what was sent last, several in flight
//!          ◀── ack {us:9 eu:4} ──               everything in it is durable
//!          ◀── lack eu>=4 at {us:7} ──          a gap, or a cause that is missing: send again, or pass eu on
//!          ◀─▶ heartbeat                        alive, processed, round trip; the only traffic when idle
//! ```
//!
//! There is no queue of messages. The sender keeps the set of keys that changed since the peer's acknowledged
//! epoch ([`outgoing`]); when a tick of the link is due and the window has room, the region is asked to cut
//! a bundle from its snapshot. A key that changed a thousand times is sent once, with its newest value.
//!
//! The order of calls is `cut_due` -> the region builds the bundle -> it is durable -> `cut_made`. Changes,
//! acknowledgements, a rewind or a disconnect may come in between; a cut made for an earlier session or
//! before a rewind is not sent. Changes told before `cut_due` are part of the state that the region cuts.
//!
//! Invariants: nothing is sent that is not durable (the caller's promise); the peer's frontier never goes
//! back within a session; keys in flight are kept until acknowledged. Messages may be lost, repeated and
//! reordered. A range too large for one message goes in chunks ([`staging`]). Left out: sockets, reconnecting.

mod config;
mod freshness;
mod handshake;
mod incoming;
mod lag;
mod message;
mod outgoing;
mod session;
mod stages;
mod staging;
mod status;

use std::collections::BTreeMap;

use bytes::Bytes;
use tributary_storage::{ChainHash, OriginId, RegionId};

use crate::bundle::{Bundle, SectionObject};
use crate::changes::{Changed, Changes};
use crate::frontier::{ClusterId, Epoch, Frontier};
use crate::hlc::Tick;
use freshness::Freshness;
use incoming::Incoming;
use outgoing::Outgoing;

pub use config::LinkConfig;
pub use handshake::stranger;
pub use message::{CONTROL_BYTES_MAX, Echo, Heartbeat, Hello, LINK_FORMAT, Message, Standing};
pub use status::{LinkState, LinkStatus, PeerIdentity};

/// Each such part of a peer's capacity that is taken doubles the time between two bundles for it.
const PRESSURE_STEP: u8 = 33;

/// Who this region is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its number in the catalog.
    pub region: RegionId,
    /// Its name.
    pub name: String,
    /// Itself, as a writer.
    pub origin: OriginId,
}

/// What the catalog says of a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// The incarnation that counts.
    pub incarnation: u32,
    /// Whether it was dropped.
    pub dropped: bool,
}

/// What a link may know of its region at the moment of a call.
pub struct Local<'a> {
    /// `None` while joining.
    pub identity: Option<&'a Identity>,
    /// The configured name of the region.
    pub name: &'a str,
    /// Everything that is durable and published.
    pub frontier: &'a Frontier,
    /// The hash of an origin's log at an epoch, as far as it is still known.
    pub chain_at: &'a dyn Fn(OriginId, Epoch) -> Option<ChainHash>,
    /// The members of the cluster, and those that were; empty while joining.
    pub members: &'a BTreeMap<RegionId, Member>,
    /// A monotonic time in milliseconds.
    pub now_ms: u64,
}

/// What the region is asked to put into a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CutRequest {
    /// For each origin to include: the epoch after which, and which values.
    pub origins: Vec<(OriginId, Epoch, OriginChanges)>,
    /// The stage that the bundle seals, and how many chunks it has. The changes asked for are those that are not in
    /// them; blobs are wanted since the epochs named beside the origins.
    pub seal: Option<(u64, u32)>,
    /// Ties the answer to the question.
    pub number: u64,
}

/// Which values of an origin to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OriginChanges {
    /// These values of these objects.
    Of(BTreeMap<SectionObject, Changes>),
    /// Everything of every object that is stamped later than this.
    Since(Epoch),
}

/// What a link wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum LinkEffect {
    /// Send this to the peer.
    Send(Message),
    /// Offer this bundle to the inbox.
    Deliver(Bytes),
    /// Hold this chunk of a stage, and say how many of them are durable.
    Stage(Bytes),
    /// One of the two does not want to talk to the other. A `Close` follows, unless the other is to be told that it must
    /// stop.
    Refused {
        /// Why, for a person to read.
        reason: String,
    },
    /// This region is behind what was seen of it, or forked: it must stop.
    Fatal {
        /// Why, and what to do.
        reason: String,
    },
    /// Close the connection; connecting again later may help.
    Close {
        /// Why.
        reason: String,
    },
}

/// The link to one peer.
pub struct Link {
    peer: String,
    config: LinkConfig,
    state: LinkState,
    /// The session names itself by when it began; a number tells apart sessions of one millisecond.
    session: u64,
    sessions: u64,
    peer_session: Option<u64>,
    peer_identity: Option<PeerIdentity>,
    /// As whom we said hello.
    greeted_as: Option<OriginId>,
    /// Whether the peer's present session was told that it must stop: it is not greeted again.
    has_told: bool,
    outgoing: Outgoing,
    incoming: Incoming,
    freshness: Freshness,
    peer_processed: Frontier,
    peer_pressure: u8,
    processed: Option<Frontier>,
    pressure: u8,
    direct: Vec<OriginId>,
    tick: Tick,
    last_cut: Option<Tick>,
    now_ms: u64,
    connected_ms: u64,
    heard_ms: u64,
    spoke_ms: u64,
    rewound_ms: Option<u64>,
    /// When the last session ended: connections on which nobody greets do not count.
    gone_ms: u64,
    /// The peer had no room for a stage: none is begun before.
    full_until_ms: u64,
    stages: u64,
    resends: u32,
    counts: status::Counts,
    last_error: Option<String>,
}

impl Link {
    /// The link to the peer of this name. It begins disconnected.
    pub fn new(peer: String, config: LinkConfig) -> Self {
        Self {
            peer,
            outgoing: Outgoing::new(config.pending_keys_max, config.pending_bytes_max),
            incoming: Incoming::default(),
            config,
            state: LinkState::Disconnected,
            session: 0,
            sessions: 0,
            peer_session: None,
            peer_identity: None,
            greeted_as: None,
            has_told: false,
            freshness: Freshness::default(),
            peer_processed: Frontier::new(),
            peer_pressure: 0,
            processed: None,
            pressure: 0,
            direct: Vec::new(),
            tick: Tick(0),
            last_cut: None,
            now_ms: 0,
            connected_ms: 0,
            heard_ms: 0,
            spoke_ms: 0,
            rewound_ms: None,
            gone_ms: 0,
            full_until_ms: 0,
            stages: 0,
            resends: 0,
            counts: status::Counts::default(),
            last_error: None,
        }
    }

    /// There is a connection: greets.
    pub fn connected(&mut self, local: &Local<'_>, out: &mut Vec<LinkEffect>) {
        self.now_ms = local.now_ms;
        if self.state == LinkState::Stopped {
            let reason = self.last_error.clone().unwrap_or_default();
            out.push(LinkEffect::Close { reason });
            return;
        }
        self.disconnected();
        self.state = LinkState::Greeting;
        self.connected_ms = local.now_ms;
        self.greet(local, out);
    }

    /// There is no connection any more. What was in flight becomes pending again.
    pub fn disconnected(&mut self) {
        if self.state == LinkState::Up {
            self.gone_ms = self.now_ms;
        }
        if self.state != LinkState::Stopped {
            self.state = LinkState::Disconnected;
        }
        self.peer_session = None;
        self.has_told = false;
        self.outgoing.stop();
        self.incoming.restart();
        self.freshness.restart();
    }

    /// A message came from the peer.
    pub fn receive(&mut self, message: Message, local: &Local<'_>, out: &mut Vec<LinkEffect>) {
        self.now_ms = local.now_ms;
        if matches!(self.state, LinkState::Disconnected | LinkState::Stopped) {
            return;
        }
        self.heard_ms = local.now_ms;
        self.counts.received(&message);
        match (message, self.state) {
            (Message::Hello(hello), _) => self.hello(&hello, local, out),
            (Message::Refuse { reason }, _) => {
                let reason = format!("refused by {}: {reason}", self.peer);
                self.refuse(reason, out);
            }
            // Whoever speaks before the greeting is over will say it again after it.
            (_, LinkState::Greeting) => {}
            (Message::Bundle(bytes), _) => self.bundle(bytes, local, out),
            (Message::Ack { frontier }, _) => self.learn(frontier),
            (Message::Lack { need, frontier }, _) => self.peer_lacks(&need, frontier, local),
            (Message::Heartbeat(heartbeat), _) => self.heartbeat(*heartbeat, local, out),
            (
                Message::Staged {
                    stage,
                    chunks,
                    is_full,
                },
                _,
            ) => self.peer_staged(stage, chunks, is_full),
        }
    }

    /// Own values changed, up to `epoch`. Told in the order of epochs, whether connected or not, before the
    /// cut that carries them.
    pub fn changed(&mut self, epoch: Epoch, changes: &BTreeMap<SectionObject, Changed>) {
        self.outgoing.changed(epoch, changes, self.now_ms);
    }

    /// Whether to cut a bundle for this peer now, at the first call of each of the link's ticks.
    pub fn cut_due(&mut self, tick: Tick, local: &Local<'_>) -> Option<CutRequest> {
        self.now_ms = local.now_ms;
        self.tick.0 = self.tick.0.max(tick.0);
        let multiple = self.tick_multiple();
        let due = self
            .last_cut
            .is_none_or(|last| tick.0 / multiple > last.0 / multiple);
        let room = self.outgoing.in_flight() < self.config.window_bundles_max
            && self.outgoing.in_flight_bytes() < self.config.window_bytes_max;
        // Cutting again before the peer has heard of a new identity would be in the old one's name.
        let known = local.identity.map(|identity| identity.origin) == self.greeted_as;
        let full = self.now_ms < self.full_until_ms;
        if self.state != LinkState::Up || !due || !room || !known || full || self.outgoing.is_cutting() {
            return None;
        }
        let peer_origin = self.peer_identity.as_ref().and_then(|peer| peer.origin);
        let request = self.outgoing.cut(local.frontier, peer_origin)?;
        self.last_cut = Some(tick);
        Some(request)
    }

    /// The bundle that was asked for, once everything in it is durable. Harmless when it comes too late.
    pub fn cut_made(
        &mut self,
        request: CutRequest,
        bundle: &Bundle,
        bytes: Bytes,
        out: &mut Vec<LinkEffect>,
    ) {
        if bytes.len() > self.config.message_bytes_max {
            self.outgoing.abandon(request.number);
            let reason = format!(
                "a bundle of {} bytes for {} exceeds the maximum of {} bytes for one message; \
                 this link stops until the region is restarted",
                bytes.len(),
                self.peer,
                self.config.message_bytes_max
            );
            self.last_error = Some(reason.clone());
            self.disconnected();
            self.state = LinkState::Stopped;
            out.push(LinkEffect::Close { reason });
            return;
        }
        if self
            .outgoing
            .made(request.number, &bundle.included, bytes.len(), self.now_ms)
        {
            self.send(Message::Bundle(bytes), out);
        }
    }

    /// Our frontier moved: acknowledges what came from this peer.
    pub fn applied(&mut self, local: &Local<'_>, out: &mut Vec<LinkEffect>) {
        self.now_ms = local.now_ms;
        if self.state == LinkState::Up && self.incoming.owes_ack(local.frontier) {
            self.send(
                Message::Ack {
                    frontier: local.frontier.clone(),
                },
                out,
            );
        }
        self.settle_freshness(local);
    }

    /// Bundles of this peer wait for these epochs. The peer is asked for them when they stay missing for a
    /// while, and again from time to time; an empty `need` says that nothing is missing any more.
    pub fn lack(&mut self, need: Vec<(OriginId, Epoch)>, local: &Local<'_>, out: &mut Vec<LinkEffect>) {
        self.now_ms = local.now_ms;
        self.incoming.lack(need, local);
        self.ask(local, out);
    }

    /// Nothing waits here for want of something that the peer could send.
    pub fn lacks_nothing(&mut self) {
        self.incoming.lacks_nothing();
    }

    /// Time has passed: heartbeats, repetitions, and giving up on a silent peer.
    pub fn poll(&mut self, local: &Local<'_>, out: &mut Vec<LinkEffect>) {
        self.now_ms = local.now_ms;
        if self.state != LinkState::Up {
            self.forget_stage_when_gone();
        }
        if !matches!(self.state, LinkState::Greeting | LinkState::Up) {
            return;
        }
        let silent_ms = local.now_ms.saturating_sub(self.heard_ms.max(self.connected_ms));
        if silent_ms > self.config.timeout_ms {
            let reason = format!("no sign of life from {} for {silent_ms} ms", self.peer);
            self.close(reason, out);
            return;
        }
        let identity = local.identity.map(|identity| identity.origin);
        let spoke_ago_ms = local.now_ms.saturating_sub(self.spoke_ms);
        let peer = self.peer_identity.and_then(|peer| peer.origin);
        let is_over = peer.is_some_and(|peer| handshake::is_over(peer, local));
        if identity != self.greeted_as || (self.state == LinkState::Up && is_over) {
            // We became a member, or another one: everything about this session is different now. Or the peer is one
            // no more, and must be told.
            self.connected(local, out);
        } else if self.state == LinkState::Greeting {
            if spoke_ago_ms >= self.config.hello_retry_ms && !self.has_told {
                self.say_hello(local, out);
            }
        } else {
            if spoke_ago_ms >= self.config.heartbeat_ms {
                self.beat(local, out);
            }
            self.ask(local, out);
            self.resend_when_lost();
            self.resend_chunks_when_lost();
            self.settle_freshness(local);
        }
    }

    /// The frontier at which our own contribution was computed, for the heartbeats. Without it they name the
    /// frontier itself.
    pub fn set_processed(&mut self, processed: Frontier) {
        self.processed = Some(processed);
    }

    /// How busy we are, 0 to 100, for the heartbeats.
    pub fn set_pressure(&mut self, pressure: u8) {
        self.pressure = pressure.min(100);
    }

    /// The origins of the regions with which we have working links, for the heartbeats: peers stop passing
    /// them on to us.
    pub fn set_direct(&mut self, origins: Vec<OriginId>) {
        self.direct = origins;
    }

    /// How many base ticks lie between two cuts: a power of two, so that all links meet at the coarser ticks.
    ///
    /// One, while the link has room: little is under way, or what is does not make the way longer. Then as many bundles as are
    /// cut in a round trip wait for their acknowledgements. Otherwise at least a round trip, with one bundle that waits.
    /// Doubled for every bundle beyond these, and for every third of the peer's capacity that is taken: what changes often is
    /// sent once.
    pub fn tick_multiple(&self) -> u64 {
        let tick_ms = self.config.tick_ms.max(1);
        let round_trip_ms = self.freshness.round_trip_ms().unwrap_or(0);
        let (base, expected) = match self.has_room() {
            true => {
                // A little more than a round trip: an acknowledgement waits for the peer's disk.
                let ticks = (round_trip_ms + round_trip_ms / 4) / tick_ms;
                let ticks = usize::try_from(ticks).unwrap_or(usize::MAX);
                (1, ticks.min(self.config.window_bundles_max / 2))
            }
            false => (round_trip_ms.div_ceil(tick_ms).max(1).next_power_of_two(), 0),
        };
        let backlog = self.outgoing.in_flight().saturating_sub(expected + 1);
        let backlog = u32::try_from(backlog).unwrap_or(u32::MAX);
        let busy = u32::from(self.peer_pressure / PRESSURE_STEP);
        let multiple =
            base.saturating_mul(1u64.checked_shl(backlog.saturating_add(busy)).unwrap_or(u64::MAX));
        multiple.min(self.config.tick_multiple_max).max(1)
    }

    /// Whether more can be sent without waiting on the way.
    fn has_room(&self) -> bool {
        self.outgoing.in_flight_bytes() <= self.config.small_bytes_max
            || !self.freshness.is_slowed(self.config.tick_ms)
    }

    /// How long the oldest change of our own that the peer has not acknowledged has been waiting for it, in
    /// milliseconds; not before the connection was there. `None` without a session with a member.
    pub fn lag_ms(&self, now_ms: u64) -> Option<u64> {
        let is_member = self.peer_identity.is_some_and(|peer| peer.origin.is_some());
        let since_ms = self.outgoing.waits_since_ms();
        (self.state == LinkState::Up && is_member)
            .then(|| since_ms.map_or(0, |since_ms| now_ms.saturating_sub(since_ms)))
    }

    /// Figures about this link.
    pub fn status(&self) -> LinkStatus {
        LinkStatus {
            state: self.state,
            peer: self.peer_identity,
            counts: self.counts.clone(),
            bytes_in: self.counts.bytes_in,
            bytes_out: self.counts.bytes_out,
            pending_keys: self.outgoing.keys_held(),
            pending_bytes: self.outgoing.bytes_held(),
            staged: self
                .outgoing
                .staging()
                .map(|staging| (staging.acked, staging.made)),
            rescan: self.outgoing.is_forgotten(),
            in_flight: self.outgoing.in_flight(),
            acked: self.outgoing.acked(),
            lag_ms: self.lag_ms(self.now_ms),
            relays: self.outgoing.relays().collect(),
            tick_multiple: self.tick_multiple(),
            round_trip_ms: self.freshness.round_trip_ms(),
            as_of_ms: self.freshness.as_of_ms(),
            peer_frontier: self.outgoing.peer().clone(),
            peer_processed: self.peer_processed.clone(),
            peer_pressure: self.peer_pressure,
            last_error: self.last_error.clone(),
        }
    }

    fn send(&mut self, message: Message, out: &mut Vec<LinkEffect>) {
        self.counts.sent(&message);
        out.push(LinkEffect::Send(message));
    }

    fn close(&mut self, reason: String, out: &mut Vec<LinkEffect>) {
        self.last_error = Some(reason.clone());
        self.disconnected();
        out.push(LinkEffect::Close { reason });
    }

    fn refuse(&mut self, reason: String, out: &mut Vec<LinkEffect>) {
        self.counts.refused += 1;
        out.push(LinkEffect::Refused {
            reason: reason.clone(),
        });
        self.close(reason, out);
    }
}
