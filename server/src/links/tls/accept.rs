//! Accepting connections of peers with certificates.
//!
//! Handshakes run beside each other, at most [`HANDSHAKES_MAX`] at once and [`HANDSHAKE_MAX`] each; one too many is
//! closed. Whoever fails is refused, logged and counted here and never reaches HTTP/2.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::{TlsAcceptor, TlsStream};
use tokio_stream::wrappers::ReceiverStream;

use super::PeerTls;
use super::socket::{PeerSocket, reason};
use super::trust::region_of;
use crate::links::refused;

const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
const HANDSHAKES_MAX: usize = 64;
/// After a failed accept: out of descriptors, for example.
const PAUSE: Duration = Duration::from_millis(100);

/// The connections whose handshake succeeded, until the stream is dropped.
pub(in crate::links) fn incoming(
    listener: TcpListener,
    tls: PeerTls,
) -> impl Stream<Item = io::Result<PeerSocket>> {
    let (accepted, connections) = mpsc::channel(1);
    tokio::spawn(accept(listener, tls, accepted));
    ReceiverStream::new(connections).map(Ok)
}

async fn accept(listener: TcpListener, tls: PeerTls, accepted: mpsc::Sender<PeerSocket>) {
    let slots = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    loop {
        let connection = tokio::select! {
            () = accepted.closed() => return,
            connection = listener.accept() => connection,
        };
        let (socket, from) = match connection {
            Ok(connection) => connection,
            Err(error) => {
                tracing::warn!(%error, "a connection of a peer cannot be accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Ok(slot) = slots.clone().try_acquire_owned() else {
            refuse(from, "too many handshakes at once");
            continue;
        };
        let (tls, accepted) = (tls.clone(), accepted.clone());
        tokio::spawn(async move {
            let shaken = tokio::time::timeout(HANDSHAKE_MAX, handshake(socket, &tls)).await;
            drop(slot);
            match shaken {
                Ok(Ok(socket)) => {
                    let _ = accepted.send(socket).await;
                }
                Ok(Err(Failed::Refused(reason))) => refuse(from, &reason),
                // Nobody to refuse: whoever it was is gone.
                Ok(Err(Failed::Lost(error))) => tracing::debug!(%from, %error, "lost during the handshake"),
                Err(_) => refuse(from, "no handshake in time"),
            }
        });
    }
}

fn refuse(from: SocketAddr, reason: &str) {
    refused("unknown", &format!("connection from {from}: {reason}"));
}

enum Failed {
    Refused(String),
    Lost(io::Error),
}

async fn handshake(socket: TcpStream, tls: &PeerTls) -> Result<PeerSocket, Failed> {
    socket.set_nodelay(true).map_err(Failed::Lost)?;
    let acceptor = TlsAcceptor::from(tls.server_config());
    let stream = acceptor
        .accept(socket)
        .await
        .map_err(|error| match reason(&error) {
            Some(reason) => Failed::Refused(reason),
            None => Failed::Lost(error),
        })?;
    let certificates = stream.get_ref().1.peer_certificates();
    let certificate = certificates.and_then(<[_]>::first).ok_or_else(|| {
        // Cannot be: the handshake demands one.
        Failed::Refused("no certificate was presented".to_owned())
    })?;
    let peer = region_of(certificate).map_err(|distrust| Failed::Refused(distrust.to_string()))?;
    Ok(PeerSocket::new(TlsStream::Server(stream), &peer))
}
