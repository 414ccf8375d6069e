//! Keeping one peer connected from this side.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::task::{AbortHandle, JoinSet};
use tonic::Request;

use super::backoff::Backoff;
use super::client::{PeerClient, PeerError};
use super::stream::{Incoming, carry, outgoing};
use super::{OUTBOX_MESSAGES_MAX, PeerTls, Shared, refused};
use crate::node::Outbox;

/// A region whose name sorts after the peer's lets the peer dial first, for this long.
const COURTESY: Duration = Duration::from_secs(2);
/// A connection that lasted this long was a good one.
const GOOD_AFTER: Duration = Duration::from_secs(2);

/// Dials the configured peers, and the members as the catalog has them. Runs until it is dropped.
pub(super) async fn keep_all_connected(
    shared: Arc<Shared>,
    configured: BTreeMap<String, PeerClient>,
    tls: Option<PeerTls>,
) {
    let mut dialers = JoinSet::new();
    let mut running: BTreeMap<String, AbortHandle> = BTreeMap::new();
    let mut snapshots = shared.node.snapshots();
    let mut seen_version = None;
    loop {
        let catalog = snapshots.borrow_and_update().catalog.clone();
        if seen_version != Some(catalog.version) {
            seen_version = Some(catalog.version);
            let wanted: BTreeSet<String> = match catalog.cluster {
                None => configured.keys().cloned().collect(),
                Some(_) => catalog.members().map(|(_, region)| region.name.clone()).collect(),
            };
            if let Some(tls) = &tls {
                // Those that were dropped too: they have to be told.
                let known = catalog.regions.values().map(|region| region.name.clone());
                let known = known.filter(|region| *region != shared.region);
                tls.expect_peers(known.chain(configured.keys().cloned()).collect());
            }
            running.retain(|peer, dialer| {
                let is_wanted = wanted.contains(peer);
                if !is_wanted {
                    dialer.abort();
                }
                is_wanted
            });
            for peer in wanted.into_iter().filter(|peer| *peer != shared.region) {
                let Some(client) = shared
                    .node
                    .peers()
                    .client(&peer)
                    .filter(|_| !running.contains_key(&peer))
                else {
                    continue;
                };
                let dialer = dialers.spawn(keep_connected(shared.clone(), peer.clone(), client));
                running.insert(peer, dialer);
            }
        }
        if snapshots.changed().await.is_err() {
            return;
        }
    }
}

/// Dials whenever there is no connection to the peer. Runs until it is dropped.
async fn keep_connected(shared: Arc<Shared>, peer: String, client: PeerClient) {
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
