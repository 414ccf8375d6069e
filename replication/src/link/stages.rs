//! A link's part in stages: when the next chunk goes, what the peer says of them, and the same about the peer's.

use bytes::Bytes;

use crate::bundle::Included;
use crate::link::message::Message;
use crate::link::session::RESEND_DOUBLINGS_MAX;
use crate::link::{CutRequest, Link, LinkEffect, LinkState};

impl Link {
    /// What was asked for is too large for one message, and [`Link::waits_for_seal`] says no: all of `included` goes in
    /// chunks, and what changes meanwhile with the bundle that seals them. Returns the stage that the chunks belong to;
    /// `None` when the cut comes too late.
    pub fn stage(&mut self, request: &CutRequest, included: &[Included]) -> Option<u64> {
        let name = (self.now_ms << 16) | ((self.stages + 1) & 0xffff);
        let stage = self.outgoing.stage(request.number, included, name)?;
        self.stages += u64::from(stage == name);
        Some(stage)
    }

    /// The stage under way, and how many of its chunks are durable at the peer.
    pub fn staging(&self) -> Option<(u64, u32)> {
        let staging = self.outgoing.staging()?;
        Some((staging.stage, staging.acked))
    }

    /// The chunk to send now, if any.
    pub fn chunk_due(&self) -> Option<(u64, u32)> {
        let staging = self.outgoing.staging()?;
        let room = staging.in_flight() < self.config.window_chunks_max;
        let more = !staging.whole || staging.next < staging.made;
        let due = self.state == LinkState::Up && room && more && self.now_ms >= self.full_until_ms;
        due.then_some((staging.stage, staging.next))
    }

    /// The chunk that was due.
    pub fn chunk_made(&mut self, (stage, number): (u64, u32), bytes: Bytes, out: &mut Vec<LinkEffect>) {
        let now_ms = self.now_ms;
        let staging = self.outgoing.staging_mut();
        if let Some(staging) = staging.filter(|staging| staging.stage == stage && staging.next == number) {
            staging.sent(now_ms);
            self.send(Message::Bundle(bytes), out);
        }
    }

    /// What was asked for is too large for one message. True while the bundle that seals the chunks before is under way: then
    /// it is asked for again, once the peer has that.
    pub fn waits_for_seal(&mut self, request: &CutRequest) -> bool {
        self.outgoing.waits_for_seal(request.number)
    }

    /// What is under way in chunks will not be sent: it is asked for anew.
    pub fn drop_stage(&mut self) {
        self.outgoing.drop_staging();
    }

    /// There are no more chunks: what is missing goes with the sealing one.
    pub fn walked(&mut self, stage: u64) {
        let staging = self.outgoing.staging_mut();
        if let Some(staging) = staging.filter(|staging| staging.stage == stage) {
            staging.whole = true;
        }
    }

    /// Says how many chunks of one of the peer's stages are durable here.
    pub fn staged(&mut self, stage: u64, chunks: u32, is_full: bool, out: &mut Vec<LinkEffect>) {
        if self.state == LinkState::Up {
            let message = Message::Staged {
                stage,
                chunks,
                is_full,
            };
            self.send(message, out);
        }
    }

    pub(super) fn peer_staged(&mut self, stage: u64, chunks: u32, is_full: bool) {
        let round_trip_ms = self.freshness.round_trip_ms().unwrap_or(0);
        let now_ms = self.now_ms;
        let Some(staging) = self
            .outgoing
            .staging_mut()
            .filter(|staging| staging.stage == stage)
        else {
            return;
        };
        if is_full {
            self.full_until_ms = now_ms + self.config.lack_ms_max;
            self.last_error = Some(format!("{} has no room for a stage", self.peer));
            self.outgoing.drop_staging();
            return;
        }
        let progress = chunks > staging.acked;
        if !staging.learn(chunks, now_ms, round_trip_ms) {
            self.outgoing.drop_staging();
        } else if progress {
            self.resends = 0;
        }
    }

    /// As for bundles: a chunk is sent again when the peer has answered something said after it, and still does not
    /// say that it has it.
    pub(super) fn resend_chunks_when_lost(&mut self) {
        let round_trip_ms = self.freshness.round_trip_ms().unwrap_or(0);
        let patience_ms = self.config.resend_ms_min.max(round_trip_ms * 4) << self.resends;
        let (now_ms, echoed_ms) = (self.now_ms, self.freshness.echoed_ms());
        let Some(staging) = self.outgoing.staging_mut() else {
            return;
        };
        let Some(sent_ms) = staging.oldest_sent_ms() else {
            return;
        };
        let answered_later = echoed_ms.is_some_and(|echoed_ms| echoed_ms > sent_ms);
        if answered_later && now_ms.saturating_sub(sent_ms) >= patience_ms {
            staging.rewind(now_ms);
            self.resends = (self.resends + 1).min(RESEND_DOUBLINGS_MAX);
            self.counts.rewinds += 1;
        }
    }

