//! What happens within a session: greeting, messages from the peer, repetitions.

use bytes::Bytes;
use tributary_storage::OriginId;

use crate::bundle::Bundle;
use crate::frontier::{Epoch, Frontier};
use crate::lattice::Lattice;
use crate::link::message::{Heartbeat, Hello, Message};
use crate::link::{Link, LinkEffect, LinkState, Local, PeerIdentity, handshake};

/// How often, at most, an unacknowledged bundle's delay doubles.
pub(super) const RESEND_DOUBLINGS_MAX: u32 = 5;

impl Link {
    pub(super) fn greet(&mut self, local: &Local<'_>, out: &mut Vec<LinkEffect>) {
        self.sessions += 1;
        self.session = (local.now_ms << 16) | (self.sessions & 0xffff);
        self.greeted_as = local.identity.map(|identity| identity.origin);
        self.say_hello(local, out);
    }

    pub(super) fn say_hello(&mut self, local: &Local<'_>, out: &mut Vec<LinkEffect>) {
        self.say_hello_to(self.peer_session, local, out);
    }

    /// Says hello, in answer to the greeting of a session of the peer's, if that is known.
    fn say_hello_to(&mut self, session: Option<u64>, local: &Local<'_>, out: &mut Vec<LinkEffect>) {
        self.spoke_ms = local.now_ms;
        let hello = handshake::greet(local, self.session, session);
        self.send(Message::Hello(Box::new(hello)), out);
    }

    pub(super) fn hello(&mut self, hello: &Hello, local: &Local<'_>, out: &mut Vec<LinkEffect>) {
        if self
            .peer_session
            .is_some_and(|known| is_earlier(hello.session, known))
        {
            // Overtaken by the greeting of a later session, which says who the peer is by now.
            return;
        }
        match handshake::judge(hello, local, &self.peer) {
            Ok(()) => self.has_told = false,
            Err(verdict) => return self.judged(verdict, hello.session, local, out),
        }
        let is_new = self.peer_session != Some(hello.session);
        let heard_us = hello.answers == Some(self.session);
        self.peer_session = Some(hello.session);
        if is_new {
            let own_epoch = self.greeted_as.map_or(Epoch(0), |own| local.frontier.get(own));
            self.incoming.restart();
            self.freshness.restart();
            self.outgoing
                .restart(self.greeted_as, own_epoch, hello.frontier.clone(), self.now_ms);
            let identity = PeerIdentity {
                cluster: hello.cluster,
                origin: hello.origin,
            };
            if self.peer_identity != Some(identity) || !hello.frontier.covers(&self.peer_processed) {
                // Another log speaks, or an earlier state of it: what was processed before, it has not.
                self.peer_processed = Frontier::new();
            }
            self.peer_identity = Some(identity);
            self.resends = 0;
            self.rewound_ms = None;
            self.last_cut = None;
        } else if !heard_us {
            // The peer began anew without having heard us: what we sent since was not listened to.
            self.learn(hello.frontier.clone());
            self.outgoing.rewind();
        }
        if !heard_us {
            self.say_hello(local, out);
        }
        if heard_us && self.freshness.round_trip_ms().is_none() {
            self.freshness.measured(self.session >> 16, 0, local.now_ms);
        }
        if self.state == LinkState::Greeting {
            self.state = LinkState::Up;
            self.last_error = None;
            self.beat(local, out);
        }
    }

    /// Does as a verdict says. `session`: the peer's.
    fn judged(
        &mut self,
        verdict: handshake::Verdict,
        session: u64,
        local: &Local<'_>,
        out: &mut Vec<LinkEffect>,
    ) {
        let (reason, is_fatal) = match verdict {
            handshake::Verdict::Outdated(reason) => return self.tell(reason, session, local, out),
            handshake::Verdict::Refuse(reason) => (reason, false),
            handshake::Verdict::Fatal(reason) => (reason, true),
        };
        let told = reason.clone();
        self.send(Message::Refuse { reason: told }, out);
        if !is_fatal {
            return self.refuse(reason, out);
        }
        out.push(LinkEffect::Fatal {
            reason: reason.clone(),
        });
        self.close(reason, out);
    }

