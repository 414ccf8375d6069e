//! A TCP proxy that can be cut: what a broken network does to two processes on one machine.
//!
//! Cut, it drops every connection at once and closes new ones as soon as they are made. It counts the bytes it
//! carried, which is what really went over the wire, gRPC and all. It can be slow, and it can be far away: then bytes wait before
//! they go on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

const BUFFER_BYTES: usize = 64 << 10;

/// Pieces of a connection and direction that are under way; with more the reader waits.
const UNDER_WAY_MAX: usize = 1024;

/// One way into one address; both directions of each connection.
pub struct Proxy {
    address: SocketAddr,
    cut: watch::Sender<bool>,
    meter: Arc<Meter>,
    task: JoinHandle<()>,
}

/// What goes through, and how fast it may.
#[derive(Default)]
struct Meter {
    bytes: AtomicU64,
    /// Bytes per second of each connection and direction; 0 is no limit.
    rate: AtomicU64,
    /// How long bytes are under way, in microseconds.
    delay_us: AtomicU64,
}

impl Proxy {
    /// Listens on a free port and connects to `target` (`host:port`) for each connection.
    pub async fn start(target: String) -> std::io::Result<Proxy> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (cut, is_cut) = watch::channel(false);
        let meter = Arc::<Meter>::default();
        let task = tokio::spawn(accept(listener, target, is_cut, meter.clone()));
        Ok(Proxy {
            address,
            cut,
            meter,
            task,
        })
    }

    /// Where to connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts or heals.
    pub fn set_cut(&self, cut: bool) {
        self.cut.send_replace(cut);
    }

    /// Bytes carried so far, both directions.
    pub fn bytes(&self) -> u64 {
        self.meter.bytes.load(Ordering::Relaxed)
    }

    /// Has bytes be under way for so long in each direction, from now on.
    pub fn set_delay(&self, delay: Duration) {
        let delay_us = u64::try_from(delay.as_micros()).unwrap_or(u64::MAX);
        self.meter.delay_us.store(delay_us, Ordering::Relaxed);
    }

    /// Limits the bytes per second of each connection and direction, or lifts the limit.
    pub fn set_rate(&self, bytes_per_second: Option<u64>) {
        self.meter
            .rate
            .store(bytes_per_second.unwrap_or(0), Ordering::Relaxed);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut.send_replace(true);
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, target: String, is_cut: watch::Receiver<bool>, meter: Arc<Meter>) {
    loop {
        let Ok((client, _)) = listener.accept().await else {
            continue;
        };
        if *is_cut.borrow() {
            drop(client);
            continue;
        }
        let (target, mut is_cut, meter) = (target.clone(), is_cut.clone(), meter.clone());
        tokio::spawn(async move {
            tokio::select! {
                _ = is_cut.wait_for(|cut| *cut) => {}
                _ = carry(client, &target, &meter) => {}
            }
        });
    }
}

async fn carry(client: TcpStream, target: &str, meter: &Meter) -> std::io::Result<()> {
    let server = TcpStream::connect(target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    // Either direction's end is the connection's end: HTTP/2 has no use for a half.
    tokio::select! {
        ended = copy(client_read, server_write, meter) => ended,
        ended = copy(server_read, client_write, meter) => ended,
    }
}

async fn copy(from: OwnedReadHalf, to: OwnedWriteHalf, meter: &Meter) -> std::io::Result<()> {
    let (pieces, arriving) = mpsc::channel(UNDER_WAY_MAX);
    tokio::try_join!(send(from, pieces, meter), arrive(arriving, to, meter)).map(|_| ())
}

/// A piece of what was sent, and when it arrives.
type Piece = (Instant, Vec<u8>);

async fn send(mut from: OwnedReadHalf, pieces: mpsc::Sender<Piece>, meter: &Meter) -> std::io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        let rate = meter.rate.load(Ordering::Relaxed);
        if rate > 0 {
            tokio::time::sleep(Duration::from_secs_f64(count as f64 / rate as f64)).await;
        }
        let delay = Duration::from_micros(meter.delay_us.load(Ordering::Relaxed));
        let piece = (Instant::now() + delay, buffer[..count].to_vec());
        if pieces.send(piece).await.is_err() {
            return Ok(());
        }
    }
}

async fn arrive(
    mut pieces: mpsc::Receiver<Piece>,
    mut to: OwnedWriteHalf,
    meter: &Meter,
) -> std::io::Result<()> {
    while let Some((due, piece)) = pieces.recv().await {
        tokio::time::sleep_until(due).await;
        to.write_all(&piece).await?;
        meter.bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_cut_drops_and_refuses_until_it_is_healed() {
        let echo = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let target = echo.local_addr().expect("it is bound").to_string();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = echo.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = socket.split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        let proxy = Proxy::start(target).await.expect("a free port");
        let mut buffer = [0; 4];
        let mut before = TcpStream::connect(proxy.address()).await.expect("not cut");
        before.write_all(b"ping").await.expect("not cut");
        before.read_exact(&mut buffer).await.expect("the echo");
        assert_eq!(proxy.bytes(), 8);

        proxy.set_cut(true);
        assert!(
            matches!(before.read(&mut buffer).await, Ok(0) | Err(_)),
            "dropped"
        );
        if let Ok(mut during) = TcpStream::connect(proxy.address()).await {
            let _ = during.write_all(b"ping").await;
            assert!(
                matches!(during.read(&mut buffer).await, Ok(0) | Err(_)),
                "refused"
            );
        }

        proxy.set_cut(false);
        let mut after = TcpStream::connect(proxy.address()).await.expect("healed");
        after.write_all(b"ping").await.expect("healed");
        after.read_exact(&mut buffer).await.expect("the echo");
    }
}
