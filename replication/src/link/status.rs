//! Figures about a link, for system tables and metrics.

use tributary_storage::OriginId;

use crate::frontier::{ClusterId, Epoch, Frontier};
use crate::link::message::Message;

/// Where a link stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// There is no connection.
    Disconnected,
    /// Connected; the greeting is not over.
    Greeting,
    /// Bundles flow.
    Up,
    /// A bundle was too large; a restart of the region is needed.
    Stopped,
}

/// What the peer said it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    /// Its cluster; `None` when it belongs to none yet.
    pub cluster: Option<ClusterId>,
    /// Itself, as a writer; `None` when it belongs to no cluster yet.
    pub origin: Option<OriginId>,
}

/// What was counted since the link was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Bytes of the messages that came, before any encryption.
    pub bytes_in: u64,
    /// Bytes of the messages that were sent.
    pub bytes_out: u64,
    /// Bundles that came, repeated ones included.
    pub bundles_in: u64,
    /// Bundles that were sent, repeated ones included.
    pub bundles_out: u64,
    /// Times at which sending began again from where the peer was.
    pub rewinds: u64,
    /// Bundles that brought nothing new.
    pub stale: u64,
    /// Greetings and bundles that were refused.
    pub refused: u64,
}

impl Counts {
    pub(crate) fn received(&mut self, message: &Message) {
        self.bytes_in += size(message);
        self.bundles_in += u64::from(matches!(message, Message::Bundle(_)));
    }

    pub(crate) fn sent(&mut self, message: &Message) {
        self.bytes_out += size(message);
        self.bundles_out += u64::from(matches!(message, Message::Bundle(_)));
    }
}

/// What there is to know about a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkStatus {
    /// Where it stands.
    pub state: LinkState,
    /// Whom the last greeting came from.
    pub peer: Option<PeerIdentity>,
    /// What was counted.
    pub counts: Counts,
    /// See [`Counts::bytes_in`].
    pub bytes_in: u64,
    /// See [`Counts::bytes_out`].
    pub bytes_out: u64,
    /// Changed keys held for the peer, in flight included.
    pub pending_keys: usize,
    /// About the bytes that they take.
    pub pending_bytes: usize,
    /// Of a range that is on its way in chunks: how many of them are durable at the peer, and how many were sent.
    pub staged: Option<(u32, u32)>,
    /// Whether the changed keys are not known, so that the next bundle is read from the runs.
    pub rescan: bool,
    /// Bundles that wait for an acknowledgement.
    pub in_flight: usize,
    /// The epoch of our own log that the peer has acknowledged.
    pub acked: Epoch,
    /// How long the oldest change that the peer has not acknowledged has been waiting; see [`super::Link::lag_ms`].
    pub lag_ms: Option<u64>,
    /// Origins passed on to the peer.
    pub relays: Vec<OriginId>,
    /// Base ticks between two cuts.
    pub tick_multiple: u64,
    /// The smoothed round trip.
    pub round_trip_ms: Option<u64>,
    /// Everything the peer had announced at this time of ours is known here.
    pub as_of_ms: Option<u64>,
    /// The peer's frontier, as far as it said.
    pub peer_frontier: Frontier,
    /// The frontier at which the peer's own contribution was computed.
    pub peer_processed: Frontier,
    /// How busy the peer is, 0 to 100.
    pub peer_pressure: u8,
    /// What went wrong last.
    pub last_error: Option<String>,
}

/// The size of a message in bytes. Only the bundle's own bytes are counted without encoding it again.
fn size(message: &Message) -> u64 {
    match message {
        Message::Bundle(bytes) => bytes.len() as u64,
        other => other.encode().len() as u64,
    }
}
