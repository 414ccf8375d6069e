//! What a peer has not acknowledged: the changed keys, the bundles in flight, the origins relayed.
//!
//! ```text
//!     acked          sent                     now
//!  ─────┼──────┬───────┼───────────────────────┼──▶ our epochs
//!       │ in flight    │ pending: changed keys │
//!       └─ each with its keys ─┘   (or "forgotten": read the runs)
//! ```
//!
//! Only GLOBAL rows are remembered by key. Slots are kept in the order of their stamps, so of them it is enough to know
//! that there are any.
//!
//! The keys of a bundle stay beside it until it is acknowledged; a rewind puts them back among the pending
//! ones. So the sets always reach back to the acknowledged epoch, or they are *forgotten*, and then
//! everything since that epoch is found in the runs. A key may be in several sets: values are absolute, so
//! that costs bytes and changes nothing.

use std::collections::{BTreeMap, VecDeque};

use tributary_storage::OriginId;

use crate::bundle::{Included, SectionObject};
use crate::changes::{Changed, Changes, KeySet};
use crate::frontier::{Epoch, Frontier};
use crate::lattice::Lattice;
use crate::link::lag::Lag;
use crate::link::staging::Staging;
use crate::link::{CutRequest, OriginChanges};

/// What a remembered key takes beside its own bytes.
const KEY_BYTES: usize = 48;

/// Changed keys.
#[derive(Clone, Debug)]
pub(crate) enum ChangedKeys {
    /// Per object the keys; none where stamps tell.
    Known {
        objects: BTreeMap<SectionObject, Option<KeySet>>,
        /// About what the keys take; some may be counted twice.
        bytes: usize,
    },
    /// Too many, or never known: only the runs can tell.
    Forgotten,
}

impl ChangedKeys {
    fn none() -> Self {
        Self::Known {
            objects: BTreeMap::new(),
            bytes: 0,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Known { bytes, .. } => *bytes,
            Self::Forgotten => 0,
        }
    }

    fn count(&self) -> usize {
        match self {
            Self::Known { objects, .. } => objects.values().flatten().map(KeySet::len).sum(),
            Self::Forgotten => 0,
        }
    }

    fn join(&mut self, other: ChangedKeys) {
        match (&mut *self, other) {
            (
                Self::Known { objects, bytes },
                Self::Known {
                    objects: theirs,
                    bytes: more,
                },
            ) => {
                *bytes += more;
                for (object, keys) in theirs {
                    let known = objects.entry(object).or_insert_with(|| Some(KeySet::new()));
                    match (&mut *known, keys) {
                        (Some(known), Some(keys)) => known.extend(keys),
                        _ => *known = None,
                    }
                }
            }
            (mine, _) => *mine = Self::Forgotten,
        }
    }
}

/// A bundle that was sent.
#[derive(Debug)]
struct InFlight {
    included: Vec<Included>,
    keys: Option<ChangedKeys>,
    bytes: usize,
    sent_ms: u64,
}

/// A cut that was asked for and not made yet.
#[derive(Debug)]
struct Outstanding {
    number: u64,
    keys: Option<ChangedKeys>,
    changed_to: Epoch,
    /// Whether it seals the stage.
    seals: bool,
}

/// What one peer has not acknowledged.
#[derive(Debug)]
pub(crate) struct Outgoing {
    own: Option<OriginId>,
    pending: ChangedKeys,
    pending_count: usize,
    keys_max: usize,
    bytes_max: usize,
    /// The sets, when known, hold every change after this epoch.
    reaches_to: Epoch,
    /// The newest change that was told.
    changed_to: Epoch,
    sent: Epoch,
    /// How far the peer is, as far as it said.
    peer: Frontier,
    in_flight: VecDeque<InFlight>,
    outstanding: Option<Outstanding>,
    /// A range on its way in chunks: then nothing else goes before it is sealed.
    staging: Option<Staging>,
    /// Origins passed on at the peer's request, and how far they were sent.
    relays: BTreeMap<OriginId, Epoch>,
    lag: Lag,
    cuts: u64,
}

