//! A connection whose other end is known by its certificate.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{TlsStream, rustls};
use tonic::transport::server::Connected;

use super::trust::explain;

/// The name in the certificate of whoever sent a request.
#[derive(Clone, Debug)]
pub(in crate::links) struct Certified(pub Arc<str>);

/// Why TLS ended a connection, if it did. In TLS 1.3 a region that dialled learns only after the handshake that its own
/// certificate was refused; HTTP/2 knows nothing of such reasons and keeps none.
#[derive(Clone, Debug, Default)]
pub(in crate::links) struct Verdict(Arc<OnceLock<String>>);

impl Verdict {
    /// The reason.
    pub(in crate::links) fn reason(&self) -> Option<&str> {
        self.0.get().map(String::as_str)
    }
}

/// Bytes under TLS.
pub(in crate::links) struct PeerSocket {
    stream: TlsStream<TcpStream>,
    peer: Arc<str>,
    verdict: Verdict,
}

impl PeerSocket {
    /// After the handshake with `peer`.
    pub(super) fn new(stream: TlsStream<TcpStream>, peer: &str) -> PeerSocket {
        PeerSocket {
            stream,
            peer: peer.into(),
            verdict: Verdict::default(),
        }
    }

    /// To be asked when the connection has failed.
    pub(in crate::links) fn verdict(&self) -> Verdict {
        self.verdict.clone()
    }
}

/// The reason of a failure, if it lies in TLS and not in the network.
pub(super) fn reason(error: &io::Error) -> Option<String> {
    let inner = error.get_ref()?;
    inner.downcast_ref::<rustls::Error>().map(explain)
}

impl Connected for PeerSocket {
    type ConnectInfo = Certified;

    fn connect_info(&self) -> Certified {
        Certified(self.peer.clone())
    }
}

impl AsyncRead for PeerSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = ready!(Pin::new(&mut self.stream).poll_read(context, into));
        if let Some(reason) = read.as_ref().err().and_then(reason) {
            // The first reason counts.
            let _ = self.verdict.0.set(reason);
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for PeerSocket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
