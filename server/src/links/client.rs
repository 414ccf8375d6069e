//! The dialling side: one address, one channel, and the questions that can be asked there.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{Action, FlightData, Ticket};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::sync::Mutex;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Status, Streaming};

use tributary_replication::bundle::decode_rows;

use super::actions::{ClusterReply, DdlReply, DdlRequest, Kind, StandingReply, StandingRequest};
use super::tls::dial::DialFailed;
use super::tls::socket::{PeerSocket, Verdict};
use super::{MESSAGE_BYTES_MAX, PeerTls, SCANS_MAX};
use crate::far::forward::{Errand, ForwardReply, WireError};
use crate::far::request::Request;
use crate::far::{Arrived, END_OF_SCAN, FAILED, FarError, FarRows, Opened};

const CONNECT_MAX: Duration = Duration::from_secs(3);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(3);
const KEEPALIVE_MAX: Duration = Duration::from_secs(6);
const ASK_CLUSTER_MAX: Duration = Duration::from_secs(3);
/// A view over much data takes its time to be planned and logged, not this much.
const ASK_DDL_MAX: Duration = Duration::from_secs(60);
/// The data of a COPY have to get there, too.
const ASK_COPY_MAX: Duration = Duration::from_secs(300);
/// How long a peer may take to begin a scan, once it has the request.
const OPEN_SCAN_MAX: Duration = Duration::from_secs(5);
/// How fast a request gets there at least.
const OPEN_SCAN_BYTES_PER_S: usize = 64 << 10;
/// How long it may say nothing within one; looking for rows takes its time.
const SILENCE_MAX: Duration = Duration::from_secs(60);
const WINDOW_BYTES: u32 = 4 << 20;
/// What a scan may send ahead of its reader.
const SCAN_WINDOW_BYTES: u32 = 2 << 20;
/// What all scans over one connection may: as many as a peer serves, or those that nobody reads at the moment would
/// stop the others.
const SCANS_WINDOW_BYTES: u32 = SCAN_WINDOW_BYTES * SCANS_MAX as u32;

/// With this a peer says that it has no room for a statement now. No transport makes it up, so nothing was done.
pub(super) const NO_ROOM: Code = Code::Aborted;

/// How to reach one peer.
#[derive(Clone, Debug)]
pub struct PeerClient {
    peer: String,
    address: String,
    endpoint: Endpoint,
    tls: Option<PeerTls>,
    /// A connection that scans share, made when it is first needed.
    shared: Arc<Mutex<Option<Dialled>>>,
}

/// A connection to a peer.
#[derive(Clone, Debug)]
pub(super) struct Dialled {
    /// What can be called there.
    pub flight: FlightServiceClient<Channel>,
    verdict: Verdict,
}

/// Why a peer gave no answer.
#[derive(Debug, Error)]
pub enum PeerError {
    /// The address is not one.
    #[error("the address cannot be used: {0}")]
    Address(tonic::transport::Error),
    /// No connection.
    #[error("no connection: {0}")]
    Connect(tonic::transport::Error),
    /// No connection under TLS.
    #[error("no connection: {0}")]
    Dial(io::Error),
    /// The peer did not prove its name, or does not believe ours.
    #[error("{0}")]
    Untrusted(String),
    /// The call failed.
    #[error("{0}")]
    Call(Box<Status>),
    /// No connection in time.
    #[error("no connection in time")]
    NoConnection,
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// The answer makes no sense.
    #[error("the answer cannot be read")]
    Answer,
}

impl PeerError {
    /// Whether the peer may have got the question: it may have acted on it, then.
    pub fn was_asked(&self) -> bool {
        match self {
            PeerError::Call(status) => !is_refusal(status) && status.code() != NO_ROOM,
            PeerError::Timeout | PeerError::Answer => true,
            PeerError::Address(_)
            | PeerError::Connect(_)
            | PeerError::Dial(_)
            | PeerError::Untrusted(_)
            | PeerError::NoConnection => false,
        }
    }

    /// Whether asking again changes nothing.
    pub fn is_final(&self) -> bool {
        match self {
            PeerError::Call(status) => is_refusal(status),
            PeerError::Address(_) | PeerError::Untrusted(_) | PeerError::Answer => true,
            PeerError::Connect(_) | PeerError::Dial(_) | PeerError::NoConnection | PeerError::Timeout => {
                false
            }
        }
    }
}

/// Answers with which a peer says that it does nothing of what was asked.
fn is_refusal(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::PermissionDenied | Code::Unauthenticated | Code::InvalidArgument | Code::Unimplemented
    )
}