impl Outgoing {
    pub(crate) fn new(keys_max: usize, bytes_max: usize) -> Self {
        Self {
            own: None,
            // After a restart nobody knows what changed since the peer's last acknowledgement.
            pending: ChangedKeys::Forgotten,
            pending_count: 0,
            keys_max,
            bytes_max,
            reaches_to: Epoch(0),
            changed_to: Epoch(0),
            sent: Epoch(0),
            peer: Frontier::new(),
            in_flight: VecDeque::new(),
            outstanding: None,
            staging: None,
            relays: BTreeMap::new(),
            lag: Lag::new(),
            cuts: 0,
        }
    }

    /// A new session with a peer that is at `peer`, from a region whose durable epoch is `own_epoch`.
    pub(crate) fn restart(&mut self, own: Option<OriginId>, own_epoch: Epoch, peer: Frontier, now_ms: u64) {
        // The peer may have begun one without a word about the end of the last.
        self.stop();
        if self.own != own {
            self.own = own;
            self.staging = None;
            self.forget();
        }
        self.peer = peer;
        if self
            .staging
            .as_ref()
            .is_some_and(|staging| !staging.fits(&self.peer))
        {
            self.drop_staging();
        }
        self.staging.take_if(|staging| staging.is_known(&self.peer));
        self.sent = self.sent_at_least();
        let own_epoch = own_epoch.max(self.changed_to);
        self.lag.restart(self.acked(), own_epoch, now_ms);
        if self.sent >= own_epoch {
            self.pending = ChangedKeys::none();
            self.pending_count = 0;
            self.reaches_to = self.sent;
        } else if self.sent < self.reaches_to {
            self.forget();
        }
    }

    /// The session ended: nothing in flight will be answered.
    pub(crate) fn stop(&mut self) {
        self.take_back();
        self.relays.clear();
        if let Some(staging) = &mut self.staging {
            staging.rewind(0);
            staging.unseal();
        }
    }

    pub(crate) fn staging(&self) -> Option<&Staging> {
        self.staging.as_ref()
    }

    pub(crate) fn staging_mut(&mut self) -> Option<&mut Staging> {
        self.staging.as_mut()
    }

    /// What was to be cut goes in chunks, as the stage of this name or as more of the one there is: all of `included`.
    /// Returns the stage; `None` when the cut was asked for before a rewind or in another session. See
    /// [`Outgoing::waits_for_seal`].
    pub(crate) fn stage(&mut self, number: u64, included: &[Included], name: u64) -> Option<u64> {
        assert!(
            !self.is_sealing(),
            "what the sealing bundle brings is in no chunk"
        );
        let cut = self.outstanding.take_if(|cut| cut.number == number)?;
        let own = included.iter().find(|included| Some(included.origin) == self.own);
        if let Some(keys) = cut.keys
            && own.is_none_or(|own| own.to < cut.changed_to)
        {
            self.put_back(keys);
        }
        let staging = self.staging.get_or_insert_with(|| Staging::new(name));
        staging.extend(included);
        let stage = staging.stage;
        if let Some(own) = own {
            (self.sent, self.reaches_to) = (own.to, own.to);
        }
        Some(stage)
    }

    /// What was to be cut is too large for one bundle. While the one that seals a stage is under way, nothing can be added to
    /// the stage, since what the sealing bundle brings is in no chunk: true, and then the cut is given up and none is asked for
    /// before the peer has the stage, or has lost it.
    pub(crate) fn waits_for_seal(&mut self, number: u64) -> bool {
        let waits = self.is_sealing();
        if waits {
            self.abandon(number);
            self.staging
                .iter_mut()
                .for_each(|staging| staging.is_followed = true);
        }
        waits
    }