    /// What a stage holds is not held for ever for a peer that is away.
    pub(super) fn forget_stage_when_gone(&mut self) {
        if self.now_ms.saturating_sub(self.gone_ms) > self.config.stage_keep_ms {
            self.outgoing.drop_staging();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tributary_storage::{ChainHash, ObjectId, OriginId, RegionId};

    use crate::bundle::{Included, SectionObject};
    use crate::changes::Changed;
    use crate::frontier::{Epoch, Frontier};
    use crate::link::outgoing::Outgoing;
    use crate::link::{Link, LinkConfig, Local};

    fn own() -> OriginId {
        OriginId::first(RegionId(1))
    }

    fn upto(epoch: u64) -> Frontier {
        Frontier::from_iter([(own(), Epoch(epoch))])
    }

    fn range(from: u64, to: u64) -> [Included; 1] {
        [Included {
            origin: own(),
            from: Epoch(from),
            to: Epoch(to),
            chain: ChainHash([0; 16]),
        }]
    }

    /// Begins a stage of what changed up to epoch 5.
    fn begin_stage(outgoing: &mut Outgoing) {
        outgoing.restart(Some(own()), Epoch(0), Frontier::new(), 0);
        outgoing.changed(Epoch(5), &keys(), 0);
        let cut = outgoing.cut(&upto(5), None).expect("there is something to say");
        assert_eq!(outgoing.stage(cut.number, &range(0, 5), 7), Some(7));
    }

    /// Begins a stage whose only chunk is at the peer.
    fn stage_whole(outgoing: &mut Outgoing) {
        begin_stage(outgoing);
        let staging = outgoing.staging_mut().expect("just begun");
        staging.sent(1);
        assert!(staging.learn(1, 2, 1));
        staging.whole = true;
    }

    fn keys() -> BTreeMap<SectionObject, Changed> {
        let keys = Changed::Keys([b"key".to_vec()].into_iter().collect());
        BTreeMap::from([(SectionObject::Rows(ObjectId(1)), keys)])
    }

    #[test]
    fn a_half_sent_stage_is_let_go_whoever_dials_without_a_greeting() {
        let config = LinkConfig::default();
        let (keep_ms, timeout_ms) = (config.stage_keep_ms, config.timeout_ms);
        let mut link = Link::new("eu".into(), config);
        begin_stage(&mut link.outgoing);
        let (frontier, members) = (upto(5), BTreeMap::new());
        let local = |now_ms| Local {
            identity: None,
            name: "us",
            frontier: &frontier,
            chain_at: &|_, _| None,
            members: &members,
            now_ms,
        };
        let mut out = Vec::new();
        let mut now_ms = 1;
        while now_ms <= keep_ms {
            assert!(link.staging().is_some(), "let go after {now_ms} ms");
            link.connected(&local(now_ms), &mut out);
            link.poll(&local(now_ms), &mut out);
            now_ms += timeout_ms / 2;
        }
        link.poll(&local(now_ms), &mut out);
        assert!(link.staging().is_none(), "held for ever");
    }

    #[test]
    fn a_seal_that_a_new_session_has_overtaken_is_sent_again() {
        let mut outgoing = Outgoing::new(10, 10_000);
        stage_whole(&mut outgoing);
        let seal = outgoing.cut(&upto(5), None).expect("the seal");
        assert!(outgoing.made(seal.number, &range(0, 5), 10, 3));
        assert_eq!(outgoing.cut(&upto(5), None), None, "it is under way");
        outgoing.restart(Some(own()), Epoch(5), Frontier::new(), 4);
        let again = outgoing.cut(&upto(5), None).expect("the seal, again");
        assert_eq!(again.seal, Some((7, 1)));
    }

    #[test]
    fn a_link_that_begins_late_finds_what_was_computed_before_in_the_runs() {
        let mut outgoing = Outgoing::new(10, 10_000);
        // Of what is computed only a part is durable by now, and the peer has that from others.
        outgoing.changed(Epoch(7), &BTreeMap::new(), 0);
        outgoing.restart(Some(own()), Epoch(5), upto(5), 1);
        let cut = outgoing.cut(&upto(7), None).expect("a bundle");
        let since = crate::link::OriginChanges::Since(Epoch(5));
        assert_eq!(cut.origins, [(own(), Epoch(5), since)]);
    }

    #[test]
    fn nothing_is_added_to_a_stage_while_its_seal_is_under_way() {
        let mut outgoing = Outgoing::new(10, 10_000);
        stage_whole(&mut outgoing);
        outgoing.changed(Epoch(6), &keys(), 0);
        let seal = outgoing.cut(&upto(6), None).expect("the seal");
        assert_eq!(seal.seal, Some((7, 1)));
        assert!(outgoing.made(seal.number, &range(0, 6), 10, 3));
        // What follows must not go in chunks of a stage that lacks what is in the seal.
        outgoing.changed(Epoch(8), &keys(), 0);
        let next = outgoing.cut(&upto(8), None).expect("an ordinary bundle");
        assert_eq!(next.seal, None);
        assert!(outgoing.waits_for_seal(next.number));
        assert!(
            !outgoing.is_cutting() && outgoing.keys_held() > 0,
            "it is asked for again"
        );
        assert_eq!(
            outgoing.cut(&upto(8), None),
            None,
            "but not before the seal is there"
        );
        outgoing.learn(upto(6));
        let next = outgoing.cut(&upto(8), None).expect("again");
        assert!(!outgoing.waits_for_seal(next.number));
        assert_eq!(outgoing.stage(next.number, &range(6, 8), 8), Some(8));
    }
}
