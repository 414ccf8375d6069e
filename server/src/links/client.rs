//! The dialling side: one address, one channel, and the questions that can be asked there.

use std::time::Duration;

use arrow_flight::Action;
use arrow_flight::flight_service_client::FlightServiceClient;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tonic::transport::{Channel, Endpoint};

use super::MESSAGE_BYTES_MAX;
use super::actions::{ClusterReply, DdlReply, DdlRequest, Kind, StandingReply, StandingRequest};

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
    endpoint: Endpoint,
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
    /// The call failed.
    #[error("{0}")]
    Call(Box<tonic::Status>),
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// The answer makes no sense.
    #[error("the answer cannot be read")]
    Answer,
}

impl PeerClient {
    /// A peer at `host:port`. Nothing is dialled yet.
    pub fn new(address: &str) -> Result<PeerClient, PeerError> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(PeerError::Address)?
            .connect_timeout(CONNECT_MAX)
            .tcp_nodelay(true)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(2 * WINDOW_BYTES)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_MAX)
            .keep_alive_while_idle(true);
        Ok(PeerClient { endpoint })
    }

    /// A connection of its own.
    pub(crate) async fn connect(&self) -> Result<FlightServiceClient<Channel>, PeerError> {
        let connecting = tokio::time::timeout(CONNECT_MAX, self.endpoint.connect());
        let channel = connecting
            .await
            .map_err(|_| PeerError::Timeout)?
            .map_err(PeerError::Connect)?;
        Ok(FlightServiceClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX))
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
            let mut client = self.connect().await?;
            let status = |status| PeerError::Call(Box::new(status));
            let mut answers = client.do_action(action).await.map_err(status)?.into_inner();
            let answer = answers
                .message()
                .await
                .map_err(status)?
                .ok_or(PeerError::Answer)?;
            postcard::from_bytes(&answer.body).map_err(|_| PeerError::Answer)
        };
        tokio::time::timeout(max, asking)
            .await
            .map_err(|_| PeerError::Timeout)?
    }
}