    fn is_sealing(&self) -> bool {
        self.staging.as_ref().is_some_and(|staging| staging.is_sealing)
    }

    /// The stage is of no use any more: what it held is sent anew.
    pub(crate) fn drop_staging(&mut self) {
        if self.staging.take().is_some() {
            self.take_back();
            self.forget();
            self.sent = self.acked();
            self.relay_from_peer();
        }
    }

    /// What is passed on is passed on from where the peer is.
    fn relay_from_peer(&mut self) {
        for (origin, sent) in &mut self.relays {
            *sent = self.peer.get(*origin);
        }
    }

    /// How far the peer has our own epochs, or will have once the stage is sealed.
    fn sent_at_least(&self) -> Epoch {
        let ranges = self.staging.iter().flat_map(|staging| &staging.ranges);
        let own = ranges.filter(|(origin, ..)| Some(*origin) == self.own);
        own.map(|(_, _, to)| *to).fold(self.acked(), Epoch::max)
    }

    /// The peer's acknowledged epoch of our own log.
    pub(crate) fn acked(&self) -> Epoch {
        self.own.map_or(Epoch(0), |own| self.peer.get(own))
    }

    pub(crate) fn peer(&self) -> &Frontier {
        &self.peer
    }

    /// Since when the oldest change that the peer has not acknowledged has been waiting in this session.
    pub(crate) fn waits_since_ms(&self) -> Option<u64> {
        self.lag.since_ms()
    }

    /// Keys held for this peer, pending and in flight.
    pub(crate) fn keys_held(&self) -> usize {
        let in_flight = self.in_flight.iter().filter_map(|bundle| bundle.keys.as_ref());
        let outstanding = self.outstanding.iter().filter_map(|cut| cut.keys.as_ref());
        self.pending_count
            + in_flight
                .chain(outstanding)
                .map(ChangedKeys::count)
                .sum::<usize>()
    }

    /// About the bytes that these keys take.
    pub(crate) fn bytes_held(&self) -> usize {
        let in_flight = self.in_flight.iter().filter_map(|bundle| bundle.keys.as_ref());
        let outstanding = self.outstanding.iter().filter_map(|cut| cut.keys.as_ref());
        let sent = in_flight.chain(outstanding).map(ChangedKeys::bytes);
        self.pending.bytes() + sent.sum::<usize>()
    }

    fn is_beyond_caps(&self) -> bool {
        self.keys_held() > self.keys_max || self.bytes_held() > self.bytes_max
    }

    /// Whether the changed keys are not known, so that the next cut reads the runs.
    pub(crate) fn is_forgotten(&self) -> bool {
        matches!(self.pending, ChangedKeys::Forgotten)
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    pub(crate) fn in_flight_bytes(&self) -> usize {
        self.in_flight.iter().map(|bundle| bundle.bytes).sum()
    }

    /// When the oldest unacknowledged bundle was sent.
    pub(crate) fn oldest_sent_ms(&self) -> Option<u64> {
        self.in_flight.front().map(|bundle| bundle.sent_ms)
    }

    pub(crate) fn is_cutting(&self) -> bool {
        self.outstanding.is_some()
    }

    pub(crate) fn relays(&self) -> impl Iterator<Item = OriginId> + '_ {
        self.relays.keys().copied()
    }

    /// Own changes up to `epoch`.
    pub(crate) fn changed(&mut self, epoch: Epoch, changes: &BTreeMap<SectionObject, Changed>, now_ms: u64) {
        self.changed_to = self.changed_to.max(epoch);
        self.lag.changed(epoch, now_ms);
        let ChangedKeys::Known {
            objects: pending,
            bytes,
        } = &mut self.pending
        else {
            return;
        };
        for (object, changed) in changes {
            let Changed::Keys(keys) = changed else {
                pending.insert(object.clone(), None);
                continue;
            };
            let known = pending
                .entry(object.clone())
                .or_insert_with(|| Some(KeySet::new()));
            let Some(known) = known else { continue };
            for key in keys.iter() {
                if !known.contains(key) {
                    known.insert(key.into());
                    *bytes += key.len() + KEY_BYTES;
                    self.pending_count += 1;
                }
            }
        }
        if self.is_beyond_caps() {
            self.forget();
        }
    }

