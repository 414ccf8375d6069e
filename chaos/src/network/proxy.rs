//! A TCP proxy that is a bad link: the way by which one region dials another.
//!
//! ```text
//!   dialler ──▶ read ──▶ (turn, delay, damage) ──▶ queue ──▶ write ──▶ dialled        lane forth
//!           ◀── write ◀── queue ◀── (turn, delay, damage) ◀── read ◀──                lane back
//! ```
//! Invariants: bytes keep their order, whatever the jitter; what a lane holds back is held back in the sender's socket
//! too, since the queue is bounded and not read on. A lane that is held keeps its connections open and accepts new ones:
//! the half-open connection that only a timeout finds. A cut closes everything and refuses.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::LaneState;

const CHUNK_BYTES_MAX: usize = 16 << 10;
/// Chunks of a limited lane take this long, so that the limit is smooth.
const CHUNK_TIME: Duration = Duration::from_millis(20);
const QUEUE_CHUNKS_MAX: usize = 512;

/// One way into one region.
pub struct Proxy {
    address: SocketAddr,
    cut: watch::Sender<bool>,
    /// Counts the resets.
    resets: watch::Sender<u64>,
    task: JoinHandle<()>,
}

/// What every connection needs.
#[derive(Clone)]
struct Way {
    target: SocketAddr,
    forth: Arc<LaneState>,
    back: Arc<LaneState>,
    cut: watch::Receiver<bool>,
    resets: watch::Receiver<u64>,
}

/// Something on its way, and when it arrives.
type Chunk = (Instant, Vec<u8>);

impl Proxy {
    /// Listens on a free port and connects to `target` for each connection.
    pub async fn start(
        target: SocketAddr,
        forth: Arc<LaneState>,
        back: Arc<LaneState>,
    ) -> std::io::Result<Proxy> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (cut, is_cut) = watch::channel(false);
        let (resets, reset) = watch::channel(0);
        let way = Way {
            target,
            forth,
            back,
            cut: is_cut,
            resets: reset,
        };
        let task = tokio::spawn(accept(listener, way));
        Ok(Proxy {
            address,
            cut,
            resets,
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

    /// Resets all connections there are.
    pub fn reset(&self) {
        self.resets.send_modify(|count| *count += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut.send_replace(true);
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, way: Way) {
    loop {
        let Ok((dialler, _)) = listener.accept().await else {
            // Out of descriptors, say: the dialler tries again, and so does this.
            tokio::time::sleep(CHUNK_TIME).await;
            continue;
        };
        if *way.cut.borrow() {
            continue;
        }
        tokio::spawn(connection(dialler, way.clone()));
    }
}

async fn connection(mut dialler: TcpStream, mut way: Way) {
    way.resets.mark_unchanged();
    let mut cut = way.cut.clone();
    let connecting = TcpStream::connect(way.target);
    let mut dialled = tokio::select! {
        connected = connecting => match connected {
            Ok(dialled) => dialled,
            Err(_) => return,
        },
        _ = cut.wait_for(|cut| *cut) => return,
    };
    // Without it small messages would wait for each other's acknowledgement, which no setting asked for.
    let _ = dialler.set_nodelay(true);
    let _ = dialled.set_nodelay(true);
    let is_reset = {
        let (from_dialler, to_dialler) = dialler.split();
        let (from_dialled, to_dialled) = dialled.split();
        tokio::select! {
            // Either direction's end is the connection's end: HTTP/2 has no use for a half.
            _ = carry(from_dialler, to_dialled, &way.forth) => false,
            _ = carry(from_dialled, to_dialler, &way.back) => false,
            _ = cut.wait_for(|cut| *cut) => false,
            _ = way.resets.changed() => true,
        }
    };
    if is_reset {
        // A socket that cannot be told so is closed in the ordinary way.
        let _ = dialler.set_zero_linger();
        let _ = dialled.set_zero_linger();
    }
}

async fn carry(from: ReadHalf<'_>, to: WriteHalf<'_>, lane: &LaneState) -> std::io::Result<()> {
    let (queue, arriving) = mpsc::channel(QUEUE_CHUNKS_MAX);
    let (read, written) = tokio::join!(read(from, lane, queue), write(to, lane, arriving));
    read.and(written)
}

async fn read(mut from: ReadHalf<'_>, lane: &LaneState, queue: mpsc::Sender<Chunk>) -> std::io::Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES_MAX];
    let mut last_due = Instant::now();
    loop {
        let count = from.read(&mut buffer[..chunk_bytes(lane)]).await?;
        if count == 0 {
            return Ok(());
        }
        lane.passable().await;
        let wait = lane.take_turn(count);
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        let mut chunk = buffer[..count].to_vec();
        lane.damage(&mut chunk);
        last_due = last_due.max(Instant::now() + lane.delay());
        if queue.send((last_due, chunk)).await.is_err() {
            return Ok(());
        }
    }
}

async fn write(
    mut to: WriteHalf<'_>,
    lane: &LaneState,
    mut arriving: mpsc::Receiver<Chunk>,
) -> std::io::Result<()> {
    while let Some((due, chunk)) = arriving.recv().await {
        tokio::time::sleep_until(due).await;
        lane.passable().await;
        to.write_all(&chunk).await?;
        lane.carried(chunk.len());
    }
    Ok(())
}

fn chunk_bytes(lane: &LaneState) -> usize {
    let of_rate = lane
        .get()
        .bytes_per_s
        .map(|rate| (rate as f64 * CHUNK_TIME.as_secs_f64()) as usize);
    of_rate.unwrap_or(CHUNK_BYTES_MAX).clamp(64, CHUNK_BYTES_MAX)
}

#[cfg(test)]
mod tests;
