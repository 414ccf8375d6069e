//! The side that is dialled: the Flight service.
//!
//! Of Flight only `DoExchange` (the link) and `DoAction` (see [`super::actions`]) are served; the rest answers
//! `UNIMPLEMENTED`. A stream has [`INTRODUCE_MAX`] to say who it is, and at most [`STRANGERS_MAX`] streams may
//! be at that point at once.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arrow_flight::flight_service_server::{FlightService, FlightServiceServer};
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest,
    HandshakeResponse, PollInfo, PutResult, SchemaResult, Ticket,
};
use futures::{Stream, StreamExt};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};
use tributary_replication::link::Message;

use super::actions::{ClusterReply, DdlRequest, Kind, StandingRequest};
use super::stream::{Incoming, carry, outgoing, read};
use super::{MESSAGE_BYTES_MAX, OUTBOX_MESSAGES_MAX, Shared};
use crate::node::Outbox;

const INTRODUCE_MAX: Duration = Duration::from_secs(5);
const STRANGERS_MAX: usize = 64;
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(3);
const KEEPALIVE_MAX: Duration = Duration::from_secs(6);
const WINDOW_BYTES: u32 = 4 << 20;
const DDL_BYTES_MAX: usize = 16 << 20;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Serves until `shutdown` turns true.
pub(super) async fn serve(
    shared: Arc<Shared>,
    listener: TcpListener,
    mut shutdown: watch::Receiver<bool>,
) -> Result<(), tonic::transport::Error> {
    let service = Service {
        shared,
        strangers: Arc::new(Semaphore::new(STRANGERS_MAX)),
    };
    let service = FlightServiceServer::new(service)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    Server::builder()
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(2 * WINDOW_BYTES)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_MAX))
        .add_service(service)
        .serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), async move {
            let _ = shutdown.wait_for(|shutdown| *shutdown).await;
        })
        .await
}

struct Service {
    shared: Arc<Shared>,
    strangers: Arc<Semaphore>,
}

/// Finds out who dialled, and carries the connection if it may be.
async fn accept(
    shared: Arc<Shared>,
    mut stream: Streaming<FlightData>,
    outbox: Outbox,
    closed: watch::Receiver<bool>,
    stranger: tokio::sync::OwnedSemaphorePermit,
) {
    let refuse = |outbox: Outbox, reason: String| {
        metrics::counter!("tributary_peer_refused_total", "peer" => "unknown").increment(1);
        tracing::warn!(reason, "a connection was refused");
        outbox.send(Message::Refuse { reason });
    };
    let introduction = tokio::time::timeout(INTRODUCE_MAX, read(&mut stream)).await;
    drop(stranger);
    let (message, size) = match introduction {
        Ok(Ok(read)) => read,
        Ok(Err(reason)) => return refuse(outbox, reason),
        Err(_) => return refuse(outbox, "no introduction in time".to_owned()),
    };
    let Some(peer) = introduced_as(&message) else {
        return refuse(outbox, "the first message is no introduction".to_owned());
    };
    if !shared.node.admits(&peer) {
        let peer: String = peer.chars().take(64).collect();
        return refuse(
            outbox,
            format!(
                "region {peer:?} is neither a configured peer of {:?} nor a member",
                shared.region
            ),
        );
    }
    let Some(claim) = shared.registry.claim(&peer, false) else {
        tracing::debug!(peer, "a second connection is not needed");
        return;
    };
    tracing::info!(peer, "connected by the peer");
    let incoming = Incoming {
        stream,
        closed,
        first: Some((message, size)),
    };
    let reason = carry(&shared, &peer, claim, outbox, incoming).await;
    tracing::info!(peer, reason, "connection ended");
}

/// The sender's name in a `Hello`.
fn introduced_as(message: &Message) -> Option<String> {
    match message {
        Message::Hello(hello) => Some(hello.name.clone()),
        _ => None,
    }
}