    /// The peer must stop, and finds out why from our hello. Closing at once could take the hello with it: whoever is
    /// told stops, and is silent from then on. Who does not know that it is meant, since it is joining, is answered: otherwise
    /// it would greet again, and both for ever.
    fn tell(&mut self, reason: String, session: u64, local: &Local<'_>, out: &mut Vec<LinkEffect>) {
        self.counts.refused += 1;
        out.push(LinkEffect::Refused {
            reason: reason.clone(),
        });
        self.disconnected();
        self.state = LinkState::Greeting;
        self.last_error = Some(reason);
        self.has_told = true;
        self.say_hello_to(Some(session), local, out);
    }

    pub(super) fn bundle(&mut self, bytes: Bytes, local: &Local<'_>, out: &mut Vec<LinkEffect>) {
        let header = match Bundle::decode_header(&bytes) {
            Ok(header) => header,
            Err(error) => {
                self.counts.refused += 1;
                self.last_error = Some(error.to_string());
                let frontier = local.frontier.clone();
                return self.send(
                    Message::Lack {
                        need: Vec::new(),
                        frontier,
                    },
                    out,
                );
            }
        };
        let expected = self.peer_identity.as_ref();
        let same_cluster = expected.is_some_and(|peer| peer.cluster == Some(header.cluster));
        if !same_cluster || expected.and_then(|peer| peer.origin) != Some(header.sender) {
            let reason = format!(
                "{} sent a bundle of {} in cluster {}, which is not who it said it is",
                self.peer, header.sender, header.cluster
            );
            return self.refuse(reason, out);
        }
        if header.chunk.is_staged() && !self.incoming.is_known(&header.included, local.frontier) {
            out.push(LinkEffect::Stage(bytes));
            return;
        }
        self.incoming
            .relayed(&header.included, Some(header.sender), local.frontier);
        if self.incoming.is_known(&header.included, local.frontier) {
            // The acknowledgement must have been lost.
            self.counts.stale += 1;
            return self.send(
                Message::Ack {
                    frontier: local.frontier.clone(),
                },
                out,
            );
        }
        self.incoming.delivered(&header.included);
        out.push(LinkEffect::Deliver(bytes));
    }

    pub(super) fn learn(&mut self, frontier: Frontier) {
        if self.outgoing.learn(frontier) {
            self.resends = 0;
        }
    }

    pub(super) fn peer_lacks(&mut self, need: &[(OriginId, Epoch)], frontier: Frontier, local: &Local<'_>) {
        self.learn(frontier);
        let peer_origin = self.peer_identity.as_ref().and_then(|peer| peer.origin);
        let mut lost = need.is_empty();
        for (origin, epoch) in need {
            if Some(*origin) == self.greeted_as {
                lost = true;
            } else if Some(*origin) != peer_origin {
                lost |= self.outgoing.relay(*origin, *epoch, local.frontier.get(*origin));
            }
        }
        if lost {
            self.rewind();
        }
    }

    /// Sends again from where the peer is, unless what it misses may still be under way.
    fn rewind(&mut self) {
        let round_trip_ms = self.freshness.round_trip_ms().unwrap_or(0);
        let recently = |at_ms: Option<u64>| at_ms.is_some_and(|at_ms| self.now_ms < at_ms + round_trip_ms);
        if recently(self.rewound_ms)
            || recently(self.outgoing.oldest_sent_ms())
            || !self.outgoing.has_unacked()
        {
            return;
        }
        self.rewound_ms = Some(self.now_ms);
        self.counts.rewinds += 1;
        self.outgoing.rewind();
    }

