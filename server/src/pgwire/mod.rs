//! The Postgres protocol, version 3: connections, messages, values.
//!
//! ```text
//!   socket ─▶ startup.rs ─▶ connection.rs ─▶ simple.rs / extended.rs ─▶ session
//!                              ▲ frame (in)        output.rs, types (out)
//! ```
//!
//! Messages of clients, values and errors are in the crate `tributary-wire`.
//! `pgwire` gives the messages that are sent; decoding, the loop and the values are our own, so that no byte of a
//! client can panic the server and rows stream with bounded memory. Left out for now: TLS and passwords (a request for
//! TLS is answered with `N`), COPY TO, FunctionCall.

pub mod cancel;
pub mod connection;
mod extended;
pub mod output;
mod pipeline;
mod rejected;
mod rows;
mod simple;
pub mod startup;
#[cfg(test)]
mod tests;

pub use tributary_wire::{error, frame, types};

/// Codes of errors, and which errors get them.
pub mod sqlstate {
    pub use tributary_wire::sqlstate::*;

    pub use super::rejected::of_rejected;
}

use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use crate::session::backend::Backend;
use cancel::CancelKeys;
use connection::Connection;
use error::SqlError;

/// Limits of the server.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// Sessions at a time; one more gets 53300.
    pub connections_max: usize,
    /// Time for a client to get through startup.
    pub pre_auth_timeout: Duration,
    /// Memory a statement may use, in bytes; more gets 53200.
    pub statement_memory_bytes_max: usize,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            connections_max: 1000,
            pre_auth_timeout: Duration::from_secs(10),
            statement_memory_bytes_max: 512 * 1024 * 1024,
        }
    }
}

/// Connections beyond the limit that are let in far enough to be told so, or to cancel.
const EXTRA_CONNECTIONS_MAX: usize = 64;

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) options: ServeOptions,
    pub(crate) keys: Arc<CancelKeys>,
    /// Permits of sessions.
    pub(crate) sessions: Arc<Semaphore>,
}

/// Serves clients until `shutdown` becomes true; then open connections are told (57P01) and closed.
pub async fn serve(
    listener: TcpListener,
    backend: Arc<dyn Backend>,
    options: ServeOptions,
    mut shutdown: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let sessions = Arc::new(Semaphore::new(options.connections_max));
    let sockets = Arc::new(Semaphore::new(options.connections_max + EXTRA_CONNECTIONS_MAX));
    let shared = Arc::new(Shared {
        backend,
        options,
        keys: Arc::default(),
        sessions,
    });
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = shutdown.wait_for(|stop| *stop) => break,
        };
        let (socket, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: give others time to close theirs.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&sockets).try_acquire_owned() else {
            tracing::warn!(%address, "too many connections: dropped before startup");
            continue;
        };
        let (shared, shutdown) = (Arc::clone(&shared), shutdown.clone());
        connections.spawn(async move {
            handle(socket, shared, shutdown).await;
            drop(permit);
        });
    }
    let closing = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(Duration::from_secs(5), closing)
        .await
        .is_err()
    {
        tracing::warn!("connections did not end in time");
    }
    Ok(())
}

async fn handle(socket: TcpStream, shared: Arc<Shared>, shutdown: watch::Receiver<bool>) {
    // Small answers are not worth waiting for more of them.
    let _ = socket.set_nodelay(true);
    if let Err(error) = Connection::run(socket, shared, shutdown).await {
        tracing::debug!(%error, "a connection ended");
    }
}

/// 53300 for the connection that is one too many.
pub(crate) fn too_many() -> SqlError {
    SqlError::new(sqlstate::TOO_MANY_CONNECTIONS, "sorry, too many clients already")
        .hint("close idle connections, or use a connection pool")
        .fatal()
}
