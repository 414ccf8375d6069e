//! `tributary start`: everything of one region, from the first bind to the last checkpoint.
//!
//! ```text
//!   bind addresses ─▶ lock and read the disk ─▶ found or join ─▶ region's thread ─▶ links, HTTP, sources, SQL
//!   SIGTERM, SIGINT ─▶ no new statements ─▶ checkpoint ─▶ 0        region ends by itself ─▶ 1
//! ```

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::config::NodeConfig;
use crate::links::{PeerClient, PeerError, PeerTls, TlsError};
use crate::node::{
    Ended, FoundError, Node, NodeSettings, OpenError, ReincarnateError, Stored, founding_unless, prepare,
    salvage,
};
use crate::{http, links, pgwire, sink, source};

/// Clients have this long to finish their statement when the node stops.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// How long after an attempt to take over rows the next one begins.
const SALVAGE_PAUSE: Duration = Duration::from_secs(5);

/// Why a region did not start, or ended by itself.
#[derive(Debug, Error)]
pub enum RunError {
    /// An address is taken or not ours.
    #[error("cannot listen on {address} ({flag}): {source}")]
    Listen {
        /// The flag that gave the address.
        flag: &'static str,
        /// The address.
        address: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A peer's address is not one.
    #[error("--peer {peer}: {source}")]
    Peer {
        /// The peer's name.
        peer: String,
        /// What is wrong.
        source: PeerError,
    },
    /// The files by which regions prove who they are.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The disk.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A second cluster would have been founded.
    #[error(transparent)]
    Found(#[from] FoundError),
    /// It cannot become another incarnation.
    #[error(transparent)]
    Reincarnate(#[from] ReincarnateError),
    /// The region cannot go on.
    #[error("the region stopped: {0}")]
    Stopped(String),
    /// The system refused something.
    #[error("{0}")]
    System(#[from] std::io::Error),
}

/// Runs a region until it is told to stop. With `until_stdin_ends`, the end of standard input tells so too.
pub async fn run(config: NodeConfig, until_stdin_ends: bool) -> Result<(), RunError> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let sql = listen("--listen", &config.listen).await?;
    let peer_listener = listen("--peer-listen", &config.peer_listen).await?;
    let http_listener = listen("--http", &config.http).await?;
    let recorder = http::install();

    let tls = peer_tls(&config, &peer_listener)?;
    let peers = peer_clients(&config, tls.as_ref())?;
    let (node, mut ended) = open(&config, &peers, tls.as_ref()).await?;
    let sql_address = sql.local_addr()?;
    let (drain, drained) = watch::channel(false);
    let (stop, stopped) = watch::channel(false);
    let sessions = tokio::spawn(pgwire::serve(
        sql,
        node.clone(),
        pgwire::ServeOptions::default(),
        drained.clone(),
    ));
    let places = salvage::pending(&config.data);
    if !places.is_empty() {
        node.begin_salvage();
    }
    let sources = tokio::spawn({
        let (node, settings) = (node.clone(), settings(&config, &peers, tls.as_ref()));
        let mut drain = drained.clone();
        async move {
            let stopping = async move { drop(drain.wait_for(|drain| *drain).await) };
            tokio::select! {
                () = take_over(&node, places, settings) => source::run(node, drained).await,
                () = stopping => {}
            }
        }
    });
    // Until the last checkpoint, which waits for what they write.
    let sinks = tokio::spawn(sink::run(node.clone(), stopped.clone()));
    let links = tokio::spawn(links::serve(
        node.clone(),
        peer_listener,
        peers,
        tls,
        stopped.clone(),
    ));
    let http_address = http_listener.local_addr()?;
    if let Some(recorder) = recorder {
        tokio::spawn(http::serve(http_listener, node.clone(), recorder, stopped));
    }
    announce(&config, sql_address, http_address);

    let why = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
        () = stdin_ended(), if until_stdin_ends => "the end of standard input",
        ended = &mut ended => return Err(RunError::Stopped(reason(ended))),
    };
    tracing::info!(why, "stopping");
    drain.send_replace(true);
    let draining = async { tokio::join!(sessions, sources) };
    if tokio::time::timeout(DRAIN_MAX, draining).await.is_err() {
        tracing::warn!("some sessions did not end in time");
    }
    node.stop().await;
    let outcome = ended.await;
    stop.send_replace(true);
    links.abort();
    // Its tasks end with the region.
    let _ = sinks.await;
    match outcome {
        Ok(Ended::Stopped) => Ok(()),
        other => Err(RunError::Stopped(reason(other))),
    }
}

async fn listen(flag: &'static str, address: &str) -> Result<TcpListener, RunError> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|source| RunError::Listen {
        flag,
        address: address.to_owned(),
        source,
    })
}

