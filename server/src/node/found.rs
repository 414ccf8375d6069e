//! The primary's first start: found a cluster, unless one exists.
//!
//! A primary without a past is either new or was wiped. The difference is known by its peers: a wiped primary that
//! founded a second cluster would split its peers from it for good, so it asks each of them first. Peers that
//! cannot be reached at a first start are the common case (they start later) and are tolerated. One that answers but is
//! not believed, or does not believe us, may be in a cluster, so nothing is founded beside it.

use std::collections::BTreeMap;

use thiserror::Error;
use tributary_region::Founding;

use crate::links::{PeerClient, PeerError};

/// Why no cluster is founded.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum FoundError {
    /// A cluster exists already.
    #[error(
        "region \"{peer}\" already belongs to a cluster ({cluster}), but this region's data directory is empty.\n  \
         what to do: start with the right --data directory, or restore it from a backup; if it is lost, start with \
         --reincarnate, and rows of REGIONAL tables that lived here only are gone. Founding a second cluster here would \
         cut this region off from the others for good"
    )]
    Exists {
        /// The peer that knows it.
        peer: String,
        /// Its identity, in hexadecimal.
        cluster: String,
    },
    /// Somebody answers for the peer, but it is not sure who.
    #[error(
        "region \"{peer}\" cannot be asked whether a cluster exists already: {reason}.\n  \
         what to do: make its certificate and this region's fit, or stop it; a peer that is not there is taken as new"
    )]
    Untrusted {
        /// The peer.
        peer: String,
        /// Why it is not believed, or does not believe this region.
        reason: String,
    },
}

/// Whether a cluster is to be founded: never by a region that says it had one.
pub async fn founding_unless(
    reincarnates: bool,
    peers: &BTreeMap<String, PeerClient>,
) -> Result<Option<Founding>, FoundError> {
    match reincarnates {
        true => Ok(None),
        false => founding(peers).await.map(Some),
    }
}

/// Asks the peers, and draws the new cluster's identity when none of them has one.
async fn founding(peers: &BTreeMap<String, PeerClient>) -> Result<Founding, FoundError> {
    let asked = peers
        .iter()
        .map(|(name, client)| async move { (name, client.cluster().await) });
    for (peer, answer) in futures::future::join_all(asked).await {
        match answer {
            Ok(Some(cluster)) => {
                return Err(FoundError::Exists {
                    peer: peer.clone(),
                    cluster: hex(&cluster),
                });
            }
            Ok(None) => {}
            Err(PeerError::Untrusted(reason)) => {
                return Err(FoundError::Untrusted {
                    peer: peer.clone(),
                    reason,
                });
            }
            Err(error) => tracing::info!(peer, %error, "not reachable; taken as new"),
        }
    }
    let cluster = uuid::Uuid::new_v4().into_bytes();
    tracing::info!(cluster = hex(&cluster), "a new cluster is founded");
    Ok(Founding { cluster })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