    /// Takes in how far the peer is. True when a bundle was acknowledged by it.
    pub(crate) fn learn(&mut self, frontier: Frontier) -> bool {
        self.peer.merge(frontier);
        self.lag.acknowledged(self.acked());
        // What it has need not be sent, also when a stage was given up meanwhile.
        self.sent = self.sent.max(self.acked());
        let peer = &self.peer;
        // What it has beyond what we passed on came from somewhere else: the relay is not needed any more.
        self.relays.retain(|origin, sent| peer.get(*origin) <= *sent);
        let before = self.in_flight.len();
        self.staging.take_if(|staging| staging.is_known(&self.peer));
        while let Some(bundle) = self.in_flight.front()
            && bundle
                .included
                .iter()
                .all(|included| included.to <= self.peer.get(included.origin))
        {
            let own = bundle
                .included
                .iter()
                .find(|included| Some(included.origin) == self.own);
            if let Some(own) = own {
                self.reaches_to = self.reaches_to.max(own.to);
            }
            self.in_flight.pop_front();
        }
        self.in_flight.len() < before
    }

    /// The peer hears of these origins directly.
    pub(crate) fn stop_relaying(&mut self, direct: &[OriginId]) {
        direct.iter().for_each(|origin| {
            self.relays.remove(origin);
        });
    }

    /// The peer lacks `epoch` of another origin. True when what was sent of it seems lost.
    pub(crate) fn relay(&mut self, origin: OriginId, epoch: Epoch, known: Epoch) -> bool {
        let has = self.peer.get(origin);
        if known <= has || epoch <= has {
            return false;
        }
        let sent = *self.relays.entry(origin).or_insert(has);
        sent >= epoch && sent > has
    }

    /// Whether something of our own was sent beyond what is acknowledged.
    pub(crate) fn has_unacked(&self) -> bool {
        let staged = self.staging.as_ref().is_some_and(|staging| !staging.is_sealing);
        (self.sent > self.acked() && !staged) || !self.in_flight.is_empty()
    }

    /// Sends again from where the peer is.
    pub(crate) fn rewind(&mut self) {
        self.take_back();
        if self
            .staging
            .as_ref()
            .is_some_and(|staging| !staging.fits(&self.peer))
        {
            // What was sent before it is lost.
            self.drop_staging();
        }
        self.staging.iter_mut().for_each(Staging::unseal);
        self.sent = self.sent_at_least();
        self.relay_from_peer();
    }

