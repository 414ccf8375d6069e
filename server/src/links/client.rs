//! The dialling side: one address, one channel, and the questions that can be asked there.

use std::io;
use std::time::Duration;

use arrow_flight::Action;
use arrow_flight::flight_service_client::FlightServiceClient;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tonic::Status;
use tonic::transport::{Channel, Endpoint, Uri};

use super::actions::{ClusterReply, DdlReply, DdlRequest, Kind};
use super::tls::dial::DialFailed;
use super::tls::socket::{PeerSocket, Verdict};
use super::{MESSAGE_BYTES_MAX, PeerTls};

const CONNECT_MAX: Duration = Duration::from_secs(3);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(3);
const KEEPALIVE_MAX: Duration = Duration::from_secs(6);
const ASK_CLUSTER_MAX: Duration = Duration::from_secs(3);
/// A view over much data takes its time to be planned and logged, not this much.
const ASK_DDL_MAX: Duration = Duration::from_secs(60);
const WINDOW_BYTES: u32 = 4 << 20;

/// How to reach one peer.
#[derive(Clone, Debug)]
pub struct PeerClient {
    peer: String,
    address: String,
    endpoint: Endpoint,
    tls: Option<PeerTls>,
}

/// A connection to a peer.
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
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// The answer makes no sense.
    #[error("the answer cannot be read")]
    Answer,
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
        })
    }

    /// Where the peer is dialled.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// A connection of its own.
    pub(super) async fn connect(&self) -> Result<Dialled, PeerError> {
        let connecting = async {
            match &self.tls {
                None => {
                    let channel = self.endpoint.connect().await.map_err(PeerError::Connect)?;
                    Ok((channel, Verdict::default()))
                }
                Some(tls) => {
                    let dialled = tls.dial(&self.peer, &self.address).await;
                    let socket = dialled.map_err(|failed| match failed {
                        DialFailed::Lost(error) => PeerError::Dial(error),
                        DialFailed::Untrusted(reason) => PeerError::Untrusted(reason),
                    })?;
                    let verdict = socket.verdict();
                    Ok((self.channel_over(socket).await?, verdict))
                }
            }
        };
        let (channel, verdict) = tokio::time::timeout(CONNECT_MAX, connecting)
            .await
            .map_err(|_| PeerError::Timeout)??;
        let flight = FlightServiceClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Ok(Dialled { flight, verdict })
    }

    /// A channel over this connection and no other: when it ends, so does the channel.
    async fn channel_over(&self, socket: PeerSocket) -> Result<Channel, PeerError> {
        let mut only = Some(TokioIo::new(socket));
        let connector = tower::service_fn(move |_: Uri| {
            let socket = only.take();
            async { socket.ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionAborted)) }
        });
        let channel = self.endpoint.connect_with_connector(connector).await;
        channel.map_err(PeerError::Connect)
    }

    /// The identity of the cluster the peer belongs to, if it does.
    pub async fn cluster(&self) -> Result<Option<[u8; 16]>, PeerError> {
        let reply: ClusterReply = self.ask(Kind::Cluster, &(), ASK_CLUSTER_MAX).await?;
        Ok(reply.cluster)
    }

    /// Has the peer, the primary, run DDL.
    pub async fn ddl(&self, request: &DdlRequest) -> Result<DdlReply, PeerError> {
        self.ask(Kind::Ddl, request, ASK_DDL_MAX).await
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

impl Dialled {
    /// Why a call failed.
    pub(super) fn failed(&self, status: Status) -> PeerError {
        match self.verdict.reason() {
            Some(reason) => PeerError::Untrusted(reason.to_owned()),
            None => PeerError::Call(Box::new(status)),
        }
    }
}
