//! Keeping one peer connected from this side.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use tonic::Request;

use super::backoff::Backoff;
use super::client::{PeerClient, PeerError};
use super::stream::{Incoming, carry, outgoing};
use super::{OUTBOX_MESSAGES_MAX, Shared, refused};
use crate::node::Outbox;

/// A region whose name sorts after the peer's lets the peer dial first, for this long.
const COURTESY: Duration = Duration::from_secs(2);
/// A connection that lasted this long was a good one.
const GOOD_AFTER: Duration = Duration::from_secs(2);

/// Dials whenever there is no connection to the peer. Runs until it is dropped.
pub(super) async fn keep_connected(shared: Arc<Shared>, peer: String, client: PeerClient) {
    let mut backoff = Backoff::new();
    let mut random = StdRng::from_os_rng();
    let first_to_dial = shared.region < peer;
    let mut told = None;
    loop {
        shared.registry.absent(&peer).await;
        if !first_to_dial {
            tokio::time::sleep(COURTESY).await;
            if shared.registry.is_present(&peer) {
                continue;
            }
        }
        let started = Instant::now();
        match connect_once(&shared, &peer, &client).await {
            Ok(reason) => {
                tracing::info!(peer, reason, "connection ended");
                told = None;
                if started.elapsed() >= GOOD_AFTER {
                    backoff.reset();
                }
            }
            // Once, until there is another reason: it is tried again and again.
            Err(PeerError::Untrusted(reason)) if told.as_ref() != Some(&reason) => {
                refused(&peer, &format!("dialled at {}: {reason}", client.address()));
                told = Some(reason);
            }
            Err(error) => tracing::debug!(peer, %error, "cannot connect"),
        }
        tokio::time::sleep(backoff.wait(&mut random)).await;
    }
}

/// One connection from dialling to its end.
async fn connect_once(shared: &Arc<Shared>, peer: &str, client: &PeerClient) -> Result<String, PeerError> {
    let mut dialled = client.connect().await?;
    let (outbox, queue, closed) = Outbox::new(OUTBOX_MESSAGES_MAX);
    let exchange = dialled.flight.do_exchange(Request::new(outgoing(queue))).await;
    let stream = exchange.map_err(|status| dialled.failed(status))?.into_inner();
    let Some(claim) = shared.registry.claim(peer, true) else {
        return Ok("the peer's own connection stays".to_owned());
    };
    tracing::info!(peer, "connected");
    Ok(carry(
        shared,
        peer,
        claim,
        outbox,
        Incoming {
            stream,
            closed,
            first: None,
        },
    )
    .await)
}