    /// What to cut now, if there is anything to say.
    pub(crate) fn cut(&mut self, known: &Frontier, peer_origin: Option<OriginId>) -> Option<CutRequest> {
        let own = self.own?;
        if self.staging.as_ref().is_some_and(|staging| staging.is_followed) {
            return None;
        }
        let staging = self.staging.as_ref().filter(|staging| !staging.is_sealing);
        if staging.is_some_and(|staging| !staging.is_ready()) {
            return None;
        }
        let ranges = staging.map_or(Vec::new(), |staging| staging.ranges.clone());
        let seal = staging
            .filter(|staging| staging.made > 0)
            .map(|staging| (staging.stage, staging.made));
        let seals = staging.is_some();
        let mut origins = Vec::new();
        let mut keys = None;
        let own_from = ranges
            .iter()
            .find(|(origin, ..)| *origin == own)
            .map(|(_, from, _)| *from);
        if known.get(own) > self.sent || own_from.is_some() {
            let taken = std::mem::replace(&mut self.pending, ChangedKeys::none());
            self.pending_count = 0;
            let changes = match &taken {
                ChangedKeys::Known { objects, .. } => OriginChanges::Of(
                    objects
                        .iter()
                        .map(|(object, keys)| (object.clone(), self.changes(keys)))
                        .collect(),
                ),
                ChangedKeys::Forgotten => OriginChanges::Since(self.sent),
            };
            origins.push((own, own_from.unwrap_or(self.sent), changes));
            keys = Some(taken);
        }
        for (origin, from, to) in ranges.into_iter().filter(|(origin, ..)| *origin != own) {
            origins.push((origin, from, OriginChanges::Since(to)));
        }
        for (origin, sent) in &self.relays {
            if origins.iter().any(|(included, ..)| included == origin) {
                continue;
            }
            let from = (*sent).max(self.peer.get(*origin));
            let someone_else = *origin != own && Some(*origin) != peer_origin;
            if someone_else && known.get(*origin) > from {
                origins.push((*origin, from, OriginChanges::Since(from)));
            }
        }
        if origins.is_empty() {
            return None;
        }
        self.cuts += 1;
        self.outstanding = Some(Outstanding {
            number: self.cuts,
            keys,
            changed_to: self.changed_to,
            seals,
        });
        Some(CutRequest {
            origins,
            seal,
            number: self.cuts,
        })
    }

    /// The cut was made and is durable. False when it must not be sent: it was asked for before a rewind or
    /// in another session, or it says nothing.
    pub(crate) fn made(&mut self, number: u64, included: &[Included], bytes: usize, now_ms: u64) -> bool {
        let Some(cut) = self.outstanding.take_if(|cut| cut.number == number) else {
            return false;
        };
        let own = included.iter().find(|included| Some(included.origin) == self.own);
        let says_something = included.iter().any(|included| included.to > included.from);
        let complete = own.is_some_and(|own| own.to >= cut.changed_to);
        if let Some(keys) = &cut.keys
            && !(says_something && complete)
        {
            // Changes were told that the cut does not cover yet: they stay pending, too.
            self.put_back(keys.clone());
        }
        if !says_something {
            return false;
        }
        for included in included {
            if Some(included.origin) == self.own {
                self.sent = included.to;
            } else if let Some(sent) = self.relays.get_mut(&included.origin) {
                *sent = included.to;
            }
        }
        if let Some(staging) = self.staging.as_mut().filter(|_| cut.seals) {
            staging.seal();
        }
        let keys = cut.keys.filter(|_| own.is_some());
        self.in_flight.push_back(InFlight {
            included: included.to_vec(),
            keys,
            bytes,
            sent_ms: now_ms,
        });
        true
    }

    /// The cut will not be made.
    pub(crate) fn abandon(&mut self, number: u64) {
        if let Some(cut) = self.outstanding.take_if(|cut| cut.number == number)
            && let Some(keys) = cut.keys
        {
            self.put_back(keys);
        }
    }

    fn changes(&self, keys: &Option<KeySet>) -> Changes {
        match keys {
            Some(keys) => Changes::Keys(keys.clone()),
            None => Changes::Since(self.sent),
        }
    }

    fn forget(&mut self) {
        self.pending = ChangedKeys::Forgotten;
        self.pending_count = 0;
    }

    fn put_back(&mut self, keys: ChangedKeys) {
        self.pending.join(keys);
        self.pending_count = self.pending.count();
        if self.is_beyond_caps() {
            self.forget();
        }
    }

    /// Everything in flight or being cut becomes pending again.
    fn take_back(&mut self) {
        let in_flight = std::mem::take(&mut self.in_flight)
            .into_iter()
            .filter_map(|bundle| bundle.keys);
        let outstanding = self.outstanding.take().into_iter().filter_map(|cut| cut.keys);
        for keys in in_flight.chain(outstanding) {
            self.put_back(keys);
        }
    }
}