fn answer<T: Serialize>(answer: &T) -> Response<Answers<arrow_flight::Result>> {
    let body = postcard::to_stdvec(answer).expect("an answer is plain data");
    let one = futures::stream::once(async { Ok(arrow_flight::Result { body: body.into() }) });
    Response::new(Box::pin(one))
}

fn not_served<T>(what: &str) -> Result<T, Status> {
    Err(Status::unimplemented(format!(
        "{what} is not served here; SQL clients connect to the SQL port"
    )))
}

#[tonic::async_trait]
impl FlightService for Service {
    type HandshakeStream = Answers<HandshakeResponse>;
    type ListFlightsStream = Answers<FlightInfo>;
    type DoGetStream = Answers<FlightData>;
    type DoPutStream = Answers<PutResult>;
    type DoExchangeStream = Answers<FlightData>;
    type DoActionStream = Answers<arrow_flight::Result>;
    type ListActionsStream = Answers<ActionType>;

    async fn do_exchange(
        &self,
        request: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoExchangeStream>, Status> {
        let Ok(stranger) = self.strangers.clone().try_acquire_owned() else {
            return Err(Status::resource_exhausted(
                "too many connections without an introduction",
            ));
        };
        let (outbox, queue, closed) = Outbox::new(OUTBOX_MESSAGES_MAX);
        // The answer's headers must go out before the peer introduces itself, so that happens beside.
        tokio::spawn(accept(
            self.shared.clone(),
            request.into_inner(),
            outbox,
            closed,
            stranger,
        ));
        let sent = outgoing(queue).map(Ok);
        Ok(Response::new(Box::pin(sent)))
    }

    async fn do_action(&self, request: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        let action = request.into_inner();
        match Kind::named(&action.r#type) {
            Some(Kind::Cluster) => {
                let cluster = self.shared.node.newest().catalog.cluster;
                Ok(answer(&ClusterReply { cluster }))
            }
            Some(Kind::Ddl) => {
                if action.body.len() > DDL_BYTES_MAX {
                    return Err(Status::invalid_argument("the statement is too long"));
                }
                let request: DdlRequest = postcard::from_bytes(&action.body)
                    .map_err(|_| Status::invalid_argument("the request cannot be read"))?;
                if !self.shared.node.admits(&request.from) {
                    metrics::counter!("tributary_peer_refused_total", "peer" => "unknown").increment(1);
                    return Err(Status::permission_denied("not a configured peer"));
                }
                Ok(answer(&self.shared.node.answer_ddl(request).await))
            }
            Some(Kind::Standing) => {
                let request: StandingRequest = postcard::from_bytes(&action.body)
                    .map_err(|_| Status::invalid_argument("the request cannot be read"))?;
                Ok(answer(&self.shared.node.answer_standing(&request.region)))
            }
            None => Err(Status::invalid_argument("no such action")),
        }
    }

    async fn list_actions(&self, _: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        let types = Kind::ALL.map(|kind| {
            Ok(ActionType {
                r#type: kind.name().to_owned(),
                description: "between regions".to_owned(),
            })
        });
        Ok(Response::new(Box::pin(futures::stream::iter(types))))
    }

    async fn handshake(
        &self,
        _: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        not_served("Handshake")
    }

    async fn list_flights(&self, _: Request<Criteria>) -> Result<Response<Self::ListFlightsStream>, Status> {
        not_served("ListFlights")
    }

    async fn get_flight_info(&self, _: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        not_served("GetFlightInfo")
    }

    async fn poll_flight_info(&self, _: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        not_served("PollFlightInfo")
    }

    async fn get_schema(&self, _: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        not_served("GetSchema")
    }

    async fn do_get(&self, _: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        not_served("DoGet")
    }

    async fn do_put(&self, _: Request<Streaming<FlightData>>) -> Result<Response<Self::DoPutStream>, Status> {
        not_served("DoPut")
    }
}