    /// The last bundle before a pause has no successor whose gap would be noticed: it is sent again when the
    /// peer has answered something that was said after it, and still has not acknowledged it.
    pub(super) fn resend_when_lost(&mut self) {
        let Some(sent_ms) = self.outgoing.oldest_sent_ms() else {
            return;
        };
        let round_trip_ms = self.freshness.round_trip_ms().unwrap_or(0);
        let patience_ms = self.config.resend_ms_min.max(round_trip_ms * 4) << self.resends;
        let answered_later = self
            .freshness
            .echoed_ms()
            .is_some_and(|echoed_ms| echoed_ms > sent_ms);
        if answered_later && self.now_ms.saturating_sub(sent_ms) >= patience_ms {
            self.resends = (self.resends + 1).min(RESEND_DOUBLINGS_MAX);
            self.rewind();
        }
    }

    pub(super) fn heartbeat(&mut self, heartbeat: Heartbeat, local: &Local<'_>, out: &mut Vec<LinkEffect>) {
        let theirs = self.peer_identity.and_then(|peer| peer.origin);
        if let Err(verdict) = handshake::judge_chains(&heartbeat.chains, local, theirs, &self.peer) {
            let session = self.peer_session.unwrap_or_default();
            return self.judged(verdict, session, local, out);
        }
        self.learn(heartbeat.frontier.clone());
        if self.peer_identity.is_some_and(|peer| peer.origin.is_some()) {
            // One that is joining contributes nothing yet: what it processes is not what its earlier log did.
            self.peer_processed.merge(heartbeat.processed);
        }
        self.peer_pressure = heartbeat.pressure;
        self.outgoing.stop_relaying(&heartbeat.direct);
        let is_first = self.freshness.echo(local.now_ms).is_none();
        let peer_origin = self.peer_identity.as_ref().and_then(|peer| peer.origin);
        let epoch = peer_origin.map_or(Epoch(0), |origin| heartbeat.frontier.get(origin));
        self.freshness
            .heard(heartbeat.sent_ms, epoch, heartbeat.echo, local.now_ms);
        self.settle_freshness(local);
        if is_first {
            // The first one of a session is answered at once, so that both know early how fresh they are.
            self.beat(local, out);
        }
    }

    pub(super) fn beat(&mut self, local: &Local<'_>, out: &mut Vec<LinkEffect>) {
        self.spoke_ms = local.now_ms;
        let mut direct = self.direct.clone();
        direct.extend(self.incoming.relayed_in_vain());
        let heartbeat = Heartbeat {
            tick: self.tick,
            frontier: local.frontier.clone(),
            processed: self.processed.clone().unwrap_or_else(|| local.frontier.clone()),
            sent_ms: local.now_ms,
            echo: self.freshness.echo(local.now_ms),
            pressure: self.pressure,
            direct,
            chains: handshake::chains(local),
        };
        self.send(Message::Heartbeat(Box::new(heartbeat)), out);
    }

    pub(super) fn ask(&mut self, local: &Local<'_>, out: &mut Vec<LinkEffect>) {
        if self.state != LinkState::Up {
            return;
        }
        let peer_origin = self.peer_identity.as_ref().and_then(|peer| peer.origin);
        if let Some(need) = self.incoming.due_lack(local, peer_origin, &self.config) {
            self.send(
                Message::Lack {
                    need,
                    frontier: local.frontier.clone(),
                },
                out,
            );
        }
    }

    pub(super) fn settle_freshness(&mut self, local: &Local<'_>) {
        let peer_origin = self.peer_identity.as_ref().and_then(|peer| peer.origin);
        if let Some(origin) = peer_origin {
            self.freshness.covered(local.frontier.get(origin));
        }
    }
}

/// Whether a session of a peer began before another one of the same connection. Sessions are numbered in their low 16
/// bits; the time above them is that of a clock that may jump.
fn is_earlier(session: u64, known: u64) -> bool {
    (session.wrapping_sub(known) & 0xffff) > 0x8000
}
