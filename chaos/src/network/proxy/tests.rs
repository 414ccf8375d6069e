//! The proxy in front of a server that answers with what it got.

use super::super::Lane;
use super::*;

/// Nothing arrives within this time: as sure as a test can be of that.
const SILENCE: Duration = Duration::from_millis(300);

struct Link {
    proxy: Proxy,
    forth: Arc<LaneState>,
    back: Arc<LaneState>,
}

impl Link {
    async fn start() -> Link {
        let echo = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let target = echo.local_addr().expect("it is bound");
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = echo.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = socket.split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        let (forth, back) = (Arc::new(LaneState::new(1)), Arc::new(LaneState::new(2)));
        let proxy = Proxy::start(target, forth.clone(), back.clone())
            .await
            .expect("a free port");
        Link { proxy, forth, back }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.proxy.address())
            .await
            .expect("it listens")
    }
}

async fn exchange(socket: &mut TcpStream) -> std::io::Result<[u8; 4]> {
    socket.write_all(b"ping").await?;
    let mut buffer = [0; 4];
    socket.read_exact(&mut buffer).await?;
    Ok(buffer)
}

#[tokio::test]
async fn a_cut_drops_and_refuses_until_it_is_healed() {
    let link = Link::start().await;
    let mut before = link.connect().await;
    assert_eq!(exchange(&mut before).await.expect("not cut"), *b"ping");
    assert_eq!((link.forth.bytes(), link.back.bytes()), (4, 4));
    link.proxy.set_cut(true);
    assert!(exchange(&mut before).await.is_err(), "dropped");
    assert!(exchange(&mut link.connect().await).await.is_err(), "refused");
    link.proxy.set_cut(false);
    assert!(exchange(&mut link.connect().await).await.is_ok(), "healed");
}

#[tokio::test]
async fn a_held_lane_accepts_and_is_silent_and_goes_on_with_what_waited() {
    let link = Link::start().await;
    link.forth.set(Lane {
        is_held: true,
        ..Lane::default()
    });
    let mut socket = link.connect().await;
    let silent = tokio::time::timeout(SILENCE, exchange(&mut socket)).await;
    assert!(silent.is_err(), "{silent:?}");
    link.forth.set(Lane::default());
    let mut buffer = [0; 4];
    socket.read_exact(&mut buffer).await.expect("what waited arrives");
    assert_eq!(buffer, *b"ping");
}

#[tokio::test]
async fn one_direction_can_be_held_alone() {
    let link = Link::start().await;
    link.back.set(Lane {
        is_held: true,
        ..Lane::default()
    });
    let mut socket = link.connect().await;
    let silent = tokio::time::timeout(SILENCE, exchange(&mut socket)).await;
    assert!(silent.is_err(), "{silent:?}");
    assert_eq!(
        (link.forth.bytes(), link.back.bytes()),
        (4, 0),
        "it was carried forth"
    );
}

#[tokio::test]
async fn delay_is_added_in_both_directions_and_order_is_kept() {
    let link = Link::start().await;
    for lane in [&link.forth, &link.back] {
        lane.set(Lane {
            delay_ms: 50,
            jitter_ms: 30,
            ..Lane::default()
        });
    }
    let mut socket = link.connect().await;
    let started = Instant::now();
    let sent: Vec<u8> = (0..200).collect();
    for byte in &sent {
        socket.write_all(&[*byte]).await.expect("it is open");
        tokio::task::yield_now().await;
    }
    let mut got = vec![0; sent.len()];
    socket.read_exact(&mut got).await.expect("it arrives");
    assert_eq!(got, sent);
    assert!(
        started.elapsed() >= Duration::from_millis(100),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn no_more_than_the_rate_passes() {
    let link = Link::start().await;
    link.forth.set(Lane {
        bytes_per_s: Some(100_000),
        ..Lane::default()
    });
    let mut socket = link.connect().await;
    let started = Instant::now();
    socket.write_all(&[7; 50_000]).await.expect("it is open");
    let mut got = vec![0; 50_000];
    socket.read_exact(&mut got).await.expect("it arrives");
    // All but the burst.
    assert!(
        started.elapsed() >= Duration::from_millis(450),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn a_reset_ends_what_is_open_and_nothing_later() {
    let link = Link::start().await;
    let mut before = link.connect().await;
    exchange(&mut before).await.expect("it is open");
    link.proxy.reset();
    assert!(exchange(&mut before).await.is_err(), "reset");
    assert!(exchange(&mut link.connect().await).await.is_ok(), "a new one");
}