/// The certificates, if there are any. From here on they follow their files, and SIGHUP no longer ends the process.
fn peer_tls(config: &NodeConfig, listener: &TcpListener) -> Result<Option<PeerTls>, RunError> {
    let Some(files) = &config.tls else {
        if !config.peers.is_empty() && !listener.local_addr()?.ip().is_loopback() {
            tracing::warn!(
                "no --peer-cert: whoever reaches --peer-listen is taken for the peer it says it is"
            );
        }
        return Ok(None);
    };
    let tls = PeerTls::load(
        files.clone(),
        &config.region,
        config.peers.keys().cloned().collect(),
    )?;
    tokio::spawn(links::tls::reload::keep_fresh(
        tls.clone(),
        signal(SignalKind::hangup())?,
    ));
    Ok(Some(tls))
}

fn peer_clients(
    config: &NodeConfig,
    tls: Option<&PeerTls>,
) -> Result<BTreeMap<String, PeerClient>, RunError> {
    let client = |(peer, address): (&String, &String)| match PeerClient::new(peer, address, tls.cloned()) {
        Ok(client) => Ok((peer.clone(), client)),
        Err(source) => Err(RunError::Peer {
            peer: peer.clone(),
            source,
        }),
    };
    config.peers.iter().map(client).collect()
}

async fn open(
    config: &NodeConfig,
    peers: &BTreeMap<String, PeerClient>,
    tls: Option<&PeerTls>,
) -> Result<(Arc<Node>, tokio::sync::oneshot::Receiver<Ended>), RunError> {
    let path = config.data.clone();
    let stored = tokio::task::spawn_blocking(move || Stored::read(&path))
        .await
        .map_err(|error| RunError::Stopped(format!("reading the data directory: {error}")))??;
    let mut settings = settings(config, peers, tls);
    let mut stored = stored;
    if config.reincarnate {
        (stored, settings.incarnation_min) = prepare(stored, &config.data, &settings).await?;
    }
    let found = match stored.is_empty() && config.is_primary() {
        true => founding_unless(config.reincarnate, peers).await?,
        false => None,
    };
    // Replaying a long tail takes its time; nothing else runs yet.
    let opened = tokio::task::spawn_blocking(move || stored.open(&settings, found)).await;
    Ok(opened.map_err(|error| RunError::Stopped(format!("opening the region: {error}")))??)
}

fn settings(
    config: &NodeConfig,
    peers: &BTreeMap<String, PeerClient>,
    tls: Option<&PeerTls>,
) -> NodeSettings {
    NodeSettings {
        region: config.region.clone(),
        peers: config.peers.keys().cloned().collect(),
        primary: config.primary.clone(),
        clients: peers.clone(),
        tls: tls.cloned(),
        reincarnate: config.reincarnate,
        incarnation_min: 0,
        workers: config.workers,
        memory_budget: config.memory_budget,
    }
}

/// Takes over rows of earlier incarnations; until that is done, however often it fails, clients write nothing and
/// sources rest: a row that was deleted meanwhile would come back with the next attempt.
async fn take_over(node: &Node, places: Vec<PathBuf>, settings: NodeSettings) {
    for place in places {
        while let Err(reason) = salvage::take_over(node, &place, &settings).await {
            if !salvage::is_pending(&place) {
                break;
            }
            let place = place.display();
            tracing::error!(
                %place,
                reason,
                "rows of an earlier incarnation could not be taken over; clients' writes wait until they are. \
                 To go on without them remove PENDING in that directory"
            );
            tokio::time::sleep(SALVAGE_PAUSE).await;
        }
    }
    node.end_salvage().await;
}

/// The lines a person copies. On stdout: it is what the command is asked for.
fn announce(config: &NodeConfig, sql: std::net::SocketAddr, http: std::net::SocketAddr) {
    let mut out = std::io::stdout().lock();
    // Nobody may be reading it.
    let _ = writeln!(
        out,
        "region {} is up (data in {})",
        config.region,
        config.data.display()
    );
    let _ = writeln!(out, "  psql -h {} -p {} -U postgres", sql.ip(), sql.port());
    let _ = writeln!(out, "  curl http://{http}/health/ready");
    tracing::info!(region = config.region, %sql, %http, primary = config.primary, "started");
}

async fn stdin_ended() {
    let mut stdin = tokio::io::stdin();
    let mut ignored = [0_u8; 256];
    while !matches!(stdin.read(&mut ignored).await, Ok(0) | Err(_)) {}
}

fn reason(ended: Result<Ended, tokio::sync::oneshot::error::RecvError>) -> String {
    match ended {
        Ok(Ended::Failed(reason)) => reason,
        Ok(Ended::Stopped) => "it was stopped".to_owned(),
        Err(_) => "its thread panicked; see the log above".to_owned(),
    }
}
