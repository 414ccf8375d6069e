//! Dialling a peer that has to prove that it is the one.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use tokio::net::TcpStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::{TlsConnector, TlsStream};

use super::PeerTls;
use super::socket::{PeerSocket, reason};

/// Why there is no connection.
pub(in crate::links) enum DialFailed {
    /// The network.
    Lost(io::Error),
    /// The peer did not prove its name, or refused ours.
    Untrusted(String),
}

impl PeerTls {
    /// A connection to `peer` at `host:port`.
    pub(in crate::links) async fn dial(&self, peer: &str, address: &str) -> Result<PeerSocket, DialFailed> {
        let socket = TcpStream::connect(address).await.map_err(DialFailed::Lost)?;
        socket.set_nodelay(true).map_err(DialFailed::Lost)?;
        // An address is never sent; the verifier knows whom to expect.
        let nobody = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::UNSPECIFIED).into());
        let connector = TlsConnector::from(self.client_config(peer));
        let connected = connector.connect(nobody, socket).await;
        let stream = connected.map_err(|error| match reason(&error) {
            Some(reason) => DialFailed::Untrusted(reason),
            None => DialFailed::Lost(error),
        })?;
        Ok(PeerSocket::new(TlsStream::Client(stream), peer))
    }
}
