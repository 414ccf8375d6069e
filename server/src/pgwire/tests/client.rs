//! A server on a free port, and clients of it.

use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use crate::pgwire::{ServeOptions, serve};
use crate::session::memory_backend::MemoryBackend;

/// A server that ends with the test.
pub(super) struct Server {
    pub(super) port: u16,
    pub(super) backend: Arc<MemoryBackend>,
    _shutdown: watch::Sender<bool>,
}

impl Server {
    /// A region alone.
    pub(super) async fn start() -> Self {
        Self::with(&[], ServeOptions::default()).await
    }

    /// A region of a cluster whose other regions never answer.
    pub(super) async fn with(peers: &[&str], options: ServeOptions) -> Self {
        Self::over(MemoryBackend::new(peers), options).await
    }

    /// A region in memory.
    pub(super) async fn over(backend: Arc<MemoryBackend>, options: ServeOptions) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let (shutdown, seen) = watch::channel(false);
        tokio::spawn(serve(listener, Arc::clone(&backend) as _, options, seen));
        Self {
            port,
            backend,
            _shutdown: shutdown,
        }
    }

    /// A client.
    pub(super) async fn connect(&self) -> Client {
        let config = format!("host=127.0.0.1 port={} user=ada dbname=any", self.port);
        let (client, connection) = tokio_postgres::connect(&config, NoTls)
            .await
            .expect("the server lets us in");
        tokio::spawn(connection);
        client
    }

    /// A bare socket.
    pub(super) async fn socket(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.port))
            .await
            .expect("the server listens")
    }
}

/// The rows of the last statement that returned any, `|` between columns, as the simple protocol shows them.
pub(super) async fn rows(client: &Client, sql: &str) -> Vec<String> {
    let messages = client
        .simple_query(sql)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {}", told(&error)));
    let mut rows = Vec::new();
    for message in messages {
        match message {
            SimpleQueryMessage::RowDescription(_) => rows.clear(),
            SimpleQueryMessage::Row(row) => {
                let values: Vec<&str> = (0..row.len())
                    .map(|column| row.get(column).unwrap_or("NULL"))
                    .collect();
                rows.push(values.join("|"));
            }
            _ => {}
        }
    }
    rows
}

/// Runs statements that return nothing of interest.
pub(super) async fn run(client: &Client, sql: &str) {
    client
        .batch_execute(sql)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {}", told(&error)));
}

/// The SQLSTATE of a statement that fails.
pub(super) async fn state(client: &Client, sql: &str) -> String {
    let error = match client.simple_query(sql).await {
        Ok(_) => panic!("{sql} should fail"),
        Err(error) => error,
    };
    error
        .code()
        .map_or_else(|| panic!("{sql}: {error}"), |code| code.code().to_string())
}

fn told(error: &tokio_postgres::Error) -> String {
    error
        .as_db_error()
        .map_or_else(|| error.to_string(), |error| format!("{error:?}"))
}