impl PeerClient {
    /// The peer at `host:port`, which has to prove its name if there are certificates. Nothing is dialled yet.
    pub fn new(peer: &str, address: &str, tls: Option<PeerTls>) -> Result<PeerClient, PeerError> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(PeerError::Address)?
            .connect_timeout(CONNECT_MAX)
            .tcp_nodelay(true)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(2 * WINDOW_BYTES)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_MAX)
            .keep_alive_while_idle(true);
        Ok(PeerClient {
            peer: peer.to_owned(),
            address: address.to_owned(),
            endpoint,
            tls,
            shared: Arc::default(),
        })
    }

    /// Where the peer is dialled.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// A connection of its own.
    pub(super) async fn connect(&self) -> Result<Dialled, PeerError> {
        self.connect_by(&self.endpoint).await
    }

    async fn connect_by(&self, endpoint: &Endpoint) -> Result<Dialled, PeerError> {
        let connecting = async {
            match &self.tls {
                None => {
                    let channel = endpoint.connect().await.map_err(PeerError::Connect)?;
                    Ok((channel, Verdict::default()))
                }
                Some(tls) => {
                    let dialled = tls.dial(&self.peer, &self.address).await;
                    let socket = dialled.map_err(|failed| match failed {
                        DialFailed::Lost(error) => PeerError::Dial(error),
                        DialFailed::Untrusted(reason) => PeerError::Untrusted(reason),
                    })?;
                    let verdict = socket.verdict();
                    Ok((channel_over(endpoint, socket).await?, verdict))
                }
            }
        };
        let (channel, verdict) = tokio::time::timeout(CONNECT_MAX, connecting)
            .await
            .map_err(|_| PeerError::NoConnection)??;
        let flight = FlightServiceClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Ok(Dialled { flight, verdict })
    }

    /// The identity of the cluster the peer belongs to, if it does.
    pub async fn cluster(&self) -> Result<Option<[u8; 16]>, PeerError> {
        let reply: ClusterReply = self.ask(Kind::Cluster, &(), ASK_CLUSTER_MAX).await?;
        Ok(reply.cluster)
    }

    /// What the peer knows of a region.
    pub async fn standing(&self, region: &str) -> Result<StandingReply, PeerError> {
        let region = region.to_owned();
        self.ask(Kind::Standing, &StandingRequest { region }, ASK_CLUSTER_MAX)
            .await
    }

    /// Has the peer, the primary, run DDL.
    pub async fn ddl(&self, request: &DdlRequest) -> Result<DdlReply, PeerError> {
        self.ask(Kind::Ddl, request, ASK_DDL_MAX).await
    }

    /// Has the peer carry out a statement.
    pub async fn forward(&self, errand: &Errand) -> Result<ForwardReply, PeerError> {
        match errand {
            Errand::Statement(request) => self.ask(Kind::Forward, request, ASK_DDL_MAX).await,
            Errand::Copy(request) => self.ask(Kind::Copy, request, ASK_COPY_MAX).await,
        }
    }

    /// Begins a scan of the peer's rows, or an aggregation; the version is safe there when this returns.
    pub async fn scan(&self, region: &str, request: &Request) -> Result<FarRows, FarError> {
        let unreachable = |reason: String| FarError::Unreachable {
            region: region.to_owned(),
            reason,
        };
        let ticket = request.to_bytes();
        let request_bytes = ticket.len();
        let is_refused =
            |status: &Status| matches!(request, Request::States(_)) && status.code() == Code::InvalidArgument;
        let opening = async {
            // A connection that has been idle may be gone: the first failure only says that.
            let mut last = String::new();
            for _ in 0..2 {
                let dialled = self.shared().await;
                let mut dialled = dialled.map_err(|error| unreachable(error.to_string()))?;
                let ticket = Ticket {
                    ticket: ticket.clone().into(),
                };
                match dialled.flight.do_get(ticket).await {
                    Ok(stream) => return Ok(stream.into_inner()),
                    Err(status) if is_refused(&status) => return Err(not_understood(region)),
                    Err(status) => last = dialled.failed(status).to_string(),
                }
                self.shared.lock().await.take();
            }
            Err(unreachable(last))
        };
        let opening = async {
            let mut stream = opening.await?;
            let first = stream.message().await;
            let first = first.map_err(|status| unreachable(status.message().to_owned()))?;
            let first = first.ok_or_else(|| unreachable("it gave no answer".to_owned()))?;
            let opened = postcard::from_bytes(&first.data_body);
            let opened: Opened = opened.map_err(|_| unreachable("its answer cannot be read".to_owned()))?;
            Ok((opened, stream))
        };
        let way_s = (request_bytes / OPEN_SCAN_BYTES_PER_S) as u64;
        let opened = tokio::time::timeout(OPEN_SCAN_MAX + Duration::from_secs(way_s), opening).await;
        let (opened, stream) = opened.map_err(|_| unreachable("no answer in time".to_owned()))??;
        match opened {
            Opened::Rows => Ok(rows_of(region.to_owned(), stream)),
            // Of another incarnation a later snapshot will know.
            Opened::Gone | Opened::OtherOrigin => Err(FarError::Gone {
                region: region.to_owned(),
                epoch: request.scan().epoch,
            }),
            Opened::Resident => Err(FarError::Resident {
                region: region.to_owned(),
            }),
            Opened::Unreadable if matches!(request, Request::States(_)) => Err(not_understood(region)),
            Opened::Unreadable => Err(FarError::Broken {
                region: region.to_owned(),
                reason: format!("it answers {opened:?}"),
            }),
        }
    }

    async fn shared(&self) -> Result<Dialled, PeerError> {
        let mut shared = self.shared.lock().await;
        if let Some(dialled) = shared.as_ref() {
            return Ok(dialled.clone());
        }
        let endpoint = self
            .endpoint
            .clone()
            .initial_stream_window_size(SCAN_WINDOW_BYTES)
            .initial_connection_window_size(SCANS_WINDOW_BYTES);
        let dialled = self.connect_by(&endpoint).await?;
        *shared = Some(dialled.clone());
        Ok(dialled)
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        kind: Kind,
        body: &impl Serialize,
        max: Duration,
    ) -> Result<T, PeerError> {
        let body = postcard::to_stdvec(body).expect("a request is plain data");
        let action = Action {
            r#type: kind.name().to_owned(),
            body: body.into(),
        };
        let asking = async {
            let mut dialled = self.connect().await?;
            let called = dialled.flight.do_action(action).await;
            let mut answers = called.map_err(|status| dialled.failed(status))?.into_inner();
            let answer = answers
                .message()
                .await
                .map_err(|status| dialled.failed(status))?
                .ok_or(PeerError::Answer)?;
            postcard::from_bytes(&answer.body).map_err(|_| PeerError::Answer)
        };
        tokio::time::timeout(max, asking)
            .await
            .map_err(|_| PeerError::Timeout)?
    }
}

