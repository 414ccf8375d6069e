//! Connections between regions: Arrow Flight over gRPC.
//!
//! ```text
//!   us ── DoExchange (both directions on one stream) ──▶ eu       bundles, acks, heartbeats
//!   eu ── DoAction "ddl", "forward", "standing" … ─────▶ us       one question, one answer
//!   eu ── DoGet ───────────────────────────────────────▶ us       rows of us, as of a version
//! ```
//! What is said on a stream is decided by the region's link machine; here are only sockets. Between two regions
//! there is one stream at a time, dialled by the one whose name sorts first; the other one dials only when it has
//! waited for it in vain (it may be the only one that can). See [`registry`] for what happens when both do.
//!
//! Each peer is dialled at the address configured for it and nowhere else, so that a proxy can stand in
//! between; a member that is not configured at the address in the catalog, if there is one. A stream that is dialled
//! *to* us says who it is in its first message, and is refused unless that is a configured peer or a member. With
//! certificates ([`tls`]) both sides prove their names before; without them whoever reaches the port is believed.

pub mod actions;
mod backoff;
mod client;
mod dial;
mod registry;
mod service;
mod stream;
pub mod tls;

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

pub use client::{PeerClient, PeerError};
pub use tls::{PeerTls, TlsError, TlsFiles};

use crate::node::{Node, Request};
use registry::Registry;

/// The largest message: a bundle at its cap and its envelope.
pub const MESSAGE_BYTES_MAX: usize = (256 << 20) + (1 << 20);
/// Messages that may wait to be sent to one peer; the link machine keeps far fewer in flight.
const OUTBOX_MESSAGES_MAX: usize = 256;
/// Scans that are served for other regions at once; more are refused.
const SCANS_MAX: usize = 256;
/// Bytes of received messages that may wait for the region; beyond it the sockets are not read.
const INBOUND_BYTES_MAX: usize = 2 * MESSAGE_BYTES_MAX;
/// The semaphore counts in units of this, since its permits are 32-bit.
const PERMIT_BYTES: usize = 1024;

/// What every connection needs.
pub(crate) struct Shared {
    /// This region's name.
    pub region: String,
    /// Which connection to a peer counts.
    pub registry: Registry,
    /// Where news goes.
    pub requests: tokio::sync::mpsc::Sender<Request>,
    /// Bounds the bytes under way to the region.
    pub inbound: Arc<Semaphore>,
    /// For actions.
    pub node: Arc<Node>,
}

/// Says and counts that something of a peer was not accepted. Who is not known for sure is `unknown`.
fn refused(peer: &str, reason: &str) {
    metrics::counter!("tributary_peer_refused_total", "peer" => peer.to_owned()).increment(1);
    tracing::warn!(peer, reason, "a connection was refused");
}

/// Serves peers on `listener`, with certificates if there are any, and dials them, the configured ones and the
/// members, until `shutdown` turns true.
pub async fn serve(
    node: Arc<Node>,
    listener: TcpListener,
    peers: BTreeMap<String, PeerClient>,
    tls: Option<PeerTls>,
    shutdown: watch::Receiver<bool>,
) -> Result<(), tonic::transport::Error> {
    let shared = Arc::new(Shared {
        region: node.name().to_owned(),
        registry: Registry::new(node.name()),
        requests: node.requests(),
        inbound: Arc::new(Semaphore::new(INBOUND_BYTES_MAX / PERMIT_BYTES)),
        node,
    });
    let dialers = tokio::spawn(dial::keep_all_connected(shared.clone(), peers, tls.clone()));
    let served = service::serve(shared, listener, tls, shutdown).await;
    dialers.abort();
    served
}
