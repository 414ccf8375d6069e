//! Certificates between regions: who dials and who is dialled both prove their names.
//!
//! ```text
//!   us ── TLS 1.3: "I am us" (certificate, signature) ──▶ eu     signed by a CA of --peer-ca, in its time, of a peer
//!      ◀── "I am eu" ────────────────────────────────────        and of the very peer that was dialled
//! ```
//! [`trust`] says which certificates are believed, [`files`] reads them, [`reload`] reads them again when they change,
//! [`accept`] and [`dial`] make the connections. What is said later on a connection is held against the name in
//! the certificate by [`super::service`].
//!
//! Sessions are never resumed: every connection shows its certificate anew, so that one that has expired or whose
//! authority was taken away opens no connection. Connections that exist stay. Left out: lists of revoked
//! certificates; take the authority away, or let certificates live shortly.

pub(super) mod accept;
pub(super) mod dial;
pub mod files;
pub mod reload;
pub(super) mod socket;
pub mod trust;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::pki_types::UnixTime;
use tokio_rustls::rustls::server::NoServerSessionStorage;
use tokio_rustls::rustls::sign::SingleCertAndKey;
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{ClientConfig, ServerConfig};

pub use files::{TlsError, TlsFiles};

use files::{Credentials, Stamp};
use trust::{Expected, PROVIDER, Verifier};

/// HTTP/2, which is all that is spoken.
const PROTOCOL: &[u8] = b"h2";

/// How this region proves who it is, and whom it believes. A clone is the same.
#[derive(Clone)]
pub struct PeerTls {
    inner: Arc<Inner>,
}

struct Inner {
    files: TlsFiles,
    region: String,
    peers: Mutex<Arc<BTreeSet<String>>>,
    current: watch::Sender<Arc<Credentials>>,
}

impl fmt::Debug for PeerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PeerTls").field(&self.inner.files).finish()
    }
}

impl PeerTls {
    /// Reads the files of a region with these peers.
    pub fn load(files: TlsFiles, region: &str, peers: BTreeSet<String>) -> Result<PeerTls, TlsError> {
        let credentials = files.read(region, UnixTime::now())?;
        show_expiry(&credentials);
        Ok(PeerTls {
            inner: Arc::new(Inner {
                files,
                region: region.to_owned(),
                peers: Mutex::new(Arc::new(peers)),
                current: watch::Sender::new(Arc::new(credentials)),
            }),
        })
    }

    /// Who may connect from here on, if it proves its name.
    pub fn expect_peers(&self, peers: BTreeSet<String>) {
        *self.inner.peers.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(peers);
    }

    fn peers(&self) -> Arc<BTreeSet<String>> {
        self.inner
            .peers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Reads the files again, for new connections. If they cannot be used, what was read before stays.
    fn read_again(&self) -> Result<(), TlsError> {
        let credentials = self.inner.files.read(&self.inner.region, UnixTime::now())?;
        show_expiry(&credentials);
        self.inner.current.send_replace(Arc::new(credentials));
        Ok(())
    }

    fn stamps(&self) -> [Option<Stamp>; 3] {
        self.inner.files.stamps()
    }

    fn credentials(&self) -> Arc<Credentials> {
        self.inner.current.borrow().clone()
    }

    /// For the next connection that is accepted.
    fn server_config(&self) -> Arc<ServerConfig> {
        let credentials = self.credentials();
        let verifier = Verifier {
            authorities: credentials.authorities.clone(),
            expected: Expected::AnyOf(self.peers()),
        };
        let own = SingleCertAndKey::from(credentials.own.clone());
        let mut config = ServerConfig::builder_with_provider(PROVIDER.clone())
            .with_protocol_versions(&[&TLS13])
            .expect("the provider knows TLS 1.3")
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(Arc::new(own));
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Arc::new(config)
    }

    /// For the next connection to `peer`.
    fn client_config(&self, peer: &str) -> Arc<ClientConfig> {
        let credentials = self.credentials();
        let verifier = Verifier {
            authorities: credentials.authorities.clone(),
            expected: Expected::Peer(peer.to_owned()),
        };
        let own = SingleCertAndKey::from(credentials.own.clone());
        let mut config = ClientConfig::builder_with_provider(PROVIDER.clone())
            .with_protocol_versions(&[&TLS13])
            .expect("the provider knows TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::new(own));
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        config.resumption = Resumption::disabled();
        // Hosts have no names here, see `trust`.
        config.enable_sni = false;
        Arc::new(config)
    }
}

fn show_expiry(credentials: &Credentials) {
    let Some(expires) = credentials.expires else {
        return;
    };
    metrics::gauge!("tributary_peer_certificate_expiry_timestamp_seconds").set(expires.as_secs() as f64);
    let left = Duration::from_secs(expires.as_secs().saturating_sub(UnixTime::now().as_secs()));
    tracing::info!(
        days_left = left.as_secs() / (24 * 3600),
        "the certificate for peers is in use"
    );
}