/// A channel over this connection and no other: when it ends, so does the channel.
async fn channel_over(endpoint: &Endpoint, socket: PeerSocket) -> Result<Channel, PeerError> {
    let mut only = Some(TokioIo::new(socket));
    let connector = tower::service_fn(move |_: Uri| {
        let socket = only.take();
        async { socket.ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionAborted)) }
    });
    let channel = endpoint.connect_with_connector(connector).await;
    channel.map_err(PeerError::Connect)
}

fn not_understood(region: &str) -> FarError {
    FarError::NotUnderstood {
        region: region.to_owned(),
    }
}

/// An error that ends an answer.
fn failure(bytes: &[u8]) -> Option<FarError> {
    let error: WireError = postcard::from_bytes(bytes.strip_prefix(FAILED)?).ok()?;
    Some(FarError::Failed(Box::new(error.into())))
}

/// The rows of a scan, one message each.
fn rows_of(region: String, stream: Streaming<FlightData>) -> FarRows {
    let broken = move |reason: String| FarError::Broken {
        region: region.clone(),
        reason,
    };
    let read = futures::stream::unfold(Some(stream), move |stream| {
        let broken = broken.clone();
        async move {
            let mut stream = stream?;
            match tokio::time::timeout(SILENCE_MAX, stream.message()).await {
                Ok(Ok(None)) => Some((Err(broken("it broke off".to_owned())), None)),
                Ok(Ok(Some(data))) if data.data_body == END_OF_SCAN => None,
                Ok(Ok(Some(data))) => {
                    if let Some(failure) = failure(&data.data_body) {
                        return Some((Err(failure), None));
                    }
                    let bytes = data.data_body.len();
                    metrics::counter!("tributary_far_bytes_total").increment(bytes as u64);
                    match decode_rows(&data.data_body) {
                        Ok(rows) => Some((Ok(Arrived { rows, bytes }), Some(stream))),
                        Err(error) => Some((Err(broken(error.to_string())), None)),
                    }
                }
                Ok(Err(status)) => Some((Err(broken(status.message().to_owned())), None)),
                Err(_) => Some((Err(broken("it says nothing any more".to_owned())), None)),
            }
        }
    });
    Box::pin(read)
}

impl Dialled {
    /// Why a call failed.
    pub(super) fn failed(&self, status: Status) -> PeerError {
        match self.verdict.reason() {
            Some(reason) => PeerError::Untrusted(reason.to_owned()),
            None => PeerError::Call(Box::new(status)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_no_room_is_asked_again_and_has_done_nothing() {
        let call = |code| PeerError::Call(Box::new(Status::new(code, "no")));
        let no_room = call(NO_ROOM);
        assert!(!no_room.was_asked() && !no_room.is_final());
        let unknown = call(Code::Unavailable);
        assert!(unknown.was_asked() && !unknown.is_final());
        let refused = call(Code::InvalidArgument);
        assert!(!refused.was_asked() && refused.is_final());
    }
}
